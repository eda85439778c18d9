"""Requests that change many counters at once, in simulated time."""

import json
from typing import Any

from tests.component.scene import Invocation, Scene

Entry = dict[str, Any]


def entries(**amounts: int) -> list[Entry]:
    """Return the list `increments` for a request body. `entries(a=1)` adds 1 to the counter "a"."""
    return [{"counter_id": counter, "by": by} for counter, by in amounts.items()]


class Ledger(Scene):
    """A scene (the stack in simulated time) for requests that change many counters at once."""

    def add_all(
        self, increments: list[Entry], key: str | None = None, caller: str = "somebody"
    ) -> Invocation:
        """Send the increments to the function IncrementCounters, in one request."""
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"increments": increments}
        return self.send("POST", "/increments", body, headers, caller)

    def values(self, *counters: str) -> list[int]:
        """Return the stored values of counters. The value of a counter that does not exist is 0."""
        return [self.value(counter) for counter in counters]


def transactions(reply: Invocation) -> int:
    return reply.operations().count("TransactWriteItems")


def counters_in(reply: Invocation) -> list[tuple[str, int | None, int | None]]:
    """Return the id, value and version of each counter in a response.

    If the function did not know the value and the version of a counter, both are None.
    """
    assert reply.status == 200, reply.answer
    counters = json.loads(reply.text)
    assert all(counter["updated_at"] for counter in counters)
    return [(each["counter_id"], each["value"], each["version"]) for each in counters]
