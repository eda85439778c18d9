"""`POST /increments` with an Idempotency-Key: one change, and the same answer to all repeats."""

import json
from functools import partial

import pytest
from tests.component.ledger import Entry, Ledger, counters_in, entries
from tests.times import HOUR
from tests.wire import (
    LOST,
    dies,
    dies_after,
    refused_internally,
    reply_lost,
    throttled,
)

from counters import clock
from counters.model import MAX_INTEGER, MIN_INTEGER


def test_a_repeat_gets_the_original_answer_byte_for_byte(ledger: Ledger) -> None:
    ledger.add("b", 2)
    first = ledger.add_all(entries(b=1, a=5), "key")
    assert first.operations() == ["PutItem", "TransactWriteItems", "BatchGetItem"]
    assert (counters_in(first), first.replayed) == ([("b", 3, 2), ("a", 5, 1)], False)

    at_once = ledger.add_all(entries(b=1, a=5), "key")
    ledger.add("a", 100)
    ledger.advance(23 * HOUR)
    much_later = ledger.add_all(entries(b=1, a=5), "key")

    for repeat in (at_once, much_later):
        assert (repeat.status, repeat.replayed, repeat.text) == (200, True, first.text)
    assert much_later.operations() == ["PutItem"]  # the receipt has the outcome
    assert ledger.values("a", "b") == [105, 3]


def test_a_repeat_gets_the_original_answer_from_the_history(ledger: Ledger) -> None:
    first = ledger.add_all(entries(b=1, a=5), "key")
    ledger.call("PUT", "a", {"value": 1000})
    ledger.add_all(entries(a=1, b=1))
    ledger.record()
    ledger.advance(20 * HOUR)

    repeat = ledger.add_all(entries(b=1, a=5), "key")

    assert (repeat.status, repeat.replayed, repeat.text) == (200, True, first.text)
    assert "Query" in repeat.operations()
    assert ledger.values("a", "b") == [1001, 2]


def test_a_repeat_after_a_lost_reply_changes_nothing(ledger: Ledger) -> None:
    for version, fault in enumerate([*LOST, dies_after], 1):
        ledger.plan("TransactWriteItems", fault)
        ledger.add_all(entries(b=1, a=5), f"key{version}")

        repeat = ledger.add_all(entries(b=1, a=5), f"key{version}")

        assert counters_in(repeat) == [("b", version, version), ("a", 5 * version, version)]
        assert repeat.replayed
        assert ledger.values("a", "b") == [5 * version, version]


@pytest.mark.parametrize("operation", ["PutItem", "BatchGetItem", "Query", "UpdateItem"])
def test_a_repeat_gets_the_original_answer_although_one_of_its_requests_fails(
    ledger: Ledger, operation: str
) -> None:
    for number, fault in enumerate([reply_lost, throttled, refused_internally], 1):
        first = ledger.add_all(entries(a=5, b=1), f"key{number}")
        ledger.add("b", 100)
        ledger.record()
        ledger.plan(operation, fault)

        repeats = [ledger.add_all(entries(a=5, b=1), f"key{number}") for _ in range(2)]

        assert repeats[0].requests.count((operation, fault)) == 1
        assert [repeat.text for repeat in repeats] == [first.text] * 2
        assert ledger.values("a", "b") == [5 * number, 101 * number]


def test_a_key_with_another_body_is_refused(ledger: Ledger) -> None:
    first = ledger.add_all(entries(a=5, b=1), "key")
    others = {
        "amount": entries(a=5, b=2),
        "order": entries(b=1, a=5),
        "counter": entries(a=5, c=1),
        "less": entries(a=5),
        "more": entries(a=5, b=1, c=1),
        "bounds": [*entries(a=5), {"counter_id": "b", "by": 1, "max": 50}],
    }

    for name, increments in others.items():
        other = ledger.add_all(increments, "key")
        assert (other.status, other.problem) == (422, "idempotency-key-reused"), name
    assert ledger.values("a", "b", "c") == [5, 1, 0]
    assert ledger.add_all(entries(a=5, b=1), "key").text == first.text


def test_bodies_that_mean_the_same_are_the_same_request(ledger: Ledger) -> None:
    bodies: list[list[Entry]] = [
        [{"counter_id": "a"}],
        [{"by": 1, "counter_id": "a"}],
        [{"counter_id": "a", "min": MIN_INTEGER, "max": MAX_INTEGER}],
    ]
    first, *repeats = [ledger.add_all(body, "key") for body in bodies]

    assert [(repeat.text, repeat.replayed) for repeat in repeats] == [(first.text, True)] * 2
    assert ledger.value("a") == 1


def test_callers_and_routes_do_not_share_keys(ledger: Ledger) -> None:
    headers = {"Idempotency-Key": "key"}
    replies = [
        ledger.add_all(entries(a=1), "key", "one"),
        ledger.add_all(entries(a=2), "key", "another"),
        ledger.call("POST", "a", {"by": 1}, headers, "one"),
        ledger.send("POST", "/counter", {"by": 4}, headers, "one"),
    ]

    assert [(reply.status, reply.replayed) for reply in replies] == [(200, False)] * 4
    assert ledger.values("a", "default") == [4, 4]


def test_refused_increments_free_their_key(ledger: Ledger) -> None:
    ledger.add("b", 9)
    increments = [*entries(a=1), {"counter_id": "b", "by": 2, "max": 10}]

    refused = ledger.add_all(increments, "key")

    assert (refused.status, refused.problem, refused.body["value"]) == (409, "bound-exceeded", 9)
    assert ledger.receipts() == 0
    ledger.call("PUT", "b", {"value": 8})
    later = ledger.add_all(increments, "key")
    assert (counters_in(later), later.replayed) == ([("a", 1, 1), ("b", 10, 3)], False)
    assert ledger.add_all(increments, "key").text == later.text


def test_a_key_that_a_refused_change_failed_to_free_is_free_after_the_apply_window(
    ledger: Ledger,
) -> None:
    ledger.add("b", 9)
    increments = [*entries(a=1), {"counter_id": "b", "by": 2, "max": 10}]
    ledger.plan("DeleteItem", throttled)
    assert ledger.add_all(increments, "key").problem == "bound-exceeded"
    ledger.call("PUT", "b", {"value": 8})
    ledger.record()

    pending = ledger.add_all(increments, "key")
    assert (pending.status, pending.problem) == (409, "in-progress")
    ledger.advance(int(pending.headers["Retry-After"]))

    later = ledger.add_all(increments, "key")
    assert (counters_in(later), later.replayed) == ([("a", 1, 1), ("b", 10, 3)], False)


def test_after_the_apply_window_a_repeat_makes_the_changes_of_a_killed_function(
    ledger: Ledger,
) -> None:
    ledger.plan("TransactWriteItems", dies)
    assert ledger.add_all(entries(a=1, b=5), "key").answer is None
    assert ledger.receipts() == 1

    pending = ledger.add_all(entries(a=1, b=5), "key")
    assert (pending.status, pending.problem) == (409, "in-progress")
    assert ledger.values("a", "b") == [0, 0]

    ledger.advance(int(pending.headers["Retry-After"]))
    later = ledger.add_all(entries(a=1, b=5), "key")
    assert (counters_in(later), later.replayed) == ([("a", 1, 1), ("b", 5, 1)], False)
    assert ledger.add_all(entries(a=1, b=5), "key").text == later.text
    assert ledger.values("a", "b") == [1, 5]


@pytest.mark.parametrize("seconds", [0.0, 5.0, clock.APPLY_WINDOW + 1, 20 * HOUR])
def test_a_repeat_returns_changes_that_a_killed_function_has_made_but_not_read(
    ledger: Ledger, seconds: float
) -> None:
    ledger.plan("BatchGetItem", dies)
    assert ledger.add_all(entries(a=1, b=5), "key").answer is None

    ledger.advance(seconds)
    repeat = ledger.add_all(entries(a=1, b=5), "key")

    assert (counters_in(repeat), repeat.replayed) == ([("a", 1, 1), ("b", 5, 1)], True)
    assert ledger.values("a", "b") == [1, 5]


def test_a_repeat_finds_a_transaction_that_was_applied_late_within_the_apply_window(
    ledger: Ledger,
) -> None:
    ledger.plan("TransactWriteItems", partial(ledger.lost_and_applied_later, seconds=15.0))
    assert ledger.add_all(entries(a=1, b=5), "key").problem == "outcome-unknown"

    pending = ledger.add_all(entries(a=1, b=5), "key")
    assert (pending.status, pending.problem) == (409, "in-progress")
    assert ledger.values("a", "b") == [0, 0]
    ledger.advance(int(pending.headers["Retry-After"]))

    repeat = ledger.add_all(entries(a=1, b=5), "key")
    assert (counters_in(repeat), repeat.replayed) == ([("a", 1, 1), ("b", 5, 1)], True)
    assert ledger.values("a", "b") == [1, 5]


@pytest.mark.usefixtures("look_once")
@pytest.mark.parametrize("changed", ["a", "b"])
@pytest.mark.parametrize("applied", [True, False])
def test_a_repeat_gets_in_progress_or_the_known_values_while_the_history_lacks_changes(
    ledger: Ledger,
    applied: bool,  # noqa: FBT001
    changed: str,
) -> None:
    ledger.add_all(entries(a=1, b=1))
    ledger.record()
    ledger.plan("TransactWriteItems", dies_after if applied else dies)
    ledger.add_all(entries(a=5, b=5), "key")
    ledger.add(changed, 100)

    other = "b" if changed == "a" else "a"
    applied_by_repeat = 0
    for hours in (0, 20):
        ledger.advance(hours * HOUR)
        reply = ledger.add_all(entries(a=5, b=5), "key")
        if applied:  # counter `other` shows that both increments were made
            known = {each["counter_id"]: each["value"] for each in json.loads(reply.text)}
            assert (reply.status, known) == (200, {changed: None, other: 6})
        elif reply.status == 200:  # counter a shows that nothing was applied
            assert (hours, changed) == (20, "b")
            applied_by_repeat += 1
        else:
            assert (reply.status, reply.problem) == (409, "in-progress")
            assert 1 <= int(reply.headers["Retry-After"]) <= clock.APPLY_WINDOW
    ledger.record()

    repeat = ledger.add_all(entries(a=5, b=5), "key")
    assert repeat.status == 200
    assert repeat.replayed == (applied or applied_by_repeat > 0)
    assert ledger.value(changed) == 106
    assert sum(ledger.values("a", "b")) == 112


def test_increments_are_not_made_again_after_one_of_the_counters_was_deleted(
    ledger: Ledger,
) -> None:
    ledger.plan("BatchGetItem", dies)
    ledger.add_all(entries(a=1, b=5), "key")
    ledger.delete("b")
    ledger.advance(clock.APPLY_WINDOW + 1)

    repeat = ledger.add_all(entries(a=1, b=5), "key")

    assert (counters_in(repeat), repeat.replayed) == ([("a", 1, 1), ("b", None, None)], True)
    assert ledger.values("a", "b") == [1, 0]
