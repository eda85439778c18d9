"""Data types for counters, their changes, and sums of changes. This module uses no AWS and no HTTP.

The immutable types are NamedTuples, because defining a dataclass takes four times as long at each
cold start.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

DEFAULT_COUNTER_ID = "default"

# All JSON parsers agree on the exact values of the integers in this range (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1
MIN_INTEGER = -MAX_INTEGER

Operation = Literal["increment", "set"]
Order = Literal["asc", "desc"]
Interval = Literal["minute", "hour", "day"]

SECONDS: dict[Interval, int] = {"minute": 60, "hour": 60 * 60, "day": 24 * 60 * 60}


class Counter(NamedTuple):
    """The state of a counter. If the counter was never written, it has version 0, and no times.

    Attributes:
        version: the number of changes so far.
        created_at: when the request that made the first change began (RFC 3339).
        updated_at: when the request that made the last change began (RFC 3339).
    """

    counter_id: str
    value: int = 0
    version: int = 0
    created_at: str | None = None
    updated_at: str | None = None

    def entity_tag(self) -> str:
        """Return the version in quotes, as ETag and If-Match use it (RFC 9110, section 8.8.3)."""
        return f'"{self.version}"'


class ChangedCounter(NamedTuple):
    """A counter that a request changed. Its value and version after the change are not known."""

    counter_id: str
    value: None = None
    version: None = None
    created_at: str | None = None
    updated_at: str | None = None


class Fold(NamedTuple):
    """The sums of the events that one change counts. An event is a message from a queue.

    Attributes:
        events: the number of events.
        increase: the sum of the additions.
        decrease: the sum of the subtractions, as a positive number.
        sender: who sent the events, as SQS reports it. None if the change's `actor` already names
            the sender.
    """

    events: int
    increase: int
    decrease: int
    sender: str | None = None


class Change(NamedTuple):
    """An attempt: the work of one invocation to make one change.

    All attributes except `until` are stored with the change.

    Attributes:
        actor: who makes the change.
        request_id: the id of this attempt. If this id is in the counter or in the history, the
            change was made.
        began: when the attempt began, in seconds since the epoch.
        until: latest time to send the change, in seconds since the epoch.
        fold: the sums of the events that the change counts. None if the change was requested over
            HTTP.
    """

    actor: str
    request_id: str
    began: float
    until: float
    fold: Fold | None = None


class Bounds(NamedTuple):
    """The lowest and the highest value that a counter may have after a change."""

    low: int = MIN_INTEGER
    high: int = MAX_INTEGER

    def hold(self, value: int) -> bool:
        """Return whether `value` is within the bounds."""
        return self.low <= value <= self.high


class Condition(NamedTuple):
    """The condition of a `set`: the counter must have one of these versions.

    A counter that was never written has version 0. `versions` is None if every version except 0 is
    allowed.
    """

    versions: tuple[int, ...] | None


class Increment(NamedTuple):
    """A request to add `by` to a counter, if the result is within `bounds`."""

    counter_id: str
    by: int
    bounds: Bounds


class Event(NamedTuple):
    """A queue message that asks to add `by` to a counter.

    Attributes:
        event_id: the id of the message.
        sequence_number: the message's sequence number. Later messages of a message group have
            greater numbers. The number is padded with zeros, so that greater numbers sort later as
            text.
        actor: who makes the change.
        sender: who sent the message, as SQS reports it. None if `actor` already names the sender.
    """

    event_id: str
    sequence_number: str
    counter_id: str
    by: int
    actor: str
    sender: str | None = None


class Period(NamedTuple):
    """A span of time, in seconds since the epoch. It includes `start`, but not `end`."""

    start: float = -math.inf
    end: float = math.inf

    def holds(self, time: float) -> bool:
        """Return whether `time` is in the period."""
        return self.start <= time < self.end


class Entry(NamedTuple):
    """One recorded change of a counter: an entry of its history.

    Attributes:
        version: the counter's version after the change.
        value: the counter's value after the change.
        previous_value: the counter's value before the change.
        by: `value` minus `previous_value`, also for a `set`.
        actor: who made the change.
        request_id: the id of the attempt that made the change.
        created_at: when that attempt began (RFC 3339).
        counter_created_at: the attribute `created_at` of the counter.
        increase: the sum of the additions.
        decrease: the sum of the subtractions, as a positive number. Only a change that counts
            several events can have both an increase and a decrease.
        time: `created_at` in seconds since the epoch.
        events: the number of events that the change counts. None if the change was requested over
            HTTP.
        sender: as in `Fold`.
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
    increase: int
    decrease: int
    time: float
    events: int | None = None
    sender: str | None = None

    def is_of(self, counter: Counter, version: int) -> bool:
        """Return whether this entry is the entry of the given version of the given counter.

        If someone deletes a counter by hand, its entries stay in the history. A new counter may
        later get the same name. The entries of the deleted counter do not belong to the new
        counter. They differ from its entries in `counter_created_at`.
        """
        return self.version == version and self.counter_created_at == counter.created_at

    def counter(self) -> Counter:
        """Return the counter as this change left it."""
        return Counter(
            self.counter_id, self.value, self.version, self.counter_created_at, self.created_at
        )


@dataclass(slots=True)
class Sums:
    """The sums of some changes of one counter.

    Attributes:
        changes: the number of changes.
        increase: the sum of the additions.
        decrease: the sum of the subtractions, as a positive number.
        first_version: the lowest version among the changes; None if there are none.
        last_version: the highest version among the changes; None if there are none.
        close: the value at `last_version`; 0 if there are no changes.
    """

    changes: int = 0
    increase: int = 0
    decrease: int = 0
    first_version: int | None = None
    last_version: int | None = None
    close: int = 0

    def add(self, entry: Entry) -> None:
        """Include one change."""
        version = entry.version
        self.merge(Sums(1, entry.increase, entry.decrease, version, version, entry.value))

    def merge(self, other: "Sums") -> None:
        """Include the sums of other changes of the same counter."""
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


class Bucket(NamedTuple):
    """The sums of the changes in one minute, hour or day, as the API returns them.

    Attributes:
        start: when the minute, hour or day begins (RFC 3339).
        close: the counter's value when the minute, hour or day ends, even if there were no changes.
    """

    start: str
    changes: int
    increase: int
    decrease: int
    first_version: int | None
    last_version: int | None
    close: int


class Range(NamedTuple):
    """The range that is expected for the `increase` of a bucket. Both ends are expected values."""

    low: int
    high: int


class ComparedBucket(NamedTuple):
    """A Bucket, compared with the eight weeks before it.

    Attributes:
        expected: the expected range of `increase`; None if there are too few weeks.
        unusual: whether `increase` is outside this range; None if that is not known, or not yet.
    """

    start: str
    changes: int
    increase: int
    decrease: int
    first_version: int | None
    last_version: int | None
    close: int
    expected: Range | None
    unusual: bool | None
