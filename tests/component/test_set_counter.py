import pytest
from tests.stack import Stack

from counters.model import MAX_INTEGER, MIN_INTEGER


@pytest.mark.parametrize("value", [0, 1, -1, MAX_INTEGER, MIN_INTEGER])
def test_a_set_gives_the_counter_its_value(stack: Stack, value: int) -> None:
    reply = stack.request("PUT", "/counters/orders", body={"value": value})

    assert reply.status == 200
    assert reply.body["value"] == value
    assert stack.request("GET", "/counters/orders").body["value"] == value


def test_a_set_does_not_depend_on_the_previous_value(stack: Stack) -> None:
    stack.request("POST", "/counter", body={"by": 5})

    reply = stack.request("PUT", "/counter", body={"value": -2})

    assert (reply.body["value"], reply.body["version"]) == (-2, 2)


def test_a_set_to_the_same_value_is_a_change(stack: Stack) -> None:
    stack.request("PUT", "/counter", body={"value": 4})

    assert stack.request("PUT", "/counter", body={"value": 4}).body["version"] == 2
