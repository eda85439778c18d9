"""RedriveHistory records parked records: stream records in the dead-letter queue.

The tables must end up as if the records had never been parked.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.component.redriving import (
    Deploy,
    items_without_parking,
    make_changes,
    message_count,
    parked,
    redrive,
    stored_items,
)
from tests.past import DEAD_LETTERS, START, Past
from tests.sizes import FULL, cases
from tests.stack import Stack
from tests.times import DAY, HOUR
from tests.wire import Wire

from counters import clock
from counters.errors import CounterError

pytestmark = pytest.mark.usefixtures("receive_without_waiting")

NOT_OBJECTS: list[object] = [None, [], "orders", 7, True, [{}]]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        *[(wrong, "event: must be a JSON object") for wrong in NOT_OBJECTS],
        ({"counter_id": "orders"}, "counter_id: unknown field"),
        ({"after": 1}, "after: unknown field"),
    ],
    ids=str,
)
def test_a_malformed_event_is_refused_with_one_line_and_without_a_request(
    stack: Stack,
    deploy: Deploy,
    wire: Wire,
    event: Any,  # noqa: ANN401  any JSON
    message: str,
) -> None:
    make_changes("+*+").record(stack)
    deploy()
    before = stack.contents()
    wire.sent.clear()

    with pytest.raises(CounterError) as raised:
        stack.invoke("RedriveHistory", event)

    assert str(raised.value) == message
    assert raised.traceback[-1].name == "handler"
    assert raised.value.__cause__ is None
    assert not wire.sent
    assert stack.contents() == before
    assert message_count(stack) == 1


def test_the_result_is_logged(
    stack: Stack, deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    make_changes("+*+").record(stack)
    stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody="nonsense")
    deploy()
    caplog.clear()

    result = redrive(stack)

    (line,) = [vars(record)["answer"] for record in caplog.records if "answer" in vars(record)]
    assert line == result == {"redriven": 1, "parked": 1}


def test_an_empty_queue_takes_one_request(stack: Stack, wire: Wire) -> None:
    assert redrive(stack) == {"redriven": 0, "parked": 0}
    assert wire.operations() == ["ReceiveMessage"]


@pytest.mark.parametrize("count", [1, 9, 10])
def test_records_that_are_still_malformed_stay_visible_in_the_queue(
    stack: Stack, count: int
) -> None:
    orders = make_changes("+" + count * "*" + "+")
    orders.record(stack)
    before = stored_items(stack, "orders")

    assert redrive(stack) == {"redriven": 0, "parked": count}
    assert sorted(parked(stack), key=str) == sorted(orders.records[1:-1], key=str)
    assert stored_items(stack, "orders") == before


def test_messages_that_are_not_records_stay_in_the_queue(stack: Stack) -> None:
    for body in ("{", "[]", "null", '{"dynamodb": {}}'):
        stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=body)

    assert redrive(stack) == {"redriven": 0, "parked": 4}
    assert redrive(stack) == {"redriven": 0, "parked": 4}


def test_a_run_receives_each_message_in_the_queue_once(stack: Stack, deploy: Deploy) -> None:
    make_changes("+" + 12 * "*" + "+").record(stack)
    nonsense = 13
    for number in range(nonsense):
        stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=f"[{number}]")
    deploy()

    assert redrive(stack) == {"redriven": 12, "parked": nonsense}
    assert message_count(stack) == nonsense


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param("*", id="the counter's only change"),
        pytest.param("+|*|+", id="the only change in its hour"),
        pytest.param("+|*++|+", id="the first change in its hour"),
        pytest.param("+|+*+|+", id="in the middle of its hour"),
        pytest.param("+|++*|+", id="the last change in its hour"),
        pytest.param("+|++*", id="the last change"),
        pytest.param("*++|++", id="the first change"),
        pytest.param("+*|*+", id="before and after a full hour"),
        pytest.param("+**+*|*|**+", id="many changes"),
        pytest.param("****", id="all changes"),
    ],
)
def test_redriving_records_gives_the_same_tables_as_recording_them_at_once(
    stack: Stack, deploy: Deploy, operations: str
) -> None:
    orders = make_changes(operations)
    orders.record(stack)
    count = operations.count("*")
    assert len(parked(stack)) == count
    deploy()

    assert redrive(stack) == {"redriven": count, "parked": 0}
    assert message_count(stack) == 0
    assert stored_items(stack, "orders") == items_without_parking(stack, operations)


def test_a_late_change_is_added_to_the_hour_in_which_it_began(stack: Stack, deploy: Deploy) -> None:
    counters = [Past("orders"), Past("twin")]
    for counter in counters:
        for offset, operation in [
            (-30, "increment"),
            (1, "increment"),
            (-18, "multiply"),
            (-17, "increment"),
            (0, "multiply"),
            (-1, "increment"),
            (2, "increment"),
        ]:
            counter.change(START + offset, 3, operation)
    orders, twin = counters
    orders.record(stack)
    deploy()

    assert redrive(stack) == {"redriven": 2, "parked": 0}
    twin.record(stack)
    assert stored_items(stack, "orders") == stored_items(stack, "twin")


ORDERS = list(itertools.permutations(range(4)))


# The tests always include two orders: the order in which the records were parked, and its reverse.
@pytest.mark.parametrize("order", ORDERS if FULL else [*ORDERS[::8], ORDERS[-1]], ids=str)
def test_parked_records_can_be_redriven_in_any_order(
    stack: Stack, deploy: Deploy, order: Sequence[int]
) -> None:
    operations = "*+**+*"
    orders = make_changes(operations)
    orders.record(stack)
    bodies = stack.messages(DEAD_LETTERS)
    assert len(bodies) == 4
    deploy()

    for number in order:
        stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=bodies[number])
        assert redrive(stack) == {"redriven": 1, "parked": 0}

    assert stored_items(stack, "orders") == items_without_parking(stack, operations)


def test_redriving_a_recorded_change_has_no_effect(stack: Stack, deploy: Deploy) -> None:
    orders = make_changes("+*+|+")
    orders.record(stack)
    deploy()
    redrive(stack)
    before = stored_items(stack, "orders")
    stack.sqs.send_message(
        QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=json.dumps(orders.records[1])
    )

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert message_count(stack) == 0
    assert stored_items(stack, "orders") == before


def test_a_record_that_was_parked_twice_is_counted_once(stack: Stack, deploy: Deploy) -> None:
    orders = make_changes("+*+")
    orders.record(stack)
    orders.record(stack)
    assert message_count(stack) == 2
    deploy()

    assert redrive(stack) == {"redriven": 2, "parked": 0}
    assert message_count(stack) == 0
    assert stored_items(stack, "orders") == items_without_parking(stack, "+*+")


def test_delivering_a_redriven_record_again_has_no_effect(stack: Stack, deploy: Deploy) -> None:
    orders = make_changes("+*++|+")
    orders.record(stack)
    deploy()
    redrive(stack)

    orders.record(stack)

    assert stored_items(stack, "orders") == items_without_parking(stack, "+*++|+")


def test_the_stream_continues_after_a_redriven_record(stack: Stack, deploy: Deploy) -> None:
    orders = make_changes("+*++")
    orders.record(stack, orders.records[:2])
    deploy()
    assert redrive(stack) == {"redriven": 1, "parked": 0}

    orders.record(stack, orders.records[2:])

    assert stored_items(stack, "orders") == items_without_parking(stack, "+*++")


def test_a_record_stays_parked_if_the_history_has_another_change_of_its_version(
    stack: Stack, deploy: Deploy
) -> None:
    orders = make_changes("+*+")
    orders.record(stack)
    deploy()
    other = json.loads(json.dumps(orders.records[1]))
    other["dynamodb"]["NewImage"]["change"]["M"]["request_id"] = {"S": "another request"}
    assert stack.record([other]) == 1
    before = stored_items(stack, "orders")

    assert redrive(stack) == {"redriven": 0, "parked": 1}
    assert parked(stack) == [orders.records[1]]
    assert stored_items(stack, "orders") == before


def test_a_record_that_stays_parked_does_not_block_other_records(
    stack: Stack, deploy: Deploy
) -> None:
    orders = make_changes("+*+*+")
    orders.record(stack)
    stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody="no record")
    deploy()

    assert redrive(stack) == {"redriven": 2, "parked": 1}
    assert message_count(stack) == 1
    assert stored_items(stack, "orders") == items_without_parking(stack, "+*+*+")


def test_an_hour_whose_history_has_expired_is_not_rebuilt(stack: Stack, deploy: Deploy) -> None:
    stack.refs["HistoryDays"] = "8"
    hour = clock.now() // HOUR * HOUR
    old = make_changes("+*+", "old", hour - 8 * DAY - HOUR)
    recent = make_changes("+*+", "recent", hour - 8 * DAY + 2 * HOUR)
    for each in (old, recent):
        each.record(stack)
    before = stored_items(stack, "old")["TrendTable"]
    deploy()

    assert redrive(stack) == {"redriven": 1, "parked": 1}
    assert parked(stack) == [old.records[1]]
    assert stored_items(stack, "old")["TrendTable"] == before
    twin = items_without_parking(stack, "+*+", hour - 8 * DAY + 2 * HOUR)
    assert stored_items(stack, "recent") == twin


def test_without_enough_time_no_message_is_received(
    stack: Stack, wire: Wire, deploy: Deploy
) -> None:
    make_changes("+*+").record(stack)
    deploy()
    wire.sent.clear()
    function = stack.functions["RedriveHistory"]
    stack.functions["RedriveHistory"] = replace(function, timeout=30)

    assert redrive(stack) == {"redriven": 0, "parked": 0}
    assert wire.operations() == []
    assert len(parked(stack)) == 1


def test_one_malformed_record_among_many_loses_no_change(stack: Stack, deploy: Deploy) -> None:
    count, malformed = cases(full=1001, part=201), 90
    orders = Past("orders")
    for number in range(1, count + 1):
        operation = "multiply" if number == malformed else "increment"
        orders.change(START + 60 * number, number, operation)
    orders.record(stack)

    assert parked(stack) == [orders.records[malformed - 1]]
    versions = {int(item["version"]["N"]) for item in stack.items("HistoryTable")}
    assert versions == set(range(1, count + 1)) - {malformed}
    trend = stack.items("TrendTable")
    assert sum(int(item["changes"]["N"]) for item in trend) == count - 1
    total = count * (count + 1) // 2
    assert sum(int(item["increase"]["N"]) for item in trend) == total - malformed

    deploy()
    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert message_count(stack) == 0
    history = stack.items("HistoryTable")
    assert {int(item["version"]["N"]) for item in history} == set(range(1, count + 1))
    (late,) = [item for item in history if item["version"] == {"N": str(malformed)}]
    assert late["operation"] == {"S": "multiply"}
    assert late["by"] == {"N": str(malformed)}
    trend = stack.items("TrendTable")
    assert sum(int(item["changes"]["N"]) for item in trend) == count
    assert sum(int(item["increase"]["N"]) for item in trend) == total
