"""Adds up a counter's changes by minute, hour or day.

Hours and days come from TrendTable, which keeps them forever. Minutes come from the history.
"""

from typing import TYPE_CHECKING

from counters import clock, history, listing, trend
from counters.errors import NotFoundError
from counters.model import SECONDS, Bucket, Period, Sums

if TYPE_CHECKING:
    from collections.abc import Iterable

    from counters.model import Interval


def by_interval(
    counter_id: str, interval: "Interval", period: Period, until: float
) -> list[Bucket]:
    """Return the changes of a period, added up by interval, oldest first.

    Args:
        counter_id: the counter.
        interval: what a bucket spans; minutes come from the history, the others from TrendTable.
        period: from the beginning of a bucket to the end of one.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: the history of the minutes has expired.
        ThrottledError: the database did not answer, or not in time.
    """
    step = SECONDS[interval]
    found: dict[float, Sums] = {}
    parts: Iterable[tuple[float, Sums]]
    if interval == "minute":
        closed, parts = _minutes(counter_id, period, until)
    else:
        closed = trend.before(counter_id, period.start, until)
        parts = trend.hours(counter_id, period, until)
    for start, sums in parts:
        found.setdefault(start // step * step, Sums()).merge(sums)
    given = []
    start = period.start
    while start < period.end:
        sums = found.get(start, Sums())
        # Of two changes at the turn of a bucket the later version may be in the earlier one.
        closed = max(closed, (sums.last_version or 0, sums.close))
        given.append(
            Bucket(
                clock.timestamp(start),
                sums.changes,
                sums.increase,
                sums.decrease,
                sums.first_version,
                sums.last_version,
                closed[1],
            )
        )
        start += step
    return given


def _minutes(
    counter_id: str, period: Period, until: float
) -> "tuple[tuple[int, int], list[tuple[float, Sums]]]":
    """Return what was before the period, as `trend.before`, and the sums of its minutes."""
    if history.expired(clock.timestamp(period.start)):
        # `interval` is named because it is given: only minutes lead here.
        detail = "interval: the minutes of that time have expired; hours and days are still there"
        raise NotFoundError(detail)
    minutes: dict[float, Sums] = {}
    before: tuple[int, int] | None = None
    for entry in listing.span(counter_id, period, until):
        before = before or (entry.version - 1, entry.previous_value)
        if entry.time < period.start:
            before = max(before, (entry.version, entry.value))
        elif entry.time < period.end:
            minutes.setdefault(entry.time // 60 * 60, Sums()).add(entry)
    # Without any entry, take the value before this hour from the trend. The hour itself may include
    # later changes.
    hour = trend.hour_of(period.start)
    return before or trend.before(counter_id, hour, until), list(minutes.items())
