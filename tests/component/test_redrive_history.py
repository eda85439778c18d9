import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import moto.sqs.models
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests import aws_template
from tests.past import Past
from tests.sizes import FULL, cases
from tests.stack import Item, Stack
from tests.wire import (
    Fault,
    Wire,
    delivered,
    denied,
    internal_error,
    reply_lost,
    request_lost,
    throttled,
)

from counters import clock, recording
from counters.errors import CounterError

HOUR = 3600  # seconds
DAY = 24 * HOUR
REDRIVE_SECONDS = aws_template.functions()["RedriveHistory"].timeout
DEAD_LETTERS = "HistoryDeadLetterQueue"
START = 1_736_928_000.0  # the beginning of an hour, in seconds since the epoch

Understand = Callable[[], None]

NO_OBJECTS: list[object] = [None, [], "orders", 7, True, [{}]]


def without_waiting(request: AWSPreparedRequest) -> AWSResponse:
    """Let moto answer at once: in its time one would wait for messages, in ours not."""
    assert isinstance(request.body, bytes)
    asked = json.loads(request.body)
    if "WaitTimeSeconds" in asked:
        request.body = json.dumps(asked | {"WaitTimeSeconds": 0}).encode()
    return delivered(request)


@pytest.fixture(autouse=True)
def _at_once(wire: Wire) -> None:
    wire.through = without_waiting


@pytest.fixture
def understand(monkeypatch: pytest.MonkeyPatch) -> Understand:
    """Return what lets the code understand the operation `multiply`, which it does not now."""
    known = Literal["increment", "set", "multiply"]
    return lambda: monkeypatch.setattr(recording, "Operation", known)


def redrive(stack: Stack) -> Any:  # noqa: ANN401
    return stack.invoke("RedriveHistory", {})


def parked(stack: Stack) -> list[Any]:
    """Return the records that are visible in the dead-letter queue, which they stay."""
    messages = stack.sqs.receive_message(
        QueueUrl=stack.refs[DEAD_LETTERS], MaxNumberOfMessages=10, VisibilityTimeout=0
    ).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


def waiting(stack: Stack) -> int:
    """Return how many messages the dead-letter queue has, visible or not."""
    attributes = stack.sqs.get_queue_attributes(
        QueueUrl=stack.refs[DEAD_LETTERS], AttributeNames=["All"]
    )["Attributes"]
    visible = attributes["ApproximateNumberOfMessages"]
    return int(visible) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


def past(operations: str, counter_id: str = "orders", start: float = START) -> Past:
    """Return changes a second apart: `+` an increment, `*` one that is not understood, `|` an hour.

    What the changes add differs, and every third is negative.
    """
    made = Past(counter_id)
    now = start
    for operation in operations:
        if operation == "|":
            now = (now // HOUR + 1) * HOUR
            continue
        now += 1
        by = 10 ** len(made.records) * (-1 if len(made.records) % 3 == 2 else 1)
        made.change(now, by, "multiply" if operation == "*" else "increment")
    return made


def stored(stack: Stack, counter_id: str) -> dict[str, list[Item]]:
    """Return what history and trend hold of a counter, whatever its name."""
    return {
        table: json.loads(
            json.dumps(
                sorted(
                    (
                        item
                        for item in stack.items(table)
                        if item["counter_id"] == {"S": counter_id}
                    ),
                    key=lambda item: (len(item.get("version", {}).get("N", "")), str(item)),
                )
            ).replace(counter_id, "counter")
        )
        for table in ("HistoryTable", "TrendTable")
    }


def as_if_never_parked(stack: Stack, operations: str, start: float = START) -> dict[str, Any]:
    """Return what is stored of a counter of the same changes that were all understood at once."""
    twin = past(operations, "twin", start)
    twin.record(stack)
    return stored(stack, "twin")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        *[(wrong, "event: must be a JSON object") for wrong in NO_OBJECTS],
        ({"counter_id": "orders"}, "counter_id: unknown field"),
        ({"after": 1}, "after: unknown field"),
    ],
    ids=str,
)
def test_a_malformed_event_is_refused_in_one_line_and_changes_nothing(
    stack: Stack,
    understand: Understand,
    wire: Wire,
    event: Any,  # noqa: ANN401  whatever it is
    message: str,
) -> None:
    past("+*+").record(stack)
    understand()
    before = stack.contents()
    wire.sent.clear()

    with pytest.raises(CounterError) as raised:
        stack.invoke("RedriveHistory", event)

    assert str(raised.value) == message
    assert raised.traceback[-1].name == "handler"
    assert raised.value.__cause__ is None
    assert not wire.sent
    assert stack.contents() == before
    assert waiting(stack) == 1


def test_the_answer_is_in_the_log(
    stack: Stack, understand: Understand, caplog: pytest.LogCaptureFixture
) -> None:
    past("+*+").record(stack)
    stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody="nonsense")
    understand()
    caplog.clear()

    answer = redrive(stack)

    (line,) = [vars(record)["answer"] for record in caplog.records if "answer" in vars(record)]
    assert line == answer == {"redriven": 1, "parked": 1}


def test_an_empty_queue_takes_one_request(stack: Stack, wire: Wire) -> None:
    assert redrive(stack) == {"redriven": 0, "parked": 0}
    assert wire.operations() == ["ReceiveMessage"]


@pytest.mark.parametrize("count", [1, 9, 10])
def test_records_that_are_still_not_understood_stay_visible_in_the_queue(
    stack: Stack, count: int
) -> None:
    orders = past("+" + count * "*" + "+")
    orders.record(stack)
    before = stored(stack, "orders")

    assert redrive(stack) == {"redriven": 0, "parked": count}
    assert sorted(parked(stack), key=str) == sorted(orders.records[1:-1], key=str)
    assert stored(stack, "orders") == before


def test_messages_that_are_not_records_stay_in_the_queue(stack: Stack) -> None:
    for body in ("{", "[]", "null", '{"dynamodb": {}}'):
        stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=body)

    assert redrive(stack) == {"redriven": 0, "parked": 4}
    assert redrive(stack) == {"redriven": 0, "parked": 4}


def test_a_run_goes_through_the_whole_queue_once(stack: Stack, understand: Understand) -> None:
    past("+" + 12 * "*" + "+").record(stack)
    nonsense = 13
    for number in range(nonsense):
        stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=f"[{number}]")
    understand()

    assert redrive(stack) == {"redriven": 12, "parked": nonsense}
    assert waiting(stack) == nonsense


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param("*", id="the only one of its counter"),
        pytest.param("+|*|+", id="the only one of its hour"),
        pytest.param("+|*++|+", id="the first of its hour"),
        pytest.param("+|+*+|+", id="in the middle of its hour"),
        pytest.param("+|++*|+", id="the last of its hour"),
        pytest.param("+|++*", id="the last of all"),
        pytest.param("*++|++", id="the first of all"),
        pytest.param("+*|*+", id="on both sides of a full hour"),
        pytest.param("+**+*|*|**+", id="many"),
        pytest.param("****", id="all"),
    ],
)
def test_a_redriven_record_leaves_the_tables_as_if_it_had_never_been_parked(
    stack: Stack, understand: Understand, operations: str
) -> None:
    orders = past(operations)
    orders.record(stack)
    count = operations.count("*")
    assert len(parked(stack)) == count
    understand()

    assert redrive(stack) == {"redriven": count, "parked": 0}
    assert waiting(stack) == 0
    assert stored(stack, "orders") == as_if_never_parked(stack, operations)


def test_a_late_change_of_the_hour_before_is_added_to_that_hour(
    stack: Stack, understand: Understand
) -> None:
    both = [Past("orders"), Past("twin")]
    for each in both:
        for offset, operation in [
            (-30, "increment"),
            (1, "increment"),
            (-18, "multiply"),
            (-17, "increment"),
            (0, "multiply"),
            (-1, "increment"),
            (2, "increment"),
        ]:
            each.change(START + offset, 3, operation)
    orders, twin = both
    orders.record(stack)
    understand()

    assert redrive(stack) == {"redriven": 2, "parked": 0}
    twin.record(stack)
    assert stored(stack, "orders") == stored(stack, "twin")


ORDERS = list(itertools.permutations(range(4)))


# Among these are the order in which they were parked, and the opposite one.
@pytest.mark.parametrize("order", ORDERS if FULL else [*ORDERS[::8], ORDERS[-1]], ids=str)
def test_the_order_in_which_parked_records_come_does_not_matter(
    stack: Stack, understand: Understand, order: Sequence[int]
) -> None:
    operations = "*+**+*"
    orders = past(operations)
    orders.record(stack)
    bodies = stack.messages(DEAD_LETTERS)
    assert len(bodies) == 4
    understand()

    for number in order:
        stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=bodies[number])
        assert redrive(stack) == {"redriven": 1, "parked": 0}

    assert stored(stack, "orders") == as_if_never_parked(stack, operations)


def test_a_record_that_is_in_the_history_already_changes_nothing(
    stack: Stack, understand: Understand
) -> None:
    orders = past("+*+|+")
    orders.record(stack)
    understand()
    redrive(stack)
    before = stored(stack, "orders")
    stack.sqs.send_message(
        QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=json.dumps(orders.records[1])
    )

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert waiting(stack) == 0
    assert stored(stack, "orders") == before


def test_a_record_that_was_parked_twice_is_added_once(stack: Stack, understand: Understand) -> None:
    orders = past("+*+")
    orders.record(stack)
    orders.record(stack)
    assert waiting(stack) == 2
    understand()

    assert redrive(stack) == {"redriven": 2, "parked": 0}
    assert waiting(stack) == 0
    assert stored(stack, "orders") == as_if_never_parked(stack, "+*+")


def test_a_redriven_record_that_the_stream_delivers_again_changes_nothing(
    stack: Stack, understand: Understand
) -> None:
    orders = past("+*++|+")
    orders.record(stack)
    understand()
    redrive(stack)

    orders.record(stack)

    assert stored(stack, "orders") == as_if_never_parked(stack, "+*++|+")


def test_the_stream_continues_after_a_redriven_record(stack: Stack, understand: Understand) -> None:
    orders = past("+*++")
    orders.record(stack, orders.records[:2])
    understand()
    assert redrive(stack) == {"redriven": 1, "parked": 0}

    orders.record(stack, orders.records[2:])

    assert stored(stack, "orders") == as_if_never_parked(stack, "+*++")


def test_a_record_whose_version_is_taken_by_another_change_stays_parked(
    stack: Stack, understand: Understand
) -> None:
    orders = past("+*+")
    orders.record(stack)
    understand()
    other = json.loads(json.dumps(orders.records[1]))
    other["dynamodb"]["NewImage"]["change"]["M"]["request_id"] = {"S": "of somebody else"}
    assert stack.record([other]) == 1
    before = stored(stack, "orders")

    assert redrive(stack) == {"redriven": 0, "parked": 1}
    assert parked(stack) == [orders.records[1]]
    assert stored(stack, "orders") == before


def test_a_record_that_stays_parked_holds_up_no_other(stack: Stack, understand: Understand) -> None:
    orders = past("+*+*+")
    orders.record(stack)
    stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody="no record")
    understand()

    assert redrive(stack) == {"redriven": 2, "parked": 1}
    assert waiting(stack) == 1
    assert stored(stack, "orders") == as_if_never_parked(stack, "+*+*+")


def lasting(fault: Fault) -> Fault:
    """Return the fault that comes when there is no time for another attempt."""

    def after(request: AWSPreparedRequest) -> AWSResponse:
        clock.sleep(REDRIVE_SECONDS - 30)
        return fault(request)

    return after


# Of a redrive's PutItems the first is of the history, the second of the trend.
FAILURES = [
    pytest.param("PutItem", [lasting(fault)], id=f"{fault.__name__}: the entry")
    for fault in (reply_lost, denied, throttled, internal_error)[: cases(full=4, part=2)]
]
FAILURES += [
    pytest.param("PutItem", [delivered, lasting(fault)], id=f"{fault.__name__}: the hour")
    for fault in (reply_lost, denied, throttled, internal_error)[: cases(full=4, part=2)]
]
FAILURES += [
    pytest.param(operation, [*skipped, lasting(fault)], id=f"{fault.__name__}: {operation}")
    for operation, skipped in (("GetItem", []), ("Query", [delivered]))
    for fault in (throttled, denied, internal_error)[: cases(full=3, part=1)]
]


@pytest.mark.parametrize(("operation", "faults"), FAILURES)
def test_a_failure_leaves_the_record_in_the_queue_and_a_second_run_finishes(
    stack: Stack, wire: Wire, understand: Understand, operation: str, faults: list[Fault]
) -> None:
    orders = past("+*+|+")
    orders.record(stack)
    understand()
    wire.fail(operation, faults)

    first = redrive(stack)

    assert first == {"redriven": 0, "parked": 1}
    assert parked(stack) == [orders.records[1]]
    wire.fail(operation, [])
    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert waiting(stack) == 0
    assert stored(stack, "orders") == as_if_never_parked(stack, "+*+|+")


@pytest.mark.parametrize("fault", [denied, throttled, request_lost])
def test_a_message_that_cannot_be_deleted_or_released_returns_when_its_time_is_up(
    stack: Stack,
    wire: Wire,
    understand: Understand,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    orders = past("+*+*+")
    orders.record(stack)
    understand()
    wire.fail("DeleteMessage", itertools.repeat(fault))
    wire.fail("ChangeMessageVisibility", itertools.repeat(fault))

    assert redrive(stack) == {"redriven": 0, "parked": 2}
    assert waiting(stack) == 2

    wire.fail("DeleteMessage", [])
    monkeypatch.setattr(moto.sqs.models, "unix_time_millis", lambda: 1000 * (time.time() + 901))
    assert redrive(stack) == {"redriven": 2, "parked": 0}
    assert waiting(stack) == 0
    assert stored(stack, "orders") == as_if_never_parked(stack, "+*+*+")


def test_a_message_is_deleted_only_after_its_record_is_written(
    stack: Stack, wire: Wire, understand: Understand
) -> None:
    past("+*+").record(stack)
    understand()
    wire.sent.clear()

    redrive(stack)

    operations = wire.operations()
    assert operations.count("PutItem") == 2
    assert operations[-3:] == ["PutItem", "DeleteMessage", "ReceiveMessage"]


def test_what_the_stream_adds_to_an_hour_during_a_redrive_is_not_lost(
    stack: Stack, wire: Wire, understand: Understand
) -> None:
    orders = past("+*+++")
    orders.record(stack, orders.records[:3])
    understand()

    def overtaken(request: AWSPreparedRequest) -> AWSResponse:
        assert stack.record(orders.records[3:]) == 2
        return delivered(request)

    wire.fail("PutItem", [delivered, overtaken])

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert wire.operations().count("PutItem") == 3, "the entry, the hour, and the hour again"
    assert stored(stack, "orders") == as_if_never_parked(stack, "+*+++")


def test_the_first_change_that_the_stream_adds_to_an_hour_during_a_redrive_is_not_lost(
    stack: Stack, wire: Wire, understand: Understand
) -> None:
    orders = past("*+")
    orders.record(stack, orders.records[:1])
    understand()

    def overtaken(request: AWSPreparedRequest) -> AWSResponse:
        assert stack.record(orders.records[1:]) == 1
        return delivered(request)

    wire.fail("PutItem", [delivered, overtaken])

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert stored(stack, "orders") == as_if_never_parked(stack, "*+")


def test_an_entry_that_is_not_in_the_trend_yet_is_added_once(
    stack: Stack, wire: Wire, understand: Understand
) -> None:
    orders = past("+*+++")
    orders.record(stack, orders.records[:2])
    wire.fail("UpdateItem", [denied])
    assert stack.record(orders.records[2:]) == 0
    understand()

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert stack.record(orders.records[2:]) == 3
    assert stored(stack, "orders") == as_if_never_parked(stack, "+*+++")


def test_an_entry_after_a_gap_is_not_taken_to_be_in_the_trend(
    stack: Stack, wire: Wire, understand: Understand
) -> None:
    orders = past("+*+++")
    orders.record(stack, orders.records[:2])

    def without_the_first(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        ((table, writes),) = json.loads(request.body)["RequestItems"].items()
        request.body = json.dumps({"RequestItems": {table: writes[1:]}}).encode()
        delivered(request)
        return request_lost(request)

    wire.fail("BatchWriteItem", [without_the_first, denied])
    assert stack.record(orders.records[2:]) == 0
    understand()

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert stack.record(orders.records[2:]) == 3
    assert stored(stack, "orders") == as_if_never_parked(stack, "+*+++")


def test_an_hour_that_changes_all_the_time_is_left_to_the_next_run(
    stack: Stack, wire: Wire, understand: Understand
) -> None:
    operations = "+*" + 10 * "+"
    orders = past(operations)
    orders.record(stack, orders.records[:2])
    understand()
    rest = iter(orders.records[2:])

    def overtaken(request: AWSPreparedRequest) -> AWSResponse:
        assert stack.record([next(rest)]) == 1
        return delivered(request)

    wire.fail("PutItem", [delivered, *itertools.repeat(overtaken, 5)])

    assert redrive(stack) == {"redriven": 0, "parked": 1}
    assert parked(stack) == [orders.records[1]]
    stack.record(list(rest))
    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert stored(stack, "orders") == as_if_never_parked(stack, operations)


def test_an_hour_whose_history_has_expired_is_not_recalculated(
    stack: Stack, understand: Understand
) -> None:
    stack.refs["HistoryDays"] = "8"
    hour = clock.now() // HOUR * HOUR
    old = past("+*+", "old", hour - 8 * DAY - HOUR)
    young = past("+*+", "young", hour - 8 * DAY + 2 * HOUR)
    for each in (old, young):
        each.record(stack)
    before = stored(stack, "old")["TrendTable"]
    understand()

    assert redrive(stack) == {"redriven": 1, "parked": 1}
    assert parked(stack) == [old.records[1]]
    assert stored(stack, "old")["TrendTable"] == before
    twin = as_if_never_parked(stack, "+*+", hour - 8 * DAY + 2 * HOUR)
    assert stored(stack, "young") == twin


def test_without_enough_time_no_message_is_received(
    stack: Stack, wire: Wire, understand: Understand
) -> None:
    past("+*+").record(stack)
    understand()
    wire.sent.clear()
    function = stack.functions["RedriveHistory"]
    stack.functions["RedriveHistory"] = replace(function, timeout=30)

    assert redrive(stack) == {"redriven": 0, "parked": 0}
    assert wire.operations() == []
    assert len(parked(stack)) == 1


def test_one_malformed_record_among_many_loses_no_change(
    stack: Stack, understand: Understand
) -> None:
    count, senseless = cases(full=1001, part=201), 90
    made = Past("orders")
    for number in range(1, count + 1):
        operation = "multiply" if number == senseless else "increment"
        made.change(START + 60 * number, number, operation)
    made.record(stack)

    assert parked(stack) == [made.records[senseless - 1]]
    versions = {int(item["version"]["N"]) for item in stack.items("HistoryTable")}
    assert versions == set(range(1, count + 1)) - {senseless}
    trend = stack.items("TrendTable")
    assert sum(int(item["changes"]["N"]) for item in trend) == count - 1
    total = count * (count + 1) // 2
    assert sum(int(item["increase"]["N"]) for item in trend) == total - senseless

    understand()
    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert waiting(stack) == 0
    history = stack.items("HistoryTable")
    assert {int(item["version"]["N"]) for item in history} == set(range(1, count + 1))
    (late,) = [item for item in history if item["version"] == {"N": str(senseless)}]
    assert late["operation"] == {"S": "multiply"}
    assert late["by"] == {"N": str(senseless)}
    trend = stack.items("TrendTable")
    assert sum(int(item["changes"]["N"]) for item in trend) == count
    assert sum(int(item["increase"]["N"]) for item in trend) == total
