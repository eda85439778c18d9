"""Repeats with an Idempotency-Key: a change is made once, and all repeats get the same answer.

A receipt is the item in which Tally remembers a request with a key. A repeat takes over if it makes
the change itself. It takes over only if the earlier request did not make the change and never will.
"""

from functools import partial

import pytest
from tests.component.scene import Invocation, Scene, throttled_slowly
from tests.sizes import FULL, cases
from tests.times import HOUR
from tests.wire import (
    LOST,
    NOT_APPLIED,
    Fault,
    delivered,
    dies,
    dies_after,
    meanwhile,
    refused_internally,
    request_lost,
    throttled,
)

from counters import clock


def test_a_repeat_gets_the_original_answer_byte_for_byte(scene: Scene) -> None:
    scene.add("hits", 2)
    first = scene.add("hits", 5, "key")
    assert first.operations() == ["PutItem", "UpdateItem"]
    assert (first.status, first.replayed) == (200, False)

    scene.advance(3.0)
    at_once = scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.advance(23 * HOUR)
    much_later = scene.add("hits", 5, "key")

    for repeat in (at_once, much_later):
        assert (repeat.status, repeat.replayed) == (200, True)
        assert (repeat.text, repeat.headers["ETag"]) == (first.text, first.headers["ETag"])
    assert much_later.operations() == ["PutItem"]  # the receipt has the outcome
    assert scene.value("hits") == 107


def test_a_repeat_gets_the_original_answer_from_the_history(scene: Scene) -> None:
    scene.add("hits", 2)
    first = scene.add("hits", 5, "key")
    scene.call("PUT", "hits", {"value": 1000})
    scene.record()
    scene.advance(20 * HOUR)

    repeat = scene.add("hits", 5, "key")

    assert (repeat.status, repeat.replayed) == (200, True)
    assert (repeat.text, repeat.headers["ETag"]) == (first.text, first.headers["ETag"])
    assert "Query" in repeat.operations()
    assert scene.value("hits") == 1000


@pytest.mark.parametrize("fault", [*LOST, dies_after])
def test_a_repeat_after_a_lost_reply_changes_nothing(scene: Scene, fault: Fault) -> None:
    scene.plan("UpdateItem", fault)
    scene.add("hits", 5, "key")

    repeat = scene.add("hits", 5, "key")

    assert (repeat.status, repeat.body["value"], repeat.replayed) == (200, 5, True)
    assert scene.value("hits") == 5


@pytest.mark.parametrize("fault", [*LOST, *NOT_APPLIED, request_lost, refused_internally])
@pytest.mark.parametrize("operation", ["PutItem", "BatchGetItem", "Query", "UpdateItem"])
def test_a_repeat_gets_the_original_answer_although_one_of_its_requests_fails(
    scene: Scene, operation: str, fault: Fault
) -> None:
    first = scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.record()
    scene.plan(operation, fault)

    repeats = [scene.add("hits", 5, "key") for _ in range(3)]

    assert repeats[0].requests.count((operation, fault)) == 1
    assert [repeat.text for repeat in repeats] == [first.text] * 3
    assert scene.value("hits") == 105


@pytest.mark.parametrize("fault", [*LOST, *NOT_APPLIED, request_lost, refused_internally])
def test_a_change_is_made_once_although_the_first_write_of_its_receipt_fails(
    scene: Scene, fault: Fault
) -> None:
    scene.plan("PutItem", fault)

    first = scene.add("hits", 5, "key")

    assert (first.status, first.body["value"], first.replayed) == (200, 5, False)
    assert first.operations() == ["PutItem", "PutItem", "UpdateItem"]
    assert scene.receipts() == 1


def test_a_refused_change_frees_its_key(scene: Scene) -> None:
    scene.add("hits", 9)

    refused = scene.add("hits", 2, "key", {"max": 10})

    assert (refused.status, refused.problem, refused.body["value"]) == (409, "bound-exceeded", 9)
    assert scene.receipts() == 0
    scene.call("PUT", "hits", {"value": 8})
    later = scene.add("hits", 2, "key", {"max": 10})
    assert (later.status, later.body["value"], later.replayed) == (200, 10, False)
    assert scene.add("hits", 2, "key", {"max": 10}).text == later.text


@pytest.mark.parametrize("fault", [throttled, throttled_slowly])
def test_a_throttled_change_frees_its_key(scene: Scene, fault: Fault) -> None:
    # The pauses are random, so each request gives up at a different time.
    for number in range(cases(full=20, part=5)):
        scene.plan("UpdateItem", *[fault] * 100)

        reply = scene.add("hits", 5, f"key-{number}")

        assert (reply.status, reply.problem) == (503, "throttled")
        assert scene.receipts() == 0
    scene.plan("UpdateItem")
    assert scene.add("hits", 5, "key-0").body["value"] == 5


@pytest.mark.parametrize("fault", [*NOT_APPLIED, request_lost, refused_internally])
def test_a_key_that_a_refused_change_failed_to_free_is_free_after_the_apply_window(
    scene: Scene, fault: Fault
) -> None:
    scene.add("hits", 9)
    scene.advance(HOUR)
    began = scene.time
    scene.plan("DeleteItem", fault)
    refused = scene.add("hits", 2, "key", {"max": 10})
    assert refused.problem == "bound-exceeded"
    assert scene.receipts() == 1
    scene.call("PUT", "hits", {"value": 8})
    scene.record()

    pending = scene.add("hits", 2, "key", {"max": 10})
    assert (pending.status, pending.problem) == (409, "in-progress")
    wait = int(pending.headers["Retry-After"])
    assert began + clock.APPLY_WINDOW <= scene.time + wait < began + clock.APPLY_WINDOW + 2

    scene.advance(wait)
    later = scene.add("hits", 2, "key", {"max": 10})
    assert (later.status, later.body["value"], later.replayed) == (200, 10, False)


def test_after_the_apply_window_a_repeat_makes_the_change_of_a_killed_function(
    scene: Scene,
) -> None:
    scene.plan("UpdateItem", dies)
    assert scene.add("hits", 5, "key").answer is None

    pending = scene.add("hits", 5, "key")
    assert (pending.status, pending.problem) == (409, "in-progress")

    scene.advance(int(pending.headers["Retry-After"]))
    later = scene.add("hits", 5, "key")
    assert (later.status, later.body["value"], later.replayed) == (200, 5, False)
    assert scene.add("hits", 5, "key").text == later.text
    assert scene.value("hits") == 5


def test_a_repeat_finds_a_change_that_was_applied_late_within_the_apply_window(
    scene: Scene,
) -> None:
    scene.plan("UpdateItem", partial(scene.lost_and_applied_later, seconds=15.0))
    assert scene.add("hits", 5, "key").problem == "outcome-unknown"

    pending = scene.add("hits", 5, "key")
    assert (pending.status, pending.problem) == (409, "in-progress")
    assert scene.value("hits") == 0
    scene.advance(int(pending.headers["Retry-After"]))

    repeat = scene.add("hits", 5, "key")
    assert (repeat.status, repeat.body["value"], repeat.replayed) == (200, 5, True)
    assert scene.value("hits") == 5


@pytest.mark.usefixtures("look_once")
@pytest.mark.parametrize("applied", [True, False])
def test_a_repeat_gets_in_progress_while_the_history_lacks_the_last_changes(
    scene: Scene,
    applied: bool,  # noqa: FBT001
) -> None:
    scene.add("hits", 1)
    scene.record()
    scene.plan("UpdateItem", dies_after if applied else dies)
    scene.add("hits", 5, "key")
    scene.add("hits", 100)

    for hours in (0, 20):
        scene.advance(hours * HOUR)
        pending = scene.add("hits", 5, "key")
        assert (pending.status, pending.problem) == (409, "in-progress")
        assert 1 <= int(pending.headers["Retry-After"]) <= clock.APPLY_WINDOW
    scene.record()

    repeat = scene.add("hits", 5, "key")
    assert (repeat.status, repeat.body["version"]) == (200, 2 if applied else 3)
    assert repeat.replayed == applied
    assert scene.value("hits") == 106


@pytest.mark.usefixtures("look_once")
@pytest.mark.parametrize("applied", [True, False])
def test_a_repeat_gets_in_progress_for_as_long_as_the_history_lacks_an_entry(
    scene: Scene,
    applied: bool,  # noqa: FBT001
) -> None:
    scene.add("hits", 1)
    scene.plan("UpdateItem", dies_after if applied else dies)
    scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.add("hits", 100)
    before = scene.value("hits")
    scene.record(without=2)

    for hours in (0, 22):
        scene.advance(hours * HOUR)
        scene.add("hits", 100)
        before += 100
        scene.record()
        pending = scene.add("hits", 5, "key")
        assert (pending.status, pending.problem) == (409, "in-progress")
    assert scene.value("hits") == before


def test_a_repeat_does_not_need_history_entries_from_before_the_attempt(scene: Scene) -> None:
    for _ in range(5):
        scene.add("hits", 1)
    scene.record(without=3)
    scene.advance(HOUR)
    scene.plan("UpdateItem", dies)
    scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.record()
    scene.advance(clock.APPLY_WINDOW + 1)

    reply = scene.add("hits", 5, "key")

    assert (reply.status, reply.body["value"], reply.replayed) == (200, 110, False)


def test_if_two_repeats_take_over_at_once_one_of_them_makes_the_change(scene: Scene) -> None:
    scene.add("hits", 100)
    scene.record()
    scene.plan("UpdateItem", dies)
    scene.add("hits", 5, "key")
    scene.advance(clock.APPLY_WINDOW + 1)
    others: list[Invocation] = []

    def take_over() -> None:
        scene.plan("PutItem")
        others.append(scene.add("hits", 5, "key"))

    scene.plan("PutItem", delivered, meanwhile(take_over))

    reply = scene.add("hits", 5, "key")

    (other,) = others
    assert (other.status, other.body["value"], other.replayed) == (200, 105, False)
    assert (reply.status, reply.text, reply.replayed) == (200, other.text, True)
    assert scene.value("hits") == 105


def test_a_repeat_that_takes_over_starts_again_if_the_receipt_is_gone(scene: Scene) -> None:
    scene.add("hits", 9)
    scene.record()
    scene.plan("UpdateItem", dies)
    scene.add("hits", 2, "key", {"max": 10})
    scene.advance(clock.APPLY_WINDOW + 1)
    others: list[Invocation] = []

    def take_over() -> None:
        scene.plan("PutItem")
        others.append(scene.add("hits", 2, "key", {"max": 10}))

    scene.plan("PutItem", delivered, meanwhile(take_over))

    reply = scene.add("hits", 2, "key", {"max": 10})

    for refused in (*others, reply):
        assert (refused.status, refused.problem) == (409, "bound-exceeded")
    assert len(others) == 1
    assert scene.receipts() == 0
    assert scene.value("hits") == 9


@pytest.mark.parametrize("fault", [*NOT_APPLIED, request_lost, refused_internally])
def test_a_repeat_that_cannot_reach_the_receipt_gets_outcome_unknown(
    scene: Scene, fault: Fault
) -> None:
    first = scene.add("hits", 5, "key")
    scene.plan("PutItem", *[fault] * 200)

    repeat = scene.add("hits", 5, "key")

    assert (repeat.status, repeat.problem) == (503, "outcome-unknown")
    assert "earlier one" in repeat.body["detail"]
    scene.plan("PutItem")
    assert scene.add("hits", 5, "key").text == first.text
    assert scene.value("hits") == 5


def test_a_change_is_not_made_again_after_its_counter_was_deleted(scene: Scene) -> None:
    scene.add("hits", 100)
    scene.plan("UpdateItem", dies_after)
    scene.add("hits", 5, "key")
    scene.plan("UpdateItem", dies_after)
    scene.add("hits", 7, "another")
    scene.record()
    scene.delete("hits")
    scene.advance(clock.APPLY_WINDOW + 1)

    another, key = (scene.add("hits", by, key) for by, key in ((7, "another"), (5, "key")))

    assert (another.status, another.replayed, another.body["value"]) == (200, True, 112)
    assert (key.status, key.replayed, key.body["value"]) == (200, True, 105)
    assert scene.value("hits") == 0


@pytest.mark.usefixtures("look_once")
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("recorded", [0, 3])
def test_the_history_of_a_deleted_counter_does_not_decide_the_outcome(
    scene: Scene,
    applied: bool,  # noqa: FBT001
    recorded: int,
) -> None:
    for _ in range(3):
        scene.add("hits")
    scene.record()
    scene.advance(HOUR)
    scene.delete("hits")
    scene.plan("UpdateItem", dies_after if applied else dies)
    scene.add("hits", 100, "key")
    for _ in range(1 + recorded):
        scene.add("hits")
    before = scene.value("hits")
    scene.record()  # parks the versions that the deleted counter's history has
    for _ in range(2):
        scene.advance(clock.APPLY_WINDOW + 1)
        pending = scene.add("hits", 100, "key")
        assert (pending.status, pending.problem) == (409, "in-progress")
    assert scene.value("hits") == before


# A skew is how many seconds the clock of a function is ahead. Two clocks may differ by 5 seconds.
SKEWS = [-2.5, 2.5]


@pytest.mark.usefixtures("look_once")
@pytest.mark.parametrize("first_skew", SKEWS)
@pytest.mark.parametrize("repeat_skew", SKEWS)
@pytest.mark.parametrize("others_skew", SKEWS)
@pytest.mark.parametrize("delay", [0.5, 9.0, 14.9] if FULL else [14.9])
def test_a_change_is_made_once_although_clocks_differ(
    scene: Scene, first_skew: float, repeat_skew: float, others_skew: float, delay: float
) -> None:
    scene.skew = others_skew
    scene.add("hits", 100)
    scene.record()
    scene.advance(15.0)
    scene.skew = first_skew
    began = scene.time
    scene.plan("UpdateItem", partial(scene.lost_and_applied_later, seconds=delay))
    scene.add("hits", 5, "key")
    # The change has not arrived yet, so no repeat can know the outcome before this time.
    scene.advance(0.6 * delay)
    answers: list[Invocation] = []
    # Repeat the request until the change has arrived and two repeats have got 200.
    while scene.delayed_requests() or [answer.status for answer in answers].count(200) < 2:
        assert scene.time < began + 60
        scene.skew = others_skew
        scene.add("hits", 100)
        scene.record()
        scene.skew = repeat_skew
        answers.append(scene.add("hits", 5, "key"))
        scene.advance(0.9)
    scene.record()

    texts = {answer.text for answer in answers if answer.status == 200}
    assert len(texts) == 1
    assert {answer.status for answer in answers} <= {200, 409}
    assert scene.value("hits") % 100 == 5
