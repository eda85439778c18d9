"""The bounds of an increment: `min` and `max` are allowed results, and the write checks both."""

import pytest
from tests.component.scene import Invocation, Scene

from counters.model import MAX_INTEGER


def set_value(scene: Scene, value: int) -> Invocation:
    return scene.call("PUT", "hits", {"value": value})


def value_and_version(scene: Scene) -> tuple[int, int]:
    counter = scene.call("GET", "hits").body
    return counter["value"], counter["version"]


@pytest.mark.parametrize(
    ("by", "bounds"),
    [
        (5, {"max": 15}),
        (-5, {"min": 5}),
        (5, {"min": 15, "max": 15}),
        (-20, {"min": -10, "max": 0}),
        (1, {"min": -MAX_INTEGER, "max": MAX_INTEGER}),
    ],
)
def test_a_result_may_equal_its_bound(scene: Scene, by: int, bounds: dict[str, int]) -> None:
    set_value(scene, 10)

    reply = scene.add("hits", by, bounds=bounds)

    assert reply.operations() == ["UpdateItem"]
    assert (reply.status, reply.body["value"]) == (200, 10 + by)


@pytest.mark.parametrize(
    ("by", "bounds"),
    [
        (5, {"max": 14}),
        (-5, {"min": 6}),
        (5, {"min": 16}),
        (-5, {"max": 4}),
        (1, {"min": 0, "max": 10}),
        (-11, {"min": 0, "max": 10}),
    ],
)
def test_a_result_outside_its_bounds_is_refused_with_the_current_value(
    scene: Scene, by: int, bounds: dict[str, int]
) -> None:
    set_value(scene, 10)

    reply = scene.add("hits", by, bounds=bounds)

    assert reply.operations() == ["UpdateItem"]  # no read: the refusal has the counter
    assert (reply.status, reply.problem, reply.body["value"]) == (409, "bound-exceeded", 10)
    assert value_and_version(scene) == (10, 1)


@pytest.mark.parametrize(
    ("by", "bounds", "status"),
    [
        (5, {"max": 5}, 200),
        (5, {"max": 4}, 409),
        (-5, {"min": -5}, 200),
        (-5, {"min": -4}, 409),
        (5, {"min": 6}, 409),
        (-5, {"max": -6}, 409),
        (5, {"min": 5, "max": 5}, 200),
        (5, {"min": -1, "max": 1}, 409),
    ],
)
def test_bounds_apply_to_a_counter_that_was_never_written_as_if_it_were_0(
    scene: Scene, by: int, bounds: dict[str, int], status: int
) -> None:
    reply = scene.add("hits", by, bounds=bounds)

    assert reply.operations() == ["UpdateItem"]
    assert reply.status == status
    assert reply.body["value"] == (by if status == 200 else 0)
    assert len(scene.stack.items("CounterTable")) == (status == 200)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_stays_within_the_range_of_integers(scene: Scene, sign: int) -> None:
    assert set_value(scene, sign * MAX_INTEGER).body["value"] == sign * MAX_INTEGER

    for by in (sign, sign * MAX_INTEGER):
        reply = scene.add("hits", by)
        assert (reply.status, reply.problem) == (409, "bound-exceeded")
        assert reply.body["value"] == sign * MAX_INTEGER
    assert scene.add("hits", -sign * MAX_INTEGER).body["value"] == 0
    assert scene.add("hits", -sign * MAX_INTEGER).body["value"] == -sign * MAX_INTEGER
    assert value_and_version(scene) == (-sign * MAX_INTEGER, 3)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"min": 2, "max": 1}, "min"),
        ({"min": None}, "min"),
        ({"max": None}, "max"),
        ({"min": True}, "min"),
        ({"max": 1.0}, "max"),
        ({"max": "1"}, "max"),
        ({"min": -MAX_INTEGER - 1}, "min"),
        ({"max": MAX_INTEGER + 1}, "max"),
        ({"by": 0, "min": 0}, "by"),
        ({"by": None, "min": 0}, "by"),
        ({"minimum": 0}, "minimum"),
    ],
)
def test_the_error_names_malformed_bounds(scene: Scene, body: dict[str, object], name: str) -> None:
    reply = scene.call("POST", "hits", body)

    assert reply.operations() == []
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith(f"{name}: ")


def test_a_set_does_not_accept_bounds(scene: Scene) -> None:
    reply = scene.call("PUT", "hits", {"value": 1, "max": 2})

    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith("max: ")
