"""Lost replies from DynamoDB during `POST /increments`: changes are made once, answers are true."""

import json
import random
from functools import partial
from http import HTTPStatus

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.ledger import Ledger, counters_in, entries, transactions
from tests.component.scene import LATEST, one_of, slow
from tests.sizes import cases
from tests.times import HOUR
from tests.wire import (
    LOST,
    Fault,
    answered,
    canceled,
    delivered,
    in_progress,
    internal_error,
    meanwhile,
    refused_internally,
    reply_lost,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock

# After each of these faults, the function knows that DynamoDB did not apply the transaction.
REFUSED = {
    "throttled": throttled,
    "unreachable": unreachable,
    "conflict": canceled("None", "TransactionConflict"),
    "throttled-write": canceled("ThrottlingError"),
    "many-reasons": canceled("TransactionConflict", "ProvisionedThroughputExceeded"),
}


def test_all_counters_change_in_one_transaction_and_are_read_in_one_request(ledger: Ledger) -> None:
    reply = ledger.add_all(entries(b=1, a=2, c=3))

    assert counters_in(reply) == [("b", 1, 1), ("a", 2, 1), ("c", 3, 1)]
    assert reply.operations() == ["TransactWriteItems", "BatchGetItem"]


def test_after_a_lost_reply_the_caller_gets_the_usual_answer(ledger: Ledger) -> None:
    for version, fault in enumerate(LOST, 1):
        ledger.plan("TransactWriteItems", fault)

        # The bounds permit the transaction once. If the function sent it again, DynamoDB would
        # refuse it.
        reply = ledger.add_all([{"counter_id": "b", "by": 5, "max": 5 * version}, *entries(a=1)])

        assert counters_in(reply) == [("b", 5 * version, version), ("a", version, version)]
        assert transactions(reply) == 1
        assert ledger.values("a", "b") == [version, 5 * version]


@pytest.mark.parametrize("fault", [reply_lost, internal_error])
def test_after_a_lost_reply_the_changes_are_found_in_the_history_below_later_ones(
    ledger: Ledger, fault: Fault
) -> None:
    ledger.add("b", 2)

    def change_and_record() -> None:
        ledger.add("b", 100)
        ledger.add("b", 100)
        ledger.record()

    ledger.plan("TransactWriteItems", fault)
    ledger.plan("BatchGetItem", meanwhile(change_and_record))

    reply = ledger.add_all(entries(a=1, b=5, c=9))

    assert counters_in(reply) == [("a", 1, 1), ("b", 7, 2), ("c", 9, 1)]
    assert transactions(reply) == 1
    assert ledger.values("a", "b", "c") == [1, 207, 9]


def test_retries_of_a_transaction_share_its_token_and_a_new_transaction_has_a_new_token(
    ledger: Ledger,
) -> None:
    # DynamoDB applies a transaction once if its requests have the same token. moto applies it each
    # time, so this test only compares the tokens.
    for _ in range(2):
        ledger.plan("TransactWriteItems", canceled("TransactionConflict"), throttled)
        counters_in(ledger.add_all(entries(a=1, b=5)))
        ledger.record()

    sent = [each for each in ledger.wire.sent if each.operation == "TransactWriteItems"]
    first, retry, last_retry, *others = [each.parameters["ClientRequestToken"] for each in sent]
    assert first == retry == last_retry
    assert len(others) == 3
    assert len({first, *others}) == 2


@pytest.mark.parametrize("fault", [request_lost, refused_internally, in_progress])
def test_a_transaction_that_may_still_be_applied_is_not_sent_again(
    ledger: Ledger, fault: Fault
) -> None:
    ledger.add("a", 1)
    ledger.record()
    ledger.plan("TransactWriteItems", fault)

    reply = ledger.add_all(entries(a=1, b=5))

    assert (reply.status, reply.problem) == (503, "outcome-unknown")
    assert "Idempotency-Key" in reply.body["detail"]
    assert transactions(reply) == 1
    assert ledger.values("a", "b") == [1, 0]


def test_a_transaction_that_is_applied_late_is_found(ledger: Ledger) -> None:
    ledger.plan("TransactWriteItems", partial(ledger.lost_and_applied_later, seconds=3.0))

    reply = ledger.add_all(entries(a=1, b=5))

    assert counters_in(reply) == [("a", 1, 1), ("b", 5, 1)]
    assert transactions(reply) == 1


def test_a_transaction_that_was_not_applied_is_retried_and_made_once(ledger: Ledger) -> None:
    for version, (name, fault) in enumerate(REFUSED.items(), 1):
        ledger.plan("TransactWriteItems", fault, fault, fault)

        reply = ledger.add_all(entries(a=1, b=5))

        assert counters_in(reply) == [("a", version, version), ("b", 5 * version, version)], name
        assert reply.operations() == ["TransactWriteItems"] * 4 + ["BatchGetItem"], name
        assert ledger.values("a", "b") == [version, 5 * version]


def test_a_transaction_that_dynamodb_never_accepts_gets_throttled(ledger: Ledger) -> None:
    for name, fault in REFUSED.items():
        ledger.plan("TransactWriteItems", *[fault] * 100)

        reply = ledger.add_all(entries(a=1, b=5))

        assert (reply.status, reply.problem) == (503, "throttled"), name
        assert reply.headers["Retry-After"] == "1"
        assert transactions(reply) > 3
        assert ledger.values("a", "b") == [0, 0]


def test_a_throttled_transaction_frees_its_key(ledger: Ledger) -> None:
    ledger.plan("TransactWriteItems", *[canceled("TransactionConflict")] * 100)

    reply = ledger.add_all(entries(a=1, b=5), "key")

    assert (reply.status, reply.problem) == (503, "throttled")
    assert ledger.receipts() == 0
    ledger.plan("TransactWriteItems")
    assert counters_in(ledger.add_all(entries(a=1, b=5), "key")) == [("a", 1, 1), ("b", 5, 1)]


def test_a_transaction_with_a_conflict_and_a_failed_condition_is_refused(ledger: Ledger) -> None:
    ledger.add("b", 9)

    def conflicting(request: AWSPreparedRequest) -> AWSResponse:
        body = json.loads(delivered(request).text)
        assert [reason["Code"] for reason in body["CancellationReasons"]] == [
            "None",
            "ConditionalCheckFailed",
            "None",
        ]
        body["CancellationReasons"][0]["Code"] = "TransactionConflict"
        body["CancellationReasons"][2]["Code"] = "ThrottlingError"
        return answered(request, HTTPStatus.BAD_REQUEST, body)

    ledger.plan("TransactWriteItems", conflicting)

    reply = ledger.add_all([*entries(a=1), {"counter_id": "b", "max": 9}, *entries(c=1)])

    assert (reply.status, reply.problem, reply.body["value"]) == (409, "bound-exceeded", 9)
    assert reply.body["detail"].startswith("increments[1].by: ")
    assert reply.operations() == ["TransactWriteItems"]
    assert ledger.values("a", "b", "c") == [0, 9, 0]


def test_a_transaction_that_is_canceled_because_of_a_bug_is_not_retried(ledger: Ledger) -> None:
    ledger.plan("TransactWriteItems", canceled("TransactionConflict", "ValidationError"))

    reply = ledger.add_all(entries(a=1, b=5))

    assert (reply.status, reply.problem) == (500, "internal-error")
    assert reply.operations() == ["TransactWriteItems"]
    assert ledger.values("a", "b") == [0, 0]


def test_every_request_starts_early_enough_to_end_before_the_timeout(ledger: Ledger) -> None:
    faults = [slow, reply_lost, request_lost, throttled, unreachable, refused_internally]
    for seed in range(cases(full=100, part=3)):
        random.seed(seed)  # the functions' pauses have random lengths
        source = random.Random(seed)
        ledger.choose_fault = one_of(faults, source)
        for number in range(3):
            key = f"key{seed}-{number // 2}" if seed % 2 else None
            reply = ledger.add_all(entries(a=1, b=-1), key)
            assert reply.answer, f"seed {seed}: killed at its timeout: {reply.requests}"
            assert max(reply.times) < reply.began + LATEST, f"seed {seed}: {reply.requests}"
            ledger.advance(source.choice([0, 5, 25]))
        ledger.record()


def reversed_reply(request: AWSPreparedRequest) -> AWSResponse:
    """Reply to a BatchGetItem with the items in reverse order. DynamoDB may use any order."""
    body = json.loads(delivered(request).text)
    for items in body["Responses"].values():
        items.reverse()
    return answered(request, HTTPStatus.OK, body)


def half_processed(request: AWSPreparedRequest) -> AWSResponse:
    """Reply to a BatchGetItem without the first item.

    DynamoDB may omit items from a reply that would be too large.
    """
    assert isinstance(request.body, bytes)
    ((table, request_keys),) = json.loads(request.body)["RequestItems"].items()
    body = json.loads(delivered(request).text)
    first, *rest = request_keys["Keys"]
    body["Responses"][table] = [
        item for item in body["Responses"][table] if item["counter_id"] != first["counter_id"]
    ]
    assert len(body["Responses"][table]) == len(rest)
    body["UnprocessedKeys"] = {table: {**request_keys, "Keys": [first]}}
    return answered(request, HTTPStatus.OK, body)


@pytest.mark.parametrize("fault", [reversed_reply, half_processed])
def test_the_answer_has_all_counters_in_the_order_of_the_request(
    ledger: Ledger, fault: Fault
) -> None:
    ledger.add("c", 10)
    ledger.plan("BatchGetItem", fault)

    reply = ledger.add_all(entries(c=1, a=2, b=3))

    assert counters_in(reply) == [("c", 11, 2), ("a", 2, 1), ("b", 3, 1)]


@pytest.mark.parametrize("changed", [["b"], ["a"], ["a", "b", "c"]], ids="-".join)
def test_the_answer_is_exact_if_others_change_a_counter_before_it_is_read(
    ledger: Ledger, changed: list[str]
) -> None:
    ledger.add("b", 10)

    def change_and_record() -> None:
        for counter in changed:
            ledger.add(counter, 100)
        ledger.call("PUT", changed[0], {"value": -7})
        ledger.record()

    ledger.plan("BatchGetItem", meanwhile(change_and_record))

    reply = ledger.add_all(entries(a=1, b=5, c=9))

    assert counters_in(reply) == [("a", 1, 1), ("b", 15, 2), ("c", 9, 1)]
    assert transactions(reply) == 1
    assert len({counter["updated_at"] for counter in json.loads(reply.text)}) == 1
    assert ledger.value(changed[0]) == -7


def test_the_answer_waits_for_the_history_if_others_change_a_counter_before_it_is_read(
    ledger: Ledger,
) -> None:
    others = meanwhile(lambda: ledger.add_all(entries(b=100, c=100)))
    ledger.plan("BatchGetItem", others, delivered, delivered, meanwhile(ledger.record))

    reply = ledger.add_all(entries(a=1, b=5, c=9))

    assert counters_in(reply) == [("a", 1, 1), ("b", 5, 1), ("c", 9, 1)]
    assert reply.operations().count("BatchGetItem") == 3
    assert transactions(reply) == 1
    assert ledger.values("a", "b", "c") == [1, 105, 109]


@pytest.mark.parametrize("fault", [delivered, reply_lost, internal_error])
def test_applied_changes_get_200_while_the_history_lacks_them(ledger: Ledger, fault: Fault) -> None:
    ledger.add("b", 10)
    created_at = json.loads(ledger.call("GET", "b").text)["created_at"]
    ledger.plan("TransactWriteItems", fault)
    ledger.plan("BatchGetItem", meanwhile(lambda: ledger.add("b", 100)))
    began = ledger.time

    reply = ledger.add_all(entries(a=1, b=5))

    assert counters_in(reply) == [("a", 1, 1), ("b", None, None)]
    (_, unknown) = json.loads(reply.text)
    assert list(unknown) == ["counter_id", "value", "version", "created_at", "updated_at"]
    assert unknown["created_at"] == created_at
    assert unknown["updated_at"] == clock.timestamp(began)
    assert not reply.replayed
    assert transactions(reply) == 1
    assert ledger.values("a", "b") == [1, 115]


def test_a_repeat_returns_the_values_as_soon_as_the_history_has_them(ledger: Ledger) -> None:
    ledger.plan("BatchGetItem", meanwhile(lambda: ledger.add("b", 100)))
    first = ledger.add_all(entries(a=1, b=5), "key")
    assert counters_in(first) == [("a", 1, 1), ("b", None, None)]

    for seconds in (0.0, HOUR):
        ledger.advance(seconds)
        repeat = ledger.add_all(entries(a=1, b=5), "key")
        assert (counters_in(repeat), repeat.replayed) == (counters_in(first), True)
        assert repeat.text == first.text
    ledger.record()

    repeats = [ledger.add_all(entries(a=1, b=5), "key") for _ in range(2)]
    for repeat in repeats:
        assert (counters_in(repeat), repeat.replayed) == ([("a", 1, 1), ("b", 5, 1)], True)
    assert ledger.values("a", "b") == [1, 105]


def test_each_counter_that_others_have_changed_takes_one_more_read(ledger: Ledger) -> None:
    names = [f"n{number}" for number in range(cases(full=100, part=20))]

    def change_and_record() -> None:
        ledger.add_all(entries(**dict.fromkeys(names, 100)))
        ledger.record()

    ledger.plan("BatchGetItem", meanwhile(change_and_record))

    reply = ledger.add_all(entries(**dict.fromkeys(names, 1)))

    assert counters_in(reply) == [(name, 1, 1) for name in names]
    # The request sends one transaction, one read of all counters, and a read of each history.
    assert len(reply.operations()) == 1 + 1 + len(names)


def test_a_failed_read_is_repeated(ledger: Ledger) -> None:
    for version, fault in enumerate([reply_lost, internal_error, throttled, unreachable], 1):
        ledger.plan("BatchGetItem", fault, fault)

        reply = ledger.add_all(entries(a=1, b=5))

        assert counters_in(reply) == [("a", version, version), ("b", 5 * version, version)]
        assert reply.operations() == ["TransactWriteItems"] + ["BatchGetItem"] * 3


def test_changes_that_cannot_be_read_in_time_are_made_once_and_a_repeat_returns_them(
    ledger: Ledger,
) -> None:
    ledger.plan("BatchGetItem", *[throttled] * 100)

    unread = ledger.add_all(entries(a=1, b=5), "key")
    ledger.plan("BatchGetItem")
    repeat = ledger.add_all(entries(a=1, b=5), "key")

    assert counters_in(unread) == [("a", None, None), ("b", None, None)]
    assert (counters_in(repeat), repeat.replayed) == ([("a", 1, 1), ("b", 5, 1)], True)
    assert ledger.values("a", "b") == [1, 5]
