"""Many counters in one request: all of them change or none, once, whatever replies are lost."""

import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.scene import HOUR, LATEST, Invocation, Scene, one_of, slow
from tests.component.storm import COUNTERS, Storm
from tests.proxy import Reply
from tests.sizes import cases
from tests.stack import CLIENT_ID, Stack
from tests.wire import (
    LOST,
    Fault,
    Wire,
    answered,
    canceled,
    conflict,
    delivered,
    dies,
    dies_after,
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
from counters.model import MAX_INTEGER, MIN_INTEGER

Entry = dict[str, Any]

REFUSED = {  # certainly not applied
    "throttled": throttled,
    "unreachable": unreachable,
    "conflict": canceled("None", "TransactionConflict"),
    "throttled-write": canceled("ThrottlingError"),
    "many-reasons": canceled("TransactionConflict", "ProvisionedThroughputExceeded"),
}


def entries(**amounts: int) -> list[Entry]:
    """Return the increments of the counters, each by its amount."""
    return [{"counter_id": counter, "by": by} for counter, by in amounts.items()]


def post(stack: Stack, increments: list[Entry]) -> Reply:
    return stack.request("POST", "/increments", body={"increments": increments})


def standing(stack: Stack, counter: str) -> dict[str, Any]:
    return dict(stack.request("GET", f"/counters/{counter}").body)


# --- All or none ---------------------------------------------------------------------------------


def test_all_counters_change_and_are_answered_in_the_order_of_the_increments(stack: Stack) -> None:
    stack.request("PUT", "/counters/stock", body={"value": 10})

    reply = post(stack, entries(stock=-3, default=2, Orders=1))

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert [(left["counter_id"], left["value"], left["version"]) for left in reply.body] == [
        ("stock", 7, 2),
        ("default", 2, 1),
        ("Orders", 1, 1),
    ]
    assert len({left["updated_at"] for left in reply.body}) == 1
    assert reply.body == [standing(stack, name) for name in ("stock", "default", "Orders")]
    assert stack.request("GET", "/counter").body == reply.body[1]


def test_an_increment_of_many_adds_1_by_default(stack: Stack) -> None:
    increments: list[Entry] = [{"counter_id": "a"}, {"counter_id": "b", "by": -1}]

    assert [left["value"] for left in post(stack, increments).body] == [1, -1]
    assert [left["value"] for left in post(stack, increments).body] == [2, -2]


def test_each_counter_has_its_own_entry_in_the_history(stack: Stack) -> None:
    stack.request("POST", "/counters/b", body={"by": 100})
    reply = post(stack, entries(a=1, b=-2))
    stack.record(stack.changes())

    for left, by, previous in zip(reply.body, (1, -2), (0, 100), strict=True):
        history = stack.request("GET", f"/counters/{left['counter_id']}/history").body
        assert history[-1] == {
            "version": left["version"],
            "value": left["value"],
            "previous_value": previous,
            "by": by,
            "increase": max(by, 0),
            "decrease": max(-by, 0),
            "operation": "increment",
            "actor": CLIENT_ID,
            "created_at": left["updated_at"],
        }


@pytest.mark.parametrize(
    ("increments", "refused", "value"),
    [
        ([{"counter_id": "a", "max": 5}, {"counter_id": "b"}], 0, 5),
        ([{"counter_id": "b"}, {"counter_id": "a", "max": 5}], 1, 5),
        ([{"counter_id": "b"}, {"counter_id": "a", "by": -1, "min": 5}], 1, 5),
        ([{"counter_id": "new"}, {"counter_id": "newer", "by": 3, "max": 2}], 1, 0),
        (
            [
                {"counter_id": "b"},
                {"counter_id": "new", "min": 2},
                {"counter_id": "a", "max": 5},
                {"counter_id": "c", "max": 0},
            ],
            1,
            0,
        ),
    ],
    ids=["first", "last", "below", "never-written", "the-first-of-some"],
)
def test_nothing_is_written_if_one_would_leave_its_bounds_and_the_first_of_them_is_named(
    stack: Stack, increments: list[Entry], refused: int, value: int
) -> None:
    stack.request("PUT", "/counters/a", body={"value": 5})
    stack.request("PUT", "/counters/b", body={"value": 7})
    stack.record(stack.changes())
    before = stack.contents()

    reply = post(stack, increments)

    assert reply.status == 409
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.body["type"].endswith("bound-exceeded")
    assert reply.body["detail"].startswith(f"increments[{refused}].by: ")
    assert reply.body["value"] == value
    assert stack.contents() == before
    assert stack.changes() == []


def test_each_increment_has_its_own_inclusive_bounds(stack: Stack) -> None:
    increments: list[Entry] = [
        {"counter_id": "a", "by": 5, "min": 5, "max": 5},
        {"counter_id": "b", "by": -5, "min": -5},
        {"counter_id": "c", "by": 2, "max": 2},
    ]

    assert [left["value"] for left in post(stack, increments).body] == [5, -5, 2]
    assert post(stack, increments).status == 409
    assert [standing(stack, counter)["version"] for counter in "abc"] == [1, 1, 1]


@pytest.mark.parametrize(("limit", "by"), [(MAX_INTEGER, 1), (MIN_INTEGER, -1)])
def test_a_value_can_reach_the_limit_of_integers_but_not_pass_it(
    stack: Stack, limit: int, by: int
) -> None:
    stack.request("PUT", "/counters/a", body={"value": limit - by})
    increments = entries(b=limit, a=by)

    reached = post(stack, increments)
    before = stack.contents()
    passed = post(stack, entries(c=1, a=by, b=by))

    assert [left["value"] for left in reached.body] == [limit, limit]
    assert (passed.status, passed.body["value"]) == (409, limit)
    assert passed.body["detail"].startswith("increments[1].by: ")
    assert stack.contents() == before


def test_1_to_100_counters_change_in_one_request(stack: Stack) -> None:
    names = [f"n{number}" for number in range(100)]
    random.Random(100).shuffle(names)

    alone = post(stack, entries(alone=4))
    every = post(stack, entries(**{name: number for number, name in enumerate(names, 1)}))
    before = stack.contents()
    too_many = post(stack, entries(**dict.fromkeys([*names, "one-more"], 1)))

    assert [(left["counter_id"], left["value"]) for left in alone.body] == [("alone", 4)]
    assert [(left["counter_id"], left["value"]) for left in every.body] == [
        (name, number) for number, name in enumerate(names, 1)
    ]
    assert {left["version"] for left in every.body} == {1}
    assert (too_many.status, stack.contents()) == (400, before)


# --- Lost replies --------------------------------------------------------------------------------


class Ledger(Scene):
    """A scene in which many counters change in one request."""

    def add_all(
        self, increments: list[Entry], key: str | None = None, caller: str = "somebody"
    ) -> Invocation:
        """Return what IncrementCounters made of the increments."""
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"increments": increments}
        return self.send("POST", "/increments", body, headers, caller)

    def values(self, *counters: str) -> list[int]:
        """Return the counters' values as they are stored; 0 where one is not there."""
        return [self.value(counter) for counter in counters]


@pytest.fixture
def scene(stack: Stack, wire: Wire) -> Iterator[Ledger]:
    stack.remove_stream()
    random.seed(1)  # the code's own jitter
    scene = Ledger(stack, wire)
    with scene.running():
        yield scene


def left(reply: Invocation) -> list[tuple[str, int, int]]:
    """Return the name, value and version of each counter of an answer."""
    assert reply.status == 200, reply.answer
    return [
        (counter["counter_id"], counter["value"], counter["version"])
        for counter in json.loads(reply.text)
    ]


def transactions(reply: Invocation) -> int:
    return reply.operations().count("TransactWriteItems")


def test_all_counters_change_in_one_transaction_and_are_read_in_one_request(scene: Ledger) -> None:
    reply = scene.add_all(entries(b=1, a=2, c=3))

    assert left(reply) == [("b", 1, 1), ("a", 2, 1), ("c", 3, 1)]
    assert reply.operations() == ["TransactWriteItems", "BatchGetItem"]


def test_after_a_lost_reply_the_answer_is_the_usual_one(scene: Ledger) -> None:
    for version, fault in enumerate(LOST, 1):
        scene.plan("TransactWriteItems", fault)

        # If it were attempted again, the bounds would refuse it.
        reply = scene.add_all([{"counter_id": "b", "by": 5, "max": 5 * version}, *entries(a=1)])

        assert left(reply) == [("b", 5 * version, version), ("a", version, version)]
        assert transactions(reply) == 1
        assert scene.values("a", "b") == [version, 5 * version]


@pytest.mark.parametrize("fault", [reply_lost, internal_error])
def test_after_a_lost_reply_the_changes_are_found_in_the_history_behind_others(
    scene: Ledger, fault: Fault
) -> None:
    scene.add("b", 2)

    def others() -> None:
        scene.add("b", 100)
        scene.add("b", 100)
        scene.record()

    scene.plan("TransactWriteItems", fault)
    scene.plan("BatchGetItem", meanwhile(others))

    reply = scene.add_all(entries(a=1, b=5, c=9))

    assert left(reply) == [("a", 1, 1), ("b", 7, 2), ("c", 9, 1)]
    assert transactions(reply) == 1
    assert scene.values("a", "b", "c") == [1, 207, 9]


def test_a_retried_transaction_keeps_its_token_and_another_has_its_own(
    scene: Ledger,
) -> None:
    # If DynamoDB has begun one all the same, it applies it once under one token. moto does not.
    for _ in range(2):
        scene.plan("TransactWriteItems", canceled("TransactionConflict"), throttled)
        left(scene.add_all(entries(a=1, b=5)))
        scene.record()

    sent = [each for each in scene.wire.sent if each.operation == "TransactWriteItems"]
    one, again, last, *others = [each.parameters["ClientRequestToken"] for each in sent]
    assert one == again == last
    assert len(others) == 3
    assert len({one, *others}) == 2


@pytest.mark.parametrize("fault", [request_lost, refused_internally, in_progress])
def test_a_transaction_that_may_still_be_made_is_not_sent_again(
    scene: Ledger, fault: Fault
) -> None:
    scene.add("a", 1)
    scene.record()
    scene.plan("TransactWriteItems", fault)

    reply = scene.add_all(entries(a=1, b=5))

    assert (reply.status, reply.problem) == (503, "outcome-unknown")
    assert "Idempotency-Key" in reply.body["detail"]
    assert transactions(reply) == 1
    assert scene.values("a", "b") == [1, 0]


def test_a_transaction_that_is_made_late_is_found(scene: Ledger) -> None:
    scene.plan("TransactWriteItems", partial(scene.held_up, seconds=3.0))

    reply = scene.add_all(entries(a=1, b=5))

    assert left(reply) == [("a", 1, 1), ("b", 5, 1)]
    assert transactions(reply) == 1


def test_a_change_that_was_not_applied_is_retried_and_counts_once(scene: Ledger) -> None:
    for version, (name, fault) in enumerate(REFUSED.items(), 1):
        scene.plan("TransactWriteItems", fault, fault, fault)

        reply = scene.add_all(entries(a=1, b=5))

        assert left(reply) == [("a", version, version), ("b", 5 * version, version)], name
        assert reply.operations() == ["TransactWriteItems"] * 4 + ["BatchGetItem"], name
        assert scene.values("a", "b") == [version, 5 * version]


def test_a_change_that_is_never_accepted_is_answered_as_throttled(scene: Ledger) -> None:
    for name, fault in REFUSED.items():
        scene.plan("TransactWriteItems", *[fault] * 100)

        reply = scene.add_all(entries(a=1, b=5))

        assert (reply.status, reply.problem) == (503, "throttled"), name
        assert reply.headers["Retry-After"] == "1"
        assert transactions(reply) > 3
        assert scene.values("a", "b") == [0, 0]


def test_a_throttled_change_frees_its_key(scene: Ledger) -> None:
    scene.plan("TransactWriteItems", *[canceled("TransactionConflict")] * 100)

    reply = scene.add_all(entries(a=1, b=5), "key")

    assert (reply.status, reply.problem) == (503, "throttled")
    assert scene.receipts() == 0
    scene.plan("TransactWriteItems")
    assert left(scene.add_all(entries(a=1, b=5), "key")) == [("a", 1, 1), ("b", 5, 1)]


def test_a_transaction_with_a_conflict_and_a_failed_condition_is_refused(scene: Ledger) -> None:
    scene.add("b", 9)

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

    scene.plan("TransactWriteItems", conflicting)

    reply = scene.add_all([*entries(a=1), {"counter_id": "b", "max": 9}, *entries(c=1)])

    assert (reply.status, reply.problem, reply.body["value"]) == (409, "bound-exceeded", 9)
    assert reply.body["detail"].startswith("increments[1].by: ")
    assert reply.operations() == ["TransactWriteItems"]
    assert scene.values("a", "b", "c") == [0, 9, 0]


def test_a_transaction_that_is_canceled_because_of_a_bug_is_not_retried(scene: Ledger) -> None:
    scene.plan("TransactWriteItems", canceled("TransactionConflict", "ValidationError"))

    reply = scene.add_all(entries(a=1, b=5))

    assert (reply.status, reply.problem) == (500, "internal-error")
    assert reply.operations() == ["TransactWriteItems"]
    assert scene.values("a", "b") == [0, 0]


def test_no_request_starts_that_could_outlast_the_timeout(scene: Ledger) -> None:
    faults = [slow, reply_lost, request_lost, throttled, unreachable, refused_internally]
    for seed in range(cases(full=100, part=3)):
        random.seed(seed)  # the code's own jitter
        source = random.Random(seed)
        scene.chance = one_of(faults, source)
        for number in range(3):
            key = f"key{seed}-{number // 2}" if seed % 2 else None
            reply = scene.add_all(entries(a=1, b=-1), key)
            assert reply.answer, f"seed {seed}: killed at its timeout: {reply.asked}"
            assert max(reply.times) < reply.began + LATEST, f"seed {seed}: {reply.asked}"
            scene.advance(source.choice([0, 5, 25]))
        scene.record()


# --- Reading back --------------------------------------------------------------------------------


def reversed_reply(request: AWSPreparedRequest) -> AWSResponse:
    """Answer the items of a BatchGetItem in another order, as DynamoDB may."""
    body = json.loads(delivered(request).text)
    for items in body["Responses"].values():
        items.reverse()
    return answered(request, HTTPStatus.OK, body)


def half_processed(request: AWSPreparedRequest) -> AWSResponse:
    """Answer a BatchGetItem without its first item, as DynamoDB may if it is asked too much."""
    assert isinstance(request.body, bytes)
    ((table, asked),) = json.loads(request.body)["RequestItems"].items()
    body = json.loads(delivered(request).text)
    first, *rest = asked["Keys"]
    body["Responses"][table] = [
        item for item in body["Responses"][table] if item["counter_id"] != first["counter_id"]
    ]
    assert len(body["Responses"][table]) == len(rest)
    body["UnprocessedKeys"] = {table: {**asked, "Keys": [first]}}
    return answered(request, HTTPStatus.OK, body)


@pytest.mark.parametrize("fault", [reversed_reply, half_processed])
def test_the_answer_has_all_counters_in_order_however_they_are_read(
    scene: Ledger, fault: Fault
) -> None:
    scene.add("c", 10)
    scene.plan("BatchGetItem", fault)

    reply = scene.add_all(entries(c=1, a=2, b=3))

    assert left(reply) == [("c", 11, 2), ("a", 2, 1), ("b", 3, 1)]


@pytest.mark.parametrize("changed", [["b"], ["a"], ["a", "b", "c"]], ids="-".join)
def test_the_answer_is_exact_although_others_change_some_before_they_are_read(
    scene: Ledger, changed: list[str]
) -> None:
    scene.add("b", 10)

    def others() -> None:
        for counter in changed:
            scene.add(counter, 100)
        scene.call("PUT", changed[0], {"value": -7})
        scene.record()

    scene.plan("BatchGetItem", meanwhile(others))

    reply = scene.add_all(entries(a=1, b=5, c=9))

    assert left(reply) == [("a", 1, 1), ("b", 15, 2), ("c", 9, 1)]
    assert transactions(reply) == 1
    assert len({counter["updated_at"] for counter in json.loads(reply.text)}) == 1
    assert scene.value(changed[0]) == -7


def test_the_answer_waits_for_the_history_if_others_change_some_before_they_are_read(
    scene: Ledger,
) -> None:
    others = meanwhile(lambda: scene.add_all(entries(b=100, c=100)))
    scene.plan("BatchGetItem", others, delivered, delivered, meanwhile(scene.record))

    reply = scene.add_all(entries(a=1, b=5, c=9))

    assert left(reply) == [("a", 1, 1), ("b", 5, 1), ("c", 9, 1)]
    assert reply.operations().count("BatchGetItem") == 3
    assert transactions(reply) == 1
    assert scene.values("a", "b", "c") == [1, 105, 109]


def as_known(reply: Invocation) -> list[tuple[str, int | None, int | None]]:
    """Return the name, value and version of each counter of an answer, where they are known."""
    assert reply.status == 200, reply.answer
    counters = json.loads(reply.text)
    assert all(counter["updated_at"] for counter in counters)
    return [(each["counter_id"], each["value"], each["version"]) for each in counters]


@pytest.mark.parametrize("fault", [delivered, reply_lost, internal_error])
def test_applied_changes_are_answered_200_although_the_history_is_late(
    scene: Ledger, fault: Fault
) -> None:
    scene.add("b", 10)
    created_at = json.loads(scene.call("GET", "b").text)["created_at"]
    scene.plan("TransactWriteItems", fault)
    scene.plan("BatchGetItem", meanwhile(lambda: scene.add("b", 100)))
    began = scene.time

    reply = scene.add_all(entries(a=1, b=5))

    assert as_known(reply) == [("a", 1, 1), ("b", None, None)]
    (_, unknown) = json.loads(reply.text)
    assert list(unknown) == ["counter_id", "value", "version", "created_at", "updated_at"]
    assert unknown["created_at"] == created_at
    assert unknown["updated_at"] == clock.timestamp(began)
    assert not reply.replayed
    assert transactions(reply) == 1
    assert scene.values("a", "b") == [1, 115]


def test_a_repeat_answers_what_has_become_known_since(scene: Ledger) -> None:
    scene.plan("BatchGetItem", meanwhile(lambda: scene.add("b", 100)))
    first = scene.add_all(entries(a=1, b=5), "key")
    assert as_known(first) == [("a", 1, 1), ("b", None, None)]

    for seconds in (0.0, HOUR):
        scene.advance(seconds)
        told = scene.add_all(entries(a=1, b=5), "key")
        assert (as_known(told), told.replayed) == (as_known(first), True)
        assert told.text == first.text
    scene.record()

    repeats = [scene.add_all(entries(a=1, b=5), "key") for _ in range(2)]
    for repeat in repeats:
        assert (left(repeat), repeat.replayed) == ([("a", 1, 1), ("b", 5, 1)], True)
    assert scene.values("a", "b") == [1, 105]


def test_counters_that_others_have_changed_take_one_more_read_each(scene: Ledger) -> None:
    names = [f"n{number}" for number in range(cases(full=100, part=20))]

    def others() -> None:
        scene.add_all(entries(**dict.fromkeys(names, 100)))
        scene.record()

    scene.plan("BatchGetItem", meanwhile(others))

    reply = scene.add_all(entries(**dict.fromkeys(names, 1)))

    assert left(reply) == [(name, 1, 1) for name in names]
    # The transaction, one read of all, one of each.
    assert len(reply.operations()) == 1 + 1 + len(names)


def test_a_failed_read_does_not_change_the_answer(scene: Ledger) -> None:
    for version, fault in enumerate([reply_lost, internal_error, throttled, unreachable], 1):
        scene.plan("BatchGetItem", fault, fault)

        reply = scene.add_all(entries(a=1, b=5))

        assert left(reply) == [("a", version, version), ("b", 5 * version, version)]
        assert reply.operations() == ["TransactWriteItems"] + ["BatchGetItem"] * 3


def test_changes_that_cannot_be_read_in_time_are_applied_once(scene: Ledger) -> None:
    scene.plan("BatchGetItem", *[throttled] * 100)

    unread = scene.add_all(entries(a=1, b=5), "key")
    scene.plan("BatchGetItem")
    repeat = scene.add_all(entries(a=1, b=5), "key")

    assert as_known(unread) == [("a", None, None), ("b", None, None)]
    assert (left(repeat), repeat.replayed) == ([("a", 1, 1), ("b", 5, 1)], True)
    assert scene.values("a", "b") == [1, 5]


# --- Once a key ----------------------------------------------------------------------------------


def test_a_repeat_gets_the_original_answer_byte_for_byte(scene: Ledger) -> None:
    scene.add("b", 2)
    first = scene.add_all(entries(b=1, a=5), "key")
    assert first.operations() == ["PutItem", "TransactWriteItems", "BatchGetItem"]
    assert (left(first), first.replayed) == ([("b", 3, 2), ("a", 5, 1)], False)

    at_once = scene.add_all(entries(b=1, a=5), "key")
    scene.add("a", 100)
    scene.advance(23 * HOUR)
    much_later = scene.add_all(entries(b=1, a=5), "key")

    for repeat in (at_once, much_later):
        assert (repeat.status, repeat.replayed, repeat.text) == (200, True, first.text)
    assert much_later.operations() == ["PutItem"]  # the outcome is in the receipt
    assert scene.values("a", "b") == [105, 3]


def test_a_repeat_gets_the_original_answer_from_the_history(scene: Ledger) -> None:
    first = scene.add_all(entries(b=1, a=5), "key")
    scene.call("PUT", "a", {"value": 1000})
    scene.add_all(entries(a=1, b=1))
    scene.record()
    scene.advance(20 * HOUR)

    repeat = scene.add_all(entries(b=1, a=5), "key")

    assert (repeat.status, repeat.replayed, repeat.text) == (200, True, first.text)
    assert "Query" in repeat.operations()
    assert scene.values("a", "b") == [1001, 2]


def test_a_repeat_after_a_lost_reply_changes_nothing(scene: Ledger) -> None:
    for version, fault in enumerate([*LOST, dies_after], 1):
        scene.plan("TransactWriteItems", fault)
        scene.add_all(entries(b=1, a=5), f"key{version}")

        repeat = scene.add_all(entries(b=1, a=5), f"key{version}")

        assert left(repeat) == [("b", version, version), ("a", 5 * version, version)]
        assert repeat.replayed
        assert scene.values("a", "b") == [5 * version, version]


@pytest.mark.parametrize("operation", ["PutItem", "BatchGetItem", "Query", "UpdateItem"])
def test_a_repeat_gets_the_original_answer_although_one_of_its_requests_fails(
    scene: Ledger, operation: str
) -> None:
    for number, fault in enumerate([reply_lost, throttled, refused_internally], 1):
        first = scene.add_all(entries(a=5, b=1), f"key{number}")
        scene.add("b", 100)
        scene.record()
        scene.plan(operation, fault)

        repeats = [scene.add_all(entries(a=5, b=1), f"key{number}") for _ in range(2)]

        assert repeats[0].asked.count((operation, fault)) == 1
        assert [repeat.text for repeat in repeats] == [first.text] * 2
        assert scene.values("a", "b") == [5 * number, 101 * number]


def test_a_key_with_another_body_is_refused(scene: Ledger) -> None:
    first = scene.add_all(entries(a=5, b=1), "key")
    others = {
        "amount": entries(a=5, b=2),
        "order": entries(b=1, a=5),
        "counter": entries(a=5, c=1),
        "less": entries(a=5),
        "more": entries(a=5, b=1, c=1),
        "bounds": [*entries(a=5), {"counter_id": "b", "by": 1, "max": 50}],
    }

    for name, increments in others.items():
        other = scene.add_all(increments, "key")
        assert (other.status, other.problem) == (422, "idempotency-key-reused"), name
    assert scene.values("a", "b", "c") == [5, 1, 0]
    assert scene.add_all(entries(a=5, b=1), "key").text == first.text


def test_bodies_that_mean_the_same_are_the_same_request(scene: Ledger) -> None:
    bodies: list[list[Entry]] = [
        [{"counter_id": "a"}],
        [{"by": 1, "counter_id": "a"}],
        [{"counter_id": "a", "min": MIN_INTEGER, "max": MAX_INTEGER}],
    ]
    first, *repeats = [scene.add_all(body, "key") for body in bodies]

    assert [(repeat.text, repeat.replayed) for repeat in repeats] == [(first.text, True)] * 2
    assert scene.value("a") == 1


def test_callers_and_routes_do_not_share_keys(scene: Ledger) -> None:
    headers = {"Idempotency-Key": "key"}
    replies = [
        scene.add_all(entries(a=1), "key", "one"),
        scene.add_all(entries(a=2), "key", "another"),
        scene.call("POST", "a", {"by": 1}, headers, "one"),
        scene.send("POST", "/counter", {"by": 4}, headers, "one"),
    ]

    assert [(reply.status, reply.replayed) for reply in replies] == [(200, False)] * 4
    assert scene.values("a", "default") == [4, 4]


def test_refused_increments_free_their_key(scene: Ledger) -> None:
    scene.add("b", 9)
    increments = [*entries(a=1), {"counter_id": "b", "by": 2, "max": 10}]

    refused = scene.add_all(increments, "key")

    assert (refused.status, refused.problem, refused.body["value"]) == (409, "bound-exceeded", 9)
    assert scene.receipts() == 0
    scene.call("PUT", "b", {"value": 8})
    later = scene.add_all(increments, "key")
    assert (left(later), later.replayed) == ([("a", 1, 1), ("b", 10, 3)], False)
    assert scene.add_all(increments, "key").text == later.text


def test_a_key_that_a_refused_change_could_not_free_is_free_after_the_apply_window(
    scene: Ledger,
) -> None:
    scene.add("b", 9)
    increments = [*entries(a=1), {"counter_id": "b", "by": 2, "max": 10}]
    scene.plan("DeleteItem", throttled)
    assert scene.add_all(increments, "key").problem == "bound-exceeded"
    scene.call("PUT", "b", {"value": 8})
    scene.record()

    told = scene.add_all(increments, "key")
    assert (told.status, told.problem) == (409, "in-progress")
    scene.advance(int(told.headers["Retry-After"]))

    later = scene.add_all(increments, "key")
    assert (left(later), later.replayed) == ([("a", 1, 1), ("b", 10, 3)], False)


def test_after_the_apply_window_a_repeat_makes_the_changes_that_a_killed_function_did_not(
    scene: Ledger,
) -> None:
    scene.plan("TransactWriteItems", dies)
    assert scene.add_all(entries(a=1, b=5), "key").answer is None
    assert scene.receipts() == 1

    told = scene.add_all(entries(a=1, b=5), "key")
    assert (told.status, told.problem) == (409, "in-progress")
    assert scene.values("a", "b") == [0, 0]

    scene.advance(int(told.headers["Retry-After"]))
    later = scene.add_all(entries(a=1, b=5), "key")
    assert (left(later), later.replayed) == ([("a", 1, 1), ("b", 5, 1)], False)
    assert scene.add_all(entries(a=1, b=5), "key").text == later.text
    assert scene.values("a", "b") == [1, 5]


@pytest.mark.parametrize("seconds", [0.0, 5.0, clock.APPLY_WINDOW + 1, 20 * HOUR])
def test_a_repeat_answers_what_a_killed_function_has_changed_but_not_read(
    scene: Ledger, seconds: float
) -> None:
    scene.plan("BatchGetItem", dies)
    assert scene.add_all(entries(a=1, b=5), "key").answer is None

    scene.advance(seconds)
    repeat = scene.add_all(entries(a=1, b=5), "key")

    assert (left(repeat), repeat.replayed) == ([("a", 1, 1), ("b", 5, 1)], True)
    assert scene.values("a", "b") == [1, 5]


def test_a_repeat_finds_a_transaction_that_was_made_late_but_within_the_apply_window(
    scene: Ledger,
) -> None:
    scene.plan("TransactWriteItems", partial(scene.held_up, seconds=15.0))
    assert scene.add_all(entries(a=1, b=5), "key").problem == "outcome-unknown"

    told = scene.add_all(entries(a=1, b=5), "key")
    assert (told.status, told.problem) == (409, "in-progress")
    assert scene.values("a", "b") == [0, 0]
    scene.advance(int(told.headers["Retry-After"]))

    repeat = scene.add_all(entries(a=1, b=5), "key")
    assert (left(repeat), repeat.replayed) == ([("a", 1, 1), ("b", 5, 1)], True)
    assert scene.values("a", "b") == [1, 5]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("changed", ["a", "b"])
@pytest.mark.parametrize("applied", [True, False])
def test_a_repeat_is_in_progress_while_the_history_is_late(
    scene: Ledger,
    applied: bool,  # noqa: FBT001
    changed: str,
) -> None:
    scene.add_all(entries(a=1, b=1))
    scene.record()
    scene.plan("TransactWriteItems", dies_after if applied else dies)
    scene.add_all(entries(a=5, b=5), "key")
    scene.add(changed, 100)

    other = "b" if changed == "a" else "a"
    made = 0
    for hours in (0, 20):
        scene.advance(hours * HOUR)
        told = scene.add_all(entries(a=5, b=5), "key")
        if applied:  # the other counter tells it
            known = {each["counter_id"]: each["value"] for each in json.loads(told.text)}
            assert (told.status, known) == (200, {changed: None, other: 6})
        elif told.status == 200:  # the first counter alone tells that nothing was made
            assert (hours, changed) == (20, "b")
            made += 1
        else:
            assert (told.status, told.problem) == (409, "in-progress")
            assert 1 <= int(told.headers["Retry-After"]) <= clock.APPLY_WINDOW
    scene.record()

    repeat = scene.add_all(entries(a=5, b=5), "key")
    assert repeat.status == 200
    assert repeat.replayed == (applied or made > 0)
    assert scene.value(changed) == 106
    assert sum(scene.values("a", "b")) == 112


def test_increments_are_not_made_again_although_one_of_the_counters_was_deleted(
    scene: Ledger,
) -> None:
    scene.plan("BatchGetItem", dies)
    scene.add_all(entries(a=1, b=5), "key")
    scene.delete("b")
    scene.advance(clock.APPLY_WINDOW + 1)

    told = scene.add_all(entries(a=1, b=5), "key")

    assert (as_known(told), told.replayed) == ([("a", 1, 1), ("b", None, None)], True)
    assert scene.values("a", "b") == [1, 0]


# --- At random -----------------------------------------------------------------------------------

NAMES = COUNTERS[:6]
WISHES = cases(full=1000, part=25)


@dataclass
class Wish:
    """What a caller wants of some counters; with a key it is repeated until its end is told."""

    key: str | None
    increments: list[Entry]
    tries: list[Invocation] = field(default_factory=list)

    def told(self) -> list[Invocation]:
        """Return the tries that were told what has become of it."""
        return [
            reply
            for reply in self.tries
            if reply.status == 200 or reply.problem == "bound-exceeded"
        ]

    def over(self) -> bool:
        """Return whether there is nothing more to ask."""
        return bool(self.told() if self.key else self.tries)


def some_increments(source: random.Random) -> list[Entry]:
    """Return increments that move something between 2 to 4 counters, some within bounds."""
    amounts = [source.choice([-1, 1]) * source.randint(1, 20) for _ in range(source.randint(1, 3))]
    if sum(amounts):
        amounts.append(-sum(amounts))
    elif len(amounts) == 1:
        amounts = [1, -1]
    increments = [
        {"counter_id": counter, "by": by}
        for counter, by in zip(source.sample(NAMES, len(amounts)), amounts, strict=True)
    ]
    if source.random() < 0.3:
        source.choice(increments)["min"] = source.choice([-30, 0, 10**12])
    return increments


class Squall(Storm):
    """A milder storm, of transactions, in which functions die as well.

    To look up many counters takes many requests: if half of them fail, there is no end to it.
    """

    def _chance(self, operation: str) -> Fault:
        if self.source.random() < 0.6:
            self.met[operation]["delivered"] += 1
            return delivered
        fault = super()._chance(operation)
        chance = self.source.random()
        if chance < 0.06:
            return dies if chance < 0.03 else dies_after
        if fault is conflict and operation == "TransactWriteItems":
            return canceled("TransactionConflict")
        return fault


@pytest.mark.usefixtures("impatient")
def test_each_request_is_applied_entirely_or_not_at_all_and_its_answers_are_true(
    scene: Ledger,
) -> None:
    storm = Squall(scene, seed=20261126)
    source = storm.source
    wishes = [
        Wish(f"key{number}" if source.random() < 0.7 else None, some_increments(source))
        for number in range(WISHES)
    ]
    to_come = iter(wishes)
    current = list(itertools.islice(to_come, 8))

    def try_one() -> None:
        if not current:
            return
        wish = current.pop(source.randrange(len(current)))
        wish.tries.append(scene.add_all(wish.increments, wish.key))
        scene.advance(source.uniform(0, 3))
        # Some ask again although they have their answer.
        if not wish.over() or (wish.key and source.random() < 0.1):
            current.append(wish)
        elif following := next(to_come, None):
            current.append(following)

    storm.other = try_one
    while current:
        try_one()
    storm.calm_down()

    attempts: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for counter, history in storm.histories().items():
        for entry in history:
            attempts[entry["request_id"]][counter] = entry
    answers: Counter[str] = Counter()
    for wish in wishes:
        ids = [reply.context.aws_request_id for reply in wish.tries]
        made = [attempts.pop(each) for each in ids if each in attempts]
        assert_same(wish, made)
        answers.update(
            f"{kind(reply)} {'applied' if made else 'not applied'}" for reply in wish.tries
        )
    print(f"{len(wishes)} wishes, {answers.total()} requests: {dict(answers)} (0: killed)")
    for operation, met in sorted(storm.met.items()):
        print(f"{operation}: {met.total()} requests, {dict(met)}")

    assert not attempts  # nobody else's
    assert sum(scene.values(*NAMES)) == 0
    assert {
        "200 applied",
        "200 from the history applied",
        "200 replayed applied",
        "409 bound-exceeded not applied",
        "0 applied",
        "0 not applied",
    } <= set(answers)


def kind(reply: Invocation) -> str:
    """Return in short what was answered, and how that was found out."""
    if reply.status != 200:
        return f"{reply.status} {reply.problem}".strip()
    if reply.replayed:
        return "200 replayed"
    return "200 from the history" if "Query" in reply.operations() else "200"


def assert_left(reply: Invocation, expected: list[dict[str, Any]]) -> None:
    """Compare an answer with what the history says: it may not have known some counters yet."""
    for told, each in zip(json.loads(reply.text), expected, strict=True):
        if told["value"] is None:
            assert told == {**each, "value": None, "version": None}
        else:
            assert told == each


def assert_same(wish: Wish, made: list[dict[str, dict[str, Any]]]) -> None:
    """Compare what was answered with what was made: at most once, and then of all counters."""
    assert wish.tries
    assert len(made) <= 1
    asked = {each["counter_id"]: each["by"] for each in wish.increments}
    for entries_of in made:
        assert {counter: entry["by"] for counter, entry in entries_of.items()} == asked
    told = wish.told()
    if wish.key:
        assert told
    # One after the other, and a refusal frees the key: a later try may make what was refused.
    maker = next(iter(made[0].values()))["request_id"] if made else None
    is_made = False
    for reply in wish.tries:
        is_made = is_made or reply.context.aws_request_id == maker
        if reply in told:
            assert is_made == (reply.status == 200)
        if reply.status == 200:
            assert_left(reply, as_left(wish, made[0]))
        elif reply.problem == "throttled" and not wish.key:
            assert not made
        else:
            assert reply.status in {0, 409, 503}


def as_left(wish: Wish, entries_of: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the counters as the changes in the history left them."""
    return [
        {
            "counter_id": each["counter_id"],
            "value": entry["value"],
            "version": entry["version"],
            "created_at": entry["counter_created_at"],
            "updated_at": entry["created_at"],
        }
        for each in wish.increments
        for entry in [entries_of[each["counter_id"]]]
    ]
