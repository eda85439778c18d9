"""Counters: their values, their rules and their errors. No AWS and no HTTP in here."""

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


class CounterError(Exception):
    """What Tally refuses or cannot do; the text is for the caller to read."""


class InvalidRequestError(CounterError):
    """The request is malformed: the text names the field and says why."""


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
