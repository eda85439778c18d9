"""IngestIncrements counts each message once, even if SQS delivers a message in several batches."""

import json
from itertools import combinations

import pytest
from tests.component.increments import (
    MAX,
    event_body,
    event_count,
    every_sign,
    message_body,
    record_and_read_history,
    send,
    stored_item,
    value_and_version,
)
from tests.component.samples import load
from tests.fifo_queue import ARN, FifoQueue, deliver, parked
from tests.stack import Stack
from tests.wire import Wire

pytestmark = pytest.mark.usefixtures("silent")


# --- First deliveries ----------------------------------------------------------------------------


def test_a_batch_for_one_counter_makes_one_change(stack: Stack, queue: FifoQueue) -> None:
    batch = send(queue, 1, 4, -2)

    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (3, 1)
    (change,) = stack.changes()
    assert event_count(change) == 3


def test_a_batch_of_a_known_group_takes_one_request_to_dynamodb(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    deliver(stack, *send(queue, 1))
    wire.sent.clear()

    assert deliver(stack, *send(queue, *[2] * 10)) == []
    assert wire.operations() == ["UpdateItem"]
    assert value_and_version(stack) == (21, 2)


def test_a_message_without_an_amount_adds_one(stack: Stack, queue: FifoQueue) -> None:
    assert deliver(stack, queue.send(message_body())) == []
    assert value_and_version(stack) == (1, 1)


def test_each_counter_of_a_batch_is_changed_once(stack: Stack, queue: FifoQueue) -> None:
    batch = [queue.send(message_body(name, by=by)) for by, name in enumerate("abab", 1)]

    assert deliver(stack, *batch) == []
    assert value_and_version(stack, "a") == (4, 1)
    assert value_and_version(stack, "b") == (6, 1)
    assert sorted(map(event_count, stack.changes())) == [2, 2]


def test_each_message_group_of_a_batch_makes_a_separate_change(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 1, 2) + send(queue, 4, 8, group="returns")

    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (15, 2)
    assert sorted(map(event_count, stack.changes())) == [2, 2]


def test_the_order_of_the_records_does_not_matter(stack: Stack, queue: FifoQueue) -> None:
    one, two, three = send(queue, 1, 2, 4)

    assert deliver(stack, three, one, two) == []
    assert value_and_version(stack) == (7, 1)
    assert deliver(stack, three) == deliver(stack, two, one) == []
    assert value_and_version(stack) == (7, 1)


def test_a_message_that_is_twice_in_a_batch_is_counted_once(stack: Stack, queue: FifoQueue) -> None:
    one, two = send(queue, 1, 2)

    assert deliver(stack, one, two, one, two, two) == []
    assert value_and_version(stack) == (3, 1)
    assert list(map(event_count, stack.changes())) == [2]


def test_a_fold_whose_sum_is_zero_is_a_change(stack: Stack, queue: FifoQueue) -> None:
    assert deliver(stack, *send(queue, 2, -2)) == []

    assert value_and_version(stack) == (0, 1)
    (entry,) = record_and_read_history(stack)
    assert (entry["by"], entry["events"]) == (0, 2)


@pytest.mark.parametrize(
    "body",
    [
        '{"counter_id":"orders","by":7}',
        '\n {"by" :\t7, "counter_id": "\\u006frders"}\r\n',
        event_body(detail={"counter_id": "orders", "by": 7}),
        json.dumps({"detail-type": "Count", "source": "s", "detail": {"counter_id": "orders"}})[:-2]
        + ', "by": 7}}',
        event_body("\N{WHITE SMILING FACE}" * 256, detail={"counter_id": "orders", "by": 7}),
    ],
    ids=["compact", "whitespace", "an event", "a minimal event", "the longest source"],
)
def test_every_valid_form_of_a_message_is_counted(
    stack: Stack, queue: FifoQueue, body: str
) -> None:
    assert deliver(stack, queue.send(body)) == []
    assert value_and_version(stack) == (7, 1)
    assert parked(stack) == []


@every_sign
def test_the_largest_amount_is_counted(stack: Stack, queue: FifoQueue, sign: int) -> None:
    assert deliver(stack, *send(queue, sign * MAX)) == []
    assert value_and_version(stack) == (sign * MAX, 1)


def test_the_records_in_these_tests_have_the_structure_of_the_sample_event(
    queue: FifoQueue,
) -> None:
    record = queue.send(message_body()).record()

    for sample in load("ingest_increments")["Records"]:
        assert record.keys() == sample.keys()
        assert record["attributes"].keys() == sample["attributes"].keys()
        assert type(sample["attributes"]["SequenceNumber"]) is str
        assert len(sample["attributes"]["SequenceNumber"]) == len(str(queue.first))


# --- Repeated deliveries -------------------------------------------------------------------------


def test_a_batch_that_is_delivered_again_changes_nothing(stack: Stack, queue: FifoQueue) -> None:
    batch = send(queue, 1, 2, 4)
    deliver(stack, *batch)
    before = stack.contents()

    for _ in range(3):
        assert deliver(stack, *batch) == []
    assert stack.contents() == before


def test_part_of_a_batch_that_is_delivered_again_changes_nothing(
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
        assert value_and_version(stack, name) == (31, 2)
        assert list(map(event_count, stack.changes())) == [3, 2]


def test_an_old_batch_that_arrives_after_newer_ones_changes_nothing(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 1, 2, 4, 8)
    deliver(stack, *batch[:2])
    deliver(stack, *batch[2:])

    assert deliver(stack, *batch[:2]) == []
    assert deliver(stack, batch[1]) == []
    assert value_and_version(stack) == (15, 2)


def test_messages_after_a_redelivered_message_are_counted(stack: Stack, queue: FifoQueue) -> None:
    one, two, three = send(queue, 1, 2, 4)
    deliver(stack, one, two)
    queue.delete([one, two], [one])

    assert deliver(stack, *queue.batch({"checkout": 10})) == []
    assert queue.batch({"checkout": 10}) == [one, three]
    assert value_and_version(stack) == (7, 2)


def test_a_new_message_for_one_counter_does_not_recount_messages_for_another(
    stack: Stack, queue: FifoQueue
) -> None:
    first, second = queue.send(message_body("a", by=1)), queue.send(message_body("b", by=2))
    deliver(stack, first, second)
    third = queue.send(message_body("a", by=4))

    assert deliver(stack, first, second, third) == []
    assert (value_and_version(stack, "a"), value_and_version(stack, "b")) == ((5, 2), (2, 1))


@pytest.mark.parametrize("power", [10**20, 10, 10**38], ids=["20 digits", "1 digit", "38 digits"])
def test_sequence_numbers_are_compared_as_numbers(stack: Stack, power: int) -> None:
    last_of_its_length, first_longer, next_longer = send(
        FifoQueue(first=power - 1, step=1), 1, 2, 4
    )

    assert deliver(stack, last_of_its_length) == []
    assert deliver(stack, first_longer) == []
    assert value_and_version(stack) == (3, 2)
    assert deliver(stack, last_of_its_length) == []
    assert value_and_version(stack) == (3, 2)
    assert deliver(stack, next_longer, first_longer, last_of_its_length) == []
    assert value_and_version(stack) == (7, 3)


def test_a_message_with_the_greatest_sequence_number_is_counted_once(stack: Stack) -> None:
    one, two = send(FifoQueue(first=2**128 - 2, step=1), 1, 2)

    assert deliver(stack, one) == deliver(stack, one, two) == deliver(stack, two) == []
    assert value_and_version(stack) == (3, 2)


def test_sequence_numbers_of_two_queues_are_independent(stack: Stack, queue: FifoQueue) -> None:
    other = FifoQueue(arn=ARN.replace("IncrementQueue", "OtherQueue"))
    batch, others = send(queue, 1, 2), send(other, 4, 8)

    assert deliver(stack, *batch) == deliver(stack, *others) == []
    assert value_and_version(stack) == (15, 2)
    assert deliver(stack, *batch) == deliver(stack, *others) == []
    assert value_and_version(stack) == (15, 2)


def test_sequence_numbers_of_two_groups_are_independent(stack: Stack, queue: FifoQueue) -> None:
    early, late = send(queue, 1, group="early"), send(queue, 2, group="late")

    assert deliver(stack, *late) == deliver(stack, *early) == []
    assert value_and_version(stack) == (3, 2)
    assert deliver(stack, *early) == deliver(stack, *late) == []
    assert value_and_version(stack) == (3, 2)


def test_queues_and_groups_whose_joined_names_are_equal_are_independent(stack: Stack) -> None:
    one, two = FifoQueue(arn="arn:aws:sqs:e:1:a"), FifoQueue(arn="arn:aws:sqs:e:1:")

    assert deliver(stack, *send(one, 1, group="b")) == []
    assert deliver(stack, *send(two, 2, group="ab")) == []
    assert value_and_version(stack) == (3, 2)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_request_keeps_the_counters_sequence_numbers(
    stack: Stack, queue: FifoQueue, method: str
) -> None:
    batch = send(queue, 1, 2)
    deliver(stack, *batch)
    numbers = stored_item(stack)["sequence_numbers"]
    assert len(numbers["M"]) == 1

    body = {"by": 97} if method == "POST" else {"value": 100}
    assert stack.request(method, "/counters/orders", body=body).status == 200
    assert stored_item(stack)["sequence_numbers"] == numbers
    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (100, 2)
    assert deliver(stack, *send(queue, 4)) == []
    assert value_and_version(stack) == (104, 3)


def test_a_request_for_several_counters_keeps_their_sequence_numbers(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 1, 2)
    deliver(stack, *batch)

    body = {"increments": [{"counter_id": "orders", "by": 97}, {"counter_id": "stock"}]}
    assert stack.request("POST", "/increments", body=body).status == 200
    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (100, 2)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_messages_can_change_a_counter_that_a_request_created(
    stack: Stack, queue: FifoQueue, method: str
) -> None:
    body = {"by": 100} if method == "POST" else {"value": 100}
    made = stack.request(method, "/counters/orders", body=body).body

    batch = send(queue, 1, 2)
    assert deliver(stack, *batch) == deliver(stack, *batch) == []
    counter = stack.request("GET", "/counters/orders").body
    assert (counter["value"], counter["version"]) == (103, 2)
    assert counter["created_at"] == made["created_at"]


def test_requests_can_read_and_change_a_counter_that_a_message_created(
    stack: Stack, queue: FifoQueue
) -> None:
    deliver(stack, *send(queue, 1, 2))
    counter = stack.request("GET", "/counters/orders").body

    assert counter.keys() == {"counter_id", "value", "version", "created_at", "updated_at"}
    assert counter["created_at"] == counter["updated_at"]
    assert stack.request("GET", "/counters").body == ["orders"]
    reply = stack.request("POST", "/counters/orders", body={"by": 4})
    assert (reply.body["value"], reply.body["version"]) == (7, 2)
    reply = stack.request("PUT", "/counters/orders", headers={"If-Match": '"2"'}, body={"value": 5})
    assert (reply.body["value"], reply.body["version"]) == (5, 3)
