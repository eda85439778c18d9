"""Adds up a counter's changes by minute, hour or day.

Hours and days are read from TrendTable, which keeps them forever. Minutes are added up from the
history, so they are available until the history expires.
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
    """Return one bucket for each interval of a period, oldest first.

    Args:
        counter_id: the counter.
        interval: the length of a bucket.
        period: the period. It begins and ends on the boundary of an interval.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: if the interval is a minute, and the history of the period has expired.
        ThrottledError: if DynamoDB did not answer in time.
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
    buckets = []
    start = period.start
    while start < period.end:
        sums = found.get(start, Sums())
        # A later version can have an earlier time, so an earlier bucket may have the last version.
        closed = max(closed, (sums.last_version or 0, sums.close))
        buckets.append(
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
    return buckets


def _minutes(
    counter_id: str, period: Period, until: float
) -> "tuple[tuple[int, int], list[tuple[float, Sums]]]":
    """Add up the minutes of a period from the history.

    Returns:
        Two values: the highest version before the period with the value after it, as in
        `trend.before`; and the sums of each minute that has changes.
    """
    if history.expired(clock.timestamp(period.start)):
        detail = "interval: the minutes of that time have expired. Use hour or day."
        raise NotFoundError(detail)
    minutes: dict[float, Sums] = {}
    before: tuple[int, int] | None = None
    for entry in listing.span(counter_id, period, until):
        before = before or (entry.version - 1, entry.previous_value)
        if entry.time < period.start:
            before = max(before, (entry.version, entry.value))
        elif entry.time < period.end:
            minutes.setdefault(entry.time // 60 * 60, Sums()).add(entry)
    # If there are no entries, take the value before this hour from the trend. The sums of the hour
    # itself may include changes that are later than the period's start.
    hour = trend.hour_of(period.start)
    return before or trend.before(counter_id, hour, until), list(minutes.items())
