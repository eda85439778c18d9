"""IncrementQueue: replies that are lost, functions that are killed, and requests that fail."""

from dataclasses import replace
from itertools import chain, repeat

import pytest
from tests.component.increments import REFUSED, about, counting, send, standing, taking
from tests.component.simulation import Killed, dies, dies_after
from tests.fifo_queue import FifoQueue, as_parked, deliver, parked
from tests.stack import Stack
from tests.wire import (
    LOST,
    Fault,
    Wire,
    delivered,
    denied,
    throttled,
)

from counters import clock

pytestmark = pytest.mark.usefixtures("silent")


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
