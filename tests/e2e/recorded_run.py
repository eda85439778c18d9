"""What a chaos run leaves for the checks: all calls, and the contents of the database."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# An answer with one of these statuses or problems says that the change was not applied.
_NOT_APPLIED_STATUSES = {400, 404, 412, 422, 429}
_NOT_APPLIED_PROBLEMS = {"bound-exceeded", "throttled"}


class Entry(NamedTuple):
    """An entry of a counter's history."""

    version: int
    value: int
    previous_value: int
    by: int
    operation: str
    actor: str
    created_at: str
    counter_created_at: str
    request_id: str


class CounterState(NamedTuple):
    """The state of a counter, and the id of the request that made its last change."""

    value: int
    version: int
    request_id: str


class Update(NamedTuple):
    """A requested change of one counter: add `by` within bounds, or set it to `value`."""

    by: int | None = None
    value: int | None = None
    low: float = -math.inf
    high: float = math.inf
    expected: int | None = None  # the version that the counter must have


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = {}

    @property
    def problem(self) -> str | None:
        """The last part of the problem's `type`; None if the answer reports no problem."""
        if self.status < 400 or not isinstance(self.body, dict):
            return None
        return str(self.body["type"]).rpartition(":")[2]

    @property
    def says_not_applied(self) -> bool:
        return self.status in _NOT_APPLIED_STATUSES or self.problem in _NOT_APPLIED_PROBLEMS


@dataclass(frozen=True, repr=False)
class Call:
    """A request and its answer. Times are in seconds. All calls use the same clock."""

    operation: str  # "increment", "increments", "set", "get", "version", "at", "page" or "trend"
    counter_ids: tuple[str, ...]
    invoked: float
    returned: float  # when the answer came, or when the function was killed
    answer: Answer | None  # None: the function was killed
    request_id: str = ""  # the history stores this id with the change
    key: str | None = None
    updates: tuple[Update, ...] = ()  # one for each counter; none if the call is a read
    query: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        request = f"{self.operation} {self.counter_ids} {self.updates or dict(self.query)}"
        key = f" with the key {self.key}" if self.key else ""
        answer = f"{self.answer.status} {self.answer.body}" if self.answer else "no answer"
        span = f"{self.invoked:.3f} to {self.returned:.3f}"
        return f"<{request}{key}, id {self.request_id}, {span}: {answer}>"

    @property
    def status(self) -> int | None:
        return self.answer.status if self.answer else None

    @property
    def problem(self) -> str | None:
        return self.answer.problem if self.answer else None


class Violation(NamedTuple):
    """A contradiction between the calls and the database."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Run:
    """All calls, and the contents of the database after the last call.

    Attributes:
        confirmed: the ids of the changes for which the database's success reply reached the
            function.
    """

    calls: Sequence[Call]
    histories: Mapping[str, Sequence[Entry]]
    states: Mapping[str, CounterState]
    confirmed: frozenset[str] = frozenset()

    def changes(self) -> list[Call]:
        return [call for call in self.calls if call.updates]

    def reads(self, operation: str) -> list[Call]:
        """Return the successful calls of one operation."""
        return [call for call in self.calls if call.operation == operation and call.status == 200]

    def entries_by_request(self) -> dict[str, list[tuple[str, Entry]]]:
        """Return the entries that each request made, as pairs of counter id and entry."""
        entries: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
        for counter_id, history in self.histories.items():
            for entry in history:
                entries[entry.request_id].append((counter_id, entry))
        return entries
