"""RecordHistory records folds. A fold is a change that counts events from a queue.

The stream also has records that only update a sequence number. They are not changes of the counter.
"""

from copy import deepcopy
from itertools import repeat
from typing import Any

import pytest
from tests.component.stream_records import changes_by_hour, versions, without_field
from tests.past import START, Past, take_parked
from tests.stack import Item, Stack, StreamRecord
from tests.wire import Fault, Wire, delivered, denied, processed


def entry(stack: Stack, version: int) -> Item:
    key: Any = {"counter_id": {"S": "orders"}, "version": {"N": str(version)}}
    item: Item = stack.dynamodb.get_item(TableName=stack.refs["HistoryTable"], Key=key)["Item"]
    return item


def test_a_fold_has_both_sums_in_the_history_and_the_trend(
    stack: Stack,
) -> None:
    orders = Past("orders")
    orders.change(START, 4)
    orders.fold(START + 1, 7, 9, events=5, sender="AROAEXAMPLE:checkout")
    orders.fold(START + 2, 3, 3)
    orders.record(stack)

    reply = stack.request("GET", "/counters/orders/history")

    first, second, third = reply.body
    assert (first["by"], first["increase"], first["decrease"]) == (4, 4, 0)
    assert "events" not in first
    assert "sender" not in first
    assert (second["by"], second["increase"], second["decrease"]) == (-2, 7, 9)
    assert (second["events"], second["sender"]) == (5, "AROAEXAMPLE:checkout")
    assert (third["by"], third["increase"], third["decrease"]) == (0, 3, 3)
    assert third["events"] == 2
    assert "sender" not in third
    (hour,) = stack.items("TrendTable")
    assert (hour["increase"], hour["decrease"]) == ({"N": "14"}, {"N": "12"})
    assert (hour["changes"], hour["close"]) == ({"N": "3"}, {"N": "2"})


def test_only_the_entry_of_a_fold_stores_sums(stack: Stack) -> None:
    orders = Past("orders")
    orders.change(START, 4)
    orders.change(START + 1, -9, "set")
    orders.fold(START + 2, 7, 9)
    orders.fold(START + 3, 1, 0, events=1, sender="AROAEXAMPLE:checkout")
    orders.record(stack)
    names = {"events", "increase", "decrease", "sender"}

    stored = [names & entry(stack, version).keys() for version in (1, 2, 3, 4)]

    assert stored == [set(), set(), names - {"sender"}, names]


def test_the_sums_of_a_fold_without_stored_sums_come_from_its_difference(stack: Stack) -> None:
    orders = Past("orders")
    for by in (5, -3):
        orders.change(START, by, events={"N": "4"})
    orders.record(stack)
    table = stack.refs["HistoryTable"]
    for version in (1, 2):
        old = {k: v for k, v in entry(stack, version).items() if k not in {"increase", "decrease"}}
        stack.dynamodb.put_item(TableName=table, Item=old)

    first, second = stack.request("GET", "/counters/orders/history").body

    assert (first["increase"], first["decrease"], first["events"]) == (5, 0, 4)
    assert (second["increase"], second["decrease"], second["events"]) == (0, 3, 4)
    (hour,) = stack.items("TrendTable")
    assert (hour["increase"], hour["decrease"]) == ({"N": "5"}, {"N": "3"})


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"increase": {"N": "6"}}, id="increase too high"),
        pytest.param({"decrease": {"N": "1"}}, id="decrease too low"),
        pytest.param({"increase": {"N": "-1"}, "decrease": {"N": "-4"}}, id="negative sums"),
        pytest.param({"increase": {"N": "x"}}, id="increase not a number"),
        pytest.param({"increase": {"S": "5"}}, id="increase of type string"),
        pytest.param({"events": {"N": "0"}}, id="no events"),
        pytest.param({"events": {"N": "1.5"}}, id="events not an integer"),
        pytest.param({"sender": {"S": ""}}, id="empty sender"),
        pytest.param({"sender": {"S": 16_385 * "x"}}, id="too long a sender"),
    ],
)
def test_a_malformed_fold_is_parked(stack: Stack, wrong: Item) -> None:
    orders = Past("orders")
    orders.change(START, 1)
    record = deepcopy(orders.fold(START, 5, 2))
    record["dynamodb"]["NewImage"]["change"]["M"].update(wrong)
    orders.change(START, 1)

    assert stack.record([orders.records[0], record, orders.records[2]]) == 3
    assert take_parked(stack) == [record]
    assert versions(stack) == [1, 3]


def changes_between_updates() -> list[StreamRecord]:
    """Return nine stream records, in three groups of three.

    The second record of each group is a change. The first and the third record only update a
    sequence number.
    """
    orders = Past("orders")
    orders.change(START - 1, 1)
    for number in range(3):
        orders.update_sequence_number()
        orders.change(START + number, 1)
        orders.update_sequence_number()
    return orders.records[1:]


CHANGES = [1, 4, 7]  # the positions of the changes in `changes_between_updates`


def test_an_updated_sequence_number_is_not_a_change(stack: Stack) -> None:
    records = changes_between_updates()

    assert stack.record(records) == len(records)
    assert versions(stack) == [2, 3, 4]
    assert take_parked(stack) == []
    assert changes_by_hour(stack) == {("orders", "08"): (3, 3)}


def test_a_batch_of_updated_sequence_numbers_makes_no_request(stack: Stack, wire: Wire) -> None:
    records = [each for place, each in enumerate(changes_between_updates()) if place not in CHANGES]

    assert stack.record(records) == len(records)
    assert wire.operations() == []
    assert take_parked(stack) == []


def test_the_first_sequence_number_and_its_removal_are_not_changes(
    stack: Stack,
) -> None:
    orders = Past("orders")
    orders.change(START, 1)
    orders.update_sequence_number()
    first = orders.records[1]
    assert "sequence_numbers" not in first["dynamodb"]["OldImage"]
    removal = deepcopy(first)
    images = removal["dynamodb"]
    images["OldImage"], images["NewImage"] = images["NewImage"], images["OldImage"]

    assert stack.record([*orders.records, removal]) == 3
    assert take_parked(stack) == []
    assert versions(stack) == [1]


def test_an_updated_sequence_number_with_a_change_by_hand_is_parked(stack: Stack) -> None:
    orders = Past("orders")
    orders.change(START, 1)
    record = deepcopy(orders.update_sequence_number())
    record["dynamodb"]["NewImage"]["value"] = {"N": "2"}

    assert stack.record([orders.records[0], record]) == 2
    assert take_parked(stack) == [record]


@pytest.mark.parametrize("written", [0, 1, 2])
@pytest.mark.parametrize("operation", ["BatchWriteItem", "UpdateItem"])
def test_among_updated_sequence_numbers_the_first_failed_change_is_reported(
    stack: Stack, wire: Wire, operation: str, written: int
) -> None:
    records = changes_between_updates()
    for position, name in zip(CHANGES, "abc", strict=True):
        # Use a different counter for each change, so that RecordHistory updates the trend three
        # times.
        records[position] = Past(name).change(START, 1)
    faults: list[Fault] = [*[delivered] * written, denied]
    if operation == "BatchWriteItem":
        faults = [processed(written), denied]
    wire.fail(operation, faults)

    assert stack.record(records) == CHANGES[written]

    wire.fail(operation, [])
    rest = records[CHANGES[written] :]
    assert stack.record(rest) == len(rest)
    assert changes_by_hour(stack) == {(name, "08"): (1, 1) for name in "abc"}


def test_among_updated_sequence_numbers_a_record_that_cannot_be_parked_is_reported(
    stack: Stack, wire: Wire
) -> None:
    records = changes_between_updates()
    records[4] = without_field(records[4], "dynamodb", "NewImage", "change")
    wire.fail("SendMessage", repeat(denied))
    assert stack.record(records) == 4

    wire.fail("SendMessage", [])
    assert stack.record(records[4:]) == len(records) - 4
    assert take_parked(stack) == [records[4]]
    assert versions(stack) == [2, 4]
