"""The parts of scripts/restore_tables.py that need no stack. The rehearsal in tests/e2e runs it."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence

import pytest
from samtranslator.yaml_helper import yaml_parse
from tests import aws_template
from tests.aws_template import ROOT
from tests.component.auditing import findings
from tests.component.redriving import redrive, stored_items
from tests.past import DEAD_LETTERS, START, Past
from tests.stack import Item, Stack
from tests.times import HOUR

import restore_tables
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
TABLES = ("CounterTable", "HistoryTable", "TrendTable")


def recorded(stack: Stack, counter_id: str, times: Sequence[float]) -> Past:
    """Record a counter's changes, and copy its entries to the old HistoryTable."""
    past = Past(counter_id)
    for number, time in enumerate(times, 1):
        past.change(START + time, number, "increment", **(COUNTS_EVENTS if number == 4 else {}))
    past.record(stack)
    for item in stack.items("HistoryTable"):
        stack.dynamodb.put_item(TableName=OLD_HISTORY, Item=item)
    return past


def restore(stack: Stack, past: Past, version: int, in_trend: int, *in_history: int) -> None:
    """Take the tables of a counter back to an earlier time.

    Args:
        stack: the stack.
        past: the counter and its changes.
        version: the counter's version at that time.
        in_trend: the highest version that the trend had at that time.
        in_history: the versions that the history had at that time.
    """
    image = past.records[version - 1]["dynamodb"]["NewImage"]
    stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=image)
    stack.clear({stack.refs["HistoryTable"], stack.refs["TrendTable"]}, ())
    if in_trend:
        stack.record(past.records[:in_trend])
    stack.clear({stack.refs["HistoryTable"]}, ())
    for item in stack.dynamodb.scan(TableName=OLD_HISTORY)["Items"]:
        if int(item["version"]["N"]) in in_history:
            stack.dynamodb.put_item(TableName=stack.refs["HistoryTable"], Item=item)


def complete(stack: Stack) -> list[str]:
    """Park the changes that the restored tables lack, and redrive them. Return the lost ones."""
    tables = {table: stack.refs[table] for table in TABLES}
    found = unrecorded_changes.find(OLD_HISTORY, tables, TIME)
    unrecorded_changes.park(stack.refs[DEAD_LETTERS], found.records)
    assert redrive(stack) == {"redriven": len(found.records), "parked": 0}
    return found.lost


@pytest.fixture
def _old_history(stack: Stack) -> Iterator[None]:
    arguments = aws_template.tables()["HistoryTable"]
    stack.dynamodb.create_table(TableName=OLD_HISTORY, **arguments)
    yield
    stack.dynamodb.delete_table(TableName=OLD_HISTORY)


@pytest.mark.usefixtures("receive_without_waiting", "_old_history")
@pytest.mark.parametrize(
    ("in_trend", "in_history"),
    [
        (6, (1, 2, 3, 4, 5, 6)),  # nothing was under way
        (4, (1, 2, 3, 4, 5, 6)),  # the entries were written, but not added to the trend yet
        (3, (1, 2, 3, 5)),  # the entries of a batch are written in any order
        (5, (1, 2, 4)),  # the trend is ahead: DynamoDB restores each table on its own
        (0, ()),
    ],
)
def test_restored_history_and_trend_are_completed_up_to_the_version_of_the_counter(
    stack: Stack, in_trend: int, in_history: tuple[int, ...]
) -> None:
    times = [0, 1, HOUR - 1, HOUR + 1, HOUR + 2, HOUR + 3]
    recorded(stack, "orders", times)
    expected = stored_items(stack, "orders")
    stack.empty_tables()
    past = recorded(stack, "orders", [*times, HOUR + 70, HOUR + 71])
    restore(stack, past, 6, in_trend, *in_history)

    assert complete(stack) == []

    assert stored_items(stack, "orders") == expected
    assert findings(stack) == []


@pytest.mark.usefixtures("receive_without_waiting", "_old_history")
def test_changes_that_no_table_has_are_named_and_can_be_accepted(stack: Stack) -> None:
    past = recorded(stack, "orders", [HOUR, HOUR + 1, HOUR + 2, HOUR + 3, HOUR + 70])
    key = {"counter_id": {"S": "orders"}, "version": {"N": "3"}}
    stack.dynamodb.delete_item(TableName=OLD_HISTORY, Key=key)
    restore(stack, past, 4, 2, 1, 2)

    (line,) = complete(stack)

    assert line.startswith("orders: 1 changes up to version 3 have no entry in any table.")
    assert findings(stack)
    assert findings(stack, after=4) == []


def test_template_of_the_switch_has_the_names_of_the_new_tables_and_no_tables() -> None:
    template = yaml_parse((ROOT / "template.yaml").read_text())
    restored = {
        table: {"": f"{table}-new", "Arn": f"arn:{table}", "StreamArn": f"stream:{table}"}
        for table in restore_tables.SECONDS_AFTER
    }

    switched = restore_tables.without_tables(template, restored)

    assert template["Resources"].keys() - switched["Resources"].keys() == restored.keys()
    text = json.dumps(switched["Resources"])
    for table in restored:
        assert f'"{table}"' not in text
        assert f"${{{table}" not in text
        assert switched["Outputs"][table]["Value"] == f"{table}-new"
        assert f"arn:{table}" in text
    events = switched["Resources"]["RecordHistory"]["Properties"]["Events"]
    assert events["CounterChanges"]["Properties"]["Stream"] == "stream:CounterTable"
    text = restore_tables.without_tables({"Fn::Sub": "${CounterTable.Arn} ${TrendTable}"}, restored)
    assert text == {"Fn::Sub": "arn:CounterTable TrendTable-new"}


def test_all_tables_but_that_of_the_grants_are_restored() -> None:
    assert aws_template.tables().keys() - {"GrantTable"} == restore_tables.SECONDS_AFTER.keys()


def test_no_table_is_restored_to_a_side_that_does_harm() -> None:
    after = restore_tables.SECONDS_AFTER
    assert after["ReceiptTable"] > after["CounterTable"]
    assert after["CounterTable"] > max(
        after[table] for table in ("HistoryTable", "TrendTable", "AuditTable")
    )
