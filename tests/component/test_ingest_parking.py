"""IngestIncrements parks malformed messages: it moves them to the dead-letter queue, in order."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from itertools import repeat

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.increments import (
    answered_after,
    event_body,
    message_body,
    send,
    stored_item,
    value_and_version,
)
from tests.component.simulation import Killed, dies, dies_after
from tests.fifo_queue import FifoQueue, as_parked, deliver, parked
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
DEEP = 100_000

MALFORMED = {
    "an empty body": "",
    "not JSON": "orders",
    "an unclosed object": '{"counter_id": "orders"',
    "two objects": message_body() + message_body(),
    "a byte order mark": "\ufeff" + message_body(),
    "an array": json.dumps([{"counter_id": "orders"}]),
    "a string": '"orders"',
    "a number": "1",
    "null": "null",
    "true": "true",
    "an empty object": "{}",
    "an unknown field": message_body(value=1),
    "bounds": message_body(min=0),
    "a field with an empty name": message_body(**{"": 1}),
    "a field named by a surrogate": '{"counter_id": "orders", "\\ud800": 1}',
    "a field twice": '{"counter_id": "orders", "by": 1, "by": 1}',
    "counter_id twice": '{"counter_id": "orders", "counter_id": "orders"}',
    "by 0": message_body(by=0),
    "by -0": '{"counter_id": "orders", "by": -0}',
    "by 1.0": '{"counter_id": "orders", "by": 1.0}',
    "by 1.5": '{"counter_id": "orders", "by": 1.5}',
    "by 1e2": '{"counter_id": "orders", "by": 1e2}',
    "by 1e999": '{"counter_id": "orders", "by": 1e999}',
    "by NaN": '{"counter_id": "orders", "by": NaN}',
    "by -Infinity": '{"counter_id": "orders", "by": -Infinity}',
    "by null": message_body(by=None),
    "by true": message_body(by=True),
    "by a string": message_body(by="1"),
    "by a list": message_body(by=[1]),
    "by too large": message_body(by=2**53),
    "by too small": message_body(by=-(2**53)),
    "by of 5,000 digits": '{"counter_id": "orders", "by": ' + "1" * 5000 + "}",
    "no counter_id": '{"by": 1}',
    "a counter_id that is null": message_body(None),
    "a counter_id that is a number": message_body(1),
    "an empty counter_id": message_body(""),
    "a counter_id with a space": message_body("orders "),
    "a counter_id with a newline": message_body("orders\n"),
    "a counter_id that begins with a hyphen": message_body("-orders"),
    "a counter_id that is too long": message_body("o" * 129),
    "a counter_id with a letter outside ASCII": message_body(
        "\N{LATIN SMALL LETTER O WITH DIAERESIS}rders"
    ),
    "a counter_id of 200 KB": message_body("o" * 200_000),
    "deeply nested arrays": "[" * DEEP + "]" * DEEP,
    "deeply nested objects": '{"by": ' * 30_000 + "1" + "}" * 30_000,
    "an event of another type": event_body(**{"detail-type": "Uncount"}),
    "an event type in lower case": event_body(**{"detail-type": "count"}),
    "an event whose type is null": event_body(**{"detail-type": None}),
    "an event without a detail": '{"detail-type": "Count", "source": "shop"}',
    "an event whose detail is null": event_body(detail=None),
    "an event whose detail is a list": event_body(detail=[{"counter_id": "orders"}]),
    "an event whose detail is a string": event_body(detail=message_body()),
    "an event whose detail is empty": event_body(detail={}),
    "an event whose detail has an unknown field": event_body(
        detail={"counter_id": "orders", "note": "x"}
    ),
    "an event whose detail has a field twice": event_body().replace(
        '"counter_id": "orders"', '"counter_id": "orders", "by": 1, "by": 1'
    ),
    "an event that adds 0": event_body(detail={"counter_id": "orders", "by": 0}),
    "an event with two sources": event_body()[:-1] + ', "source": "shop"}',
    "an event without a source": '{"detail-type": "Count", "detail": {"counter_id": "orders"}}',
    "an event whose source is null": event_body(None),
    "an event whose source is a number": event_body(1),
    "an event whose source is empty": event_body(""),
    "an event whose source is too long": event_body("s" * 257),
    "an event whose source has a newline": event_body("shop\ncheckout"),
    "an event whose source is a surrogate": event_body("\ud800"),
    "an event within an event": event_body(detail=json.loads(event_body())),
    "a replayed event": event_body(**{"replay-name": "again"}),
    "a detail without a type and a source": '{"detail": {"counter_id": "orders"}}',
}


def append_counter(stack: Stack, counters_when_parked: list[tuple[int, int]]) -> Iterator[Fault]:
    """Return faults that let each request succeed.

    Each fault first appends the value and the version of `orders` to `counters_when_parked`.
    """

    def append(request: AWSPreparedRequest) -> AWSResponse:
        item = stored_item(stack)
        counters_when_parked.append((int(item["value"]["N"]), int(item["version"]["N"])))
        return delivered(request)

    return repeat(append)


def test_a_malformed_message_is_parked_unchanged_after_earlier_messages_are_counted(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    counters_when_parked: list[tuple[int, int]] = []
    wire.fail("SendMessage", append_counter(stack, counters_when_parked))
    counted = 0
    for start in range(0, len(MALFORMED), 4):
        batch = send(queue, 1)
        for body in list(MALFORMED.values())[start : start + 4]:
            batch += [queue.send(body), *send(queue, 1)]

        assert deliver(stack, *batch) == []
        found = parked(stack)
        assert found == [as_parked(message) for message in batch[1::2]]
        assert all(each.reason and each.reason.isascii() for each in found)
        # Valid and malformed messages alternate. When a malformed message is parked, all valid
        # messages before it are counted, and no message after it is counted.
        sums = [counted + number for number in range(1, len(batch[1::2]) + 1)]
        assert counters_when_parked == [(each, each) for each in sums]
        counted += len(batch[::2])
        assert value_and_version(stack) == (counted, counted)
        counters_when_parked.clear()


def test_malformed_messages_are_parked_in_order(stack: Stack, queue: FifoQueue) -> None:
    batch = [
        queue.send(message_body() if number in {3, 4, 8} else f"{number}") for number in range(10)
    ]

    assert deliver(stack, *batch) == []
    assert parked(stack) == [as_parked(batch[number]) for number in (0, 1, 2, 5, 6, 7, 9)]
    assert value_and_version(stack) == (3, 2)


def test_a_parked_message_keeps_its_group(stack: Stack, queue: FifoQueue) -> None:
    batch = [queue.send("malformed", group) for group in ("one", "two")]

    assert deliver(stack, *batch) == []
    assert parked(stack) == [as_parked(message) for message in batch]
    assert {each.group for each in map(as_parked, batch)} == {"one", "two"}


def test_messages_with_equal_bodies_are_all_parked(stack: Stack, queue: FifoQueue) -> None:
    batch = [queue.send("malformed") for _ in range(3)]

    assert deliver(stack, *batch) == []
    assert len(parked(stack)) == 3


def test_a_message_that_cannot_be_parked_and_all_later_ones_are_reported(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    (first,) = send(queue, 1)
    malformed = queue.send("malformed")
    later = send(queue, 2, 4)
    (other,) = send(queue, 8, group="returns")
    for fault in (denied, throttled, request_lost, unreachable):
        wire.fail("SendMessage", repeat(fault))

        assert deliver(stack, first, malformed, *later, other) == [malformed, *later], fault
        assert value_and_version(stack) == (9, 2)
        assert parked(stack) == []

    wire.fail("SendMessage", [])
    assert deliver(stack, malformed, *later) == []
    assert value_and_version(stack) == (15, 3)
    assert parked(stack) == [as_parked(malformed)]


def test_a_message_whose_parking_is_retried_after_a_lost_reply_is_parked_once(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    for fault in LOST:
        malformed = queue.send("malformed")
        wire.fail("SendMessage", repeat(fault))
        assert deliver(stack, malformed) == [malformed], fault

        wire.fail("SendMessage", [fault])
        assert deliver(stack, malformed) == []
        assert parked(stack) == [as_parked(malformed)]


@pytest.mark.parametrize("death", [dies, dies_after])
def test_a_message_is_parked_once_if_the_function_is_killed_while_parking_it(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault
) -> None:
    batch = [*send(queue, 1), queue.send("malformed"), *send(queue, 2)]
    wire.fail("SendMessage", [death])
    with pytest.raises(Killed):
        deliver(stack, *batch)
    assert value_and_version(stack) == (1, 1)

    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (3, 2)
    assert parked(stack) == [as_parked(batch[1])]


def test_no_message_is_parked_after_time_runs_out(
    stack: Stack, queue: FifoQueue, wire: Wire, latest_start: float
) -> None:
    batch = [queue.send(f"malformed {number}") for number in range(10)]
    times: list[float] = []
    wire.fail("SendMessage", repeat(answered_after(1.9, times)))
    began = clock.now()

    assert deliver(stack, *batch) == batch[4:]
    assert max(times) - began < latest_start


def test_a_parked_message_has_its_sender_and_the_reason(stack: Stack, queue: FifoQueue) -> None:
    deliver(stack, queue.send('{"\\ud800": 1}', sender="AROAEXAMPLE:shop"))

    (message,) = stack.sqs.receive_message(
        QueueUrl=stack.refs["IncrementDeadLetterQueue"], MessageAttributeNames=["All"]
    )["Messages"]
    attributes = message["MessageAttributes"]
    assert attributes["sender"]["StringValue"] == "AROAEXAMPLE:shop"
    assert attributes["reason"]["StringValue"] == "\\ud800: unknown field"


def test_a_message_that_is_too_long_for_attributes_is_parked_without_them(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    def too_long(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        if "MessageAttributes" not in json.loads(request.body):
            return delivered(request)
        body = {"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": "too long"}
        return answered(request, HTTPStatus.BAD_REQUEST, body)

    wire.fail("SendMessage", repeat(too_long))

    assert deliver(stack, queue.send("malformed"), *send(queue, 1)) == []
    assert stack.messages("IncrementDeadLetterQueue") == ["malformed"]
    assert value_and_version(stack) == (1, 1)
