"""IncrementQueue: which of its messages are counted, and what happens when one comes again."""

import json
from itertools import combinations

import pytest
from tests.component.increments import (
    MAX,
    an_event,
    counting,
    events_of,
    every_sign,
    history,
    send,
    standing,
    stored,
)
from tests.component.samples import load
from tests.fifo_queue import ARN, FifoQueue, deliver, parked
from tests.stack import Stack
from tests.wire import (
    Wire,
)

pytestmark = pytest.mark.usefixtures("silent")


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
