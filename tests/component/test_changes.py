"""Rules that apply to all changes, increments as well as sets."""

import itertools
import time
from itertools import pairwise

import pytest
from tests.proxy import Reply
from tests.stack import Stack
from tests.wire import Fault, Wire, throttled, unreachable

CHANGES = [
    pytest.param("POST", {"by": 1}, id="increment"),
    pytest.param("PUT", {"value": 1}, id="set"),
]
every_change = pytest.mark.parametrize(("method", "body"), CHANGES)


@every_change
def test_every_change_adds_1_to_the_version(
    stack: Stack, method: str, body: dict[str, int]
) -> None:
    versions = [stack.request(method, "/counter", body=body).body["version"] for _ in range(3)]

    assert versions == [1, 2, 3]


@every_change
def test_a_change_keeps_created_at_and_advances_updated_at(
    stack: Stack, method: str, body: dict[str, int]
) -> None:
    counters = []
    for _ in range(3):
        counters.append(stack.request(method, "/counter", body=body).body)
        time.sleep(0.002)

    assert counters[0]["created_at"] == counters[0]["updated_at"]
    for before, after in pairwise(counters):
        assert after["created_at"] == before["created_at"]
        assert after["updated_at"] > before["updated_at"]


@every_change
def test_a_change_is_one_write_without_a_read(
    stack: Stack, wire: Wire, method: str, body: dict[str, int]
) -> None:
    for _ in range(2):
        assert stack.request(method, "/counter", body=body).status == 200

    assert wire.operations() == ["UpdateItem", "UpdateItem"]


def test_a_refused_change_is_one_request(stack: Stack, wire: Wire) -> None:
    stack.request("PUT", "/counter", body={"value": 1})

    assert stack.request("POST", "/counter", body={"by": 2**53 - 1}).status == 409
    assert wire.operations() == ["UpdateItem", "UpdateItem"]


@every_change
@pytest.mark.parametrize("fault", [throttled, unreachable])
def test_a_change_that_dynamodb_never_accepts_gets_throttled(
    stack: Stack, wire: Wire, method: str, body: dict[str, int], fault: Fault
) -> None:
    wire.fail("UpdateItem", itertools.repeat(fault))

    reply = stack.request(method, "/counter", body=body)

    assert reply.headers["Retry-After"] == "1"
    assert_unavailable(reply, "throttled")
    assert not any(stack.contents().values())


@every_change
def test_a_change_stores_its_actor_its_time_and_a_new_request_id(
    stack: Stack, method: str, body: dict[str, int]
) -> None:
    first = stack.request(method, "/counter", body=body, claims={"sub": "ann", "client_id": "app"})
    one = stack.items("CounterTable")[0]["change"]["M"]
    stack.request(method, "/counter", body=body, claims={"client_id": "app"})
    other = stack.items("CounterTable")[0]["change"]["M"]

    assert one["actor"] == {"S": "ann"}
    assert one["at"] == {"S": first.body["updated_at"]}
    assert other["actor"] == {"S": "app"}
    assert one["request_id"] != other["request_id"]


def assert_unavailable(reply: Reply, problem: str) -> None:
    assert reply.status == 503
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.body["status"] == 503
    assert reply.body["type"].endswith(problem)
