"""The sums of a buffer: what has been counted, but is in no batch yet.

Additions and subtractions of a counter are summed separately, because the history of the service
keeps them apart. A sum of both would hide them, and could be 0, which cannot be sent.

This module has no lock. `Buffer` has one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tally_client import model
from tally_client.model import Increment
from tally_client.retrying import backoff

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tally_client.errors import Refused

# How long a refused sum waits before it is sent again, in seconds: this long after the first
# refusal, then twice as long each time.
_FIRST_WAIT = 5.0
_LONGEST_WAIT = 300.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A sum that the service refused. It was not applied. The buffer keeps it.

    Attributes:
        increment: the sum.
        error: the refusal.
    """

    increment: Increment
    error: Refused


@dataclass(slots=True)
class Hold:
    """Keeps a refused sum back for a while, so that it does not hold up the others.

    Attributes:
        error: the last refusal.
        refusals: how often the sum was refused.
        due: when to send the sum again (monotonic clock, seconds).
    """

    error: Refused
    refusals: int
    due: float


class Sums:
    """The sums by counter, additions and subtractions apart.

    Attributes:
        additions: the sums of the positive increments, by counter.
        subtractions: the sums of the negative increments, by counter.
        holds: the refused sums, by counter and by whether they are additions.
    """

    def __init__(self) -> None:
        """Begin without sums."""
        self.additions: dict[str, int] = {}
        self.subtractions: dict[str, int] = {}
        self.holds: dict[tuple[str, bool], Hold] = {}

    def __len__(self) -> int:
        """Return the number of sums."""
        return len(self.additions) + len(self.subtractions)

    def copy(self) -> Sums:
        """Return a copy."""
        copied = Sums()
        copied.additions = self.additions.copy()
        copied.subtractions = self.subtractions.copy()
        copied.holds = self.holds.copy()
        return copied

    def add(self, counter_id: str, by: int) -> None:
        """Add to a sum. `by` is not 0."""
        sums = self.additions if by > 0 else self.subtractions
        sums[counter_id] = sums.get(counter_id, 0) + by

    def take(self, most: int, now: float) -> Iterator[tuple[Increment, ...]]:
        """Remove sums, and yield them in groups that can be sent in one request.

        A held sum is removed only when it is due. It gets a group of its own: if the service
        refuses it again, no other sum is refused with it.

        A sum that is too large for one increment is removed in part. The rest stays.

        Args:
            most: the maximum number of sums to remove.
            now: the time (monotonic clock, seconds).
        """
        for sums, positive in ((self.additions, True), (self.subtractions, False)):
            free = [name for name in sums if (name, positive) not in self.holds]
            held = [name for name in sums if self._is_due((name, positive), now)]
            groups = [[name] for name in held]
            names = iter(free)
            while group := list(itertools.islice(names, model.MOST_INCREMENTS)):
                groups.append(group)
            for group in groups:
                chosen = group[: max(0, most)]
                most -= len(chosen)
                if chosen:
                    yield tuple(_take(sums, name) for name in chosen)

    def put_back(self, refusal: Refusal, now: float) -> bool:
        """Add a refused sum again, and hold it.

        Args:
            refusal: the refused sum. It certainly was not applied.
            now: the time (monotonic clock, seconds).

        Returns:
            Whether this is the first refusal since the counter was last changed.
        """
        name, by = refusal.increment.counter_id, refusal.increment.by
        self.add(name, by)
        key = (name, by > 0)
        hold = self.holds.get(key)
        refusals = hold.refusals + 1 if hold else 1
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(refusals - 1, 10)) + backoff(0)
        self.holds[key] = Hold(refusal.error, refusals, now + wait)
        return hold is None

    def applied(self, increments: Iterable[Increment]) -> None:
        """Hold these sums no longer: the service accepted them."""
        if self.holds:
            for each in increments:
                self.holds.pop((each.counter_id, each.by > 0), None)

    def release(self) -> None:
        """Let the next `take` remove the held sums, too."""
        for hold in self.holds.values():
            hold.due = 0.0

    def increments(self) -> list[Increment]:
        """Return all sums, held or not."""
        both = itertools.chain(self.additions.items(), self.subtractions.items())
        return [Increment(name, by) for name, by in both]

    def refusals(self) -> list[Refusal]:
        """Return the held sums."""
        return [
            Refusal(Increment(name, by), hold.error)
            for (name, positive), hold in self.holds.items()
            for by in [(self.additions if positive else self.subtractions).get(name)]
            if by
        ]

    def _is_due(self, key: tuple[str, bool], now: float) -> bool:
        hold = self.holds.get(key)
        return hold is not None and hold.due <= now


def _take(sums: dict[str, int], name: str) -> Increment:
    """Remove a sum. What is more than the service accepts in one increment stays."""
    total = sums.pop(name)
    by = max(-model.MAX_INTEGER, min(total, model.MAX_INTEGER))
    if total != by:
        sums[name] = total - by
    return Increment(name, by)
