"""Many counters that change in one request, in simulated time."""

import json
from typing import Any

from tests.component.scene import Invocation, Scene

Entry = dict[str, Any]


def entries(**amounts: int) -> list[Entry]:
    """Return the increments of the counters, each by its amount."""
    return [{"counter_id": counter, "by": by} for counter, by in amounts.items()]


class Ledger(Scene):
    """A ledger in which many counters change in one request."""

    def add_all(
        self, increments: list[Entry], key: str | None = None, caller: str = "somebody"
    ) -> Invocation:
        """Return what IncrementCounters made of the increments."""
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"increments": increments}
        return self.send("POST", "/increments", body, headers, caller)

    def values(self, *counters: str) -> list[int]:
        """Return the counters' values as they are stored; 0 where one is not there."""
        return [self.value(counter) for counter in counters]


def left(reply: Invocation) -> list[tuple[str, int, int]]:
    """Return the name, value and version of each counter of an answer."""
    assert reply.status == 200, reply.answer
    return [
        (counter["counter_id"], counter["value"], counter["version"])
        for counter in json.loads(reply.text)
    ]


def transactions(reply: Invocation) -> int:
    return reply.operations().count("TransactWriteItems")


def as_known(reply: Invocation) -> list[tuple[str, int | None, int | None]]:
    """Return the name, value and version of each counter of an answer, where they are known."""
    assert reply.status == 200, reply.answer
    counters = json.loads(reply.text)
    assert all(counter["updated_at"] for counter in counters)
    return [(each["counter_id"], each["value"], each["version"]) for each in counters]
