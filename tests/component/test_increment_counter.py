import pytest
from tests.stack import Stack

from counters.model import MAX_INTEGER, MIN_INTEGER


def test_an_increment_adds_1_by_default(stack: Stack) -> None:
    assert stack.request("POST", "/counter").body["value"] == 1
    assert stack.request("POST", "/counter", body={}).body["value"] == 2


@pytest.mark.parametrize("by", [1, 5, -1, -5, MAX_INTEGER, MIN_INTEGER])
def test_an_increment_adds_the_amount_in_by(stack: Stack, by: int) -> None:
    reply = stack.request("POST", "/counters/orders", body={"by": by})

    assert reply.status == 200
    assert reply.body["value"] == by


def test_increments_add_up_across_0(stack: Stack) -> None:
    values = [
        stack.request("POST", "/counter", body={"by": by}).body["value"] for by in (3, -10, 4, 3, 1)
    ]

    assert values == [3, -7, -3, 0, 1]


def test_counters_are_independent(stack: Stack) -> None:
    stack.request("POST", "/counters/a", body={"by": 2})
    stack.request("POST", "/counters/b", body={"by": 3})

    assert stack.request("GET", "/counters/a").body["value"] == 2
    assert stack.request("GET", "/counter").body["version"] == 0


@pytest.mark.parametrize(("limit", "by"), [(MAX_INTEGER, 1), (MIN_INTEGER, -1)])
def test_a_value_can_reach_the_limit_but_not_pass_it(stack: Stack, limit: int, by: int) -> None:
    stack.request("PUT", "/counter", body={"value": limit - by})

    reached = stack.request("POST", "/counter", body={"by": by})
    before = stack.contents()
    passed = stack.request("POST", "/counter", body={"by": by})

    assert (reached.status, reached.body["value"]) == (200, limit)
    assert passed.status == 409
    assert passed.headers["Content-Type"] == "application/problem+json"
    assert passed.body["type"].endswith("bound-exceeded")
    assert passed.body["value"] == limit
    assert stack.contents() == before


@pytest.mark.parametrize(("limit", "by"), [(MAX_INTEGER, -1), (MIN_INTEGER, 1)])
def test_a_counter_at_the_limit_can_move_away_from_it(stack: Stack, limit: int, by: int) -> None:
    stack.request("PUT", "/counter", body={"value": limit})

    assert stack.request("POST", "/counter", body={"by": by}).body["value"] == limit + by


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_increment_cannot_pass_the_limit(stack: Stack, sign: int) -> None:
    stack.request("PUT", "/counter", body={"value": sign})

    reply = stack.request("POST", "/counter", body={"by": sign * MAX_INTEGER})

    assert reply.status == 409
    assert reply.body["value"] == sign
    across = stack.request("POST", "/counter", body={"by": -sign * MAX_INTEGER})
    assert across.body["value"] == sign * (1 - MAX_INTEGER)
