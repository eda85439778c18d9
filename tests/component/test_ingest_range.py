"""IngestIncrements parks messages that would move a counter out of the range of integers.

To park a message is to move it to the dead-letter queue. A counter refuses a message for which it
has no room. A refused message must stay uncounted, even if the counter has room later.
"""

import itertools
from collections.abc import Iterator
from itertools import repeat

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.increments import (
    GROUPS_IN_ITEM,
    MAX,
    every_sign,
    message_body,
    record_and_read_history,
    send,
    set_near_limit,
    value_and_version,
)
from tests.component.simulation import Killed, dies, dies_after
from tests.fifo_queue import FifoQueue, as_parked, deliver, parked
from tests.sizes import cases
from tests.stack import Stack
from tests.wire import (
    LOST,
    Fault,
    Wire,
    delivered,
    denied,
    throttled,
)

pytestmark = pytest.mark.usefixtures("silent")
NO_ROOM = "The counter has no room: the result would be outside the integer range."


@every_sign
def test_a_message_without_room_is_parked_with_the_reason_and_later_ones_are_counted(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    set_near_limit(stack, sign, 10)
    batch = send(queue, sign * 3, sign * 4, sign * 5, sign * 2, sign * 9, sign * 1)

    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (sign * MAX, 4)
    found = parked(stack)
    assert found == [as_parked(batch[2]), as_parked(batch[4])]
    assert {each.reason for each in found} == {NO_ROOM}


def test_a_refused_message_is_never_counted_even_if_the_counter_has_room_later(
    stack: Stack, queue: FifoQueue
) -> None:
    set_near_limit(stack, 1, 10)
    batch = send(queue, 11, 2)
    assert deliver(stack, *batch) == []

    set_near_limit(stack, 1, MAX)
    for again in (batch, batch[:1], batch[1:], [*batch, *send(queue, 5)], batch):
        assert deliver(stack, *again) == []
    assert value_and_version(stack)[0] == 5
    assert parked(stack) == [as_parked(batch[0])]


@pytest.mark.parametrize(
    "groups", [1, GROUPS_IN_ITEM + 1], ids=["number in the counter", "number in its own item"]
)
@pytest.mark.parametrize("death", [dies, dies_after, throttled, *LOST[: cases(full=3, part=1)]])
def test_a_refused_message_is_parked_once_whichever_request_is_interrupted(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault, groups: int
) -> None:
    *others, last = [queue.send(message_body(), f"group-{number}") for number in range(groups)]
    if others:
        deliver(stack, *others)
    deliver(stack, last)
    group = last.group
    # `refusal` is the position of the request that stores the refusal. If a fault interrupts an
    # earlier request, the message can still be counted later.
    refusal = 1 if groups <= GROUPS_IN_ITEM else 3
    killed = 0
    for position in range(7):
        set_near_limit(stack, 1, 3)
        (refused,) = send(queue, 5, group=group)
        faults = at_position(position, death)
        for operation in ("UpdateItem", "SendMessage", "TransactWriteItems"):
            wire.fail(operation, faults)
        try:
            deliver(stack, refused)
        except Killed:
            killed += 1
            counts = position < refusal or (position == refusal and death is dies)
        else:
            counts = False
        for operation in ("UpdateItem", "SendMessage", "TransactWriteItems"):
            wire.fail(operation, [])

        set_near_limit(stack, 1, 100)  # now the counter has room for the message
        before = value_and_version(stack)[0]
        for _ in range(cases(full=50, part=2)):
            assert deliver(stack, refused) == []
        assert value_and_version(stack)[0] - before == (5 if counts else 0), position
        assert parked(stack) == ([] if counts else [as_parked(refused)]), position
    assert killed == (refusal + 3 if death in {dies, dies_after} else 0)


def at_position(position: int, fault: Fault) -> Iterator[Fault]:
    """Return faults that apply `fault` to one request, and let all others succeed.

    Args:
        position: the number of the request that gets the fault, starting at 0.
        fault: the fault.
    """
    requests = itertools.count()

    def fault_at_position(request: AWSPreparedRequest) -> AWSResponse:
        return (fault if next(requests) == position else delivered)(request)

    return repeat(fault_at_position)


@every_sign
def test_as_many_messages_are_counted_in_one_write_as_the_counter_has_room_for(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    set_near_limit(stack, sign, 10)
    batch = send(queue, *(sign * by for by in (4, 10, -5, 1, 1, -3, 7, 1)))

    assert deliver(stack, *batch) == []
    # One write counts several messages. Only the value after all of these messages must be in the
    # range. A value after some of these messages may be outside.
    assert value_and_version(stack) == (sign * (MAX - 1), 3)
    assert parked(stack) == [as_parked(batch[6])]


@every_sign
def test_a_counter_can_reach_the_end_of_the_range(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    set_near_limit(stack, sign, 10)

    assert deliver(stack, *send(queue, sign * 7, sign * 3)) == []
    assert value_and_version(stack) == (sign * MAX, 2)
    assert parked(stack) == []


@every_sign
def test_a_new_counter_refuses_messages_outside_the_range(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    batch = send(queue, *[sign * MAX] * 10)

    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (sign * MAX, 1)
    assert parked(stack) == [as_parked(message) for message in batch[1:]]


@every_sign
def test_a_fold_can_go_from_one_end_of_the_range_to_the_other(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    set_near_limit(stack, sign, 0)

    assert deliver(stack, *send(queue, -sign * MAX, -sign * MAX)) == []
    assert value_and_version(stack) == (-sign * MAX, 2)


def test_a_refused_message_does_not_block_other_groups_or_counters(
    stack: Stack, queue: FifoQueue
) -> None:
    set_near_limit(stack, 1, 10)
    batch = [*send(queue, 11), queue.send(message_body("stock"))]
    other = send(queue, 1, group="returns")

    assert deliver(stack, *batch, *other) == []
    assert value_and_version(stack) == (MAX - 9, 2)
    assert value_and_version(stack, "stock") == (1, 1)
    assert parked(stack) == [as_parked(batch[0])]


def test_a_refused_message_that_cannot_be_parked_and_all_later_ones_are_reported(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    set_near_limit(stack, 1, 10)
    batch = [*send(queue, 1, 11, 2), queue.send("malformed")]
    wire.fail("SendMessage", repeat(denied))

    assert deliver(stack, *batch) == batch[1:]
    assert value_and_version(stack) == (MAX - 9, 2)
    assert parked(stack) == []

    wire.fail("SendMessage", [])
    set_near_limit(stack, 1, 100)
    assert deliver(stack, *batch[1:]) == []
    assert value_and_version(stack)[0] == MAX - 98
    assert parked(stack) == [as_parked(batch[1]), as_parked(batch[3])]


def test_refusing_a_message_is_not_a_change_of_the_counter(stack: Stack, queue: FifoQueue) -> None:
    set_near_limit(stack, 1, 10)
    deliver(stack, *send(queue, 1, 11))
    deliver(stack, *send(queue, 2))

    entries = record_and_read_history(stack)

    assert [entry["version"] for entry in entries] == [1, 2, 3]
    assert stack.messages("HistoryDeadLetterQueue") == []
