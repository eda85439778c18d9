"""Values and records: what a counter is, and what its changes are. No AWS and no HTTP in here.

Immutable records are NamedTuples: making a dataclass takes four times as long, at each start.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

DEFAULT_COUNTER_ID = "default"

# The integers that every JSON reader holds exactly (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1
MIN_INTEGER = -MAX_INTEGER

Operation = Literal["increment", "set"]
Order = Literal["asc", "desc"]
Interval = Literal["minute", "hour", "day"]

SECONDS: dict[Interval, int] = {"minute": 60, "hour": 60 * 60, "day": 24 * 60 * 60}


class Counter(NamedTuple):
    """Where a counter stands. One that was never written has version 0 and no times."""

    counter_id: str
    value: int = 0
    version: int = 0
    created_at: str | None = None
    updated_at: str | None = None

    def entity_tag(self) -> str:
        """Return the version in quotes: the counter's entity tag (RFC 9110, section 8.8.3)."""
        return f'"{self.version}"'


class ChangedCounter(NamedTuple):
    """A counter that a request has certainly changed, but whose state after it is not known yet."""

    counter_id: str
    value: None = None
    version: None = None
    created_at: str | None = None
    updated_at: str | None = None


class Fold(NamedTuple):
    """Events of a queue that are added to a counter together.

    `increase` is the sum of the additions, `decrease` that of the subtractions, as a positive
    number. `sender` is who sent the events as SQS reports it, where `actor` is only a claim.
    """

    events: int
    increase: int
    decrease: int
    sender: str | None = None


class Change(NamedTuple):
    """Who changes a counter, and in which attempt.

    `request_id` identifies this attempt: it shows whether the counter has the change. `at` is when
    the attempt began (RFC 3339), `until` the latest time to send it, in seconds since the epoch.
    `fold` is what it adds up, if it comes from a queue.
    """

    actor: str
    request_id: str
    at: str
    until: float
    fold: Fold | None = None


class Bounds(NamedTuple):
    """Between what the value must stay: `low` and `high` themselves are allowed."""

    low: int = MIN_INTEGER
    high: int = MAX_INTEGER

    def hold(self, value: int) -> bool:
        """Return whether `value` is within them."""
        return self.low <= value <= self.high


class Condition(NamedTuple):
    """What a counter must be like for a change to be made.

    `versions` are the versions that it may have. 0 stands for a counter that was never written.
    None allows every version but 0.
    """

    versions: tuple[int, ...] | None


class Increment(NamedTuple):
    """What is to be added to a counter, if the result is within the bounds."""

    counter_id: str
    by: int
    bounds: Bounds


class Event(NamedTuple):
    """Something to be counted, from a queue.

    `sequence_number` grows from one event to the next of a message group: the greater of two sorts
    after the other. `actor` is who counts, `sender` who sent the message as SQS reports it, if the
    actor is not that sender.
    """

    event_id: str
    sequence_number: str
    counter_id: str
    by: int
    actor: str
    sender: str | None = None


class Period(NamedTuple):
    """A span of time, in seconds since the epoch: `start` is in it, `end` is not."""

    start: float = -math.inf
    end: float = math.inf

    def holds(self, time: float) -> bool:
        """Return whether `time` is in it."""
        return self.start <= time < self.end


class Entry(NamedTuple):
    """One recorded change of a counter.

    Attributes:
        by: what the change added, `increase` minus `decrease`. A `set` has it too.
        increase: the sum of the additions.
        decrease: the sum of the subtractions, as a positive number. Only a change that folds
            several events of a queue can have both sums.
        request_id: the id of the attempt that made the change.
        created_at: when the request began (RFC 3339).
        time: `created_at` in seconds since the epoch.
        counter_created_at: when the request of the counter's first change began (RFC 3339).
        events: the number of folded events; None for a request over HTTP.
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
        """Return whether this is the entry of a version of the counter as it is now.

        If somebody deleted the counter's item, the history may have entries of an earlier counter
        of that name, which was created at another time.
        """
        return self.version == version and self.counter_created_at == counter.created_at


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
        self.merge(Sums(1, entry.increase, entry.decrease, version, version, entry.value))

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


class Bucket(NamedTuple):
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
