"""RedriveHistory after faults, and while RecordHistory adds changes to the same hour.

To redrive a record is to take it from the dead-letter queue and record its change.
"""

import itertools
import json
import time

import moto.sqs.models
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests import aws_template
from tests.component.redriving import (
    Deploy,
    items_without_parking,
    make_changes,
    message_count,
    parked,
    redrive,
    stored_items,
)
from tests.sizes import cases
from tests.stack import Stack
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

from counters import clock

pytestmark = pytest.mark.usefixtures("receive_without_waiting")

REDRIVE_SECONDS = aws_template.functions()["RedriveHistory"].timeout


def near_timeout(fault: Fault) -> Fault:
    """Return `fault`, but delayed until the function has no time for another attempt."""

    def after(request: AWSPreparedRequest) -> AWSResponse:
        clock.sleep(REDRIVE_SECONDS - 30)
        return fault(request)

    return after


# The first PutItem of a redrive writes an entry to the history. The second PutItem writes an hour
# to the trend.
FAILURES = [
    pytest.param("PutItem", [near_timeout(fault)], id=f"{fault.__name__}: the entry")
    for fault in (reply_lost, denied, throttled, internal_error)[: cases(full=4, part=2)]
]
FAILURES += [
    pytest.param("PutItem", [delivered, near_timeout(fault)], id=f"{fault.__name__}: the hour")
    for fault in (reply_lost, denied, throttled, internal_error)[: cases(full=4, part=2)]
]
FAILURES += [
    pytest.param(operation, [*skipped, near_timeout(fault)], id=f"{fault.__name__}: {operation}")
    for operation, skipped in (("GetItem", []), ("Query", [delivered]))
    for fault in (throttled, denied, internal_error)[: cases(full=3, part=1)]
]


@pytest.mark.parametrize(("operation", "faults"), FAILURES)
def test_after_a_failure_the_record_stays_parked_and_a_second_run_redrives_it(
    stack: Stack, wire: Wire, deploy: Deploy, operation: str, faults: list[Fault]
) -> None:
    orders = make_changes("+*+|+")
    orders.record(stack)
    deploy()
    wire.fail(operation, faults)

    first = redrive(stack)

    assert first == {"redriven": 0, "parked": 1}
    assert parked(stack) == [orders.records[1]]
    wire.fail(operation, [])
    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert message_count(stack) == 0
    assert stored_items(stack, "orders") == items_without_parking(stack, "+*+|+")


@pytest.mark.parametrize("fault", [denied, throttled, request_lost])
def test_a_message_that_cannot_be_deleted_or_released_is_visible_again_after_its_timeout(
    stack: Stack,
    wire: Wire,
    deploy: Deploy,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    orders = make_changes("+*+*+")
    orders.record(stack)
    deploy()
    wire.fail("DeleteMessage", itertools.repeat(fault))
    wire.fail("ChangeMessageVisibility", itertools.repeat(fault))

    assert redrive(stack) == {"redriven": 0, "parked": 2}
    assert message_count(stack) == 2

    wire.fail("DeleteMessage", [])
    monkeypatch.setattr(moto.sqs.models, "unix_time_millis", lambda: 1000 * (time.time() + 901))
    assert redrive(stack) == {"redriven": 2, "parked": 0}
    assert message_count(stack) == 0
    assert stored_items(stack, "orders") == items_without_parking(stack, "+*+*+")


def test_a_message_is_deleted_only_after_its_record_is_written(
    stack: Stack, wire: Wire, deploy: Deploy
) -> None:
    make_changes("+*+").record(stack)
    deploy()
    wire.sent.clear()

    redrive(stack)

    operations = wire.operations()
    assert operations.count("PutItem") == 2
    assert operations[-3:] == ["PutItem", "DeleteMessage", "ReceiveMessage"]


@pytest.mark.parametrize(
    ("operations", "recorded"),
    [pytest.param("+*+++", 3, id="more changes"), pytest.param("*+", 1, id="the first change")],
)
def test_changes_that_the_stream_adds_to_an_hour_during_a_redrive_are_kept(
    stack: Stack, wire: Wire, deploy: Deploy, operations: str, recorded: int
) -> None:
    orders = make_changes(operations)
    orders.record(stack, orders.records[:recorded])
    rest = orders.records[recorded:]
    deploy()

    def overtaken_by_stream(request: AWSPreparedRequest) -> AWSResponse:
        assert stack.record(rest) == len(rest)
        return delivered(request)

    wire.fail("PutItem", [delivered, overtaken_by_stream])

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert wire.operations().count("PutItem") == 3, "the entry, the hour, the hour again"
    assert stored_items(stack, "orders") == items_without_parking(stack, operations)


def test_an_entry_that_is_not_in_the_trend_yet_is_added_once(
    stack: Stack, wire: Wire, deploy: Deploy
) -> None:
    orders = make_changes("+*+++")
    orders.record(stack, orders.records[:2])
    wire.fail("UpdateItem", [denied])
    assert stack.record(orders.records[2:]) == 0
    deploy()

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert stack.record(orders.records[2:]) == 3
    assert stored_items(stack, "orders") == items_without_parking(stack, "+*+++")


def test_an_entry_after_a_gap_is_added_to_the_trend_once(
    stack: Stack, wire: Wire, deploy: Deploy
) -> None:
    orders = make_changes("+*+++")
    orders.record(stack, orders.records[:2])

    def all_but_first_written(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        ((table, writes),) = json.loads(request.body)["RequestItems"].items()
        request.body = json.dumps({"RequestItems": {table: writes[1:]}}).encode()
        delivered(request)
        return request_lost(request)

    wire.fail("BatchWriteItem", [all_but_first_written, denied])
    assert stack.record(orders.records[2:]) == 0
    deploy()

    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert stack.record(orders.records[2:]) == 3
    assert stored_items(stack, "orders") == items_without_parking(stack, "+*+++")


def test_a_record_whose_hour_keeps_changing_stays_parked_until_the_next_run(
    stack: Stack, wire: Wire, deploy: Deploy
) -> None:
    operations = "+*" + 10 * "+"
    orders = make_changes(operations)
    orders.record(stack, orders.records[:2])
    deploy()
    rest = iter(orders.records[2:])

    def overtaken_by_stream(request: AWSPreparedRequest) -> AWSResponse:
        assert stack.record([next(rest)]) == 1
        return delivered(request)

    wire.fail("PutItem", [delivered, *itertools.repeat(overtaken_by_stream, 5)])

    assert redrive(stack) == {"redriven": 0, "parked": 1}
    assert parked(stack) == [orders.records[1]]
    stack.record(list(rest))
    assert redrive(stack) == {"redriven": 1, "parked": 0}
    assert stored_items(stack, "orders") == items_without_parking(stack, operations)
