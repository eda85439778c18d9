"""Searches a history of any length: for the version at a time, or for the change of an attempt.

An attempt is the work of one invocation to make one change.

A higher version usually has a later time. So this module finds the version at a time by bisection
of the versions. TrendTable often shows which versions are in the hour of that time. In this case,
the module searches only these versions.

Sometimes a higher version has an earlier time: the time of a version is the time at which its
request began, and requests that overlap may be applied in another order. But a change is applied at
most one apply window after its time (see `clock`). So for each entry:
- every lower version is older than the entry, or newer by at most one apply window;
- every higher version is newer than the entry, or older by at most one apply window.

An entry is written some time after its change. So the history may not have the newest changes yet,
and it may have a version and lack a lower version. Every decision in this module relies on entries
that exist, and never on the absence of an entry.
"""

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from counters import clock, history, trend
from counters.clients import must_answer
from counters.errors import CounterError, NotFoundError, ThrottledError
from counters.model import MAX_INTEGER, Counter, Entry
from counters.rules import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Once a search has narrowed the range to this many entries, it reads all of them. This read takes
# one or two read units. To bisect these entries would take more.
_FEW = 25


class Boundary(NamedTuple):
    """The point in a range of versions at which the history reaches a given time.

    Attributes:
        below: a version before this point: its entry is older than the given time. All lower
            versions are older than the given time plus one apply window. If there is no such entry,
            `below` is the version before the range.
        above: a version after this point: its entry is not older than the given time. All higher
            versions are newer than the given time minus one apply window. If there is no such
            entry, `above` is None.
    """

    below: int
    above: int | None


def require_final(time: float) -> None:
    """Check that no change with the given time can still be made.

    If such a change were possible, Tally's answer for that time could change later. A change is
    made at most one apply window after its time (see `clock`).

    Raises:
        InvalidRequestError: if the time is in the future.
        ThrottledError: if the time is one apply window ago or less.
    """
    now = clock.now()
    if time > now:
        invalid("at", "must not be in the future")
    wait = time + clock.APPLY_WINDOW - now
    if wait >= 0:
        detail = "at: a change at that time may still be in progress. Retry later."
        raise ThrottledError(detail, retry_after=math.floor(wait) + 1)


def at_version(current: Counter, version: int, until: float) -> Counter:
    """Return a counter as it was at a version.

    Args:
        current: the counter as it is now.
        version: the version; 0 is the state before the first change.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: if the counter has not reached `version`, or if `version` has expired from
            the history.
        ThrottledError: if `version` is not in the history yet, or if DynamoDB did not answer in
            time.
    """
    if version == 0:
        return Counter(current.counter_id)
    if version == current.version:
        return current
    if version > current.version:
        detail = f"version: must be at most {current.version}, the counter's version"
        raise NotFoundError(detail)
    with must_answer():
        entries = history.read(current.counter_id, 1, version, until, limit=1, newest_first=True)
    if entries and entries[0].is_of(current, version):
        return entries[0].counter()
    raise _missing(current, entries, "version")


def at_time(current: Counter, time: float, until: float) -> Counter:
    """Return a counter as it was at the highest version that was created at or before a time.

    Args:
        current: the counter as it is now. It must have been read after `require_final(time)`.
        time: the time, in seconds since the epoch.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: if the history of `time` has expired.
        ThrottledError: if the history up to `time` is not complete yet, or if DynamoDB did not
            answer in time.
    """
    if current.updated_at is None or clock.seconds(current.updated_at) <= time:
        return current
    counter_id, last = current.counter_id, current.version - 1
    if current.created_at and time + clock.APPLY_WINDOW < clock.seconds(current.created_at):
        return Counter(counter_id)
    with must_answer():
        # All versions above this boundary are newer than `time`. From the boundary, read version
        # after version downwards. The first version that is not newer than `time` is the result. If
        # a version is missing before it, the result is not certain.
        newer = boundary(counter_id, time + clock.APPLY_WINDOW, 1, last, until)
        expected = newer.above or last
        limit = 100
        while expected:
            entries = history.read(counter_id, 1, expected, until, limit, newest_first=True)
            limit = 1000  # 100 entries were not enough, so read more at once
            for position, entry in enumerate(entries):
                if not entry.is_of(current, expected):
                    raise _missing(current, entries[position:], "at")
                if entry.time <= time:
                    return entry.counter()
                expected -= 1
            if not entries:
                raise _missing(current, [], "at")
    return Counter(counter_id)


def boundary(counter_id: str, time: float, first: int, last: int, until: float) -> Boundary:
    """Find the point at which the history reaches a time.

    The number of reads hardly depends on the length of the history.

    Args:
        counter_id: the counter.
        time: the time, in seconds since the epoch.
        first: the lowest version to consider.
        last: the highest version to consider.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    return _search(counter_id, time, first, last, until, trend.around(counter_id, time, until))


def find_attempt(
    current: Counter, request_id: str, began: float, until: float
) -> tuple[Counter | None, bool]:
    """Look in the history for the change that an attempt made to a counter.

    Args:
        current: the counter, as it was just read.
        request_id: the id of the attempt.
        began: when the attempt began, in seconds since the epoch.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        Two values:
        - the counter as the change left it; None if the change was not found;
        - whether the history has every version of `current` that the attempt could have made. If it
          lacks one, a change that was not found may still have been made.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    recent = _find_recent_attempt(current, request_id, began, until)
    if recent:
        return recent
    counter_id, last = current.counter_id, current.version
    # Most attempts are recent, so search backwards from the last version. `boundary` would first
    # read TrendTable.
    start = began - clock.APPLY_WINDOW
    before = _search(counter_id, start, 1, last, until, _backwards(last))
    # The search relied on the entry of the version `below`. So begin with this entry, to check that
    # it belongs to this counter, and not to a deleted counter of the same name.
    expected = max(1, before.below)
    complete = True
    while expected <= last:
        entries = history.read(counter_id, expected, last, until)
        if not entries:
            return None, False
        for entry in entries:
            if entry.request_id == request_id:
                return entry.counter(), True
            complete = complete and entry.is_of(current, expected)
            # This change and all higher versions were made after the attempt's apply window.
            if complete and entry.time > began + clock.APPLY_WINDOW:
                return None, True
            expected = entry.version + 1
    return None, complete


def _find_recent_attempt(
    current: Counter, request_id: str, began: float, until: float
) -> tuple[Counter | None, bool] | None:
    """Do what `find_attempt` does, but search only the last 25 entries.

    Returns:
        The result of `find_attempt`. None if 25 entries are not enough to decide.
    """
    # If someone deleted the counter's item by hand, `current` has version 0, but there may be
    # entries.
    expected = current.version
    last = expected or MAX_INTEGER
    entries = history.read(current.counter_id, 1, last, until, _FEW, newest_first=True)
    for entry in entries:
        if entry.request_id == request_id:
            return entry.counter(), True
    if not current.version:
        return None, not entries
    for entry in entries:
        if entry.is_of(current, expected):
            if entry.time < began - clock.APPLY_WINDOW:
                return None, True  # all lower versions were made before the attempt began
            expected -= 1
    return None if expected else (None, True)


def _search(  # noqa: PLR0913, PLR0917  each argument is a part of the search
    counter_id: str, time: float, first: int, last: int, until: float, guesses: "Iterable[int]"
) -> Boundary:
    """Find the point at which the history reaches a time.

    1. Read the newest entries.
    2. If the point is not among these entries, read the entry at each version in `guesses`. Each of
       these entries narrows the range. A wrong guess only costs one read.
    3. Bisect the versions that remain in the range.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    older = first - 1
    if first > 1:  # in a later page of a list, the whole range is often after `time`
        for entry in history.read(counter_id, first, last, until, limit=1):
            if entry.time >= time:
                return Boundary(first - 1, entry.version)
            older = entry.version
    below, above = _older_of_newest(counter_id, time, older + 1, last, until)
    if below is not None or above is None:
        return Boundary(older if below is None else below, above)
    newer = above
    # After the guesses, read from the version `first` on. If all entries before `time` have
    # expired, this read shows it, and the search ends.
    probes = itertools.chain(guesses, [first])
    while newer - older > _FEW:
        within = (version for version in probes if older < version < newer)
        middle = next(within, (older + newer) // 2)
        entries = history.read(counter_id, middle, newer - 1, until, limit=1)
        if entries and entries[0].time < time:
            older = entries[0].version
        else:
            newer = middle
            above = entries[0].version if entries else above
    below, lower = _older_of_newest(counter_id, time, older + 1, newer - 1, until)
    return Boundary(older if below is None else below, lower or above)


def _older_of_newest(
    counter_id: str, time: float, first: int, last: int, until: float
) -> tuple[int | None, int | None]:
    """Read the highest 25 entries of a range of versions.

    Returns:
        Two versions: the highest version whose entry is older than `time`, and the version of the
        entry above it. If no entry is older, the first is None, and the second is the lowest
        version. If there is no entry above, the second is None.
    """
    above = None
    for entry in history.read(counter_id, first, last, until, _FEW, newest_first=True):
        if entry.time < time:
            return entry.version, above
        above = entry.version
    return None, above


def _backwards(last: int) -> "Iterator[int]":
    """Yield versions below `last`. Each is twice as far below `last` as the previous one."""
    distance = 2 * _FEW
    while distance < last:
        yield last - distance
        distance *= 2


def _missing(current: Counter, below: "Sequence[Entry]", name: str) -> CounterError:
    """Return the error for a missing entry: the entry has expired, or is not written yet.

    Args:
        current: the counter as it is now.
        below: the entries below the missing entry, highest version first.
        name: the query parameter that asks for the missing entry, for the error's text.
    """
    earliest = below[0].created_at if below else current.created_at
    if earliest and history.expired(earliest):
        return NotFoundError(f"{name}: that part of the history has expired")
    return ThrottledError(f"{name}: that change is not in the history yet. Retry shortly.")
