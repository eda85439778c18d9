"""Helpers for tests of RecordHistory, which writes the changes in the stream to the history."""

from copy import deepcopy
from typing import Any

from tests.past import START, Past
from tests.stack import Stack, StreamRecord
from tests.times import HOUR


def make_changes(stack: Stack, count: int) -> list[StreamRecord]:
    """Return the stream records of `count` changes of "orders", all in the same hour."""
    orders = Past("orders")
    for number in range(count):
        orders.change(START + number, number + 1)
    orders.store(stack)
    return orders.records


def change_over_http(stack: Stack, count: int) -> list[StreamRecord]:
    """Change the counter "orders" over HTTP, and return the new stream records."""
    for number in range(count):
        stack.request("POST", "/counters/orders", body={"by": number + 1})
    return stack.changes()


def versions(stack: Stack, counter_id: str = "orders") -> list[int]:
    reply = stack.request("GET", f"/counters/{counter_id}/history", query="limit=1000")
    return [entry["version"] for entry in reply.body]


def versions_up_to(count: int) -> list[int]:
    return list(range(1, count + 1))


def without_field(record: StreamRecord, *path: str) -> StreamRecord:
    """Return a copy of the record without the field at `path`."""
    changed = deepcopy(record)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def changes_by_hour(stack: Stack) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the trend: the number of changes and their sum, for each counter and hour."""
    return {
        (item["counter_id"]["S"], item["hour"]["S"][11:13]): (
            int(item["changes"]["N"]),
            int(item["increase"]["N"]) - int(item["decrease"]["N"]),
        )
        for item in stack.items("TrendTable")
    }


def changes_of_two_counters() -> list[StreamRecord]:
    """Return the changes of two counters: three changes of each counter in each of two hours."""
    a, b = Past("a"), Past("b")
    return [
        past.change(time, by)
        for time in (START, START + HOUR)
        for past, by in ((a, 1), (b, 2), (a, 3), (b, -4), (b, 5), (a, -6))
    ]
