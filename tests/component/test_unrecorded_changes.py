"""scripts/unrecorded_changes.py completes a restored history, and finds what a restore loses."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import Any

import boto3
import pytest
from tests import aws_template
from tests.component.auditing import findings
from tests.component.redriving import parked, stored_items
from tests.past import DEAD_LETTERS, START, Past
from tests.stack import Item, Stack
from tests.times import DAY, HOUR

import unrecorded_changes

OLD_HISTORY = "old-history"
TIME = dt.datetime.fromtimestamp(START + HOUR + 60, dt.UTC)
# What a change has that adds 4 because of three events.
COUNTS_EVENTS: Item = {
    "events": {"N": "3"},
    "increase": {"N": "9"},
    "decrease": {"N": "5"},
    "sender": {"S": "AROAEXAMPLE:shop"},
}

Versions = tuple[int, ...]


def recorded(stack: Stack, counter_id: str, times: Sequence[float]) -> Past:
    """Record a counter's changes, and copy its entries to the old HistoryTable."""
    past = Past(counter_id)
    for number, time in enumerate(times, 1):
        past.change(START + time, number, "increment", **(COUNTS_EVENTS if number == 4 else {}))
    past.record(stack)
    for item in stack.items("HistoryTable"):
        stack.dynamodb.put_item(TableName=OLD_HISTORY, Item=item)
    return past


def restore(stack: Stack, past: Past, version: int, trend: Versions, history: Versions) -> None:
    """Take the tables of a counter back to an earlier time.

    Args:
        stack: the stack.
        past: the counter and its changes.
        version: the counter's version at that time.
        trend: the versions that the trend had at that time.
        history: the versions that the history had at that time.
    """
    image = past.records[version - 1]["dynamodb"]["NewImage"]
    stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=image)
    stack.clear({stack.refs["HistoryTable"], stack.refs["TrendTable"]}, ())
    if trend:
        stack.record([past.records[each - 1] for each in trend])
    stack.clear({stack.refs["HistoryTable"]}, ())
    for item in stack.dynamodb.scan(TableName=OLD_HISTORY)["Items"]:
        if item["counter_id"] == image["counter_id"] and int(item["version"]["N"]) in history:
            stack.dynamodb.put_item(TableName=stack.refs["HistoryTable"], Item=item)


def complete(stack: Stack, days: int = 0) -> tuple[int, list[str]]:
    return unrecorded_changes.complete(OLD_HISTORY, stack.refs, TIME, days)


def lost(stack: Stack) -> set[tuple[str, str]]:
    """Return the lost changes: counters and versions."""
    return {
        (item["counter_id"]["S"], item["version"]["N"])
        for item in unrecorded_changes.lost(OLD_HISTORY, stack.refs["HistoryTable"], TIME)
    }


def edit_old_entry(stack: Stack, version: int, name: str) -> None:
    """Remove an attribute from an entry of "orders" in the old history."""
    stack.dynamodb.update_item(
        TableName=OLD_HISTORY,
        Key={"counter_id": {"S": "orders"}, "version": {"N": str(version)}},
        UpdateExpression="REMOVE #name",
        ExpressionAttributeNames={"#name": name},
    )


@pytest.fixture
def _empty_queue_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrecorded_changes, "_WAIT_SECONDS", 0)  # moto waits in real time


@pytest.fixture(name="old_history")
def _old_history(stack: Stack) -> Iterator[str]:
    arguments = aws_template.tables()["HistoryTable"]
    stack.dynamodb.create_table(TableName=OLD_HISTORY, **arguments)
    yield OLD_HISTORY
    stack.dynamodb.delete_table(TableName=OLD_HISTORY)


@pytest.mark.usefixtures("old_history")
@pytest.mark.parametrize(
    ("trend", "history"),
    [
        ((1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6)),  # nothing was under way
        ((1, 2, 3, 4), (1, 2, 3, 4, 5, 6)),  # the entries were written, but not added to the trend
        ((1, 2, 3), (1, 2, 3, 5)),  # the entries of a batch are written in any order
        ((1, 2, 3, 4, 5), (1, 2, 4)),  # the trend is ahead: DynamoDB restores each table on its own
        ((1, 2, 4, 5, 6), (1, 2, 4, 5, 6)),  # one was parked, and redriven after the time
        ((1, 2, 4, 5, 6), (1, 2, 3, 4, 5, 6)),  # one was just being redriven
        ((), ()),
    ],
)
def test_restored_history_and_trend_are_completed_up_to_the_version_of_the_counter(
    stack: Stack, trend: Versions, history: Versions
) -> None:
    times = [0, 1, HOUR - 1, HOUR + 1, HOUR + 2, HOUR + 3]
    recorded(stack, "orders", times)
    expected = stored_items(stack, "orders")
    stack.empty_tables()
    past = recorded(stack, "orders", [*times, HOUR + 70, HOUR + 71])
    restore(stack, past, 6, trend, history)

    assert complete(stack) == (6 - len(history), [])

    assert stored_items(stack, "orders") == expected
    assert complete(stack) == (0, [])
    assert lost(stack) == {("orders", "7"), ("orders", "8")}
    assert findings(stack) == []


@pytest.mark.usefixtures("old_history")
def test_only_entries_since_the_last_clean_audit_are_read(stack: Stack) -> None:
    past = recorded(stack, "orders", [0, 1, 3 * HOUR, 3 * HOUR + 1, 3 * HOUR + 2])
    restore(stack, past, 3, (1, 2, 3), (1, 2, 3))
    assert findings(stack) == []
    restore(stack, past, 5, (1, 2, 3), (3,))
    # The audit has verified it. So if it is not there, it has expired, or is accepted.
    key: Item = {"counter_id": {"S": "orders"}, "version": {"N": "2"}}
    stack.dynamodb.delete_item(TableName=OLD_HISTORY, Key=key)

    assert complete(stack) == (2, [])

    assert {item["version"]["N"] for item in stack.items("HistoryTable")} == {"3", "4", "5"}


@pytest.mark.usefixtures("old_history")
def test_trend_is_computed_from_whole_hours_whatever_the_order_of_the_times(stack: Stack) -> None:
    # A request can begin before another one, and make its change after it.
    times = [0, 3 * HOUR + 1, 3 * HOUR - 1, 3 * HOUR + 2, 4 * HOUR + 10, 4 * HOUR + 11]
    past = recorded(stack, "orders", times)
    expected = stored_items(stack, "orders")
    restore(stack, past, 5, (1, 2, 3, 4, 5), (1, 2, 3, 4, 5))
    assert findings(stack) == []
    restore(stack, past, 6, (1, 2, 3, 4, 5), (1, 2, 3, 4, 5))

    assert complete(stack) == (1, [])

    assert stored_items(stack, "orders") == expected


@pytest.mark.usefixtures("old_history")
def test_changes_of_15_days_are_completed_in_several_batches(stack: Stack) -> None:
    past = recorded(stack, "orders", [HOUR - 15 * DAY + number for number in range(60)])
    expected = stored_items(stack, "orders")
    restore(stack, past, 60, (), ())
    sizes: list[int] = []

    def note(params: dict[str, Any], **_: object) -> None:
        sizes.append(*map(len, params["RequestItems"].values()))

    event = "provide-client-params.dynamodb.BatchWriteItem"
    boto3.DEFAULT_SESSION.events.register(event, note)  # type: ignore[union-attr]

    assert complete(stack) == (60, [])

    boto3.DEFAULT_SESSION.events.unregister(event, note)  # type: ignore[union-attr]
    assert sizes == [25, 25, 10]  # moto takes larger batches than DynamoDB

    assert stored_items(stack, "orders") == expected


@pytest.mark.usefixtures("old_history")
def test_entries_that_expire_are_not_missing(stack: Stack) -> None:
    past = recorded(stack, "orders", [0, 1, HOUR])
    restore(stack, past, 3, (1, 2, 3), ())

    assert complete(stack, days=8) == (0, [])
    assert stack.items("HistoryTable") == []

    for item in stack.dynamodb.scan(TableName=OLD_HISTORY)["Items"]:  # DynamoDB deletes them
        key = {name: item[name] for name in ("counter_id", "version")}
        stack.dynamodb.delete_item(TableName=OLD_HISTORY, Key=key)
    assert complete(stack, days=8) == (0, [])


@pytest.mark.usefixtures("old_history")
@pytest.mark.parametrize(
    ("removed", "history", "missing"),
    [
        (["request_id"], (1, 2), 1),  # the audit calls such an entry malformed
        (["created_at", "by"], (1, 2), 1),
        ([], (), 0),
    ],
)
def test_changes_without_a_whole_entry_are_counted_and_can_be_accepted(
    stack: Stack, removed: list[str], history: Versions, missing: int
) -> None:
    past = recorded(stack, "orders", [HOUR, HOUR + 1, HOUR + 2, HOUR + 3, HOUR + 70])
    for name in removed:
        edit_old_entry(stack, 3, name)
    restore(stack, past, 4, (1, 2), history)

    line = f"orders: {missing} changes up to version 4 have no entry"
    assert complete(stack)[1] == ([line] if missing else [])

    assert bool(findings(stack)) == bool(missing)
    assert findings(stack, after=4) == []
    assert lost(stack) == {("orders", "5"), *([("orders", "3")] if missing else [])}


@pytest.mark.usefixtures("old_history")
def test_all_changes_are_counted_if_no_table_has_an_entry(stack: Stack) -> None:
    past = Past("orders")
    for number in range(4):
        past.change(START + HOUR + number, 1)
    past.store(stack)

    assert complete(stack) == (0, ["orders: 4 changes up to version 4 have no entry"])


@pytest.mark.usefixtures("old_history")
def test_entries_of_a_counter_that_got_the_name_later_are_not_copied(stack: Stack) -> None:
    recorded(stack, "orders", [HOUR + 50, HOUR + 51, HOUR + 52])
    restored = Past("orders")
    for number in range(2):
        restored.change(START + number, 1)
    stack.clear({stack.refs["HistoryTable"]}, ())
    restored.store(stack)

    assert complete(stack) == (0, ["orders: 2 changes up to version 2 have no entry"])


@pytest.mark.usefixtures("old_history", "_empty_queue_without_waiting")
def test_a_counter_that_somebody_edited_stops_nothing(stack: Stack) -> None:
    past = recorded(stack, "orders", [HOUR, HOUR + 1])
    edited: Item = {**past.item, "counter_id": {"S": "edited"}, "version": {"S": "2"}}
    stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=edited)
    restore(stack, past, 2, (1,), (1,))
    image = {**past.item, "counter_id": {"S": "edited"}}
    body = json.dumps({"dynamodb": {"NewImage": image}})
    stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=body)

    assert complete(stack) == (1, [])
    assert unrecorded_changes.remove_lost_records(
        stack.refs[DEAD_LETTERS], stack.refs["CounterTable"]
    ) == (1, [])


@pytest.mark.usefixtures("old_history")
def test_a_lost_change_is_found_whenever_its_request_began(stack: Stack) -> None:
    # The third request began before the time, and its change was made after it.
    past = recorded(stack, "orders", [HOUR, HOUR + 59, HOUR + 59.9, HOUR + 60.5])
    recorded(stack, "new", [HOUR + 61])
    restore(stack, past, 2, (1, 2), (1, 2))
    expected = {("orders", "3"), ("orders", "4"), ("new", "1")}
    assert lost(stack) == expected

    # A new change gets a version that a lost change had.
    again = Past("orders", past.records[1]["dynamodb"]["NewImage"], past.records[:2])
    again.change(START + HOUR + 600, 5, request_id={"S": "another"})
    again.record(stack, again.records[2:])

    assert lost(stack) == expected


@pytest.mark.usefixtures("_empty_queue_without_waiting")
def test_parked_records_of_lost_changes_are_deleted_and_all_others_stay(stack: Stack) -> None:
    past, recreated, new = Past("orders"), Past("orders"), Past("new")
    for number in range(3):
        past.change(START + number, 1)
    recreated.change(START + 9, 1)
    new.change(START, 1)
    stack.dynamodb.put_item(
        TableName=stack.refs["CounterTable"], Item=past.records[1]["dynamodb"]["NewImage"]
    )
    kept = [past.records[0], past.records[1], {"malformed": True}]
    for record in [*kept, past.records[2], recreated.records[0], new.records[0]]:
        stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=json.dumps(record))

    stay, deleted = unrecorded_changes.remove_lost_records(
        stack.refs[DEAD_LETTERS], stack.refs["CounterTable"]
    )

    assert (stay, sorted(deleted)) == (
        3,
        ["new: version 1", "orders: version 1", "orders: version 3"],
    )
    left = parked(stack)  # at once, so the records are not hidden
    assert len(left) == len(kept)
    assert all(record in left for record in kept)
