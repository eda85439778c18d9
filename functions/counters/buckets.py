"""Adds up a counter's changes by minute, hour or day.

The sums of hours and days come from TrendTable, which keeps them forever. The sums of minutes are
added up from the history, so they are available only until the history expires.
"""

from typing import TYPE_CHECKING

from counters import anomalies, clock, history, listing, trend
from counters.errors import NotFoundError
from counters.model import SECONDS, Bucket, ComparedBucket, Period, Sums

if TYPE_CHECKING:
    from collections.abc import Iterable

    from counters.model import Interval

_WEEK = 7 * SECONDS["day"]


def by_interval(
    counter_id: str, interval: "Interval", period: Period, until: float
) -> list[Bucket]:
    """Return one bucket for each minute, hour or day of a period, oldest first.

    A bucket has the sums of the changes in that minute, hour or day.

    Args:
        counter_id: the counter.
        interval: the length of each bucket.
        period: the period. It consists of whole intervals.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: if the interval is a minute, and the history of the period has expired.
        ThrottledError: if DynamoDB did not answer in time.
    """
    parts: Iterable[tuple[float, Sums]]
    if interval == "minute":
        closed, parts = _minutes(counter_id, period, until)
    else:
        closed, parts = _hours(counter_id, period, until)
    return _buckets(closed, parts, period, SECONDS[interval])


def compared(
    counter_id: str, interval: "Interval", period: Period, now: float, until: float
) -> list[ComparedBucket]:
    """Return one bucket for each hour or day of a period, with the range that was expected.

    The reads are those of `by_interval`, for a period that begins eight weeks earlier.

    Args:
        counter_id: the counter.
        interval: the length of each bucket: `hour` or `day`.
        period: the period. It consists of whole intervals.
        now: the current time, in seconds since the epoch.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    step = SECONDS[interval]
    longer = Period(max(0, period.start - anomalies.WEEKS * _WEEK), period.end)
    closed, parts = _hours(counter_id, longer, until)
    buckets = _buckets(closed, parts, longer, step)
    first = int(period.start - longer.start) // step
    # If the counter has changes before these buckets, all weeks count. Otherwise, the weeks count
    # from the first change on.
    changed = (position for position, bucket in enumerate(buckets) if bucket.changes)
    began = 0 if closed[0] else next(changed, len(buckets))
    increases = [bucket.increase for bucket in buckets]
    ranges = anomalies.ranges(increases, SECONDS["day"] // step, first, began)
    ends = (period.start + step * number for number in range(1, len(ranges) + 1))
    return [
        ComparedBucket(
            *bucket, expected, anomalies.is_unusual(bucket.increase, expected, ended=end <= now)
        )
        for bucket, expected, end in zip(buckets[first:], ranges, ends, strict=True)
    ]


def _hours(
    counter_id: str, period: Period, until: float
) -> "tuple[tuple[int, int], Iterable[tuple[float, Sums]]]":
    """Read the hours of a period from TrendTable.

    Returns:
        Two values:
        - the highest version before the period, and the counter's value at that version;
        - for each hour that has changes, the beginning of the hour and its sums.
    """
    closed = trend.before(counter_id, period.start, until)
    return closed, trend.hours(counter_id, period, until)


def _buckets(
    closed: tuple[int, int], parts: "Iterable[tuple[float, Sums]]", period: Period, step: int
) -> list[Bucket]:
    """Return one bucket for each interval of a period, oldest first.

    Args:
        closed: the highest version before the period, and the counter's value at that version.
        parts: the sums of the minutes or hours that have changes, each with its beginning.
        period: the period. It consists of whole intervals.
        step: the length of an interval in seconds.
    """
    found: dict[float, Sums] = {}
    for start, sums in parts:
        found.setdefault(start // step * step, Sums()).merge(sums)
    buckets = []
    start = period.start
    while start < period.end:
        sums = found.get(start, Sums())
        # A higher version can have an earlier time (see `timeline`). So the highest version up to
        # the end of this bucket may be in an earlier bucket.
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
        Two values:
        - the highest version before the period, and the counter's value at that version;
        - for each minute that has changes, the beginning of the minute and its sums.
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
    # If there are no entries, take the version and value from the trend: from the hours before the
    # hour in which the period starts. The sums of that hour itself may include changes after the
    # start of the period.
    hour = trend.hour_of(period.start)
    return before or trend.before(counter_id, hour, until), list(minutes.items())
