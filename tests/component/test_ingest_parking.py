"""IncrementQueue: malformed messages, and messages that would leave the range of integers."""

import itertools
import json
from collections.abc import Iterator
from http import HTTPStatus
from itertools import repeat

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.increments import (
    MAX,
    MOST_GROUPS,
    about,
    an_event,
    counting,
    every_sign,
    history,
    near_the_end,
    send,
    standing,
    stored,
    taking,
)
from tests.component.simulation import Killed, dies, dies_after
from tests.fifo_queue import FifoQueue, as_parked, deliver, parked
from tests.sizes import cases
from tests.stack import Stack
from tests.wire import (
    LOST,
    Fault,
    Wire,
    answered,
    delivered,
    denied,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock

pytestmark = pytest.mark.usefixtures("silent")


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

NO_ROOM = "The counter has no room: the result would be outside the integer range."


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
