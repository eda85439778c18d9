"""Input validation: names, integers, times, periods and JSON.

Most functions return their input if it is valid, and raise InvalidRequestError if it is not.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from counters.errors import InvalidRequestError
from counters.model import (
    MAX_INTEGER,
    MIN_INTEGER,
    SECONDS,
    Bounds,
    Increment,
    Interval,
    Order,
    Period,
)

_COUNTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}|")

# A time, as in RFC 3339, section 5.6. Python's own parser also accepts texts that RFC 3339 does not
# allow. For example, Python 3.14 accepts the hour 24.
_TIME = re.compile(
    r"""
    \d{4}-\d\d-\d\d T ([01]\d|2[0-3]) : [0-5]\d :
    [0-5]\d (\.\d+)?
    (Z | [+-] ([01]\d|2[0-3]) : [0-5]\d)
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)

_MOST_BUCKETS = 1000
_MOST_MINUTES = 3 * 60  # fewer, because minutes are added up from the history at each request
_DEFAULT_BUCKETS: dict[Interval, int] = {"minute": 60, "hour": 24, "day": 30}
MAX_COUNTERS = 100  # the limit of one DynamoDB transaction, and of one BatchGetItem
_LAST_TIME = 253_402_300_799.999  # the end of the year 9999, in seconds since the epoch


def counter_id(value: object, name: str = "counter_id") -> str:
    """Return `value` if it is a valid counter name.

    Args:
        value: the value.
        name: the name of the value's field or parameter, for the error.

    Raises:
        InvalidRequestError: if `value` is not a valid counter name.
    """
    if not isinstance(value, str) or not _COUNTER_ID.fullmatch(value):
        invalid(name, f"must match {_COUNTER_ID.pattern}")
    return value


def prefix(value: str) -> str:
    """Return `value` if it is empty, or if it is the beginning of a valid counter name.

    Raises:
        InvalidRequestError: if `value` is neither empty nor the beginning of a valid counter name.
    """
    if not _PREFIX.fullmatch(value):
        invalid("prefix", "must be empty or the beginning of a valid counter_id")
    return value


def integer(name: str, value: object) -> int:
    """Return the value of the field `name`, if it is an integer from -(2^53 - 1) to 2^53 - 1.

    Raises:
        InvalidRequestError: if the value is out of range, or is not an integer. A boolean does not
            count as an integer.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        invalid(name, "must be an integer")
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        invalid(name, f"must be from {MIN_INTEGER} to {MAX_INTEGER}")
    return value


def increment(counter_id: str, fields: Mapping[str, object]) -> Increment:
    """Return the increment that the optional fields `by`, `min` and `max` describe.

    Raises:
        InvalidRequestError: if a field is not a valid integer, `by` is 0, or `min` is above `max`.
    """
    by = integer("by", fields.get("by", 1))
    if by == 0:
        invalid("by", "must not be 0")
    low = integer("min", fields.get("min", MIN_INTEGER))
    high = integer("max", fields.get("max", MAX_INTEGER))
    if low > high:
        invalid("min", "must not be above max")
    return Increment(counter_id, by, Bounds(low, high))


def counter_ids(name: str, values: Sequence[str]) -> Sequence[str]:
    """Return the values of the parameter `name`, if they are different counter names.

    Raises:
        InvalidRequestError: if a value is not a valid counter name, if two values are the same, or
            if there are more than 100 values.
    """
    if len(values) > MAX_COUNTERS:
        invalid(name, f"must be given at most {MAX_COUNTERS} times")
    if len(set(values)) < len(values):
        invalid(name, "must not name a counter twice")
    return [counter_id(value, name) for value in values]


def increments(value: object) -> list[Increment]:
    """Return the increments in the field `increments`. Each must be for a different counter.

    Raises:
        InvalidRequestError: in three cases:
            - The field is not a list of 1 to 100 increments.
            - An increment is malformed. The text of the error names this increment by its position,
              starting at 0: `increments[3]`.
            - Two increments are for the same counter. The text names the second of them.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_COUNTERS:
        invalid("increments", f"must be a list of 1 to {MAX_COUNTERS} increments")
    by_counter: dict[str, Increment] = {}
    for position, item in enumerate(value):
        name = f"increments[{position}]"
        item_fields = fields(name, item)
        try:
            only(["counter_id", "by", "min", "max"], item_fields)
            each = increment(counter_id(item_fields.get("counter_id")), item_fields)
            if each.counter_id in by_counter:
                invalid("counter_id", "must be given only once")
        except InvalidRequestError as error:
            detail = f"{name}.{error}"
            raise InvalidRequestError(detail) from error
        by_counter[each.counter_id] = each
    return list(by_counter.values())


def json_object(name: str, text: str) -> dict[str, object]:
    """Parse `text` and return the fields of the JSON object in it.

    Args:
        name: what the error calls the text, such as `body`.
        text: the JSON.

    Raises:
        InvalidRequestError: if the text is not a JSON object, or if any object in the text has the
            same field twice.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_fields,
            parse_constant=lambda constant: invalid(name, f"{constant} is not JSON"),
            # int() raises ValueError for more than 4,300 digits. Every number of 20 or more digits
            # is out of range, so convert only the first 20.
            parse_int=lambda digits: int(digits[:20]),
        )
    except (json.JSONDecodeError, RecursionError) as error:
        detail = f"{name}: must be JSON: {error}"
        raise InvalidRequestError(detail) from error
    return fields(name, value)


def fields(name: str, value: object) -> dict[str, object]:
    """Return the value of the field `name`, if it is a JSON object.

    Raises:
        InvalidRequestError: if the value is not a JSON object.
    """
    if not isinstance(value, dict):
        invalid(name, "must be a JSON object")
    return value


def only(known: Collection[str], given: Mapping[str, object]) -> None:
    """Check that all given fields are known.

    Raises:
        InvalidRequestError: if a field is not known.
    """
    for name in given:
        if name not in known:
            invalid(name, "unknown field")


def invalid(name: str, why: str) -> NoReturn:
    """Reject the request because of the field, parameter or header `name`.

    Raises:
        InvalidRequestError: always.
    """
    detail = f"{name[:128]}: {why}"
    raise InvalidRequestError(detail)


def _fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique: dict[str, object] = {}
    for name, value in pairs:
        if name in unique:
            invalid(name, "must be given only once")
        unique[name] = value
    return unique


def order(value: str) -> Order:
    """Return `value` if it is `asc` (oldest first) or `desc` (newest first).

    Raises:
        InvalidRequestError: if `value` is neither `asc` nor `desc`.
    """
    if value == "asc":
        return "asc"
    if value == "desc":
        return "desc"
    invalid("order", "must be asc or desc")


def time(name: str, text: str) -> float:
    """Return the time in the parameter `name`, in seconds since the epoch.

    Digits below a microsecond are cut off. The leap second (:60) is invalid, because seconds since
    the epoch do not count leap seconds.

    Raises:
        InvalidRequestError: if `text` is not an RFC 3339 time from 1970 to 9999.
    """
    try:
        if _TIME.fullmatch(text):
            seconds = dt.datetime.fromisoformat(text.upper()).astimezone(dt.UTC).timestamp()
            if seconds >= 0:
                # A float rounds the last microseconds of 9999 up to the year 10000.
                return min(seconds, _LAST_TIME)
    except (ValueError, OverflowError):
        pass  # there is no such day, or the time has the year 0 or 10000 in UTC
    invalid(
        name,
        "must be an RFC 3339 time from 1970 to 9999, such as 2026-11-22T10:00:00Z (write + as %2B)",
    )


def period(start: float | None, end: float | None) -> Period:
    """Return the period that begins at `start` and ends at `end`.

    Args:
        start: the time in the parameter `from`, in seconds since the epoch; None for no limit.
        end: the time in the parameter `to`, in seconds since the epoch; None for no limit.

    Raises:
        InvalidRequestError: if `start` is not before `end`.
    """
    result = Period(-math.inf if start is None else start, math.inf if end is None else end)
    if result.start >= result.end:
        invalid("from", "must be before to")
    return result


def interval(value: str) -> Interval:
    """Return `value` if it is `minute`, `hour` or `day`.

    Raises:
        InvalidRequestError: if `value` is none of these.
    """
    for known in SECONDS:
        if value == known:
            return known
    invalid("interval", "must be minute, hour or day")


def window(interval: Interval, requested: Period, now: float) -> Period:
    """Extend a requested period to whole intervals: minutes, hours or days in UTC.

    The returned period ends no later than the current interval.

    Args:
        interval: the length of an interval: `minute`, `hour` or `day`.
        requested: the requested period. If it has no end, the returned period ends with the current
            interval. If it has no start, the returned period is 60 minutes, 24 hours or 30 days
            long.
        now: the current time, in seconds since the epoch.

    Raises:
        InvalidRequestError: if the requested period begins in the future, ends at
            1970-01-01T00:00:00Z or earlier, or has too many intervals.
    """
    if requested.start > now:
        invalid("from", "must not be in the future")
    step = SECONDS[interval]
    end = now // step * step + step
    if requested.end < end:
        end = math.ceil(requested.end / step) * step
    start = (
        requested.start // step * step
        if requested.start > -math.inf
        else max(0, end - _DEFAULT_BUCKETS[interval] * step)
    )
    if start >= end:
        invalid("to", "must be after 1970-01-01T00:00:00Z")
    most = _MOST_MINUTES if interval == "minute" else _MOST_BUCKETS
    if end - start > most * step:
        why = f"must be at most {most} {interval}s before to"
        invalid("from", f"{why} (or before now, if to is missing or in the future)")
    return Period(start, end)
