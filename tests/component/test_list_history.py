from itertools import repeat
from typing import Any

import pytest
from tests.component.links import follow
from tests.contents import prepare_once
from tests.past import Past
from tests.stack import CLIENT_ID, Stack
from tests.wire import Wire, reply_lost

VALUES = [1, 6, -4, 10, 11, 12, 13]


@pytest.fixture
def stack_with_history(stack: Stack) -> Stack:
    """A stack with the histories of `orders` and of two counters with similar names.

    The values of `orders` after its changes are VALUES.
    """

    def record() -> None:
        stack.request("POST", "/counters/order")
        for by in (1, 5, -10):
            stack.request("POST", "/counters/orders", body={"by": by})
        stack.request("PUT", "/counters/orders", body={"value": 10})
        for _ in range(3):
            stack.request("POST", "/counters/orders")
        stack.request("POST", "/counters/orders2")
        changes = stack.changes()
        assert stack.record(changes) == len(changes)

    prepare_once(stack, "VALUES of orders", record)
    return stack


def values(entries: list[dict[str, Any]]) -> list[int]:
    return [entry["value"] for entry in entries]


def test_a_counter_that_was_never_written_has_no_history(stack: Stack) -> None:
    reply = stack.request("GET", "/counter/history")

    assert (reply.status, reply.body) == (200, [])
    assert "Link" not in reply.headers


def test_an_entry_says_what_changed_by_whom_and_when(stack: Stack) -> None:
    incremented = stack.request("POST", "/counter", body={"by": 5}).body
    claims = {"client_id": "app"}
    was_set = stack.request("PUT", "/counter", body={"value": -2}, claims=claims).body
    stack.record(stack.changes())

    assert stack.request("GET", "/counter/history").body == [
        {
            "version": 1,
            "value": 5,
            "previous_value": 0,
            "by": 5,
            "increase": 5,
            "decrease": 0,
            "operation": "increment",
            "actor": CLIENT_ID,
            "created_at": incremented["updated_at"],
        },
        {
            "version": 2,
            "value": -2,
            "previous_value": 5,
            "by": -7,
            "increase": 0,
            "decrease": 7,
            "operation": "set",
            "actor": "app",
            "created_at": was_set["updated_at"],
        },
    ]


def test_the_oldest_change_comes_first_by_default(stack_with_history: Stack) -> None:
    reply = stack_with_history.request("GET", "/counters/orders/history")

    assert values(reply.body) == VALUES
    assert [entry["version"] for entry in reply.body] == list(range(1, 8))
    assert stack_with_history.request("GET", "/counters/orders/history", query="order=asc") == reply


def test_in_descending_order_the_newest_change_comes_first(stack_with_history: Stack) -> None:
    reply = stack_with_history.request("GET", "/counters/orders/history", query="order=desc")

    assert values(reply.body) == VALUES[::-1]


def test_a_page_begins_after_the_version_in_after(stack_with_history: Stack) -> None:
    expected = {
        "after=0": VALUES,
        "after=3": VALUES[3:],
        "after=7": [],
        "after=9007199254740991": [],
        "order=desc&after=3": [6, 1],
        "order=desc&after=1": [],
        "order=desc&after=0": [],
        "order=desc&after=100": VALUES[::-1],
    }

    pages = {
        query: values(
            stack_with_history.request("GET", "/counters/orders/history", query=query).body
        )
        for query in expected
    }

    assert pages == expected


@pytest.mark.parametrize(("order", "expected"), [("asc", VALUES), ("desc", VALUES[::-1])])
def test_the_pages_have_each_change_once(
    stack_with_history: Stack, order: str, expected: list[int]
) -> None:
    for limit in (1, 2, 3, 6, 7, 1000):
        query = f"order={order}&limit={limit}"

        pages = list(follow(stack_with_history, "/counters/orders/history", query))

        assert [value for page in pages for value in values(page)] == expected
        assert all(len(page) == limit for page in pages[:-1])
        assert pages[-1], "a link led to an empty page"


def test_a_page_has_100_changes_by_default(stack: Stack) -> None:
    past = Past("default")
    for number in range(101):
        past.change(1_736_928_000 + number, 1)
    past.record(stack)

    pages = list(follow(stack, "/counter/history", ""))

    assert [len(page) for page in pages] == [100, 1]


def test_a_page_takes_one_request(stack_with_history: Stack, wire: Wire) -> None:
    stack_with_history.request("GET", "/counters/orders/history", query="limit=2&after=1")

    assert wire.operations() == ["Query"]


def test_a_read_without_a_reply_is_throttled(stack: Stack, wire: Wire) -> None:
    wire.fail("Query", repeat(reply_lost))

    reply = stack.request("GET", "/counter/history")

    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
