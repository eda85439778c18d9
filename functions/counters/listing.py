"""Lists entries of a counter's history: a page, or all entries of a period.

A gap is one or more versions that are missing below an entry. There are two kinds of gap:
- An open gap may still be filled, because record_history may still write the missing entries. A
  list ends before an open gap. If the list went on, its reader would continue after the last entry
  of the list, and would never get the entries that fill the gap later.
- A final gap can no longer be filled from the stream of CounterTable. The missing changes are in
  the dead-letter queue, their entries have expired, or someone deleted the entries. A list
  continues after a final gap.

The versions are not exactly in the order of their times (see `timeline`). So to find all entries of
a period, this module also reads the entries up to one apply window (see `clock`) before and after
the period.
"""

import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from counters import clock, history, trend
from counters.clients import must_answer
from counters.errors import ThrottledError
from counters.model import MAX_INTEGER, Entry, Period
from counters.timeline import boundary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from counters.model import Order

_PAGE = 1000  # how many entries one read returns when all entries of a period are listed


class _GapError(Exception):
    """The next version is missing, and record_history may still write it: this is an open gap."""


class Listing(NamedTuple):
    """Which entries of a counter a page shows.

    Attributes:
        order: the order of the versions on the page.
        after: the last version of the previous page; None for the first page.
        limit: the maximum number of entries.
        period: the page shows only entries created in this period.
    """

    counter_id: str
    order: "Order"
    after: int | None
    limit: int
    period: Period


def page(query: Listing, until: float) -> tuple[list[Entry], bool]:
    """Return a page of a counter's history. The page ends before an open gap.

    Args:
        query: which entries the page shows.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The entries, and whether there is another page.

    Raises:
        ThrottledError: if DynamoDB did not answer in time; or if the order is descending, and there
            is an open gap before the first entry of the page.
    """
    limit, period = query.limit, query.period
    ascending = query.order == "asc"
    found: list[Entry] = []
    with must_answer():
        first, last = _versions(query, until)
        try:
            for entry in _up_to_gap(query.counter_id, query.order, first, last, limit + 1, until):
                if ascending and entry.time >= period.end + clock.APPLY_WINDOW:
                    break
                if not ascending and entry.time < period.start - clock.APPLY_WINDOW:
                    break
                if period.holds(entry.time):
                    found.append(entry)
                if len(found) > limit:
                    return found[:limit], True
        except _GapError as gap:
            if ascending:
                return found, False
            if not found:
                detail = "That part of the history is being written. Retry shortly."
                raise ThrottledError(detail) from gap
            return found, True
    return found, False


def span(counter_id: str, period: Period, until: float) -> "Iterator[Entry]":
    """Yield the entries of a period, and some entries before and after the period.

    The entries are in the order of their versions. If the history has an entry that is older than
    the period, the first yielded entry is such an entry: it shows the counter's value before the
    period. The entries end before an open gap.

    Args:
        counter_id: the counter.
        period: the period.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    with must_answer(), suppress(_GapError):
        first = _first_of(counter_id, period, until)
        entries = _up_to_gap(counter_id, "asc", first, MAX_INTEGER, _PAGE, until)
        yield from _up_to_end(entries, period)


def whole_span(counter_id: str, period: Period, until: float) -> "Iterator[Entry]":
    """Yield the entries that `span` yields, but also continue after an open gap.

    The reads are strongly consistent.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    with must_answer():
        first = _first_of(counter_id, period, until)
        entries = history.walk(counter_id, "asc", first, MAX_INTEGER, _PAGE, until, consistent=True)
        yield from _up_to_end(entries, period)


def _versions(query: Listing, until: float) -> tuple[int, int]:
    """Return the lowest and the highest version that can be on a page."""
    counter_id, order, after, _, period = query
    first, last = 1, MAX_INTEGER
    if after is not None:
        first, last = (after + 1, last) if order == "asc" else (first, after - 1)
    if order == "asc" and period.start > -math.inf:
        start = period.start - clock.APPLY_WINDOW
        first = boundary(counter_id, start, first, last, until).below + 1
    if order == "desc" and period.end < math.inf:
        end = period.end + clock.APPLY_WINDOW
        last = boundary(counter_id, end, first, last, until).above or last
    return first, last


def _first_of(counter_id: str, period: Period, until: float) -> int:
    """Return a version at which to begin. No version below it is in the period."""
    start = period.start - clock.APPLY_WINDOW
    return max(1, boundary(counter_id, start, 1, MAX_INTEGER, until).below)


def _up_to_end(entries: "Iterator[Entry]", period: Period) -> "Iterator[Entry]":
    """Yield entries until the time of an entry shows that the period has no higher version."""
    for entry in entries:
        yield entry
        if entry.time >= period.end + clock.APPLY_WINDOW:
            return


def _up_to_gap(  # noqa: PLR0913, PLR0917  each argument is a part of the query
    counter_id: str, order: "Order", first: int, last: int, limit: int, until: float
) -> "Iterator[Entry]":
    """Yield the entries of a range of versions, up to the first open gap.

    The first reads are eventually consistent, so they can show a gap that is already filled. At the
    first gap that seems open, the function does two things:
    1. It reads from TrendTable up to which version all gaps are final.
    2. It reads again, from the gap on, with strongly consistent reads.

    Args:
        counter_id: the counter.
        order: `asc` to begin at `first`, `desc` to begin at `last`.
        first: the lowest version of the range.
        last: the highest version of the range.
        limit: the maximum number of entries that one read returns.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        _GapError: at an open gap.
        UndecidedError: if DynamoDB did not answer in time.
    """
    step = 1 if order == "asc" else -1
    expected = first if order == "asc" else last
    final: int | None = None  # gaps up to this version are final; None before TrendTable is read
    newer: Entry | None = None  # the previous entry; in descending order, it is above `expected`
    while True:
        gap = False
        for entry in history.walk(
            counter_id, order, first, last, limit, until, consistent=final is not None
        ):
            if entry.version != expected:
                top = entry if order == "asc" else newer or _above(counter_id, expected, until)
                gap = _may_be_filled(top, final)
                if gap:
                    break
            yield entry
            newer, expected = entry, entry.version + step
        if not gap and order == "desc" and expected >= first:  # the lowest versions are missing
            gap = _may_be_filled(newer or _above(counter_id, expected, until), final)
        if not gap:
            return
        if final is not None:
            raise _GapError
        final = trend.last_version(counter_id, until)
        first, last = (expected, last) if order == "asc" else (first, expected)


def _may_be_filled(top: Entry | None, final: int | None) -> bool:
    """Return whether the gap below an entry is open.

    Args:
        top: the entry; None if the history has no entry above the missing versions.
        final: all gaps up to this version are final; None if TrendTable was not read.
    """
    if top is None or (final is not None and top.version <= final):
        return False
    return not history.is_settled(top.created_at, clock.now())


def _above(counter_id: str, version: int, until: float) -> Entry | None:
    """Return the lowest entry above a version; None if there is none.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    entries = history.read(counter_id, version + 1, MAX_INTEGER, until, limit=1)
    return entries[0] if entries else None
