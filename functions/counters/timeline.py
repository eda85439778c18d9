"""Finds the version for a time, in a history of any length.

Versions grow with time, so a time is found by bisection over the versions: over those of one hour,
if TrendTable tells where they are. `created_at` is when a request began. Overlapping requests may
be applied in another order, and clocks differ, so times may go back from one version to the next.
But a change is applied at most the apply window after its time. So everything below an entry is
older than it or at most that much younger, and everything above it is younger or at most that much
older.

The history follows the counters, so it may end before a time that is looked for. And while a batch
of entries is being written, some are missing between others. Whatever is decided here is decided by
entries that are there, never by one that is missing.
"""

import itertools
from typing import TYPE_CHECKING, NamedTuple

from counters import clock, history, trend
from counters.clients import reading
from counters.errors import CounterError, NotFoundError, ThrottledError
from counters.model import Counter, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# So many entries are cheaper to read at once, at a unit or two, than to bisect.
FEW = 25


class Boundary(NamedTuple):
    """Where a history turns from older than a time to not older.

    `below` is a version. It and all lower ones are older than the time, give or take the apply
    window. `above` is the lowest entry seen that is not older; None if there was none.
    """

    below: int
    above: int | None


def at_version(standing: Counter, version: int, until: float) -> Counter:
    """Return the counter as it was at a version.

    Args:
        standing: the counter as it is.
        version: a version of it; 0 is before the first change.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: it never had that version, or its history has expired.
        ThrottledError: the history does not have it yet, or the database did not answer in time.
    """
    if version == 0:
        return Counter(standing.counter_id)
    if version == standing.version:
        return standing
    if version > standing.version:
        detail = f"version: the counter has version {standing.version}"
        raise NotFoundError(detail)
    with reading():
        entries = history.read(standing.counter_id, 1, version, until, limit=1, newest_first=True)
    if entries and entries[0].is_of(standing, version):
        return history.counter(entries[0])
    raise _missing(standing, entries, "version")


def at_time(standing: Counter, time: float, until: float) -> Counter:
    """Return the counter as the latest version left it that was created at or before a time.

    Args:
        standing: the counter as it is.
        time: in seconds since the epoch, and longer ago than the apply window: no change of that
            time can still come.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: the history of that time has expired.
        ThrottledError: the history does not have that time yet, or the database did not answer in
            time.
    """
    if standing.updated_at is None or clock.seconds(standing.updated_at) <= time:
        return standing
    counter_id, last = standing.counter_id, standing.version - 1
    if standing.created_at and time + clock.APPLY_WINDOW < clock.seconds(standing.created_at):
        return Counter(counter_id)
    with reading():
        # Read down from an entry that is certainly younger, or from the counter, which is younger
        # too. Every version on the way must be there.
        younger = boundary(counter_id, time + clock.APPLY_WINDOW, 1, last, until)
        expected = younger.above or last
        limit = 100
        while expected:
            entries = history.read(counter_id, 1, expected, until, limit, newest_first=True)
            limit = 1000  # so many changes in so short a time are those of a busy counter
            for position, entry in enumerate(entries):
                if not entry.is_of(standing, expected):
                    raise _missing(standing, entries[position:], "at")
                if entry.time <= time:
                    return history.counter(entry)
                expected -= 1
            if not entries:
                raise _missing(standing, [], "at")
    return Counter(counter_id)


def boundary(counter_id: str, time: float, first: int, last: int, until: float) -> Boundary:
    """Return where the entries from the version `first` to `last` turn to not older than a time.

    It takes about as many reads however long the history is.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    return _search(counter_id, time, first, last, until, trend.around(counter_id, time, until))


def recent_boundary(counter_id: str, time: float, last: int, until: float) -> Boundary:
    """Return what `boundary` does, for a time that is not long ago, without the trend.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    return _search(counter_id, time, 1, last, until, _backwards(last))


def _search(  # noqa: PLR0913, PLR0917  what to find, and until when
    counter_id: str, time: float, first: int, last: int, until: float, guesses: "Iterable[int]"
) -> Boundary:
    """Return where the entries from the version `first` to `last` turn to not older than `time`.

    It reads the newest entries first. If they do not decide, it tries the versions `guesses`, then
    it bisects. Only entries that exist decide, so a wrong guess costs a read and nothing else.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    older = first - 1
    if first > 1:  # a page that continues another, mostly within its period
        for entry in history.read(counter_id, first, last, until, limit=1):
            if entry.time >= time:
                return Boundary(first - 1, entry.version)
            older = entry.version
    below, above = _older_of_newest(counter_id, time, older + 1, last, until)
    if below is not None or above is None:
        return Boundary(older if below is None else below, above)
    rest = above
    # After all guesses, look at the first version: what is before `time` may have expired.
    probes = itertools.chain(guesses, [first])
    while rest - older > FEW:
        within = (version for version in probes if older < version < rest)
        middle = next(within, (older + rest) // 2)
        entries = history.read(counter_id, middle, rest - 1, until, limit=1)
        if entries and entries[0].time < time:
            older = entries[0].version
        else:
            rest = middle
            above = entries[0].version if entries else above
    below, lower = _older_of_newest(counter_id, time, older + 1, rest - 1, until)
    return Boundary(older if below is None else below, lower or above)


def _older_of_newest(
    counter_id: str, time: float, first: int, last: int, until: float
) -> tuple[int | None, int | None]:
    """Look at the last few entries from the version `first` to `last`.

    Returns:
        The newest that is older than `time`, and the one above it; None where there is none.
    """
    above = None
    for entry in history.read(counter_id, first, last, until, FEW, newest_first=True):
        if entry.time < time:
            return entry.version, above
        above = entry.version
    return None, above


def _backwards(last: int) -> "Iterator[int]":
    """Yield versions before `last`, each twice as far from it as the one before."""
    distance = 2 * FEW
    while distance < last:
        yield last - distance
        distance *= 2


def _missing(standing: Counter, below: "Sequence[Entry]", name: str) -> CounterError:
    """Return the error of an entry that is not there.

    Args:
        standing: the counter as it is.
        below: the entries below it, which begin with the one before it.
        name: the parameter that asks for it.
    """
    earliest = below[0].created_at if below else standing.created_at
    if earliest and history.expired(earliest):
        return NotFoundError(f"{name}: that part of the history has expired")
    return ThrottledError(f"{name}: the history is not there yet. Retry shortly.")
