"""IngestIncrements counts messages once despite faults, and reports those it did not count."""

from dataclasses import replace
from itertools import chain, repeat
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.increments import (
    REFUSED,
    answered_after,
    message_body,
    only_for,
    send,
    value_and_version,
)
from tests.component.simulation import Killed, dies, dies_after
from tests.fifo_queue import FifoQueue, as_parked, deliver, parked
from tests.stack import Stack
from tests.wire import (
    LOST,
    Fault,
    Wire,
    delivered,
    denied,
    request_lost,
    throttled,
)

from counters import clock

pytestmark = pytest.mark.usefixtures("silent")


# --- Lost replies and killed functions -----------------------------------------------------------


@pytest.mark.parametrize("known_group", [False, True], ids=["a new counter", "a known group"])
def test_a_write_that_is_retried_after_a_fault_is_applied_once(
    stack: Stack, queue: FifoQueue, wire: Wire, *, known_group: bool
) -> None:
    for number, fault in enumerate(LOST + REFUSED):
        name = f"counter-{number}"
        if known_group:
            deliver(stack, *send(queue, 8, counter_id=name))
        before = value_and_version(stack, name)
        wire.fail("UpdateItem", [fault] * 2 if known_group else [delivered, *[fault] * 2])
        batch = send(queue, 1, 2, counter_id=name)

        assert deliver(stack, *batch) == [], fault
        assert value_and_version(stack, name) == (before[0] + 3, before[1] + 1)
        wire.fail("UpdateItem", [])
        assert deliver(stack, *batch) == []
        assert value_and_version(stack, name) == (before[0] + 3, before[1] + 1)


def test_messages_are_counted_once_if_their_write_was_applied_without_a_reply(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    for number, fault in enumerate(LOST):
        name = f"counter-{number}"
        deliver(stack, *send(queue, 8, counter_id=name))
        wire.fail("UpdateItem", chain([fault], repeat(throttled)))
        batch = send(queue, 1, 2, counter_id=name)

        assert deliver(stack, *batch) == batch, fault
        assert value_and_version(stack, name) == (11, 2)
        wire.fail("UpdateItem", [])
        assert deliver(stack, *batch, *send(queue, 4, counter_id=name)) == []
        assert value_and_version(stack, name) == (15, 3)


@pytest.mark.parametrize("known_group", [False, True], ids=["a new counter", "a known group"])
@pytest.mark.parametrize("death", [dies, dies_after])
def test_messages_of_a_killed_function_are_counted_once(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault, *, known_group: bool
) -> None:
    if known_group:
        deliver(stack, *send(queue, 8))
    before = value_and_version(stack)
    batch = send(queue, 1, 2)
    wire.fail("UpdateItem", [death] if known_group else [delivered, death])
    with pytest.raises(Killed):
        deliver(stack, *batch)

    assert deliver(stack, *batch, *send(queue, 4)) == []
    assert value_and_version(stack)[0] == before[0] + 7


# --- Failed requests -----------------------------------------------------------------------------


def test_the_whole_batch_is_reported_while_dynamodb_refuses_writes(
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
    assert value_and_version(stack) == (7, 2)


def test_the_first_failed_message_of_a_group_and_all_later_ones_are_reported(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    batch = [queue.send(message_body(name, by=2**number)) for number, name in enumerate("abac")]
    other = queue.send(message_body("a", by=16), "another")
    for fault in [*REFUSED, denied]:
        wire.fail("UpdateItem", repeat(only_for("b", fault)))

        assert deliver(stack, *batch, other) == batch[1:], fault
        assert value_and_version(stack, "a")[0] - 16 in {1, 1 + 4}
        assert value_and_version(stack, "b") == value_and_version(stack, "c") == (0, 0)

    wire.fail("UpdateItem", [])
    assert deliver(stack, *batch[1:]) == []
    assert value_and_version(stack, "a")[0] == 1 + 4 + 16
    assert value_and_version(stack, "b") == (2, 1)
    assert value_and_version(stack, "c") == (8, 1)


def test_reported_messages_begin_at_the_first_of_several_failures(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    batch = [queue.send(message_body(name)) for name in "abacbc"]
    wire.fail("UpdateItem", repeat(only_for("b", throttled)))
    assert deliver(stack, *batch) == batch[1:]

    wire.fail("UpdateItem", repeat(only_for("c", throttled)))
    assert deliver(stack, *batch) == batch[3:]

    wire.fail("UpdateItem", repeat(throttled))
    assert deliver(stack, *batch) == batch


@pytest.mark.parametrize(("name", "value"), [("value", {"NULL": True}), ("version", {"S": "1"})])
def test_a_malformed_counter_does_not_stop_the_other_groups_of_a_batch(
    stack: Stack,
    queue: FifoQueue,
    name: str,
    value: Any,  # noqa: ANN401
) -> None:
    deliver(stack, *send(queue, 8, counter_id="malformed"))
    stack.dynamodb.update_item(
        TableName=stack.refs["CounterTable"],
        Key={"counter_id": {"S": "malformed"}},
        UpdateExpression="SET #name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": value},
    )
    batch = send(queue, 1, 2, counter_id="malformed")

    assert deliver(stack, *batch, *send(queue, 4, group="orders")) == batch
    assert value_and_version(stack, "orders") == (4, 1)


def test_no_message_after_a_failure_is_parked(stack: Stack, queue: FifoQueue, wire: Wire) -> None:
    batch = [queue.send(message_body("a")), queue.send(message_body("b")), queue.send("malformed")]
    wire.fail("UpdateItem", repeat(only_for("b", throttled)))

    assert deliver(stack, *batch) == batch[1:]
    assert parked(stack) == []

    wire.fail("UpdateItem", [])
    assert deliver(stack, *batch[1:]) == []
    assert parked(stack) == [as_parked(batch[2])]


def test_the_remaining_messages_are_reported_when_time_runs_out(
    stack: Stack, queue: FifoQueue, wire: Wire, latest_start: float
) -> None:
    batch = [queue.send(message_body(f"counter-{number}")) for number in range(10)]
    for message in batch:
        deliver(stack, message)
    times: list[float] = []
    wire.fail("UpdateItem", repeat(answered_after(1.9, times)))
    second_batch = [queue.send(message_body(f"counter-{number}")) for number in range(10)]
    began = clock.now()

    assert deliver(stack, *second_batch) == second_batch[4:]
    assert len(times) == 4
    assert max(times) - began < latest_start
    values = [value_and_version(stack, f"counter-{number}")[0] for number in range(10)]
    assert values == [2] * 4 + [1] * 6


def test_the_remaining_groups_are_reported_when_time_runs_out(
    stack: Stack, queue: FifoQueue, wire: Wire, latest_start: float
) -> None:
    times: list[float] = []
    wire.fail("UpdateItem", repeat(answered_after(1.9, times)))
    batch = [
        queue.send(message_body(f"counter-{number}"), f"group-{number}") for number in range(9)
    ]
    began = clock.now()

    failed = deliver(stack, *batch)

    assert len(failed) == 7  # there was time for two counters: a new counter takes two requests
    assert max(times) - began < latest_start
    wire.fail("UpdateItem", [])
    assert deliver(stack, *failed) == []
    assert [value_and_version(stack, f"counter-{number}") for number in range(9)] == [(1, 1)] * 9


def test_no_request_is_sent_without_enough_time(stack: Stack, queue: FifoQueue, wire: Wire) -> None:
    function = stack.functions["IngestIncrements"]
    stack.functions["IngestIncrements"] = replace(function, timeout=3)
    batch = [*send(queue, 1, 2), queue.send("malformed")]

    assert deliver(stack, *batch) == batch
    assert wire.sent == []


def test_a_group_whose_requests_time_out_leaves_time_for_another_group(
    stack: Stack, queue: FifoQueue, wire: Wire, latest_start: float
) -> None:
    def times_out(request: AWSPreparedRequest) -> AWSResponse:
        clock.sleep(2.0)
        return request_lost(request)

    deliver(stack, queue.send(message_body("b"), "group-b"))
    first = queue.send(message_body("a"), "group-a")
    second = queue.send(message_body("b"), "group-b")
    wire.fail("UpdateItem", repeat(only_for("a", times_out)))
    began = clock.now()

    assert deliver(stack, first, second) == [first]
    assert value_and_version(stack, "b") == (2, 2)
    assert clock.now() - began < latest_start + 2
