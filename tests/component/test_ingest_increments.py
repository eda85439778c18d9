"""IncrementQueue: what becomes of its messages, each rule by itself."""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from itertools import chain, combinations, repeat
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.output import metrics, silence
from tests.component.samples import load
from tests.component.simulation import Killed, dies, dies_after
from tests.fifo_queue import ARN, FifoQueue, Message, as_parked, deliver, parked
from tests.sizes import cases
from tests.stack import CLIENT_ID, FORWARDER_ROLE_ID, Item, Stack, StreamRecord
from tests.wire import (
    LOST,
    Fault,
    Wire,
    answered,
    canceled,
    conflict,
    delivered,
    denied,
    refused_internally,
    reply_lost,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock
from counters.clients import ATTEMPT

MAX = 2**53 - 1
DAY = 24 * 3600  # seconds
MOST_GROUPS = 8

REFUSED = [throttled, conflict, unreachable, request_lost, refused_internally]
every_sign = pytest.mark.parametrize("sign", [1, -1], ids=["up", "down"])


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    with silence():
        yield


@pytest.fixture
def queue() -> FifoQueue:
    return FifoQueue()


def counting(counter_id: object = "orders", **fields: object) -> str:
    """Return the body of a message that counts."""
    return json.dumps({"counter_id": counter_id, **fields})


def an_event(source: object = "shop.checkout", **fields: object) -> str:
    """Return the body of a message that EventBridge has sent."""
    return json.dumps(
        {
            "version": "0",
            "id": "7bf73129-1428-4cd3-a780-95db273d1602",
            "detail-type": "Count",
            "source": source,
            "account": "123456789012",
            "time": "2026-11-22T10:00:00Z",
            "region": "eu-west-1",
            "resources": [],
            "detail": {"counter_id": "orders"},
            **fields,
        }
    )


def send(
    queue: FifoQueue, *amounts: int, group: str = "checkout", counter_id: str = "orders"
) -> list[Message]:
    """Send a message for each of the amounts that a counter is to be changed by."""
    return [queue.send(counting(counter_id, by=by), group) for by in amounts]


def standing(stack: Stack, counter_id: str = "orders") -> tuple[int, int]:
    """Return the value and the version of a counter."""
    counter = stack.request("GET", f"/counters/{counter_id}").body
    return counter["value"], counter["version"]


def stored(stack: Stack, counter_id: str = "orders") -> Any:  # noqa: ANN401  an item
    return next(
        item for item in stack.items("CounterTable") if item["counter_id"] == {"S": counter_id}
    )


def history(stack: Stack, counter_id: str = "orders") -> list[dict[str, Any]]:
    """Record what has changed, and return the counter's history."""
    records = stack.changes()
    assert stack.record(records) == len(records)
    entries: list[dict[str, Any]] = stack.request("GET", f"/counters/{counter_id}/history").body
    return entries


def events_of(record: StreamRecord) -> int:
    return int(record["dynamodb"]["NewImage"]["change"]["M"]["events"]["N"])


def about(counter_id: str, fault: Fault) -> Fault:
    """Return the fault that only the changes of one counter meet."""

    def only(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        key = json.loads(request.body)["Key"]
        return (fault if key == {"counter_id": {"S": counter_id}} else delivered)(request)

    return only


# --- What is counted -----------------------------------------------------------------------------


def test_a_batch_for_one_counter_makes_one_change(stack: Stack, queue: FifoQueue) -> None:
    batch = send(queue, 1, 4, -2)

    assert deliver(stack, *batch) == []
    assert standing(stack) == (3, 1)
    (change,) = stack.changes()
    assert events_of(change) == 3


def test_a_batch_of_a_known_group_makes_one_request_to_the_database(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    deliver(stack, *send(queue, 1))
    wire.sent.clear()

    assert deliver(stack, *send(queue, *[2] * 10)) == []
    assert wire.operations() == ["UpdateItem"]
    assert standing(stack) == (21, 2)


def test_a_message_without_an_amount_adds_one(stack: Stack, queue: FifoQueue) -> None:
    assert deliver(stack, queue.send(counting())) == []
    assert standing(stack) == (1, 1)


def test_each_counter_of_a_batch_is_changed_once(stack: Stack, queue: FifoQueue) -> None:
    batch = [queue.send(counting(name, by=by)) for by, name in enumerate("abab", 1)]

    assert deliver(stack, *batch) == []
    assert standing(stack, "a") == (4, 1)
    assert standing(stack, "b") == (6, 1)
    assert sorted(map(events_of, stack.changes())) == [2, 2]


def test_each_message_group_of_a_batch_makes_a_change_of_its_own(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 1, 2) + send(queue, 4, 8, group="returns")

    assert deliver(stack, *batch) == []
    assert standing(stack) == (15, 2)
    assert sorted(map(events_of, stack.changes())) == [2, 2]


def test_the_order_of_the_records_does_not_matter(stack: Stack, queue: FifoQueue) -> None:
    one, two, three = send(queue, 1, 2, 4)

    assert deliver(stack, three, one, two) == []
    assert standing(stack) == (7, 1)
    assert deliver(stack, three) == deliver(stack, two, one) == []
    assert standing(stack) == (7, 1)


def test_a_message_twice_in_a_batch_counts_once(stack: Stack, queue: FifoQueue) -> None:
    one, two = send(queue, 1, 2)

    assert deliver(stack, one, two, one, two, two) == []
    assert standing(stack) == (3, 1)
    assert list(map(events_of, stack.changes())) == [2]


def test_a_fold_whose_sum_is_zero_is_a_change(stack: Stack, queue: FifoQueue) -> None:
    assert deliver(stack, *send(queue, 2, -2)) == []

    assert standing(stack) == (0, 1)
    (entry,) = history(stack)
    assert (entry["by"], entry["events"]) == (0, 2)


@pytest.mark.parametrize(
    "body",
    [
        '{"counter_id":"orders","by":7}',
        '\n {"by" :\t7, "counter_id": "\\u006frders"}\r\n',
        an_event(detail={"counter_id": "orders", "by": 7}),
        json.dumps({"detail-type": "Count", "source": "s", "detail": {"counter_id": "orders"}})[:-2]
        + ', "by": 7}}',
        an_event("\N{WHITE SMILING FACE}" * 256, detail={"counter_id": "orders", "by": 7}),
    ],
    ids=["short", "with spaces", "an event", "the least of an event", "the longest source"],
)
def test_a_message_may_be_written_in_many_ways(stack: Stack, queue: FifoQueue, body: str) -> None:
    assert deliver(stack, queue.send(body)) == []
    assert standing(stack) == (7, 1)
    assert parked(stack) == []


@every_sign
def test_an_amount_may_be_as_large_as_any(stack: Stack, queue: FifoQueue, sign: int) -> None:
    assert deliver(stack, *send(queue, sign * MAX)) == []
    assert standing(stack) == (sign * MAX, 1)


def test_the_records_of_these_tests_have_the_form_of_the_sample_event(queue: FifoQueue) -> None:
    record = queue.send(counting()).record()

    for sample in load("ingest_increments")["Records"]:
        assert record.keys() == sample.keys()
        assert record["attributes"].keys() == sample["attributes"].keys()
        assert type(sample["attributes"]["SequenceNumber"]) is str
        assert len(sample["attributes"]["SequenceNumber"]) == len(str(queue.first))


# --- What comes again ----------------------------------------------------------------------------


def test_a_batch_that_is_delivered_again_changes_nothing(stack: Stack, queue: FifoQueue) -> None:
    batch = send(queue, 1, 2, 4)
    deliver(stack, *batch)
    before = stack.contents()

    for _ in range(3):
        assert deliver(stack, *batch) == []
    assert stack.contents() == before


def test_a_part_of_a_batch_that_is_delivered_again_changes_nothing(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 1, 2, 4)
    deliver(stack, *batch)
    before = stack.contents()

    for start, end in combinations(range(4), 2):
        assert deliver(stack, *batch[start:end]) == []
        assert stack.contents() == before


def test_only_the_new_messages_of_a_longer_batch_are_counted(
    stack: Stack, queue: FifoQueue
) -> None:
    for start in range(4):
        name = f"counter-{start}"
        batch = send(queue, 1, 2, 4, 8, 16, counter_id=name)
        deliver(stack, *batch[:3])

        assert deliver(stack, *batch[start:]) == []
        assert standing(stack, name) == (31, 2)
        assert list(map(events_of, stack.changes())) == [3, 2]


def test_an_old_batch_that_arrives_after_newer_ones_changes_nothing(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 1, 2, 4, 8)
    deliver(stack, *batch[:2])
    deliver(stack, *batch[2:])

    assert deliver(stack, *batch[:2]) == []
    assert deliver(stack, batch[1]) == []
    assert standing(stack) == (15, 2)


def test_messages_after_a_deleted_one_are_counted(stack: Stack, queue: FifoQueue) -> None:
    one, two, three = send(queue, 1, 2, 4)
    deliver(stack, one, two)
    queue.delete([one, two], [one])

    assert deliver(stack, *queue.batch({"checkout": 10})) == []
    assert queue.batch({"checkout": 10}) == [one, three]
    assert standing(stack) == (7, 2)


def test_a_new_message_for_one_counter_does_not_count_the_old_ones_of_another_again(
    stack: Stack, queue: FifoQueue
) -> None:
    first, second = queue.send(counting("a", by=1)), queue.send(counting("b", by=2))
    deliver(stack, first, second)
    third = queue.send(counting("a", by=4))

    assert deliver(stack, first, second, third) == []
    assert (standing(stack, "a"), standing(stack, "b")) == ((5, 2), (2, 1))


@pytest.mark.parametrize("edge", [10**20, 10, 10**38], ids=["20 digits", "1 digit", "38 digits"])
def test_sequence_numbers_are_compared_as_numbers(stack: Stack, edge: int) -> None:
    last_of_its_length, first_longer, next_longer = send(FifoQueue(first=edge - 1, step=1), 1, 2, 4)

    assert deliver(stack, last_of_its_length) == []
    assert deliver(stack, first_longer) == []
    assert standing(stack) == (3, 2)
    assert deliver(stack, last_of_its_length) == []
    assert standing(stack) == (3, 2)
    assert deliver(stack, next_longer, first_longer, last_of_its_length) == []
    assert standing(stack) == (7, 3)


def test_the_greatest_possible_sequence_number_is_counted_once(stack: Stack) -> None:
    one, two = send(FifoQueue(first=2**128 - 2, step=1), 1, 2)

    assert deliver(stack, one) == deliver(stack, one, two) == deliver(stack, two) == []
    assert standing(stack) == (3, 2)


def test_sequence_numbers_of_two_queues_are_independent(stack: Stack, queue: FifoQueue) -> None:
    other = FifoQueue(arn=ARN.replace("IncrementQueue", "OtherQueue"))
    batch, others = send(queue, 1, 2), send(other, 4, 8)

    assert deliver(stack, *batch) == deliver(stack, *others) == []
    assert standing(stack) == (15, 2)
    assert deliver(stack, *batch) == deliver(stack, *others) == []
    assert standing(stack) == (15, 2)


def test_sequence_numbers_of_two_groups_are_independent(stack: Stack, queue: FifoQueue) -> None:
    early, late = send(queue, 1, group="early"), send(queue, 2, group="late")

    assert deliver(stack, *late) == deliver(stack, *early) == []
    assert standing(stack) == (3, 2)
    assert deliver(stack, *early) == deliver(stack, *late) == []
    assert standing(stack) == (3, 2)


def test_the_end_of_an_arn_is_not_mistaken_for_the_start_of_a_group(stack: Stack) -> None:
    one, two = FifoQueue(arn="arn:aws:sqs:e:1:a"), FifoQueue(arn="arn:aws:sqs:e:1:")

    assert deliver(stack, *send(one, 1, group="b")) == []
    assert deliver(stack, *send(two, 2, group="ab")) == []
    assert standing(stack) == (3, 2)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_request_keeps_the_sequence_numbers_of_the_counter(
    stack: Stack, queue: FifoQueue, method: str
) -> None:
    batch = send(queue, 1, 2)
    deliver(stack, *batch)
    numbers = stored(stack)["sequence_numbers"]
    assert len(numbers["M"]) == 1

    body = {"by": 97} if method == "POST" else {"value": 100}
    assert stack.request(method, "/counters/orders", body=body).status == 200
    assert stored(stack)["sequence_numbers"] == numbers
    assert deliver(stack, *batch) == []
    assert standing(stack) == (100, 2)
    assert deliver(stack, *send(queue, 4)) == []
    assert standing(stack) == (104, 3)


def test_a_transaction_of_increments_keeps_the_sequence_numbers_of_the_counter(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 1, 2)
    deliver(stack, *batch)

    body = {"increments": [{"counter_id": "orders", "by": 97}, {"counter_id": "stock"}]}
    assert stack.request("POST", "/increments", body=body).status == 200
    assert deliver(stack, *batch) == []
    assert standing(stack) == (100, 2)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_queue_can_change_a_counter_that_a_request_created(
    stack: Stack, queue: FifoQueue, method: str
) -> None:
    body = {"by": 100} if method == "POST" else {"value": 100}
    made = stack.request(method, "/counters/orders", body=body).body

    batch = send(queue, 1, 2)
    assert deliver(stack, *batch) == deliver(stack, *batch) == []
    counter = stack.request("GET", "/counters/orders").body
    assert (counter["value"], counter["version"]) == (103, 2)
    assert counter["created_at"] == made["created_at"]


def test_a_counter_that_the_queue_created_is_like_any_other(stack: Stack, queue: FifoQueue) -> None:
    deliver(stack, *send(queue, 1, 2))
    counter = stack.request("GET", "/counters/orders").body

    assert counter.keys() == {"counter_id", "value", "version", "created_at", "updated_at"}
    assert counter["created_at"] == counter["updated_at"]
    assert stack.request("GET", "/counters").body == ["orders"]
    reply = stack.request("POST", "/counters/orders", body={"by": 4})
    assert (reply.body["value"], reply.body["version"]) == (7, 2)
    reply = stack.request("PUT", "/counters/orders", headers={"If-Match": '"2"'}, body={"value": 5})
    assert (reply.body["value"], reply.body["version"]) == (5, 3)


# --- Replies that are lost, and deaths -----------------------------------------------------------


@pytest.mark.parametrize("known", [False, True], ids=["a new counter", "a known group"])
def test_a_write_that_is_repeated_after_a_fault_is_applied_once(
    stack: Stack, queue: FifoQueue, wire: Wire, *, known: bool
) -> None:
    for number, fault in enumerate(LOST + REFUSED):
        name = f"counter-{number}"
        if known:
            deliver(stack, *send(queue, 8, counter_id=name))
        before = standing(stack, name)
        wire.fail("UpdateItem", [fault] * 2 if known else [delivered, *[fault] * 2])
        batch = send(queue, 1, 2, counter_id=name)

        assert deliver(stack, *batch) == [], fault
        assert standing(stack, name) == (before[0] + 3, before[1] + 1)
        wire.fail("UpdateItem", [])
        assert deliver(stack, *batch) == []
        assert standing(stack, name) == (before[0] + 3, before[1] + 1)


def test_messages_whose_write_was_applied_but_never_answered_are_not_counted_again(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    for number, fault in enumerate(LOST):
        name = f"counter-{number}"
        deliver(stack, *send(queue, 8, counter_id=name))
        wire.fail("UpdateItem", chain([fault], repeat(throttled)))
        batch = send(queue, 1, 2, counter_id=name)

        assert deliver(stack, *batch) == batch, fault
        assert standing(stack, name) == (11, 2)
        wire.fail("UpdateItem", [])
        assert deliver(stack, *batch, *send(queue, 4, counter_id=name)) == []
        assert standing(stack, name) == (15, 3)


@pytest.mark.parametrize("known", [False, True], ids=["a new counter", "a known group"])
@pytest.mark.parametrize("death", [dies, dies_after])
def test_what_a_killed_function_has_counted_is_not_counted_again(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault, *, known: bool
) -> None:
    if known:
        deliver(stack, *send(queue, 8))
    before = standing(stack)
    batch = send(queue, 1, 2)
    wire.fail("UpdateItem", [death] if known else [delivered, death])
    with pytest.raises(Killed):
        deliver(stack, *batch)

    assert deliver(stack, *batch, *send(queue, 4)) == []
    assert standing(stack)[0] == before[0] + 7


# --- What fails ----------------------------------------------------------------------------------


def test_while_the_table_refuses_writes_the_whole_batch_is_reported(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    batch = send(queue, 1, 2) + send(queue, 4, group="returns")
    for fault in [*REFUSED, denied]:
        wire.fail("UpdateItem", repeat(fault))

        assert deliver(stack, *batch) == batch, fault
        assert stack.items("CounterTable") == []
        assert parked(stack) == []

    wire.fail("UpdateItem", [])
    assert deliver(stack, *batch) == []
    assert standing(stack) == (7, 2)


def test_the_first_failed_message_of_a_group_and_all_after_it_are_reported(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    batch = [queue.send(counting(name, by=2**number)) for number, name in enumerate("abac")]
    other = queue.send(counting("a", by=16), "another")
    for fault in [*REFUSED, denied]:
        wire.fail("UpdateItem", repeat(about("b", fault)))

        assert deliver(stack, *batch, other) == batch[1:], fault
        assert standing(stack, "a")[0] - 16 in {1, 1 + 4}
        assert standing(stack, "b") == standing(stack, "c") == (0, 0)

    wire.fail("UpdateItem", [])
    assert deliver(stack, *batch[1:]) == []
    assert standing(stack, "a")[0] == 1 + 4 + 16
    assert standing(stack, "b") == (2, 1)
    assert standing(stack, "c") == (8, 1)


def test_the_first_of_two_failures_in_a_group_decides_what_is_reported(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    batch = [queue.send(counting(name)) for name in "abacbc"]
    wire.fail("UpdateItem", repeat(about("b", throttled)))
    assert deliver(stack, *batch) == batch[1:]

    wire.fail("UpdateItem", repeat(about("c", throttled)))
    assert deliver(stack, *batch) == batch[3:]

    wire.fail("UpdateItem", repeat(throttled))
    assert deliver(stack, *batch) == batch


def test_no_message_after_a_failure_is_parked(stack: Stack, queue: FifoQueue, wire: Wire) -> None:
    batch = [queue.send(counting("a")), queue.send(counting("b")), queue.send("senseless")]
    wire.fail("UpdateItem", repeat(about("b", throttled)))

    assert deliver(stack, *batch) == batch[1:]
    assert parked(stack) == []

    wire.fail("UpdateItem", [])
    assert deliver(stack, *batch[1:]) == []
    assert parked(stack) == [as_parked(batch[2])]


@pytest.fixture
def hasty(stack: Stack, monkeypatch: pytest.MonkeyPatch, wire: Wire) -> float:  # noqa: ARG001
    """Let the function be given 10 s for a batch; return when it may ask for the last time.

    Time passes only while something waits: on a busy machine, the test itself may take a second.
    """
    now = time.time()

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(clock, "sleep", wait)
    function = stack.functions["IngestIncrements"]
    stack.functions["IngestIncrements"] = replace(function, timeout=10)
    return 10 - ATTEMPT


def taking(seconds: float, times: list[float]) -> Fault:
    """Return what answers after a while; it notes when it was asked."""

    def slow(request: AWSPreparedRequest) -> AWSResponse:
        times.append(clock.now())
        clock.sleep(seconds)
        return delivered(request)

    return slow


def test_when_time_runs_out_the_rest_is_reported(
    stack: Stack, queue: FifoQueue, wire: Wire, hasty: float
) -> None:
    batch = [queue.send(counting(f"counter-{number}")) for number in range(10)]
    for message in batch:
        deliver(stack, message)
    times: list[float] = []
    wire.fail("UpdateItem", repeat(taking(1.9, times)))
    again = [queue.send(counting(f"counter-{number}")) for number in range(10)]
    began = clock.now()

    assert deliver(stack, *again) == again[4:]
    assert len(times) == 4
    assert max(times) - began < hasty
    assert [standing(stack, f"counter-{number}")[0] for number in range(10)] == [2] * 4 + [1] * 6


def test_when_time_runs_out_the_remaining_groups_are_reported(
    stack: Stack, queue: FifoQueue, wire: Wire, hasty: float
) -> None:
    times: list[float] = []
    wire.fail("UpdateItem", repeat(taking(1.9, times)))
    batch = [queue.send(counting(f"counter-{number}"), f"group-{number}") for number in range(9)]
    began = clock.now()

    failed = deliver(stack, *batch)

    assert len(failed) == 7  # of each of the first, two requests
    assert max(times) - began < hasty
    wire.fail("UpdateItem", [])
    assert deliver(stack, *failed) == []
    assert [standing(stack, f"counter-{number}") for number in range(9)] == [(1, 1)] * 9


def test_without_enough_time_nothing_is_sent(stack: Stack, queue: FifoQueue, wire: Wire) -> None:
    function = stack.functions["IngestIncrements"]
    stack.functions["IngestIncrements"] = replace(function, timeout=3)
    batch = [*send(queue, 1, 2), queue.send("senseless")]

    assert deliver(stack, *batch) == batch
    assert wire.sent == []


# --- What makes no sense -------------------------------------------------------------------------

DEEP = 100_000
SENSELESS = {
    "nothing": "",
    "no JSON": "orders",
    "a half": '{"counter_id": "orders"',
    "more than one": counting() + counting(),
    "a byte order mark": "\ufeff" + counting(),
    "an array": json.dumps([{"counter_id": "orders"}]),
    "a text": '"orders"',
    "a number": "1",
    "null": "null",
    "true": "true",
    "an empty object": "{}",
    "an unknown field": counting(value=1),
    "bounds": counting(min=0),
    "an empty field": counting(**{"": 1}),
    "a surrogate for a field": '{"counter_id": "orders", "\\ud800": 1}',
    "a field twice": '{"counter_id": "orders", "by": 1, "by": 1}',
    "a counter twice": '{"counter_id": "orders", "counter_id": "orders"}',
    "by 0": counting(by=0),
    "by -0": '{"counter_id": "orders", "by": -0}',
    "by 1.0": '{"counter_id": "orders", "by": 1.0}',
    "by 1.5": '{"counter_id": "orders", "by": 1.5}',
    "by 1e2": '{"counter_id": "orders", "by": 1e2}',
    "by 1e999": '{"counter_id": "orders", "by": 1e999}',
    "by NaN": '{"counter_id": "orders", "by": NaN}',
    "by -Infinity": '{"counter_id": "orders", "by": -Infinity}',
    "by null": counting(by=None),
    "by true": counting(by=True),
    "by a text": counting(by="1"),
    "by a list": counting(by=[1]),
    "by too much": counting(by=2**53),
    "by too little": counting(by=-(2**53)),
    "by endless digits": '{"counter_id": "orders", "by": ' + "1" * 5000 + "}",
    "no counter_id": '{"by": 1}',
    "a counter_id that is null": counting(None),
    "a counter_id that is a number": counting(1),
    "an empty counter_id": counting(""),
    "a counter_id with a space": counting("orders "),
    "a counter_id with a line end": counting("orders\n"),
    "a counter_id that begins so": counting("-orders"),
    "a counter_id that is too long": counting("o" * 129),
    "a counter_id in other letters": counting("\N{LATIN SMALL LETTER O WITH DIAERESIS}rders"),
    "huge": counting("o" * 200_000),
    "deep": "[" * DEEP + "]" * DEEP,
    "deep in a field": '{"by": ' * 30_000 + "1" + "}" * 30_000,
    "an event of another type": an_event(**{"detail-type": "Uncount"}),
    "an event of a type in other letters": an_event(**{"detail-type": "count"}),
    "an event of no type": an_event(**{"detail-type": None}),
    "an event without a detail": '{"detail-type": "Count", "source": "shop"}',
    "an event whose detail is null": an_event(detail=None),
    "an event whose detail is a list": an_event(detail=[{"counter_id": "orders"}]),
    "an event whose detail is a text": an_event(detail=counting()),
    "an event whose detail is empty": an_event(detail={}),
    "an event whose detail has more": an_event(detail={"counter_id": "orders", "note": "x"}),
    "an event whose detail has one twice": an_event().replace(
        '"counter_id": "orders"', '"counter_id": "orders", "by": 1, "by": 1'
    ),
    "an event that counts by 0": an_event(detail={"counter_id": "orders", "by": 0}),
    "an event with two sources": an_event()[:-1] + ', "source": "shop"}',
    "an event without a source": '{"detail-type": "Count", "detail": {"counter_id": "orders"}}',
    "an event whose source is null": an_event(None),
    "an event whose source is a number": an_event(1),
    "an event whose source is empty": an_event(""),
    "an event whose source is too long": an_event("s" * 257),
    "an event whose source has a line end": an_event("shop\ncheckout"),
    "an event whose source is a surrogate": an_event("\ud800"),
    "an event within an event": an_event(detail=json.loads(an_event())),
    "a replayed event": an_event(**{"replay-name": "again"}),
    "a detail without its event": '{"detail": {"counter_id": "orders"}}',
}


def observing(stack: Stack, seen: list[tuple[int, int]]) -> Iterator[Fault]:
    """Yield what notes where the counter stands when a message goes to the dead-letter queue."""

    def look(request: AWSPreparedRequest) -> AWSResponse:
        item = stored(stack)
        seen.append((int(item["value"]["N"]), int(item["version"]["N"])))
        return delivered(request)

    return repeat(look)


def test_a_malformed_message_is_parked_unchanged_and_in_its_turn(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    seen: list[tuple[int, int]] = []
    wire.fail("SendMessage", observing(stack, seen))
    counted = 0
    for start in range(0, len(SENSELESS), 4):
        batch = send(queue, 1)
        for body in list(SENSELESS.values())[start : start + 4]:
            batch += [queue.send(body), *send(queue, 1)]

        assert deliver(stack, *batch) == []
        found = parked(stack)
        assert found == [as_parked(message) for message in batch[1::2]]
        assert all(each.reason and each.reason.isascii() for each in found)
        # What is before each is counted by then, and what is behind it is not.
        sums = [counted + number for number in range(1, len(batch[1::2]) + 1)]
        assert seen == [(each, each) for each in sums]
        counted += len(batch[::2])
        assert standing(stack) == (counted, counted)
        seen.clear()


def test_malformed_messages_are_parked_in_their_order(stack: Stack, queue: FifoQueue) -> None:
    batch = [queue.send(counting() if number in {3, 4, 8} else f"{number}") for number in range(10)]

    assert deliver(stack, *batch) == []
    assert parked(stack) == [as_parked(batch[number]) for number in (0, 1, 2, 5, 6, 7, 9)]
    assert standing(stack) == (3, 2)


def test_a_message_is_parked_in_its_own_group(stack: Stack, queue: FifoQueue) -> None:
    batch = [queue.send("senseless", group) for group in ("one", "two")]

    assert deliver(stack, *batch) == []
    assert parked(stack) == [as_parked(message) for message in batch]
    assert {each.group for each in map(as_parked, batch)} == {"one", "two"}


def test_equal_messages_are_all_parked(stack: Stack, queue: FifoQueue) -> None:
    batch = [queue.send("senseless") for _ in range(3)]

    assert deliver(stack, *batch) == []
    assert len(parked(stack)) == 3


def test_a_message_that_cannot_be_parked_is_reported_with_all_after_it(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    (before,) = send(queue, 1)
    senseless = queue.send("senseless")
    behind = send(queue, 2, 4)
    (other,) = send(queue, 8, group="returns")
    for fault in (denied, throttled, request_lost, unreachable):
        wire.fail("SendMessage", repeat(fault))

        assert deliver(stack, before, senseless, *behind, other) == [senseless, *behind], fault
        assert standing(stack) == (9, 2)
        assert parked(stack) == []

    wire.fail("SendMessage", [])
    assert deliver(stack, senseless, *behind) == []
    assert standing(stack) == (15, 3)
    assert parked(stack) == [as_parked(senseless)]


def test_a_message_that_is_parked_again_after_a_lost_reply_is_in_the_queue_once(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    for fault in LOST:
        senseless = queue.send("senseless")
        wire.fail("SendMessage", repeat(fault))
        assert deliver(stack, senseless) == [senseless], fault

        wire.fail("SendMessage", [fault])
        assert deliver(stack, senseless) == []
        assert parked(stack) == [as_parked(senseless)]


@pytest.mark.parametrize("death", [dies, dies_after])
def test_a_message_is_parked_once_though_the_function_was_killed_meanwhile(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault
) -> None:
    batch = [*send(queue, 1), queue.send("senseless"), *send(queue, 2)]
    wire.fail("SendMessage", [death])
    with pytest.raises(Killed):
        deliver(stack, *batch)
    assert standing(stack) == (1, 1)

    assert deliver(stack, *batch) == []
    assert standing(stack) == (3, 2)
    assert parked(stack) == [as_parked(batch[1])]


def test_when_time_runs_out_nothing_more_is_parked(
    stack: Stack, queue: FifoQueue, wire: Wire, hasty: float
) -> None:
    batch = [queue.send(f"senseless {number}") for number in range(10)]
    times: list[float] = []
    wire.fail("SendMessage", repeat(taking(1.9, times)))
    began = clock.now()

    assert deliver(stack, *batch) == batch[4:]
    assert max(times) - began < hasty


# --- The range of integers -----------------------------------------------------------------------

NO_ROOM = "The counter has no room: it would leave the range of integers."


def near_the_end(stack: Stack, sign: int, room: int) -> None:
    """Set the counter to so much before the end of the integers."""
    body = {"value": sign * (MAX - room)}
    assert stack.request("PUT", "/counters/orders", body=body).status == 200


@every_sign
def test_a_message_that_would_leave_the_range_is_parked_with_the_reason_and_later_ones_are_counted(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    near_the_end(stack, sign, 10)
    batch = send(queue, sign * 3, sign * 4, sign * 5, sign * 2, sign * 9, sign * 1)

    assert deliver(stack, *batch) == []
    assert standing(stack) == (sign * MAX, 4)
    found = parked(stack)
    assert found == [as_parked(batch[2]), as_parked(batch[4])]
    assert {each.reason for each in found} == {NO_ROOM}


def test_a_message_that_would_have_left_the_range_is_never_counted_later(
    stack: Stack, queue: FifoQueue
) -> None:
    near_the_end(stack, 1, 10)
    batch = send(queue, 11, 2)
    assert deliver(stack, *batch) == []

    near_the_end(stack, 1, MAX)
    for again in (batch, batch[:1], batch[1:], [*batch, *send(queue, 5)], batch):
        assert deliver(stack, *again) == []
    assert standing(stack)[0] == 5
    assert parked(stack) == [as_parked(batch[0])]


@pytest.mark.parametrize("groups", [1, MOST_GROUPS + 1], ids=["in the item", "apart"])
@pytest.mark.parametrize("death", [dies, dies_after, throttled, *LOST[: cases(full=3, part=1)]])
def test_a_refused_message_is_parked_once_wherever_parking_is_interrupted(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault, groups: int
) -> None:
    *first, last = [queue.send(counting(), f"group-{number}") for number in range(groups)]
    if first:
        deliver(stack, *first)
    deliver(stack, last)
    group = last.group
    # Which request makes the counter refuse the message: before that, it may still be counted.
    refusal = 1 if groups <= MOST_GROUPS else 3
    killed = 0
    for position in range(7):
        near_the_end(stack, 1, 3)
        (misfit,) = send(queue, 5, group=group)
        faults = at_position(position, death)
        for operation in ("UpdateItem", "SendMessage", "TransactWriteItems"):
            wire.fail(operation, faults)
        try:
            deliver(stack, misfit)
        except Killed:
            killed += 1
            counts = position < refusal or (position == refusal and death is dies)
        else:
            counts = False
        for operation in ("UpdateItem", "SendMessage", "TransactWriteItems"):
            wire.fail(operation, [])

        near_the_end(stack, 1, 100)  # now there is room
        before = standing(stack)[0]
        for _ in range(cases(full=50, part=2)):
            assert deliver(stack, misfit) == []
        assert standing(stack)[0] - before == (5 if counts else 0), position
        assert parked(stack) == ([] if counts else [as_parked(misfit)]), position
    assert killed == (refusal + 3 if death in {dies, dies_after} else 0)


def at_position(position: int, fault: Fault) -> Iterator[Fault]:
    """Yield what all requests meet: the one at a position, from 0 on, meets the fault."""
    made = itertools.count()

    def meet(request: AWSPreparedRequest) -> AWSResponse:
        return (fault if next(made) == position else delivered)(request)

    return repeat(meet)


@every_sign
def test_messages_are_counted_as_far_as_they_stay_in_the_range(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    near_the_end(stack, sign, 10)
    batch = send(queue, *(sign * by for by in (4, 10, -5, 1, 1, -3, 7, 1)))

    assert deliver(stack, *batch) == []
    # In between it may leave the range: what counts is where the fold ends.
    assert standing(stack) == (sign * (MAX - 1), 3)
    assert parked(stack) == [as_parked(batch[6])]


@every_sign
def test_a_sum_that_reaches_the_end_of_the_range_is_counted(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    near_the_end(stack, sign, 10)

    assert deliver(stack, *send(queue, sign * 7, sign * 3)) == []
    assert standing(stack) == (sign * MAX, 2)
    assert parked(stack) == []


@every_sign
def test_a_new_counter_has_the_same_range(stack: Stack, queue: FifoQueue, sign: int) -> None:
    batch = send(queue, *[sign * MAX] * 10)

    assert deliver(stack, *batch) == []
    assert standing(stack) == (sign * MAX, 1)
    assert parked(stack) == [as_parked(message) for message in batch[1:]]


@every_sign
def test_a_fold_may_go_from_one_end_of_the_range_to_the_other(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    near_the_end(stack, sign, 0)

    assert deliver(stack, *send(queue, -sign * MAX, -sign * MAX)) == []
    assert standing(stack) == (-sign * MAX, 2)


def test_a_refused_message_holds_up_neither_another_group_nor_another_counter(
    stack: Stack, queue: FifoQueue
) -> None:
    near_the_end(stack, 1, 10)
    batch = [*send(queue, 11), queue.send(counting("stock"))]
    other = send(queue, 1, group="returns")

    assert deliver(stack, *batch, *other) == []
    assert standing(stack) == (MAX - 9, 2)
    assert standing(stack, "stock") == (1, 1)
    assert parked(stack) == [as_parked(batch[0])]


def test_a_refused_message_that_cannot_be_parked_is_reported_with_all_after_it(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    near_the_end(stack, 1, 10)
    batch = [*send(queue, 1, 11, 2), queue.send("senseless")]
    wire.fail("SendMessage", repeat(denied))

    assert deliver(stack, *batch) == batch[1:]
    assert standing(stack) == (MAX - 9, 2)
    assert parked(stack) == []

    wire.fail("SendMessage", [])
    near_the_end(stack, 1, 100)
    assert deliver(stack, *batch[1:]) == []
    assert standing(stack)[0] == MAX - 98
    assert parked(stack) == [as_parked(batch[1]), as_parked(batch[3])]


def test_refusing_a_message_is_not_a_change_of_the_counter(stack: Stack, queue: FifoQueue) -> None:
    near_the_end(stack, 1, 10)
    deliver(stack, *send(queue, 1, 11))
    deliver(stack, *send(queue, 2))

    entries = history(stack)

    assert [entry["version"] for entry in entries] == [1, 2, 3]
    assert stack.messages("HistoryDeadLetterQueue") == []


def test_a_group_whose_requests_fail_leaves_time_for_another(
    stack: Stack, queue: FifoQueue, wire: Wire, hasty: float
) -> None:
    def times_out(request: AWSPreparedRequest) -> AWSResponse:
        clock.sleep(2.0)
        return request_lost(request)

    deliver(stack, queue.send(counting("b"), "group-b"))
    first = queue.send(counting("a"), "group-a")
    second = queue.send(counting("b"), "group-b")
    wire.fail("UpdateItem", repeat(about("a", times_out)))
    began = clock.now()

    assert deliver(stack, first, second) == [first]
    assert standing(stack, "b") == (2, 2)
    assert clock.now() - began < hasty + 2


def test_a_parked_message_says_who_sent_it(stack: Stack, queue: FifoQueue) -> None:
    deliver(stack, queue.send('{"\\ud800": 1}', sender="AROAEXAMPLE:shop"))

    (message,) = stack.sqs.receive_message(
        QueueUrl=stack.refs["IncrementDeadLetterQueue"], MessageAttributeNames=["All"]
    )["Messages"]
    attributes = message["MessageAttributes"]
    assert attributes["sender"]["StringValue"] == "AROAEXAMPLE:shop"
    assert attributes["reason"]["StringValue"] == "\\ud800: unknown field"


def test_a_message_of_the_greatest_length_is_parked_without_the_reason(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    def too_long(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        if "MessageAttributes" not in json.loads(request.body):
            return delivered(request)
        body = {"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": "too long"}
        return answered(request, HTTPStatus.BAD_REQUEST, body)

    wire.fail("SendMessage", repeat(too_long))

    assert deliver(stack, queue.send("senseless"), *send(queue, 1)) == []
    assert stack.messages("IncrementDeadLetterQueue") == ["senseless"]
    assert standing(stack) == (1, 1)


# --- Many groups ---------------------------------------------------------------------------------


@pytest.fixture
def crowded(stack: Stack, queue: FifoQueue) -> list[Message]:
    """Let so many groups have counted `orders`, by 1 each, that its item has no place for more."""
    batch = [queue.send(counting(), f"group-{number}") for number in range(MOST_GROUPS)]
    assert deliver(stack, *batch) == []
    return batch


def receipts(stack: Stack) -> list[Item]:
    return stack.items("ReceiptTable")


@pytest.mark.usefixtures("crowded")
def test_the_number_of_a_ninth_group_is_kept_in_an_item_of_its_own(
    stack: Stack, queue: FifoQueue
) -> None:
    before = stored(stack)["sequence_numbers"]
    assert receipts(stack) == []

    assert deliver(stack, *send(queue, 2, 4)) == []
    assert standing(stack) == (14, 9)
    assert stored(stack)["sequence_numbers"] == before
    assert len(before["M"]) == MOST_GROUPS
    (receipt,) = receipts(stack)
    # No queue keeps a message for more than 14 days.
    assert 14.9 * DAY < int(receipt["expires_at"]["N"]) - clock.now() <= 15 * DAY


def test_each_fold_prolongs_the_life_of_that_item(
    stack: Stack, queue: FifoQueue, crowded: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(stack, *send(queue, 2))
    (before,) = receipts(stack)
    later = clock.now() + DAY
    monkeypatch.setattr(clock, "now", lambda: later)

    deliver(stack, *send(queue, 4))
    deliver(stack, *crowded)
    (after,) = receipts(stack)
    assert after["receipt_id"] == before["receipt_id"]
    assert int(after["expires_at"]["N"]) - int(before["expires_at"]["N"]) >= DAY - 1
    assert standing(stack) == (14, 10)


@pytest.mark.usefixtures("crowded")
def test_messages_of_further_groups_that_are_delivered_again_change_nothing(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 2, 4)
    more = [queue.send(counting(by=8), f"further-{number}") for number in range(5)]
    assert deliver(stack, *batch, *more) == []
    assert standing(stack) == (54, 14)
    before = stack.contents()

    for again in (batch, batch[1:], batch[:1], more, [*more, *batch]):
        assert deliver(stack, *again) == []
    assert stack.contents() == before

    assert deliver(stack, *batch, *send(queue, 16)) == []
    assert standing(stack) == (70, 15)
    assert [events_of(change) for change in stack.changes()][8:] == [2, 1, 1, 1, 1, 1, 1]


@pytest.mark.usefixtures("crowded")
def test_sequence_numbers_of_further_groups_are_independent(stack: Stack, queue: FifoQueue) -> None:
    early, late = send(queue, 2, group="early"), send(queue, 4, group="late")

    assert deliver(stack, *late) == deliver(stack, *early) == []
    assert standing(stack) == (14, 10)
    assert deliver(stack, *early) == deliver(stack, *late) == []
    assert standing(stack) == (14, 10)


def test_the_first_groups_keep_their_place_in_the_counters_item(
    stack: Stack, queue: FifoQueue, crowded: list[Message]
) -> None:
    deliver(stack, *send(queue, 2))
    apart = receipts(stack)

    assert deliver(stack, *crowded) == []
    assert standing(stack) == (10, 9)
    assert deliver(stack, *[queue.send(counting(by=4), each.group) for each in crowded]) == []
    assert standing(stack) == (42, 17)
    assert receipts(stack) == apart


@pytest.mark.usefixtures("crowded")
def test_a_group_has_a_number_of_its_own_for_each_counter(stack: Stack, queue: FifoQueue) -> None:
    for number in range(MOST_GROUPS):
        deliver(stack, queue.send(counting("stock"), f"group-{number}"))
    first, second = queue.send(counting("stock", by=2)), queue.send(counting(by=4))

    assert deliver(stack, second) == []
    assert deliver(stack, first, second) == []
    assert standing(stack, "stock") == (10, 9)
    assert standing(stack) == (12, 9)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("known", [False, True], ids=["a new group", "a known group"])
def test_a_transaction_that_is_repeated_after_a_fault_is_applied_once(
    stack: Stack, queue: FifoQueue, wire: Wire, *, known: bool
) -> None:
    cancellations = [
        canceled("TransactionConflict", "None"),
        canceled("None", "TransactionConflict"),
        canceled("None", "ThrottlingError"),
        canceled("ProvisionedThroughputExceeded", "TransactionConflict"),
    ]
    for number, fault in enumerate([*LOST, *REFUSED, *cancellations]):
        group = f"further-{number}"
        if known:
            deliver(stack, *send(queue, 16, group=group))
        before = standing(stack)
        batch = send(queue, 2, 4, group=group)
        wire.fail("TransactWriteItems", [fault] * 2)

        assert deliver(stack, *batch) == [], number
        assert standing(stack) == (before[0] + 6, before[1] + 1)
        wire.fail("TransactWriteItems", [])
        assert deliver(stack, *batch) == []
        assert standing(stack) == (before[0] + 6, before[1] + 1)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("death", [dies, dies_after])
def test_a_function_that_is_killed_in_a_transaction_counts_once(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault
) -> None:
    batch = send(queue, 2, 4)
    wire.fail("TransactWriteItems", [death])
    with pytest.raises(Killed):
        deliver(stack, *batch)

    assert deliver(stack, *batch) == []
    assert standing(stack) == (14, 9)


@pytest.mark.usefixtures("crowded")
def test_while_transactions_are_refused_their_messages_are_reported(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    batch = send(queue, 2, 4)
    (other,) = send(queue, 16, group="group-0")
    conflicts = canceled("None", "TransactionConflict")
    for fault in (denied, throttled, conflicts, canceled("AccessDenied")):
        wire.fail("TransactWriteItems", repeat(fault))

        assert deliver(stack, *batch, other) == batch
        assert standing(stack) == (24, 9)

    wire.fail("TransactWriteItems", [])
    assert deliver(stack, *batch) == []
    assert standing(stack) == (30, 10)


@pytest.mark.usefixtures("crowded")
@every_sign
def test_a_message_of_a_further_group_that_would_leave_the_range_is_parked(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    near_the_end(stack, sign, 10)
    batch = send(queue, sign * 3, sign * 8, sign * 2)

    for _ in range(2):
        assert deliver(stack, *batch) == []
        assert standing(stack) == (sign * (MAX - 5), 11)
    assert parked(stack) == [as_parked(batch[1])]


# --- What it looks like afterwards ---------------------------------------------------------------


def actor(stack: Stack, queue: FifoQueue, *sent: tuple[str, str]) -> str:
    """Return the actor of the change that messages become, each a body and a sender."""
    assert deliver(stack, *[queue.send(body, sender=sender) for body, sender in sent]) == []
    (entry,) = history(stack)
    found: str = entry["actor"]
    return found


def test_the_actor_of_a_message_is_its_sender(stack: Stack, queue: FifoQueue) -> None:
    assert actor(stack, queue, (counting(), "AROAEXAMPLE:shop")) == "sqs:AROAEXAMPLE:shop"
    (entry,) = history_of(stack)
    assert "sender" not in entry


def test_the_actor_of_an_event_is_its_source_and_the_sender_is_kept(
    stack: Stack, queue: FifoQueue
) -> None:
    event = (an_event("shop.checkout"), "AROAEXAMPLE:forwarder")
    assert actor(stack, queue, event) == "event:shop.checkout"
    (entry,) = history_of(stack)
    assert entry["sender"] == "AROAEXAMPLE:forwarder"


def history_of(stack: Stack, counter_id: str = "orders") -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = stack.request("GET", f"/counters/{counter_id}/history").body
    return entries


def test_a_fold_names_each_actor_and_sender_once_in_order_of_appearance(
    stack: Stack, queue: FifoQueue
) -> None:
    sent = [
        (counting(), "zoe"),
        (an_event("shop"), "AIDAEXAMPLE"),
        (counting(), "adam"),
        (counting(), "zoe"),
        (an_event("shop"), "AIDAOTHER"),
        (an_event("adam"), "AIDAEXAMPLE"),
    ]

    assert actor(stack, queue, *sent) == "sqs:zoe, event:shop, sqs:adam, event:adam"
    (entry,) = history_of(stack)
    assert entry["sender"] == "AIDAEXAMPLE, AIDAOTHER"


FORWARDER = f"{FORWARDER_ROLE_ID}:tally-test-ForwardEvents"


def test_the_sender_of_a_forwarded_event_is_who_sent_it_to_the_event_queue(
    stack: Stack, queue: FifoQueue
) -> None:
    message = queue.send(an_event("shop"), sender=FORWARDER, attribute="AIDAEVENTBRIDGE")

    assert deliver(stack, message) == []
    (entry,) = history(stack)
    assert (entry["actor"], entry["sender"]) == ("event:shop", "AIDAEVENTBRIDGE")


def test_a_forwarded_event_without_an_original_sender_is_counted(
    stack: Stack, queue: FifoQueue
) -> None:
    assert deliver(stack, queue.send(an_event("shop"), sender=FORWARDER)) == []
    (entry,) = history(stack)
    assert (entry["actor"], entry["sender"]) == ("event:shop", FORWARDER)


def test_a_forwarded_message_that_is_not_an_event_is_parked(stack: Stack, queue: FifoQueue) -> None:
    message = queue.send(counting(), sender=FORWARDER, attribute="AIDASOMEBODY")

    assert deliver(stack, message, *send(queue, 2)) == []
    (found,) = parked(stack)
    assert found == as_parked(message)
    assert found.reason == "detail-type: EventQueue takes events only"
    assert standing(stack) == (2, 1)


@pytest.mark.parametrize("sender", ["AROAEXAMPLE:shop", f"X{FORWARDER}", "AROAFORWARDER:x", "A"])
def test_only_the_forwarder_can_name_another_sender(
    stack: Stack, queue: FifoQueue, sender: str
) -> None:
    for body in (counting(), an_event("shop")):
        assert deliver(stack, queue.send(body, sender=sender, attribute="AIDAVICTIM")) == []

    message, event = history(stack)
    assert message["actor"] == f"sqs:{sender}"
    assert (event["actor"], event["sender"]) == ("event:shop", sender)


def test_no_sender_can_pass_for_another(stack: Stack, queue: FifoQueue) -> None:
    """Whatever a name is, it is one name, and has the prefix of the way that it came in."""
    names = ["a, b", "a", "b", "a,b", "a%2C b", CLIENT_ID, "sqs:a", "event:a", "a, sqs:b", "%"]
    for number, name in enumerate(names):
        event = an_event(name, detail={"counter_id": f"event-{number}"})
        batch = [queue.send(body, sender=name) for body in (event, counting(f"sqs-{number}"))]
        assert deliver(stack, *batch) == []
    stack.request("POST", "/counters/http")
    stack.record(stack.changes())

    entries = {item["counter_id"]["S"]: item for item in stack.items("HistoryTable")}

    assert len(entries) == 2 * len(names) + 1
    actors = {counter: entry["actor"]["S"] for counter, entry in entries.items()}
    assert len({*actors.values()}) == len(actors)
    assert actors.pop("http") == CLIENT_ID
    for counter, actor in actors.items():
        assert actor.startswith(f"{counter.partition('-')[0]}:")
        assert ", " not in actor
        assert ", " not in entries[counter].get("sender", {}).get("S", "")


@pytest.mark.parametrize("letter", ["\N{GRINNING FACE}", ","], ids=["four bytes", "escaped"])
def test_ten_of_the_longest_sources_fit_into_the_history(
    stack: Stack, queue: FifoQueue, letter: str
) -> None:
    sources = [f"{number}" + letter * 255 for number in range(10)]

    found = actor(stack, queue, *((an_event(source), "AIDAEXAMPLE") for source in sources))

    assert found == ", ".join(f"event:{source.replace(',', '%2C')}" for source in sources)
    assert stack.messages("HistoryDeadLetterQueue") == []


def test_the_history_says_how_many_events_a_change_folds(stack: Stack, queue: FifoQueue) -> None:
    stack.request("POST", "/counters/orders", body={"by": 100})
    deliver(stack, *send(queue, 1, 2, -5))
    stack.request("PUT", "/counters/orders", body={"value": 7})
    deliver(stack, *send(queue, 9))

    entries = history(stack)

    assert [entry.get("events") for entry in entries] == [None, 3, None, 1]
    assert [entry["by"] for entry in entries] == [100, -2, -91, 9]
    operations = [entry["operation"] for entry in entries]
    assert operations == ["increment", "increment", "set", "increment"]
    assert ["events" in entry for entry in entries] == [False, True, False, True]
    items = sorted(stack.items("HistoryTable"), key=lambda item: item["version"]["N"])
    assert [item.get("events") for item in items] == [None, {"N": "3"}, None, {"N": "1"}]


def test_the_history_and_the_trend_keep_additions_and_subtractions_apart(
    stack: Stack, queue: FifoQueue
) -> None:
    deliver(stack, *send(queue, 5, -3, 4, -6))
    deliver(stack, *send(queue, 1, -10))
    stack.request("POST", "/counters/orders", body={"by": -2})
    stack.request("PUT", "/counters/orders", body={"value": 7})

    entries = history(stack)
    buckets = stack.request("GET", "/counters/orders/trend", query="interval=day").body

    sums = [(entry["by"], entry["increase"], entry["decrease"]) for entry in entries]
    assert sums == [(0, 9, 9), (-9, 1, 10), (-2, 0, 2), (18, 18, 0)]
    changed = [bucket for bucket in buckets if bucket["changes"]]
    assert sum(bucket["changes"] for bucket in changed) == 4
    assert sum(bucket["increase"] for bucket in changed) == 28
    assert sum(bucket["decrease"] for bucket in changed) == 21
    assert changed[-1]["close"] == 7


def test_an_audit_of_folded_events_finds_nothing(
    stack: Stack, queue: FifoQueue, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [f"group-{number}" for number in range(MOST_GROUPS + 2)]
    for by in (5, -2, 4):
        deliver(stack, *[queue.send(counting(by=by), group) for group in groups])
        stack.request("POST", "/counters/orders")
    wire.fail("UpdateItem", [reply_lost, delivered, reply_lost])
    deliver(stack, *[queue.send(counting(), groups[0]) for _ in range(3)], *send(queue, 1, -1))
    entries = history(stack)
    later = clock.now() + DAY
    monkeypatch.setattr(clock, "now", lambda: later)

    assert stack.invoke("AuditHistory", {"counter_id": "orders"}) == {
        "counters": 1,
        "entries": len(entries),
        "finished": True,
        "findings": [],
    }


def test_a_version_that_a_fold_made_can_be_read(stack: Stack, queue: FifoQueue) -> None:
    deliver(stack, *send(queue, 1, 2))
    deliver(stack, *send(queue, 4))
    stack.request("POST", "/counters/orders", body={"by": 8})
    history(stack)

    for version, value in enumerate([3, 7, 15], 1):
        reply = stack.request("GET", "/counters/orders", query=f"version={version}")
        assert (reply.status, reply.body["value"]) == (HTTPStatus.OK, value)


def test_the_metrics_say_how_many_messages_were_counted_and_parked(
    stack: Stack, queue: FifoQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = [*send(queue, 1, 2), queue.send("senseless"), *send(queue, 4)]
    capsys.readouterr()

    deliver(stack, *batch)

    given = metrics(capsys.readouterr().out)
    (directive,) = given["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Tally"
    assert directive["Metrics"] == [
        {"Name": "EventsCounted", "Unit": "Count"},
        {"Name": "EventsParked", "Unit": "Count"},
    ]
    assert (given["stack"], given["service"]) == ("tally-test", "tally")
    assert (given["EventsCounted"], given["EventsParked"]) == ([3], [1])


@pytest.mark.parametrize(("operation", "counted"), [("UpdateItem", 0), ("SendMessage", 1)])
def test_the_metrics_leave_out_what_is_delivered_again(  # noqa: PLR0913, PLR0917
    stack: Stack,
    queue: FifoQueue,
    wire: Wire,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    counted: int,
) -> None:
    batch = [*send(queue, 1), queue.send("senseless"), *send(queue, 4)]
    wire.fail(operation, repeat(denied))
    capsys.readouterr()

    deliver(stack, *batch)

    given = metrics(capsys.readouterr().out)
    assert (given["EventsCounted"], given["EventsParked"]) == ([counted], [0])
