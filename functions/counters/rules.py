"""Input rules: names, integers, times and JSON. Each function returns its input, checked."""

import datetime as dt
import json
import math
import re
from collections.abc import Collection, Mapping
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

# RFC 3339, section 5.6. Python takes more than its hours, minutes and offsets, and differs by
# version: 3.14 takes the hour 24.
_TIME = re.compile(
    r"""
    \d{4}-\d\d-\d\d T ([01]\d|2[0-3]) : [0-5]\d :
    [0-5]\d (\.\d+)?
    (Z | [+-] ([01]\d|2[0-3]) : [0-5]\d)
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)

_MOST_BUCKETS = 1000
_MOST_MINUTES = 3 * 60  # they are counted from the history
_USUAL_BUCKETS: dict[Interval, int] = {"minute": 60, "hour": 24, "day": 30}
_MOST_INCREMENTS = 100  # in one transaction
_LAST_TIME = 253_402_300_799.999  # of the year 9999, in seconds since the epoch


def counter_id(value: object, name: str = "counter_id") -> str:
    """Return `value`, the field or parameter `name`, if it is a counter's name.

    Raises:
        InvalidRequestError: it is not.
    """
    if not isinstance(value, str) or not _COUNTER_ID.fullmatch(value):
        invalid(name, f"must match {_COUNTER_ID.pattern}")
    return value


def prefix(value: str) -> str:
    """Return `value` if a counter's name can begin with it; the empty string can.

    Raises:
        InvalidRequestError: no name begins so.
    """
    if not _PREFIX.fullmatch(value):
        invalid("prefix", "no counter_id can begin with it")
    return value


def integer(name: str, value: object) -> int:
    """Return `value`, the field `name`, if it is an integer that JSON carries exactly.

    Raises:
        InvalidRequestError: it is of another type (a boolean is no integer) or out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        invalid(name, "must be an integer")
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        invalid(name, f"must be from {MIN_INTEGER} to {MAX_INTEGER}")
    return value


def increment(counter_id: str, fields: Mapping[str, object]) -> Increment:
    """Return the increment of a counter that the fields `by`, `min` and `max` ask for.

    Raises:
        InvalidRequestError: `by` is 0, one is no integer of ours, or `min` is above `max`.
    """
    by = integer("by", fields.get("by", 1))
    if by == 0:
        invalid("by", "must not be 0")
    low = integer("min", fields.get("min", MIN_INTEGER))
    high = integer("max", fields.get("max", MAX_INTEGER))
    if low > high:
        invalid("min", "must not be above max")
    return Increment(counter_id, by, Bounds(low, high))


def increments(value: object) -> list[Increment]:
    """Return the increments that the field `increments` asks for, of as many different counters.

    Raises:
        InvalidRequestError: it is no list of 1 to 100 of them, or one is malformed; the text names
            it by its position, from 0 on: `increments[3]`.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_INCREMENTS:
        invalid("increments", f"must be a list of 1 to {_MOST_INCREMENTS} increments")
    given: dict[str, Increment] = {}
    for position, entry in enumerate(value):
        name = f"increments[{position}]"
        asked = fields(name, entry)
        try:
            only(["counter_id", "by", "min", "max"], asked)
            each = increment(counter_id(asked.get("counter_id")), asked)
            if each.counter_id in given:
                invalid("counter_id", "given more than once")
        except InvalidRequestError as error:
            detail = f"{name}.{error}"
            raise InvalidRequestError(detail) from error
        given[each.counter_id] = each
    return list(given.values())


def json_object(name: str, text: str) -> dict[str, object]:
    """Return the fields of `text`, the JSON object `name`.

    Raises:
        InvalidRequestError: it is no JSON object, or a field in it is given more than once.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_fields,
            parse_constant=lambda constant: invalid(name, f"{constant} is not JSON"),
            # Longer digits cannot be in range, and int() refuses them past 4,300.
            parse_int=lambda digits: int(digits[:20]),
        )
    except (json.JSONDecodeError, RecursionError) as error:
        detail = f"{name}: must be JSON: {error}"
        raise InvalidRequestError(detail) from error
    return fields(name, value)


def fields(name: str, value: object) -> dict[str, object]:
    """Return `value`, the field `name`, if it is a JSON object.

    Raises:
        InvalidRequestError: it is something else.
    """
    if not isinstance(value, dict):
        invalid(name, "must be a JSON object")
    return value


def only(known: Collection[str], given: Mapping[str, object]) -> None:
    """Let pass the fields that are known.

    Raises:
        InvalidRequestError: there is another.
    """
    for name in given:
        if name not in known:
            invalid(name, "unknown field")


def invalid(name: str, why: str) -> NoReturn:
    """Refuse a request for what it says in a field, a parameter or a header.

    Raises:
        InvalidRequestError: always.
    """
    detail = f"{name[:128]}: {why}"
    raise InvalidRequestError(detail)


def _fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    given: dict[str, object] = {}
    for name, value in pairs:
        if name in given:
            invalid(name, "given more than once")
        given[name] = value
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
    invalid("order", "must be asc or desc")


def time(name: str, text: str) -> float:
    """Return the time that `text`, the parameter `name`, gives: in seconds since the epoch.

    Digits below a microsecond are cut off. There is no second 60: seconds since the epoch have no
    leap seconds.

    Raises:
        InvalidRequestError: it is no RFC 3339 time.
    """
    try:
        if _TIME.fullmatch(text):
            seconds = dt.datetime.fromisoformat(text.upper()).astimezone(dt.UTC).timestamp()
            if seconds >= 0:
                # As a float, the last microseconds of 9999 are in the year 10000.
                return min(seconds, _LAST_TIME)
    except (ValueError, OverflowError):
        pass  # no such day, or in UTC a year that there is not
    detail = (
        f"{name}: must be a time from 1970 to 9999, such as 2026-11-22T10:00:00Z (RFC 3339),"
        " a + in it written as %2B"
    )
    raise InvalidRequestError(detail)


def past(name: str, seconds: float, now: float) -> float:
    """Return `seconds`, the time that the parameter `name` gives, if it is not in the future.

    Raises:
        InvalidRequestError: it is. What is answered about the past must never change.
    """
    if seconds > now:
        invalid(name, "must not be in the future")
    return seconds


def period(start: float | None, end: float | None) -> Period:
    """Return the period that the parameters `from` and `to` give, in seconds since the epoch.

    Raises:
        InvalidRequestError: it would be empty.
    """
    given = Period(-math.inf if start is None else start, math.inf if end is None else end)
    if given.start >= given.end:
        invalid("from", "must be before to")
    return given


def interval(value: str) -> Interval:
    """Return `value` if it is an interval: `minute`, `hour` or `day`, in UTC.

    Raises:
        InvalidRequestError: it is none.
    """
    for known in SECONDS:
        if value == known:
            return known
    invalid("interval", "must be minute, hour or day")


def window(each: Interval, given: Period, now: float) -> Period:
    """Return the period of whole intervals that covers the given one, up to the current interval.

    Args:
        each: the interval.
        given: without an end it ends `now`; without a start it has 60 minutes, 24 hours or 30 days.
        now: in seconds since the epoch.

    Raises:
        InvalidRequestError: it begins in the future, ends where 1970 begins, or has too many
            intervals.
    """
    if given.start > -math.inf:
        past("from", given.start, now)
    step = SECONDS[each]
    end = now // step * step + step
    if given.end < end:
        end = math.ceil(given.end / step) * step
    start = (
        given.start // step * step
        if given.start > -math.inf
        else max(0, end - _USUAL_BUCKETS[each] * step)
    )
    if start >= end:
        invalid("to", "must be after 1970-01-01T00:00:00Z")
    most = _MOST_MINUTES if each == "minute" else _MOST_BUCKETS
    if end - start > most * step:
        why = f"must be at most {most} {each}s before to"
        invalid("from", f"{why}; if to is missing or in the future, now counts")
    return Period(start, end)
