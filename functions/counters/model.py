"""Counters: their values, their rules and their errors. No AWS and no HTTP in here."""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Literal

DEFAULT_COUNTER_ID = "default"

# The integers that every JSON reader holds exactly (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1
MIN_INTEGER = -MAX_INTEGER

_COUNTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}|")

Operation = Literal["increment", "set"]
Order = Literal["asc", "desc"]


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
    """Who changes a counter, on which request, and when that began (RFC 3339)."""

    actor: str
    request_id: str
    at: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded change of a counter; `by` is what it added, for a `set` as well."""

    version: int
    value: int
    previous_value: int
    by: int
    operation: Operation
    actor: str
    created_at: str


class CounterError(Exception):
    """What Tally refuses or cannot do; the text is for the caller to read."""


class InvalidRequestError(CounterError):
    """The request is malformed: the text names the field and says why."""


class BoundExceededError(CounterError):
    """The change would leave the range of integers; nothing was written."""

    def __init__(self, detail: str, value: int) -> None:
        """Take what was refused and why, and the value at which the counter stands."""
        super().__init__(detail)
        self.value = value


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


def now() -> str:
    """Return the time in UTC to the millisecond (RFC 3339)."""
    return timestamp(dt.datetime.now(dt.UTC))


def timestamp(moment: dt.datetime) -> str:
    """Return an aware `moment` in UTC to the millisecond: of two, the later sorts behind."""
    utc = moment.astimezone(dt.UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
