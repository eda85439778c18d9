"""What requests take and return. docs/api.md and docs/history.md define the JSON."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_INTEGER = 2**53 - 1  # the highest value of a counter; the lowest is -MAX_INTEGER
MOST_INCREMENTS = 100  # in one request to POST /increments

Length = Literal["minute", "hour", "day"]


@dataclass(frozen=True, slots=True)
class ChangedCounter:
    """A counter right after `increment_all`.

    Attributes:
        counter_id: the name.
        value: the value right after the change. None if the change was applied, but the service
            could not find out the value in time.
        version: the number of changes so far; None if `value` is None.
        created_at: when the request that made the first change began. None if there is none.
        updated_at: when the request that made the last change began. None if there is none.
    """

    counter_id: str
    value: int | None
    version: int | None
    created_at: dt.datetime | None
    updated_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Counter(ChangedCounter):
    """A counter. It has the attributes of ChangedCounter. `value` and `version` are never None."""

    value: int
    version: int


@dataclass(frozen=True, slots=True)
class Increment:
    """One of the increments of `increment_all`.

    Attributes:
        counter_id: the name of the counter.
        by: the number to add; not 0.
        min: the lowest value that the counter may have after the addition.
        max: the highest value that the counter may have after the addition.
    """

    counter_id: str
    by: int = 1
    min: int | None = None
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A change of a counter: an entry of its history.

    Attributes:
        version: the counter's version after the change.
        value: the counter's value after the change.
        previous_value: the counter's value before the change.
        by: `value` minus `previous_value`.
        increase: the sum of the additions.
        decrease: the sum of the subtractions, as a positive number.
        operation: `increment` or `set`.
        actor: who made the change.
        created_at: when the request that made the change began.
        events: the number of queue messages that the change counts. None if it counts none.
        sender: who sent the events. None if the change counts none.
    """

    version: int
    value: int
    previous_value: int
    by: int
    increase: int
    decrease: int
    operation: str
    actor: str
    created_at: dt.datetime
    events: int | None = None
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """A range of integers. Both ends belong to it."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Interval:
    """The sums of the changes in an interval of the trend.

    Attributes:
        start: when the interval begins.
        changes: the number of changes.
        increase: the sum of the additions.
        decrease: the sum of the subtractions, as a positive number.
        first_version: the lowest version of the changes; None if there are none.
        last_version: the highest version of the changes; None if there are none.
        close: the value at the end of the interval.
        expected: the range in which `increase` was expected. None if it is not known, or if the
            call did not ask for it.
        unusual: whether `increase` is outside this range. None if that is not known, not known yet,
            or if the call did not ask for it.
    """

    start: dt.datetime
    changes: int
    increase: int
    decrease: int
    first_version: int | None
    last_version: int | None
    close: int
    expected: Range | None = None
    unusual: bool | None = None


def counter(document: object) -> Counter:
    """Convert a counter from JSON.

    Raises:
        ValueError: the document is not a counter. The other functions below raise this, too.
    """
    members = _object(document)
    return Counter(
        _text(members, "counter_id"),
        _integer(members, "value"),
        _integer(members, "version"),
        _time_or_none(members, "created_at"),
        _time_or_none(members, "updated_at"),
    )


def changed_counter(document: object) -> ChangedCounter:
    """Convert a counter in the answer of `POST /increments` from JSON."""
    members = _object(document)
    return ChangedCounter(
        _text(members, "counter_id"),
        _integer_or_none(members, "value"),
        _integer_or_none(members, "version"),
        _time_or_none(members, "created_at"),
        _time_or_none(members, "updated_at"),
    )


def entry(document: object) -> Entry:
    """Convert an entry of the history from JSON."""
    members = _object(document)
    return Entry(
        version=_integer(members, "version"),
        value=_integer(members, "value"),
        previous_value=_integer(members, "previous_value"),
        by=_integer(members, "by"),
        increase=_integer(members, "increase"),
        decrease=_integer(members, "decrease"),
        operation=_text(members, "operation"),
        actor=_text(members, "actor"),
        created_at=_time(members, "created_at"),
        events=_integer_or_none(members, "events"),
        sender=None if members.get("sender") is None else _text(members, "sender"),
    )


def interval(document: object) -> Interval:
    """Convert an interval of the trend from JSON."""
    members = _object(document)
    expected, unusual = members.get("expected"), members.get("unusual")
    if unusual is not None and not isinstance(unusual, bool):
        return _unexpected("unusual: boolean", unusual)
    return Interval(
        start=_time(members, "start"),
        changes=_integer(members, "changes"),
        increase=_integer(members, "increase"),
        decrease=_integer(members, "decrease"),
        first_version=_integer_or_none(members, "first_version"),
        last_version=_integer_or_none(members, "last_version"),
        close=_integer(members, "close"),
        expected=None if expected is None else _range(expected),
        unusual=unusual,
    )


def name(document: object) -> str:
    """Convert a counter's name from JSON."""
    return _text({"name": document}, "name")


def items(document: object) -> list[object]:
    """Return the items of a JSON array."""
    if not isinstance(document, list):
        return _unexpected("array", document)
    return document


def _range(document: object) -> Range:
    members = _object(document)
    return Range(_integer(members, "low"), _integer(members, "high"))


def _object(document: object) -> Mapping[str, object]:
    if not isinstance(document, dict):
        return _unexpected("object", document)
    return document


def _integer(members: Mapping[str, object], member: str) -> int:
    value = members.get(member)
    if not isinstance(value, int) or isinstance(value, bool):
        return _unexpected(f"{member}: integer", value)
    return value


def _integer_or_none(members: Mapping[str, object], member: str) -> int | None:
    return None if members.get(member) is None else _integer(members, member)


def _text(members: Mapping[str, object], member: str) -> str:
    value = members.get(member)
    if not isinstance(value, str):
        return _unexpected(f"{member}: text", value)
    return value


def _time(members: Mapping[str, object], member: str) -> dt.datetime:
    time = dt.datetime.fromisoformat(_text(members, member))
    try:
        return time.astimezone(dt.UTC) if time.tzinfo else _unexpected(f"{member}: offset", time)
    except OverflowError:
        return _unexpected(f"{member}: time in UTC", time)


def _time_or_none(members: Mapping[str, object], member: str) -> dt.datetime | None:
    return None if members.get(member) is None else _time(members, member)


def _unexpected(wanted: str, value: object) -> NoReturn:
    detail = f"{wanted} expected, not {type(value).__name__}"
    raise ValueError(detail)
