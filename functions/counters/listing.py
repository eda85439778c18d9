"""Lists the entries of a page or a period, up to the first gap that the stream may still fill.

While a batch of entries is being written, some are missing between others. A reader who continues
behind a missing version would never see it. So a list ends before it, unless it can not come any
more: then it was parked, or somebody deleted it.
"""

import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from counters import clock, history, trend
from counters.clients import reading
from counters.errors import ThrottledError
from counters.model import MAX_INTEGER, Entry, Period
from counters.timeline import boundary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from counters.model import Order

_PAGE = 1000  # entries that a period reads at a time


class _GapError(Exception):
    """The next version is missing, and the stream may still bring it."""


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
    limit, period = asked.limit, asked.period
    ascending = asked.order == "asc"
    found: list[Entry] = []
    with reading():
        first, last = _versions(asked, until)
        try:
            for entry in _up_to_gap(asked.counter_id, asked.order, first, last, limit + 1, until):
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
    """Yield the entries of a period by version, and some outside of it at both ends.

    If the history has an entry before the period, the first is one. If it has one after the period,
    the last is one. So the value before the period is known, unless there is no history at all. It
    ends before a gap that the stream may still fill, as a page does.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    with reading(), suppress(_GapError):
        first = _first_of(counter_id, period, until)
        for entry in _up_to_gap(counter_id, "asc", first, MAX_INTEGER, _PAGE, until):
            yield entry
            if entry.time >= period.end + clock.APPLY_WINDOW:
                return


def whole_span(counter_id: str, period: Period, until: float) -> "Iterator[Entry]":
    """Yield what `span` does, but all that is there, whatever is missing in between.

    The reads are strongly consistent.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    with reading():
        first = _first_of(counter_id, period, until)
        for entry in history.walk(
            counter_id, "asc", first, MAX_INTEGER, _PAGE, until, consistent=True
        ):
            yield entry
            if entry.time >= period.end + clock.APPLY_WINDOW:
                return


def _versions(asked: Listing, until: float) -> tuple[int, int]:
    """Return the first and the last version that can be on a page."""
    counter_id, order, after, _, period = asked
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
    """Return a version below which nothing belongs to a period."""
    start = period.start - clock.APPLY_WINDOW
    return max(1, boundary(counter_id, start, 1, MAX_INTEGER, until).below)


def _up_to_gap(  # noqa: PLR0913, PLR0917  what to read, and until when
    counter_id: str, order: "Order", first: int, last: int, limit: int, until: float
) -> "Iterator[Entry]":
    """Yield the entries from the version `first` to `last`, reading `limit` at a time.

    At the first gap it reads again, strongly consistently. Everything up to the trend's last
    version was recorded or parked before, so a gap below it is final, and is passed over.

    Raises:
        _GapError: the next version is missing, and the stream may still bring it.
        UndecidedError: if DynamoDB did not answer in time.
    """
    step = 1 if order == "asc" else -1
    expected = first if order == "asc" else last
    final: int | None = None  # the trend's last version, if there was a gap
    newer: Entry | None = None  # the entry before, in descending order
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
    """Return whether the stream may still bring versions that are missing below an entry.

    Args:
        top: the entry; None if there is none.
        final: the trend's last version, if it is known. What is missing below it will not come.
    """
    if top is None or (final is not None and top.version <= final):
        return False
    return not history.is_settled(top.created_at, clock.now())


def _above(counter_id: str, version: int, until: float) -> Entry | None:
    """Return the first entry above a version; None if there is none.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    entries = history.read(counter_id, version + 1, MAX_INTEGER, until, limit=1)
    return entries[0] if entries else None
