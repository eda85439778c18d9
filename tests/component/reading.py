"""Helpers for tests of reads.

Times are integers, in milliseconds since the epoch, so that they are exact.
"""

from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from tests.contents import prepare_once
from tests.past import Past
from tests.proxy import Reply
from tests.stack import Stack

from counters import clock

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

BEGINNING = 1_736_928_000_000  # 2025-01-15T08:00:00Z

# Versions 1 to 5 of the counter "orders": their times and values.
TIMES = [BEGINNING + minutes * MINUTE for minutes in range(5)]
VALUES = [1, 6, -4, 10, 11]

RETENTION_DAYS = 30  # for tests in which history entries expire

# The delay from the beginning of a request to the change that the request makes, in milliseconds.
# Every change takes effect within the apply window, the 20 s after the beginning of its request. So
# all delays are shorter.
DELAYS = st.one_of(st.just(0), st.integers(0, 10 * SECOND), st.integers(0, 20 * SECOND - 1))

# Results of the function `problem`.
THROTTLED = (503, "throttled", "1")
NOT_FOUND = (404, "not-found", None)


def timestamp(time: int) -> str:
    """Return a time as text, as request parameters and responses contain it."""
    return clock.timestamp(time / 1000)


def stop_clock(monkeypatch: pytest.MonkeyPatch, time: int) -> None:
    """Stop the functions' clock at a time."""
    monkeypatch.setattr(clock, "now", lambda: time / 1000)


def problem(reply: Reply) -> tuple[int, str, str | None]:
    """Return a problem's status, the last part of its type, and its Retry-After header."""
    return reply.status, reply.body["type"].rpartition(":")[2], reply.headers.get("Retry-After")


def make_orders(times: Sequence[int], values: Sequence[int] | None = None) -> Past:
    """Return "orders" with a change at each time. The default values are 1, 2, 3, …"""
    orders = Past("orders")
    previous = 0
    for time, value in zip(times, values or range(1, len(times) + 1), strict=True):
        orders.change(time / 1000, value - previous)
        previous = value
    return orders


def record_orders(stack: Stack) -> Past:
    """Record "orders", and two counters whose ids sort just before and after it."""
    orders = make_orders(TIMES, VALUES)

    def record() -> None:
        for name in ("order", "orders2"):
            neighbour = Past(name)
            for time in TIMES:
                neighbour.change(time / 1000 + 30, 100)
            neighbour.record(stack)
        orders.record(stack)

    prepare_once(stack, "orders between neighbours", record)
    return orders


def get_orders(stack: Stack, query: str) -> Reply:
    return stack.request("GET", "/counters/orders", query=query)


def get_orders_at(stack: Stack, time: int) -> Reply:
    return get_orders(stack, f"at={timestamp(time)}")


def listed_versions(stack: Stack, query: str) -> list[int]:
    """Return the versions on a page of the history of "orders". There must be no further page."""
    reply = stack.request("GET", "/counters/orders/history", query=query)
    assert reply.status == 200, reply.body
    assert "Link" not in reply.headers
    return [entry["version"] for entry in reply.body]


def expected_orders(version: int) -> dict[str, object]:
    """Return the expected state of "orders" at one of its versions."""
    return {
        "counter_id": "orders",
        "value": VALUES[version - 1] if version else 0,
        "version": version,
        "created_at": timestamp(TIMES[0]) if version else None,
        "updated_at": timestamp(TIMES[version - 1]) if version else None,
    }


def version_at(times: Sequence[int], time: int) -> int:
    """Return the highest version among the changes at or before a time; 0 if there were none."""
    return max((version for version, each in enumerate(times, 1) if each <= time), default=0)


def times_going_back(back: int) -> list[int]:
    """Return 90 times at intervals of a second. Every 30th time is `back` milliseconds earlier."""
    return [
        BEGINNING + position * SECOND - (back if position % 30 == 29 else 0)
        for position in range(90)
    ]
