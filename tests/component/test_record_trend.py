"""RecordHistory adds each change to the trend once."""

from itertools import repeat
from typing import Any

import pytest
from tests.component.stream_records import changes_by_hour, changes_of_two_counters, without_field
from tests.past import START, Past, take_parked
from tests.stack import Stack
from tests.wire import Wire, delivered, denied, internal_error, reply_lost, throttled

from counters import clock


@pytest.mark.parametrize(("hours_added", "position"), [(0, 0), (1, 1), (2, 6), (3, 7)], ids=str)
def test_the_first_record_that_is_not_in_the_trend_is_reported(
    stack: Stack, wire: Wire, hours_added: int, position: int
) -> None:
    records = changes_of_two_counters()
    wire.fail("UpdateItem", [*[delivered] * hours_added, denied])

    assert stack.record(records) == position
    assert len(stack.items("HistoryTable")) == len(records)

    assert stack.record(records[position:]) == len(records) - position
    expected = {("a", "08"): (3, -2), ("b", "08"): (3, 3)}
    expected |= {("a", "09"): (3, -2), ("b", "09"): (3, 3)}
    assert changes_by_hour(stack) == expected


@pytest.mark.parametrize("fault", [denied, throttled, reply_lost, internal_error])
def test_an_hour_counts_each_change_once_after_failed_updates(
    stack: Stack,
    wire: Wire,
    fault: Any,  # noqa: ANN401
) -> None:
    records = changes_of_two_counters()[:6]
    for times in (1, 2, 3):
        wire.fail("UpdateItem", [fault] * times)
        stack.record(records)
    wire.fail("UpdateItem", [])

    assert stack.record(records) == 6
    assert changes_by_hour(stack) == {("a", "08"): (3, -2), ("b", "08"): (3, 3)}


@pytest.mark.parametrize(
    "malformed",
    [
        {"last_version": {"N": "1.5"}},
        {"last_version": {"N": "0"}, "changes": {"S": "x"}},
    ],
    ids=str,
)
def test_a_malformed_hour_keeps_no_change_out_of_the_history(
    stack: Stack,
    malformed: Any,  # noqa: ANN401
) -> None:
    key: Any = {"counter_id": {"S": "a"}, "hour": {"S": clock.timestamp(START)}}
    stack.dynamodb.put_item(TableName=stack.refs["TrendTable"], Item={**key, **malformed})
    records = changes_of_two_counters()[:6]

    assert stack.record(records) == 6
    assert len(stack.items("HistoryTable")) == 6
    (hour,) = (item for item in stack.items("TrendTable") if item["counter_id"] == {"S": "b"})
    assert hour["changes"] == {"N": "3"}


def test_a_repeated_record_in_a_batch_is_in_the_trend_once(stack: Stack) -> None:
    records = changes_of_two_counters()[:6]

    assert stack.record([*records[:4], *records[1:], records[0], *records]) == 16
    assert changes_by_hour(stack) == {("a", "08"): (3, -2), ("b", "08"): (3, 3)}


def test_an_overlapping_batch_adds_only_new_changes_to_the_trend(
    stack: Stack,
) -> None:
    records = changes_of_two_counters()
    stack.record(records[:4])

    assert stack.record(records[1:]) == 11
    expected = {("a", "08"): (3, -2), ("b", "08"): (3, 3)}
    expected |= {("a", "09"): (3, -2), ("b", "09"): (3, 3)}
    assert changes_by_hour(stack) == expected


def test_a_change_that_is_not_in_the_history_is_not_in_the_trend(stack: Stack, wire: Wire) -> None:
    orders = Past("orders")
    records = [orders.change(START, 1) for _ in range(30)]
    wire.fail("BatchWriteItem", [delivered, denied])

    assert stack.record(records) == 25
    assert changes_by_hour(stack) == {("orders", "08"): (25, 25)}


def test_a_record_is_parked_only_after_all_earlier_changes_are_in_the_trend(
    stack: Stack, wire: Wire
) -> None:
    records = changes_of_two_counters()[:6]
    records[4] = without_field(records[4], "dynamodb", "NewImage")
    wire.sent.clear()

    assert stack.record(records) == 6
    writes = ["BatchGetItem", "BatchWriteItem", "UpdateItem"]
    assert wire.operations() == [*writes, "UpdateItem", "SendMessage", *writes]


def test_an_outage_of_the_trend_does_not_park_a_record_twice(stack: Stack, wire: Wire) -> None:
    records = changes_of_two_counters()[:6]
    records[4] = without_field(records[4], "dynamodb", "NewImage")
    wire.fail("UpdateItem", repeat(throttled))
    for _ in range(3):
        assert stack.record(records) == 0
    assert take_parked(stack) == []

    wire.fail("UpdateItem", [])
    assert stack.record(records) == 6
    assert take_parked(stack) == [records[4]]
    assert changes_by_hour(stack) == {("a", "08"): (3, -2), ("b", "08"): (2, -2)}
