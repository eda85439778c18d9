"""Finds the entries of a time, or of an attempt, in a history of any length.

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
import math
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from counters import clock, history
from counters.clients import answered, dynamodb, reading
from counters.errors import CounterError, NotFoundError, ThrottledError
from counters.model import MAX_INTEGER, SECONDS, Counter, Entry, Period

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from counters.model import Order

# So many entries are cheaper to read at once, at a unit or two, than to bisect.
_FEW = 25

_HOUR = SECONDS["hour"]


class _Boundary(NamedTuple):
    """Where a history turns from older than a time to not older.

    `below` is a version. It and all lower ones are older than the time, give or take the apply
    window. `above` is the lowest entry seen that is not older; None if there was none.
    """

    below: int
    above: int | None


def find(
    standing: Counter, request_id: str, began: float, until: float
) -> tuple[Counter | None, bool]:
    """Look for the change that an attempt made of a counter.

    Args:
        standing: the counter as it is, or was a moment ago.
        request_id: the id of the attempt.
        began: when the attempt began, in seconds since the epoch.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The counter as the change left it, or None. And whether the history is complete: it has an
        entry for every version up to that of `standing` that the change could have made.

    Raises:
        UndecidedError: the time is up.
    """
    recent = _find_recent(standing, request_id, began, until)
    if recent:
        return recent
    counter_id, last = standing.counter_id, standing.version
    start = began - clock.APPLY_WINDOW
    boundary = _search(counter_id, start, 1, last, until, _backwards(last))
    expected = max(1, boundary.below)  # which must be of this counter, too
    complete = True
    while expected <= last:
        entries = history.read(counter_id, expected, last, until)
        if not entries:
            return None, False
        for entry in entries:
            if entry.request_id == request_id:
                return history.counter(entry), True
            complete = complete and _continues(standing, entry, expected)
            # Made when the attempt could not change anything any more, as is all that follows.
            if complete and _time(entry) > began + clock.APPLY_WINDOW:
                return None, True
            expected = entry.version + 1
    return None, complete


def _find_recent(
    standing: Counter, request_id: str, began: float, until: float
) -> tuple[Counter | None, bool] | None:
    """Return what `find` does, if the last few changes decide it; otherwise None."""
    # A counter that does not exist has no history, unless somebody deleted its item.
    expected = standing.version
    last = expected or MAX_INTEGER
    for entry in history.read(standing.counter_id, 1, last, until, _FEW, newest_first=True):
        if entry.request_id == request_id:
            return history.counter(entry), True
        if not standing.version:
            return None, False
        if _continues(standing, entry, expected):
            if _time(entry) < began - clock.APPLY_WINDOW:
                return None, True  # everything below was made before the attempt began
            expected -= 1
    return None if expected else (None, True)


def _continues(standing: Counter, entry: Entry, expected: int) -> bool:
    """Return whether an entry is that of the expected version of a counter.

    If somebody deleted the counter's item, the history may have a counter of that name that was
    created at another time.
    """
    return entry.version == expected and entry.counter_created_at == standing.created_at


class Listing(NamedTuple):
    """Which entries of a counter a page shows: at most `limit` by version, those of a period."""

    counter_id: str
    order: "Order"
    after: int | None  # the version to continue after in that order; None for the first page
    limit: int
    period: Period


def page(asked: Listing, until: float) -> tuple[list[Entry], bool]:
    """Return a page of a counter's history.

    A page ends before the first version that is missing and that the stream may still bring. So a
    reader who continues after the page misses nothing.

    Args:
        asked: what the page shows. A period takes some more reads, however long the history is.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The entries, and whether there are more.

    Raises:
        ThrottledError: the database did not answer in time. Or the order is descending, and the
            very next version is not in the history yet.
    """
    with reading():
        first, last = _versions(asked, until)
        found, more, whole = _collect(asked, first, last, until)
        if not whole:
            # Everything up to the trend's last version was recorded or parked, so a gap below it is
            # final. Read again to see what was written since.
            folded = _folded_version(asked.counter_id, until)
            found, more, whole = _collect(asked, first, last, until, folded)
    if whole or asked.order == "asc":
        return found, more
    if not found:
        detail = "That part of the history is being written. Retry shortly."
        raise ThrottledError(detail)
    return found, True


def _versions(asked: Listing, until: float) -> tuple[int, int]:
    """Return the first and the last version that can be on a page."""
    counter_id, order, after, _, period = asked
    first, last = 1, MAX_INTEGER
    if after is not None:
        first, last = (after + 1, last) if order == "asc" else (first, after - 1)
    if order == "asc" and period.start > -math.inf:
        start = period.start - clock.APPLY_WINDOW
        first = _boundary(counter_id, start, first, last, until).below + 1
    if order == "desc" and period.end < math.inf:
        end = period.end + clock.APPLY_WINDOW
        last = _boundary(counter_id, end, first, last, until).above or last
    return first, last


def _collect(
    asked: Listing, first: int, last: int, until: float, folded: int = 0
) -> tuple[list[Entry], bool, bool]:
    """Read a page up to the first gap that the stream may still fill.

    Args:
        asked: what the page shows.
        first: the first version that can be on it.
        last: the last version that can be on it.
        until: latest time to start a read, in seconds since the epoch.
        folded: what is missing up to this version will not come any more. If given, the read is
            strongly consistent.

    Returns:
        The entries, whether there are more, and whether the page is whole: without such a gap.

    Raises:
        UndecidedError: the time is up.
    """
    counter_id, order, _, limit, period = asked
    found: list[Entry] = []
    expected, step = (first, 1) if order == "asc" else (last, -1)
    newer: Entry | None = None  # the entry before, in descending order
    for entry in history.walk(
        counter_id, order, first, last, limit + 1, until, consistent=folded > 0
    ):
        if entry.version != expected:
            top = entry if order == "asc" else newer or _above(counter_id, expected, until)
            if top and _may_be_filled(top, folded):
                return found, False, False
        time = _time(entry)
        if order == "asc" and time >= period.end + clock.APPLY_WINDOW:
            return found, False, True
        if order == "desc" and time < period.start - clock.APPLY_WINDOW:
            return found, False, True
        if period.holds(time):
            found.append(entry)
        if len(found) > limit:
            return found[:limit], True, True
        newer, expected = entry, entry.version + step
    if order == "desc" and expected >= first:  # the lowest versions are missing
        top = newer or _above(counter_id, expected, until)
        return found, False, not (top and _may_be_filled(top, folded))
    return found, False, True


def _may_be_filled(top: Entry, folded: int) -> bool:
    """Return whether the stream may still bring versions that are missing below an entry.

    Args:
        top: the entry.
        folded: the highest version that the trend includes; nothing below it will come any more.
    """
    return top.version > folded and not history.is_settled(top.created_at, clock.now())


def _above(counter_id: str, version: int, until: float) -> Entry | None:
    """Return the first entry above a version; None if there is none.

    Raises:
        UndecidedError: the time is up.
    """
    entries = history.read(counter_id, version + 1, MAX_INTEGER, until, limit=1)
    return entries[0] if entries else None


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
    if entries and _continues(standing, entries[0], version):
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
        boundary = _boundary(counter_id, time + clock.APPLY_WINDOW, 1, last, until)
        expected = boundary.above or last
        limit = 100
        while expected:
            entries = history.read(counter_id, 1, expected, until, limit, newest_first=True)
            limit = 1000  # so many changes in so short a time are those of a busy counter
            for position, entry in enumerate(entries):
                if not _continues(standing, entry, expected):
                    raise _missing(standing, entries[position:], "at")
                if _time(entry) <= time:
                    return history.counter(entry)
                expected -= 1
            if not entries:
                raise _missing(standing, [], "at")
    return Counter(counter_id)


def span(counter_id: str, period: Period, until: float) -> "Iterator[Entry]":
    """Yield the entries of a period by version, and some outside of it at both ends.

    If the history has an entry before the period, the first is one. If it has one after the period,
    the last is one. So the value before the period is known, unless there is no history at all. It
    ends before a gap that the stream may still fill, as a page does.

    Raises:
        ThrottledError: the database did not answer in time.
    """
    with reading():
        first = _first_of(counter_id, period, until)
        expected, folded = 0, 0
        while True:
            for entry in history.walk(
                counter_id, "asc", first, MAX_INTEGER, 1000, until, consistent=folded > 0
            ):
                if expected not in {0, entry.version} and _may_be_filled(entry, folded):
                    folded = _folded_version(counter_id, until)
                    if entry.version > folded:
                        return
                    first = expected
                    break  # what was missing may have come since it was read
                yield entry
                expected = entry.version + 1
                if _time(entry) >= period.end + clock.APPLY_WINDOW:
                    return
            else:
                return


def whole_span(counter_id: str, period: Period, until: float) -> "Iterator[Entry]":
    """Yield what `span` does, but all that is there, whatever is missing in between.

    The reads are strongly consistent.

    Raises:
        ThrottledError: the database did not answer in time.
    """
    with reading():
        first = _first_of(counter_id, period, until)
        for entry in history.walk(
            counter_id, "asc", first, MAX_INTEGER, 1000, until, consistent=True
        ):
            yield entry
            if _time(entry) >= period.end + clock.APPLY_WINDOW:
                return


def _first_of(counter_id: str, period: Period, until: float) -> int:
    """Return a version below which nothing belongs to a period."""
    start = period.start - clock.APPLY_WINDOW
    return max(1, _boundary(counter_id, start, 1, MAX_INTEGER, until).below)


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


def _folded_version(counter_id: str, until: float) -> int:
    """Return the highest version that the trend includes; 0 if none.

    A change is added to the trend when everything before it is recorded or parked. So whatever is
    missing below it will not come.

    Raises:
        UndecidedError: the time is up.
    """
    # Times can go back, so the highest version may be in the last hour but one.
    folded = 0
    for item in _hours(counter_id, "<", clock.timestamp(clock.now() + _HOUR), until, limit=2):
        with suppress(KeyError, ValueError):  # an item that Tally did not write
            folded = max(folded, int(item["last_version"]["N"]))
    return folded


def _boundary(counter_id: str, time: float, first: int, last: int, until: float) -> _Boundary:
    """Return what `_search` finds, in as many reads however long the history is.

    Raises:
        UndecidedError: the time is up.
    """
    return _search(counter_id, time, first, last, until, _around(counter_id, time, until))


def _search(  # noqa: PLR0913, PLR0917  what to find, and until when
    counter_id: str, time: float, first: int, last: int, until: float, guesses: "Iterable[int]"
) -> _Boundary:
    """Return where the entries from the version `first` to `last` turn to not older than `time`.

    It reads the newest entries first. If they do not decide, it tries the versions `guesses`, then
    it bisects. Only entries that exist decide, so a wrong guess costs a read and nothing else.

    Raises:
        UndecidedError: the time is up.
    """
    older = first - 1
    if first > 1:  # a page that continues another, mostly within its period
        for entry in history.read(counter_id, first, last, until, limit=1):
            if _time(entry) >= time:
                return _Boundary(first - 1, entry.version)
            older = entry.version
    below, above = _older_of_newest(counter_id, time, older + 1, last, until)
    if below is not None or above is None:
        return _Boundary(older if below is None else below, above)
    rest = above
    # After all guesses, look at the first version: what is before `time` may have expired.
    probes = itertools.chain(guesses, [first])
    while rest - older > _FEW:
        within = (version for version in probes if older < version < rest)
        middle = next(within, (older + rest) // 2)
        entries = history.read(counter_id, middle, rest - 1, until, limit=1)
        if entries and _time(entries[0]) < time:
            older = entries[0].version
        else:
            rest = middle
            above = entries[0].version if entries else above
    below, lower = _older_of_newest(counter_id, time, older + 1, rest - 1, until)
    return _Boundary(older if below is None else below, lower or above)


def _older_of_newest(
    counter_id: str, time: float, first: int, last: int, until: float
) -> tuple[int | None, int | None]:
    """Look at the last few entries from the version `first` to `last`.

    Returns:
        The newest that is older than `time`, and the one above it; None where there is none.
    """
    above = None
    for entry in history.read(counter_id, first, last, until, _FEW, newest_first=True):
        if _time(entry) < time:
            return entry.version, above
        above = entry.version
    return None, above


def _backwards(last: int) -> "Iterator[int]":
    """Yield versions before `last`, each twice as far from it as the one before."""
    distance = 2 * _FEW
    while distance < last:
        yield last - distance
        distance *= 2


def _around(counter_id: str, time: float, until: float) -> "Iterator[int]":
    """Yield the last version before the hour of a time, and the first after it, by TrendTable.

    The trend keeps what has expired in the history, may be behind it, and is read eventually
    consistently.

    Raises:
        UndecidedError: the time is up.
    """
    # No change is older than 1970, and there is no timestamp for the year 0.
    hour = clock.timestamp(max(0, time // _HOUR * _HOUR))
    for comparison, version in (("<", "last_version"), (">", "first_version")):
        for item in _hours(counter_id, comparison, hour, until):
            with suppress(KeyError, ValueError):  # an item that Tally did not write
                yield int(item[version]["N"])


def _hours(
    counter_id: str, comparison: str, hour: str, until: float, limit: int = 1
) -> "Sequence[Any]":
    """Return items of TrendTable: the nearest to an hour that compare so with it.

    Raises:
        UndecidedError: the time is up.
    """
    query: dict[str, Any] = {
        "TableName": os.environ["TREND_TABLE"],
        "KeyConditionExpression": f"#counter_id = :counter_id AND #hour {comparison} :hour",
        "ExpressionAttributeNames": {"#counter_id": "counter_id", "#hour": "hour"},
        "ExpressionAttributeValues": {":counter_id": {"S": counter_id}, ":hour": {"S": hour}},
        "ScanIndexForward": comparison == ">",
        "Limit": limit,
    }
    return answered(until, partial(dynamodb().query, **query))["Items"]


def _time(entry: Entry) -> float:
    return clock.seconds(entry.created_at)
