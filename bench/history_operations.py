"""The operations that bench/scale.py measures. They use the counter of bench/long_history.py."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.stack import Stack

from bench.long_history import FIRST, INTERVAL, NAME, change, moment, value
from counters import clock

PAGE = 100  # entries or names in a response, by default
DAY = 24  # hours
TOGETHER = 10  # increments in a POST /increments, and messages in a batch of the queue

PATH = f"/counters/{NAME}"
TRANSACTION = f"`POST /increments` of {TOGETHER}"


@dataclass(frozen=True)
class Operation:
    """An operation. `make` runs it, and returns whether its result is correct."""

    name: str
    make: Callable[[], bool]


class History:
    """The operations on a counter with a given number of changes."""

    def __init__(self, stack: Stack, changes: int, names: Sequence[str] = (NAME,)) -> None:
        """Prepare the operations.

        Args:
            stack: the stack that has the counter.
            changes: how many changes the counter has had.
            names: the names of all counters in the stack.
        """
        self._stack = stack
        self._changes = changes
        self._names = sorted(names)
        self._middle = (changes + 1) // 2
        self._version = changes  # the counter's current version
        self._recorded = changes
        self._messages = 0

    def reads(self) -> list[Operation]:
        """Return the operations that change nothing. Run them before the operations that do."""
        n, middle = self._changes, self._middle
        at_middle = quote(moment(middle))
        page = f"{PATH}/history"
        newest = range(n, max(0, n - PAGE), -1)
        after = range(middle + 1, min(n, middle + PAGE) + 1)
        since = range(middle, min(n, middle + PAGE - 1) + 1)
        end = quote(moment(n))
        day = quote(clock.timestamp(FIRST + INTERVAL * (n - 1) - (DAY - 1) * 3600))
        half = (len(self._names) + 1) // 2
        return [
            Operation("`GET`", lambda: self._is(n, "")),
            Operation("`GET` at a version", lambda: self._is(middle, f"version={middle}")),
            Operation("`GET` at a time", lambda: self._is(middle, f"at={at_middle}")),
            Operation("newest page", lambda: self._lists(page, "order=desc", newest)),
            Operation("page from the middle", lambda: self._lists(page, f"after={middle}", after)),
            Operation("page from a time", lambda: self._lists(page, f"from={at_middle}", since)),
            Operation("trend, a day by hour", lambda: self._adds_up(f"from={day}&to={end}")),
            Operation("names, the first page", lambda: self._names_from(0, "")),
            Operation(
                "names, from the middle",
                lambda: self._names_from(half, f"after={self._names[half - 1]}"),
            ),
        ]

    def writes(self) -> list[Operation]:
        """Return the operations that change the counter."""
        return [
            Operation("record_history, 1 change", self._record),
            Operation("increment", lambda: self._increment(None)),
            Operation("increment with a key", lambda: self._increment(str(time.monotonic_ns()))),
            Operation("set", self._set),
            Operation(TRANSACTION, self._increment_all),
            Operation(f"queue, a batch of {TOGETHER}", self._ingest),
        ]

    def _get(self, path: str, query: str) -> Any:  # noqa: ANN401  any JSON
        return self._stack.request("GET", path, query=query).body

    def _is(self, version: int, query: str) -> bool:
        body = self._get(PATH, query)
        expected = (version, value(version), moment(version))
        return (body["version"], body["value"], body["updated_at"]) == expected

    def _lists(self, path: str, query: str, versions: Sequence[int]) -> bool:
        found = [(each["version"], each["value"]) for each in self._get(path, query)]
        return found == [(version, value(version)) for version in versions]

    def _adds_up(self, query: str) -> bool:
        buckets = self._get(f"{PATH}/trend", f"interval=hour&{query}")
        expected = min(self._changes, _changes_from(buckets[0]["start"], self._changes))
        last = buckets[-1]
        closed = (last["last_version"], last["close"]) == (self._changes, value(self._changes))
        total = sum(bucket["changes"] for bucket in buckets)
        return len(buckets) == DAY and closed and total == expected

    def _names_from(self, first: int, query: str) -> bool:
        return bool(self._get("/counters", query) == self._names[first : first + PAGE])

    def _changed(self, body: dict[str, Any]) -> bool:
        self._version += 1
        return bool(body["version"] == self._version)

    def _increment(self, key: str | None) -> bool:
        headers = {"Idempotency-Key": key} if key else {}
        return self._changed(self._stack.request("POST", PATH, headers=headers).body)

    def _set(self) -> bool:
        body = self._stack.request("PUT", PATH, body={"value": self._version}).body
        return bool(body["value"] == self._version) and self._changed(body)

    def _increment_all(self) -> bool:
        names = [NAME, *(f"other:{number}" for number in range(1, TOGETHER))]
        body = {"increments": [{"counter_id": name} for name in names]}
        answer = self._stack.request("POST", "/increments", body=body).body
        return [each["counter_id"] for each in answer] == names and self._changed(answer[0])

    def _ingest(self) -> bool:
        records = []
        for _ in range(TOGETHER):
            self._messages += 1
            records.append(
                {
                    "messageId": f"00000000-0000-4000-8000-{self._messages:012}",
                    "body": json.dumps({"counter_id": NAME}),
                    "attributes": {
                        "SequenceNumber": str(18849496460467696128 + 256 * self._messages),
                        "MessageGroupId": NAME,
                        "SenderId": "AROAEXAMPLE12345678AB:checkout",
                    },
                    "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:queue.fifo",
                }
            )
        reply = self._stack.invoke("IngestIncrements", {"Records": records})
        self._version += 1
        return bool(reply == {"batchItemFailures": []})

    def _record(self) -> bool:
        self._recorded += 1
        return self._stack.record([change(self._recorded)]) == 1


def _changes_from(start: str, changes: int) -> int:
    """Return how many of the counter's changes were made at or after `start`."""
    before = (clock.seconds(start) - FIRST + INTERVAL - 1) // INTERVAL
    return changes - max(0, int(before))
