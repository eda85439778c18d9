"""The code that the Lambda functions share."""

from counters import init_phase

init_phase.begin()
