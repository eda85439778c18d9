"""What the functions share: the rules of a counter, its data, and its HTTP."""

from counters import init_phase

init_phase.begin()
