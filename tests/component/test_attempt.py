"""Lost replies from DynamoDB: a request makes its change once, and its answer is true."""

import random
from functools import partial

import pytest
from tests.component.scene import LATEST, Scene, one_of, slow
from tests.past import Past
from tests.sizes import cases
from tests.times import HOUR
from tests.wire import (
    LOST,
    NOT_APPLIED,
    Fault,
    conflict,
    connection_lost,
    delivered,
    internal_error,
    meanwhile,
    refused_internally,
    reply_lost,
    request_lost,
    throttled,
    unreachable,
)


@pytest.mark.parametrize("fault", NOT_APPLIED)
def test_a_change_that_was_not_applied_is_retried_and_made_once(scene: Scene, fault: Fault) -> None:
    scene.plan("UpdateItem", fault, fault, fault)

    reply = scene.add("hits", 5)

    assert reply.status == 200
    assert (reply.body["value"], reply.body["version"]) == (5, 1)
    assert reply.operations() == ["UpdateItem"] * 4
    assert scene.value("hits") == 5


@pytest.mark.parametrize("fault", LOST)
def test_after_a_lost_reply_the_caller_gets_the_usual_answer(scene: Scene, fault: Fault) -> None:
    scene.add("hits", 2)
    scene.plan("UpdateItem", fault)

    reply = scene.add("hits", 5)

    assert reply.status == 200
    assert (reply.body["value"], reply.body["version"]) == (7, 2)
    assert reply.headers["ETag"] == '"2"'
    assert reply.operations() == ["UpdateItem", "BatchGetItem"]
    assert scene.value("hits") == 7


@pytest.mark.parametrize("fault", LOST)
def test_after_a_lost_reply_a_conditional_set_does_not_refuse_its_own_change(
    scene: Scene, fault: Fault
) -> None:
    scene.add("hits", 2)
    scene.plan("UpdateItem", fault)

    reply = scene.call("PUT", "hits", {"value": 5}, {"If-Match": '"1"'})

    assert reply.status == 200
    assert (reply.body["value"], reply.body["version"]) == (5, 2)
    assert reply.operations() == ["UpdateItem", "BatchGetItem"]


@pytest.mark.parametrize("fault", LOST)
def test_after_a_lost_reply_the_change_is_found_in_the_history_below_later_changes(
    scene: Scene, fault: Fault
) -> None:
    scene.add("hits", 2)

    def change_and_record() -> None:
        for _ in range(3):
            scene.add("hits", 100)
        scene.record()

    scene.plan("UpdateItem", fault)
    scene.plan("BatchGetItem", meanwhile(change_and_record))

    reply = scene.add("hits", 5)

    assert reply.status == 200
    assert (reply.body["value"], reply.body["version"]) == (7, 2)
    assert reply.operations().count("UpdateItem") == 1
    assert scene.value("hits") == 307


def test_after_a_lost_reply_the_answer_waits_for_the_history_to_catch_up(scene: Scene) -> None:
    scene.plan("UpdateItem", connection_lost)
    scene.plan(
        "BatchGetItem",
        meanwhile(lambda: scene.add("hits", 100)),
        delivered,
        meanwhile(scene.record),
    )

    reply = scene.add("hits", 5)

    assert (reply.status, reply.body.get("value"), reply.body.get("version")) == (200, 5, 1)
    assert reply.operations().count("BatchGetItem") == 3
    assert scene.value("hits") == 105


@pytest.mark.parametrize(
    ("versions", "fault"),
    [
        *((0, fault) for fault in (request_lost, refused_internally, internal_error)),
        (1, request_lost),
        (40, request_lost),
    ],
)
def test_a_change_that_may_still_be_applied_is_not_sent_again(
    scene: Scene, versions: int, fault: Fault
) -> None:
    if versions:
        past = Past("hits")
        for number in range(versions):
            past.change(scene.time + number, 1)
        scene.begin(past)
    scene.advance(HOUR)
    scene.plan("UpdateItem", fault)
    # The counter stores only the id of its last change. Another change replaces this id, and the
    # history does not have the two changes yet.
    scene.plan("BatchGetItem", meanwhile(lambda: scene.add("hits", 100)))

    reply = scene.add("hits", 5)

    assert (reply.status, reply.problem) == (503, "outcome-unknown")
    assert "Idempotency-Key" in reply.body["detail"]
    assert reply.operations().count("UpdateItem") == 1
    assert reply.operations().count("BatchGetItem") > 1
    assert scene.value("hits") == versions + 100 + (5 if fault is internal_error else 0)


@pytest.mark.parametrize("fault", [throttled, conflict, unreachable])
def test_a_change_is_not_sent_again_after_a_500(scene: Scene, fault: Fault) -> None:
    scene.plan("UpdateItem", fault, refused_internally)

    reply = scene.add("hits", 5)

    assert (reply.status, reply.problem) == (503, "outcome-unknown")
    assert reply.operations().count("UpdateItem") == 2
    assert scene.value("hits") == 0


def test_a_change_that_is_applied_late_is_found(scene: Scene) -> None:
    scene.plan("UpdateItem", partial(scene.lost_and_applied_later, seconds=1.0))

    reply = scene.add("hits", 5)

    assert (reply.status, reply.body["value"]) == (200, 5)
    assert reply.operations().count("UpdateItem") == 1


def test_the_outcome_is_unknown_if_the_change_is_applied_after_the_answer(scene: Scene) -> None:
    scene.plan("UpdateItem", partial(scene.lost_and_applied_later, seconds=9.0))

    reply = scene.add("hits", 5)

    assert (reply.status, reply.problem) == (503, "outcome-unknown")
    assert scene.value("hits") == 0
    scene.advance(9.0)
    assert scene.value("hits") == 5


@pytest.mark.parametrize("fault", NOT_APPLIED)
def test_a_change_that_dynamodb_never_accepts_gets_throttled(scene: Scene, fault: Fault) -> None:
    scene.choose_fault = lambda _operation: fault

    reply = scene.add("hits")

    assert (reply.status, reply.problem) == (503, "throttled")
    assert reply.headers["Retry-After"] == "1"
    assert reply.operations().count("UpdateItem") > 3
    assert scene.value("hits") == 0


@pytest.mark.parametrize("fault", [*LOST, request_lost, refused_internally])
def test_the_sdk_does_not_retry_a_change(scene: Scene, fault: Fault) -> None:
    scene.plan("UpdateItem", fault)

    reply = scene.add("hits")

    assert reply.operations()[:2] == ["UpdateItem", "BatchGetItem"]


def test_every_request_starts_early_enough_to_end_before_the_timeout(scene: Scene) -> None:
    faults = [slow, reply_lost, request_lost, throttled, unreachable, refused_internally]
    for seed in range(cases(100, part=6)):
        source = random.Random(seed)
        random.seed(seed)  # the functions' pauses have random lengths
        counter = f"hits{seed}"
        scene.choose_fault = lambda _operation: delivered
        for _ in range(3):
            scene.add(counter)
        scene.record()
        scene.choose_fault = one_of(faults, source)
        for number in range(10):
            reply = scene.add(counter, 1, f"key{number // 3}" if seed % 2 else None)
            assert reply.answer, f"seed {seed}: killed at its timeout: {reply.requests}"
            assert max(reply.times) < reply.began + LATEST, f"seed {seed}: {reply.requests}"
            scene.advance(source.choice([0, 5, 25]))
