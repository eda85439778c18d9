"""Counters: their values, their rules and their errors. No AWS and no HTTP in here."""

import datetime as dt
import math
import re
from dataclasses import dataclass
from typing import Literal

DEFAULT_COUNTER_ID = "default"

# The integers that every JSON reader holds exactly (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1
MIN_INTEGER = -MAX_INTEGER

_COUNTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}|")

# RFC 3339, section 5.6.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)

Operation = Literal["increment", "set"]
Order = Literal["asc", "desc"]
Interval = Literal["minute", "hour", "day"]

SECONDS: dict[Interval, int] = {"minute": 60, "hour": 60 * 60, "day": 24 * 60 * 60}

_MOST_BUCKETS = 1000
_MOST_MINUTES = 3 * 60  # they are counted from the history
_USUAL_BUCKETS: dict[Interval, int] = {"minute": 60, "hour": 24, "day": 30}
_END_OF_TIME = 253_402_300_800  # the year 10000, in seconds since the epoch


@dataclass(frozen=True, slots=True)
class Counter:
    """Where a counter stands. One that was never written has version 0 and no times."""

    counter_id: str
    value: int = 0
    version: int = 0
    created_at: str | None = None
    updated_at: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes a counter, and on which request.

    `request_id` is of this attempt alone: it tells whether the change is in the counter. `at` is
    when the attempt began (RFC 3339), `until` when it must be over, in seconds since the epoch.
    """

    actor: str
    request_id: str
    at: str
    until: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between what the value must stay: `low` and `high` themselves are allowed."""

    low: int = MIN_INTEGER
    high: int = MAX_INTEGER

    def hold(self, value: int) -> bool:
        """Return whether `value` is within them."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Period:
    """A span of time, in seconds since the epoch: `start` is in it, `end` is not."""

    start: float = -math.inf
    end: float = math.inf

    def holds(self, time: float) -> bool:
        """Return whether `time` is in it."""
        return self.start <= time < self.end


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded change of a counter; `by` is what it added, for a `set` as well.

    `created_at` is when the request began (RFC 3339), `request_id` that of the attempt, and
    `counter_created_at` when the counter's first change began.
    """

    counter_id: str
    version: int
    value: int
    previous_value: int
    by: int
    operation: Operation
    actor: str
    request_id: str
    created_at: str
    counter_created_at: str


@dataclass(slots=True)
class Sums:
    """Changes added up: `decrease` is what the negative ones took away, as a positive number.

    `close` is the value at `last_version`, the highest of their versions; without any it is 0.
    """

    changes: int = 0
    increase: int = 0
    decrease: int = 0
    first_version: int | None = None
    last_version: int | None = None
    close: int = 0

    def add(self, entry: Entry) -> None:
        """Add one change."""
        version = entry.version
        self.merge(Sums(1, max(entry.by, 0), max(-entry.by, 0), version, version, entry.value))

    def merge(self, other: "Sums") -> None:
        """Add other sums."""
        if other.first_version is None or other.last_version is None:
            return
        self.changes += other.changes
        self.increase += other.increase
        self.decrease += other.decrease
        if self.first_version is None or other.first_version < self.first_version:
            self.first_version = other.first_version
        if self.last_version is None or other.last_version > self.last_version:
            self.last_version = other.last_version
            self.close = other.close


@dataclass(frozen=True, slots=True)
class Bucket:
    """The changes of one interval, which begins at `start` (RFC 3339).

    `close` is the value at its end, whether or not it has changes.
    """

    start: str
    changes: int
    increase: int
    decrease: int
    first_version: int | None
    last_version: int | None
    close: int


class CounterError(Exception):
    """What Tally refuses or cannot do; the text is for the caller to read."""


class InvalidRequestError(CounterError):
    """The request is malformed: the text names the field and says why."""


class NotFoundError(CounterError):
    """There is no such version, or its history has expired."""


class BoundExceededError(CounterError):
    """The change would leave its bounds or the range of integers; nothing was written."""

    def __init__(self, bounds: Bounds, standing: Counter) -> None:
        """Take the bounds, and where the counter stands."""
        super().__init__(f"by: the result would not be from {bounds.low} to {bounds.high}")
        self.value = standing.value


class VersionMismatchError(CounterError):
    """The counter has not the version that the request is conditional on; nothing was written."""

    def __init__(self, expected: int, standing: Counter) -> None:
        """Take the version that was asked for, and where the counter stands."""
        super().__init__(f"the counter has version {standing.version}, not {expected}")
        self.version = standing.version


class KeyReusedError(CounterError):
    """The idempotency key was used with another body; nothing was written."""


class InProgressError(CounterError):
    """What becomes of the first request with this idempotency key cannot be told yet."""

    def __init__(self, retry_after: int) -> None:
        """Take the number of seconds after which it can be told."""
        super().__init__("a request with this key is under way, or may still be")
        self.retry_after = retry_after


class ThrottledError(CounterError):
    """Nothing was applied; the same request may succeed a little later."""


class OutcomeUnknownError(CounterError):
    """The database's reply was lost: whether the change was applied is not known."""


def counter_id(value: str, name: str = "counter_id") -> str:
    """Return `value`, the parameter `name`, if it is a counter's name.

    Raises:
        InvalidRequestError: it is not.
    """
    if not _COUNTER_ID.fullmatch(value):
        detail = f"{name}: must match {_COUNTER_ID.pattern}"
        raise InvalidRequestError(detail)
    return value


def prefix(value: str) -> str:
    """Return `value` if a counter's name can begin with it; the empty string can.

    Raises:
        InvalidRequestError: no name begins so.
    """
    if not _PREFIX.fullmatch(value):
        detail = "prefix: no counter_id can begin with it"
        raise InvalidRequestError(detail)
    return value


def integer(name: str, value: object) -> int:
    """Return `value`, the field `name`, if it is an integer that JSON carries exactly.

    Raises:
        InvalidRequestError: it is of another type (a boolean is no integer) or out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        detail = f"{name}: must be an integer"
        raise InvalidRequestError(detail)
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        detail = f"{name}: must be from {MIN_INTEGER} to {MAX_INTEGER}"
        raise InvalidRequestError(detail)
    return value


def increment(value: object) -> int:
    """Return `value` if a counter can be incremented by it: any integer of ours but 0.

    Raises:
        InvalidRequestError: it cannot.
    """
    by = integer("by", value)
    if by == 0:
        detail = "by: must not be 0"
        raise InvalidRequestError(detail)
    return by


def bounds(low: object, high: object) -> Bounds:
    """Return the bounds that the fields `min` and `max` give.

    Raises:
        InvalidRequestError: one is no integer of ours, or `min` is above `max`.
    """
    given = Bounds(integer("min", low), integer("max", high))
    if given.low > given.high:
        detail = "min: must not be above max"
        raise InvalidRequestError(detail)
    return given


def order(value: str) -> Order:
    """Return `value` if it is an order: `asc` is the oldest first, `desc` the newest.

    Raises:
        InvalidRequestError: it is neither.
    """
    if value == "asc":
        return "asc"
    if value == "desc":
        return "desc"
    detail = "order: must be asc or desc"
    raise InvalidRequestError(detail)


def time(name: str, text: str) -> float:
    """Return the time that `text`, the parameter `name`, gives: in seconds since the epoch.

    Raises:
        InvalidRequestError: it is no RFC 3339 time.
    """
    try:
        if _TIME.fullmatch(text):
            seconds = dt.datetime.fromisoformat(text.upper()).timestamp()
            if 0 <= seconds < _END_OF_TIME:
                return seconds
    except (ValueError, OverflowError):
        pass  # no such day, or no such hour
    detail = (
        f"{name}: must be a time from 1970 to 9999, such as 2026-11-22T10:00:00Z (RFC 3339),"
        " a + in it written as %2B"
    )
    raise InvalidRequestError(detail)


def period(start: float | None, end: float | None) -> Period:
    """Return the period that the parameters `from` and `to` give, in seconds since the epoch.

    Raises:
        InvalidRequestError: it would be empty.
    """
    given = Period(-math.inf if start is None else start, math.inf if end is None else end)
    if given.start >= given.end:
        detail = "from: must be before to"
        raise InvalidRequestError(detail)
    return given


def interval(value: str) -> Interval:
    """Return `value` if it is an interval: `minute`, `hour` or `day`, in UTC.

    Raises:
        InvalidRequestError: it is none.
    """
    for known in SECONDS:
        if value == known:
            return known
    detail = "interval: must be minute, hour or day"
    raise InvalidRequestError(detail)


def window(each: Interval, given: Period, now: float) -> Period:
    """Return the period of whole intervals that covers the given one.

    Args:
        each: the interval.
        given: without an end it ends `now`; without a start it has 60 minutes, 24 hours or 30 days.
        now: in seconds since the epoch.

    Raises:
        InvalidRequestError: it has too many of them.
    """
    step = SECONDS[each]
    end = math.ceil(given.end / step) * step if given.end < math.inf else now // step * step + step
    start = (
        given.start // step * step
        if given.start > -math.inf
        else max(0, end - _USUAL_BUCKETS[each] * step)
    )
    if start >= end:
        detail = "from: must be before now, if there is no to"
        raise InvalidRequestError(detail)
    most = _MOST_MINUTES if each == "minute" else _MOST_BUCKETS
    if end - start > most * step:
        detail = f"from: at most {most} intervals of a {each} before to"
        raise InvalidRequestError(detail)
    return Period(start, end)
