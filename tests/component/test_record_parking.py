"""RecordHistory parks a record that it cannot record, and records all others.

To park a record is to move it, unchanged, to the dead-letter queue.
"""

from copy import deepcopy
from itertools import repeat
from typing import Any

import pytest
from tests.component.stream_records import (
    change_over_http,
    make_changes,
    versions,
    versions_up_to,
    without_field,
)
from tests.past import START, Past, take_parked
from tests.stack import Stack, StreamRecord
from tests.wire import Wire, denied, processed, read_in_part, throttled

MALFORMED = [
    pytest.param(("dynamodb",), id="no images"),
    pytest.param(("dynamodb", "NewImage"), id="no new image"),
    pytest.param(("dynamodb", "OldImage"), id="no old image"),
    pytest.param(("dynamodb", "OldImage", "version"), id="no old version"),
    pytest.param(("dynamodb", "OldImage", "value"), id="no old value"),
    pytest.param(("dynamodb", "NewImage", "value"), id="no value"),
    pytest.param(("dynamodb", "NewImage", "change"), id="no change"),
    pytest.param(("dynamodb", "NewImage", "change", "M", "actor"), id="no actor"),
    pytest.param(("dynamodb", "NewImage", "change", "M", "request_id"), id="no request"),
    pytest.param(("dynamodb", "NewImage", "created_at"), id="no time"),
    pytest.param(("dynamodb", "NewImage", "value", "N"), id="no type of the value"),
]


@pytest.mark.parametrize("path", MALFORMED)
def test_a_malformed_record_is_parked_unchanged_and_the_rest_is_recorded(
    stack: Stack, path: tuple[str, ...]
) -> None:
    changes = make_changes(stack, 5)
    malformed = without_field(changes[2], *path)

    assert stack.record([*changes[:2], malformed, *changes[3:]]) == 5
    assert take_parked(stack) == [malformed]
    assert versions(stack) == [1, 2, 4, 5]


TOO_LONG = 16_385 * "x"
WRONG_TIMES = [
    "",
    "yesterday",
    "2025-01-15T25:00:00Z",
    "2025-01-15T08:00:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
]
MALFORMED_FIELDS: dict[tuple[str, ...], list[str]] = {
    ("value", "N"): ["1.5", "NaN", "x"],
    ("change", "M", "operation", "S"): ["multiply"],
    ("change", "M", "at", "S"): WRONG_TIMES,
    ("created_at", "S"): WRONG_TIMES,
    ("counter_id", "S"): ["", TOO_LONG],
    ("change", "M", "actor", "S"): ["", TOO_LONG],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(path, value, id=f"{'.'.join(path)}: {value[:30]}")
        for path, values in MALFORMED_FIELDS.items()
        for value in values
    ],
)
def test_a_record_with_a_malformed_field_is_parked(
    stack: Stack, path: tuple[str, ...], value: str
) -> None:
    record = deepcopy(Past("orders").change(START, 1))
    field = record["dynamodb"]["NewImage"]
    for key in path[:-1]:
        field = field[key]
    field[path[-1]] = value

    assert stack.record([record]) == 1
    assert take_parked(stack) == [record]
    assert stack.items("HistoryTable") == stack.items("TrendTable") == []


@pytest.mark.parametrize(
    "content",
    [
        None,
        "x",
        [],
        {"NewImage": None},
        {"NewImage": {"version": "1"}},
        {"OldImage": None, "NewImage": None},
        {"OldImage": {}, "NewImage": [1]},
    ],
    ids=str,
)
def test_a_record_with_a_malformed_structure_is_parked(stack: Stack, content: object) -> None:
    (record,) = make_changes(stack, 1)
    record["dynamodb"] = content

    assert stack.invoke("RecordHistory", {"Records": [record]}) == {"batchItemFailures": []}
    assert take_parked(stack) == [record]


def test_a_record_whose_value_is_out_of_range_is_parked(stack: Stack) -> None:
    orders = Past("orders")
    records = [orders.change(START, by) for by in (2**53 - 1, 1, -1, -1)]

    assert stack.record(records) == 4
    # The second change moves the value out of range. The third change moves it back, so only the
    # third record's old value is out of range.
    assert take_parked(stack) == records[1:3]
    assert versions(stack) == [1, 4]


def test_changes_made_by_hand_are_parked(stack: Stack) -> None:
    stack.request("POST", "/counter")
    table = stack.refs["CounterTable"]
    key: Any = {"counter_id": {"S": "default"}}
    stack.dynamodb.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET #value = :value",
        ExpressionAttributeNames={"#value": "value"},
        ExpressionAttributeValues={":value": {"N": "99"}},
    )
    stack.dynamodb.delete_item(TableName=table, Key=key)
    changes = stack.changes()

    assert stack.record(changes) == 3
    assert take_parked(stack) == changes[1:]
    assert versions(stack, "default") == [1]


def test_a_record_that_cannot_be_parked_is_reported(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 5)
    changes[3] = without_field(changes[3], "dynamodb", "NewImage")
    wire.fail("SendMessage", repeat(denied))

    assert stack.record(changes) == 3

    wire.fail("SendMessage", [])
    assert stack.record(changes[3:]) == 2
    assert take_parked(stack) == [changes[3]]
    assert versions(stack) == [1, 2, 3, 5]


def test_the_earlier_of_two_failures_is_reported(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 30)
    changes[10] = without_field(changes[10], "dynamodb", "NewImage")
    wire.fail("SendMessage", repeat(denied))
    wire.fail("BatchWriteItem", [processed(25), denied])

    assert stack.record(changes) == 10


def test_an_outage_of_the_history_does_not_park_a_record_twice(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 5)
    changes[3] = without_field(changes[3], "dynamodb", "NewImage")
    wire.fail("BatchWriteItem", repeat(throttled))
    for _ in range(3):
        assert stack.record(changes) == 0

    wire.fail("BatchWriteItem", [])
    assert stack.record(changes) == 5
    assert take_parked(stack) == [changes[3]]


def recreate_counter(stack: Stack) -> list[StreamRecord]:
    """Record three changes of a counter, delete the counter, and change it five times.

    Returns:
        The stream records of the deletion and of the five changes.
    """
    stack.record(change_over_http(stack, 3))
    stack.dynamodb.delete_item(
        TableName=stack.refs["CounterTable"], Key={"counter_id": {"S": "orders"}}
    )
    return change_over_http(stack, 5)


def test_a_recreated_counter_overwrites_no_entry(stack: Stack) -> None:
    removal, *changes = recreate_counter(stack)
    before = stack.items("HistoryTable")

    assert stack.record([removal, *changes]) == 6
    parked = take_parked(stack)
    assert parked == [removal, *changes[:3]]
    assert [item for item in stack.items("HistoryTable") if item in before] == before
    assert versions(stack) == versions_up_to(5)


def test_a_recreated_counter_overwrites_no_entry_in_any_batch(stack: Stack) -> None:
    removal, *changes = recreate_counter(stack)
    before = stack.items("HistoryTable")

    for batch in ([removal], changes[:1], changes[:2], changes[1:4], changes):
        assert stack.record(batch) == len(batch)

    assert [item for item in stack.items("HistoryTable") if item in before] == before
    assert versions(stack) == versions_up_to(5)


def test_a_counter_whose_version_is_reset_within_a_batch_overwrites_no_entry(stack: Stack) -> None:
    first = change_over_http(stack, 4)
    stack.dynamodb.update_item(
        TableName=stack.refs["CounterTable"],
        Key={"counter_id": {"S": "orders"}},
        UpdateExpression="SET #version = :version",
        ExpressionAttributeNames={"#version": "version"},
        ExpressionAttributeValues={":version": {"N": "1"}},
    )
    changes = change_over_http(stack, 4)

    assert stack.record([*first, *changes]) == 9
    parked = take_parked(stack)
    assert parked == changes[:4]
    assert versions(stack) == versions_up_to(5)


@pytest.mark.parametrize("attributes", [{}, {"request_id": {"N": "1"}}], ids=str)
@pytest.mark.parametrize(("count", "version"), [(3, 2), (12, 1), (12, 12)])
def test_an_entry_that_was_written_by_hand_is_not_overwritten(
    stack: Stack, count: int, version: int, attributes: dict[str, Any]
) -> None:
    changes = make_changes(stack, count)
    planted: Any = {"counter_id": {"S": "orders"}, "version": {"N": str(version)}, **attributes}
    stack.dynamodb.put_item(TableName=stack.refs["HistoryTable"], Item=planted)

    assert stack.record(changes) == count
    assert take_parked(stack) == [changes[version - 1]]
    assert planted in stack.items("HistoryTable")


def test_no_entry_is_overwritten_if_reading_the_entries_takes_several_pages(stack: Stack) -> None:
    changes = make_changes(stack, 12)
    stack.record(changes[:11])
    other: Any = {"counter_id": {"S": "orders"}, "version": {"N": "12"}}
    for item in [*stack.items("HistoryTable"), other]:
        padded = item | {"padding": {"S": "a" * 100_000}}  # a page of a Query has at most 1 MB
        stack.dynamodb.put_item(TableName=stack.refs["HistoryTable"], Item=padded)

    assert stack.record(changes) == 12
    assert take_parked(stack) == [changes[11]]


def test_unprocessed_keys_are_read_again(stack: Stack, wire: Wire) -> None:
    removal, *changes = recreate_counter(stack)
    assert stack.record([removal]) == 1
    wire.fail("BatchGetItem", [read_in_part(1), read_in_part(0), read_in_part(1)])

    assert stack.record(changes) == 5
    assert versions(stack) == versions_up_to(5)
    assert len(take_parked(stack)) == 4
