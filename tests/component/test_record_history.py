import json
from copy import deepcopy
from http import HTTPStatus
from itertools import chain, repeat
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests import aws_template
from tests.component.output import metrics
from tests.past import Past
from tests.stack import Item, Stack, StreamRecord
from tests.wire import (
    Fault,
    Wire,
    answered,
    delivered,
    denied,
    internal_error,
    processed,
    reply_lost,
    request_lost,
    throttled,
)

from counters import clock

START = 1_736_928_000.0  # 2025-01-15T08:00:00Z
RECORDING_SECONDS = aws_template.functions()["RecordHistory"].timeout
DEAD_LETTERS = "HistoryDeadLetterQueue"


def make_changes(stack: Stack, count: int) -> list[StreamRecord]:
    """Return the stream records of changes of the counter "orders", all in the same hour."""
    orders = Past("orders")
    for number in range(count):
        orders.change(START + number, number + 1)
    orders.store(stack)
    return orders.records


def change_over_http(stack: Stack, count: int) -> list[StreamRecord]:
    """Change the counter "orders" over HTTP, and return the new stream records."""
    for number in range(count):
        stack.request("POST", "/counters/orders", body={"by": number + 1})
    return stack.changes()


def versions(stack: Stack, counter_id: str = "orders") -> list[int]:
    reply = stack.request("GET", f"/counters/{counter_id}/history", query="limit=1000")
    return [entry["version"] for entry in reply.body]


def versions_up_to(count: int) -> list[int]:
    return list(range(1, count + 1))


def without_field(record: StreamRecord, *path: str) -> StreamRecord:
    """Return a copy of the record without the field at `path`."""
    changed = deepcopy(record)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def after_timeout(fault: Fault) -> Fault:
    """Return a fault that happens only after the function's timeout."""

    def after(request: AWSPreparedRequest) -> AWSResponse:
        clock.sleep(RECORDING_SECONDS)
        return fault(request)

    return after


def test_the_history_of_a_counter_adds_up_to_its_value(stack: Stack) -> None:
    stack.request("PUT", "/counter", body={"value": 100})
    for by in (5, -30, 2):
        stack.request("POST", "/counter", body={"by": by})
    stack.record(stack.changes())

    entries = stack.request("GET", "/counter/history").body

    assert sum(entry["by"] for entry in entries) == 77
    assert entries[-1]["value"] == stack.request("GET", "/counter").body["value"] == 77
    previous = [0] + [entry["value"] for entry in entries[:-1]]
    assert [entry["previous_value"] for entry in entries] == previous


def test_an_entry_has_the_request_id_and_the_creation_time_of_the_counter(stack: Stack) -> None:
    stack.record(change_over_http(stack, 2))

    first, second = sorted(stack.items("HistoryTable"), key=lambda item: item["version"]["N"])
    counter = stack.items("CounterTable")[0]

    assert second["request_id"] == counter["change"]["M"]["request_id"]
    assert first["counter_created_at"] == second["counter_created_at"] == counter["created_at"]


def test_an_empty_batch_makes_no_request(stack: Stack, wire: Wire) -> None:
    assert stack.record([]) == 0
    assert wire.operations() == []


@pytest.mark.parametrize("count", [1, 24, 25, 26, 50, 60, 100])
def test_a_batch_of_any_size_is_recorded(stack: Stack, wire: Wire, count: int) -> None:
    changes = make_changes(stack, count)
    wire.sent.clear()

    assert stack.record(changes) == count
    read, *writes, fold = wire.sent
    assert read.operation == "BatchGetItem"
    assert [sent.operation for sent in writes] == ["BatchWriteItem"] * -(-count // 25)
    assert fold.operation == "UpdateItem"
    sizes = [len(items) for sent in writes for items in sent.parameters["RequestItems"].values()]
    assert max(sizes) <= 25, "DynamoDB accepts at most 25 items; moto accepts more"
    assert versions(stack) == versions_up_to(count)


def test_changes_of_several_counters_are_recorded_separately(stack: Stack) -> None:
    for _ in range(3):
        for name in ("a", "b", "c"):
            stack.request("POST", f"/counters/{name}")
    stack.record(stack.changes())

    for name in ("a", "b", "c"):
        assert versions(stack, name) == [1, 2, 3]


def test_recording_a_batch_again_has_no_effect(stack: Stack) -> None:
    changes = make_changes(stack, 30)
    stack.record(changes)
    before = stack.items("HistoryTable")

    assert stack.record(changes) == 30
    assert stack.items("HistoryTable") == before


def test_an_overlapping_batch_adds_only_new_entries(stack: Stack) -> None:
    changes = make_changes(stack, 40)
    stack.record(changes[:30])

    assert stack.record(changes[10:]) == 30
    assert versions(stack) == versions_up_to(40)


def test_a_repeated_record_in_a_batch_is_recorded_once(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 20)
    wire.sent.clear()

    assert stack.record([*changes, *changes[5:], changes[0]]) == 36
    _read, write, _fold = wire.sent
    (requests,) = write.parameters["RequestItems"].values()
    keys = [request["PutRequest"]["Item"]["version"]["N"] for request in requests]
    assert len(keys) == len(set(keys)) == 20, "DynamoDB refuses a batch that repeats a key"
    assert versions(stack) == versions_up_to(20)


def test_after_a_failure_the_first_record_that_was_not_written_is_reported(
    stack: Stack, wire: Wire
) -> None:
    changes = make_changes(stack, 60)
    wire.fail("BatchWriteItem", [processed(25), denied])

    done = stack.record(changes)

    assert done == 25
    assert versions(stack) == versions_up_to(25)


def test_redelivery_from_the_reported_record_loses_no_change(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 60)
    too_late = after_timeout(processed(0))
    wire.fail("BatchWriteItem", [processed(25), denied, processed(10), too_late, denied])

    position, deliveries = 0, 0
    while position < len(changes):
        position += stack.record(changes[position:])
        deliveries += 1

    assert deliveries == 4
    assert versions(stack) == versions_up_to(60)


@pytest.mark.parametrize("fault", [denied, throttled, reply_lost, internal_error])
def test_while_writes_to_the_history_fail_the_first_record_is_reported(
    stack: Stack,
    wire: Wire,
    fault: Any,  # noqa: ANN401
) -> None:
    changes = make_changes(stack, 3)
    wire.fail("BatchWriteItem", repeat(fault))

    assert stack.record([*changes, *changes]) == 0

    wire.fail("BatchWriteItem", [])
    assert stack.record(changes) == 3
    assert versions(stack) == versions_up_to(3)


def test_a_write_is_retried_after_a_lost_reply(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 3)
    wire.fail("BatchWriteItem", [reply_lost])

    assert stack.record(changes) == 3
    assert versions(stack) == versions_up_to(3)


def test_unprocessed_items_are_written_again(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 20)
    wire.fail("BatchWriteItem", [processed(5), processed(0), processed(14)])

    assert stack.record(changes) == 20
    assert versions(stack) == versions_up_to(20)


def test_the_first_item_that_stays_unprocessed_is_reported(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 20)
    wire.fail("BatchWriteItem", chain([processed(7)], repeat(processed(0))))

    assert stack.record(changes) == 7
    assert versions(stack) == versions_up_to(7)


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
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [malformed]
    assert versions(stack) == [1, 2, 4, 5]


@pytest.mark.parametrize("value", ["1.5", "NaN", "x"])
def test_a_record_whose_value_is_not_an_integer_is_parked(stack: Stack, value: str) -> None:
    (record,) = make_changes(stack, 1)
    record["dynamodb"]["NewImage"]["value"]["N"] = value

    assert stack.record([record]) == 1
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]
    assert stack.items("HistoryTable") == []


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
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]


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
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == changes[1:]
    assert versions(stack, "default") == [1]


def test_a_record_that_cannot_be_parked_is_reported(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 5)
    changes[3] = without_field(changes[3], "dynamodb", "NewImage")
    wire.fail("SendMessage", repeat(denied))

    assert stack.record(changes) == 3

    wire.fail("SendMessage", [])
    assert stack.record(changes[3:]) == 2
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [changes[3]]
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
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [changes[3]]


def test_a_record_with_an_unknown_operation_is_parked(stack: Stack) -> None:
    (record,) = make_changes(stack, 1)
    record["dynamodb"]["NewImage"]["change"]["M"]["operation"] = {"S": "multiply"}

    assert stack.record([record]) == 1
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]


def test_a_record_whose_value_is_out_of_range_is_parked(stack: Stack) -> None:
    orders = Past("orders")
    records = [orders.change(START, by) for by in (2**53 - 1, 1, -1, -1)]

    assert stack.record(records) == 4
    # The old value of the third record is out of range.
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == records[1:3]
    assert versions(stack) == [1, 4]


@pytest.mark.parametrize("time", ["", "yesterday", "2025-01-15T25:00:00Z", "2025-01-15T08:00:00"])
@pytest.mark.parametrize(
    "path", [("change", "M", "at"), ("created_at",)], ids=["of the change", "of the counter"]
)
def test_a_record_with_a_malformed_time_is_parked(
    stack: Stack, path: tuple[str, ...], time: str
) -> None:
    record = deepcopy(Past("orders").change(START, 1))
    inner = record["dynamodb"]["NewImage"]
    for key in path:
        inner = inner[key]
    inner["S"] = time

    assert stack.record([record]) == 1
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]
    assert stack.items("HistoryTable") == stack.items("TrendTable") == []


@pytest.mark.parametrize("path", [("counter_id",), ("change", "M", "actor")], ids=str)
@pytest.mark.parametrize("length", [0, 16_385])
def test_a_record_with_an_empty_or_too_long_text_is_parked(
    stack: Stack, path: tuple[str, ...], length: int
) -> None:
    record = deepcopy(Past("orders").change(START, 1))
    inner = record["dynamodb"]["NewImage"]
    for key in path:
        inner = inner[key]
    inner["S"] = length * "x"

    assert stack.record([record]) == 1
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]


def changes_by_hour(stack: Stack) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the number and the sum of changes in the trend, for each counter and hour."""
    return {
        (item["counter_id"]["S"], item["hour"]["S"][11:13]): (
            int(item["changes"]["N"]),
            int(item["increase"]["N"]) - int(item["decrease"]["N"]),
        )
        for item in stack.items("TrendTable")
    }


def changes_of_two_counters() -> list[StreamRecord]:
    """Return three changes for each of two counters in each of two hours."""
    a, b = Past("a"), Past("b")
    return [
        past.change(time, by)
        for time in (START, START + 3600)
        for past, by in ((a, 1), (b, 2), (a, 3), (b, -4), (b, 5), (a, -6))
    ]


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
    assert stack.messages(DEAD_LETTERS) == []

    wire.fail("UpdateItem", [])
    assert stack.record(records) == 6
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [records[4]]
    assert changes_by_hour(stack) == {("a", "08"): (3, -2), ("b", "08"): (2, -2)}


def test_a_batch_emits_its_entries_parked_records_and_lag(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = Past("orders")
    records = [orders.change(START + second, 1) for second in (0, 7, 1, 5, 6)]
    records[2] = without_field(records[2], "dynamodb", "NewImage")
    monkeypatch.setattr(clock, "now", lambda: START + 9.25)
    capsys.readouterr()

    stack.record(records)

    values = metrics(capsys.readouterr().out)
    (directive,) = values["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Tally"
    assert directive["Metrics"] == [
        {"Name": "EntriesWritten", "Unit": "Count"},
        {"Name": "RecordsParked", "Unit": "Count"},
        {"Name": "HistoryLag", "Unit": "Milliseconds"},
    ]
    assert [set(dimensions) for dimensions in directive["Dimensions"]] == [{"stack", "service"}]
    assert (values["stack"], values["service"]) == ("tally-test", "tally")
    assert values["EntriesWritten"] == [4]
    assert values["RecordsParked"] == [1]
    assert values["HistoryLag"] == [2250]  # since the newest change, which is not the last one


@pytest.mark.parametrize("operation", ["BatchWriteItem", "UpdateItem"])
def test_a_batch_without_a_recorded_change_has_no_lag(
    stack: Stack, wire: Wire, capsys: pytest.CaptureFixture[str], operation: str
) -> None:
    wire.fail(operation, repeat(denied))
    capsys.readouterr()

    assert stack.record([Past("orders").change(START, 1)]) == 0

    values = metrics(capsys.readouterr().out)
    assert values["EntriesWritten"] == values["RecordsParked"] == [0]
    assert "HistoryLag" not in values


def test_the_metrics_count_only_changes_that_were_recorded_before_a_failure(
    stack: Stack, wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    wire.fail("UpdateItem", [delivered, denied])
    capsys.readouterr()

    assert stack.record(changes_of_two_counters()) == 1

    assert metrics(capsys.readouterr().out)["EntriesWritten"] == [1]


def test_a_change_from_a_clock_that_is_ahead_has_a_lag_of_0(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clock, "now", lambda: START - 1)
    capsys.readouterr()

    stack.record([Past("orders").change(START, 1)])

    assert metrics(capsys.readouterr().out)["HistoryLag"] == [0]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_record_with_a_time_outside_the_calendar_is_parked(stack: Stack, time: str) -> None:
    record = Past("orders").change(1_736_928_000, 1)
    record["dynamodb"]["NewImage"]["change"]["M"]["at"] = {"S": time}

    assert stack.record([record]) == 1
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]


def recreate_counter(stack: Stack) -> list[StreamRecord]:
    """Return the stream records after a counter with three changes was deleted by hand.

    They are the removal and five changes of a new counter with the same id.
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
    parked = [json.loads(body) for body in stack.messages(DEAD_LETTERS)]
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
    parked = [json.loads(body) for body in stack.messages(DEAD_LETTERS)]
    assert parked == changes[:4]
    assert versions(stack) == versions_up_to(5)


@pytest.mark.parametrize("attributes", [{}, {"request_id": {"N": "1"}}], ids=str)
def test_an_entry_that_was_written_by_hand_is_not_overwritten(
    stack: Stack, attributes: dict[str, Any]
) -> None:
    changes = make_changes(stack, 3)
    planted: Any = {"counter_id": {"S": "orders"}, "version": {"N": "2"}, **attributes}
    stack.dynamodb.put_item(TableName=stack.refs["HistoryTable"], Item=planted)

    assert stack.record(changes) == 3
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [changes[1]]
    assert planted in stack.items("HistoryTable")


@pytest.mark.parametrize("fault", [denied, throttled, request_lost])
def test_while_the_history_cannot_be_read_the_first_record_is_reported(
    stack: Stack, wire: Wire, fault: Fault
) -> None:
    changes = make_changes(stack, 5)
    wire.fail("BatchGetItem", repeat(fault))

    assert stack.record(changes) == 0
    assert stack.items("HistoryTable") == []

    wire.fail("BatchGetItem", [])
    assert stack.record(changes) == 5


def test_unprocessed_keys_are_read_again(stack: Stack, wire: Wire) -> None:
    removal, *changes = recreate_counter(stack)
    assert stack.record([removal]) == 1
    wire.fail("BatchGetItem", [keys_processed(1), keys_processed(0), keys_processed(1)])

    assert stack.record(changes) == 5
    assert versions(stack) == versions_up_to(5)
    assert len(stack.messages(DEAD_LETTERS)) == 4


def keys_processed(count: int) -> Fault:
    """Return a fault that lets a BatchGetItem read only its first `count` keys."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        parameters = json.loads(request.body)
        ((table, get),) = parameters["RequestItems"].items()
        body: dict[str, Any] = {}
        if count:
            get_some = {**get, "Keys": get["Keys"][:count]}
            request.body = json.dumps({"RequestItems": {table: get_some}}).encode()
            body = json.loads(delivered(request).text)
        body["UnprocessedKeys"] = {table: {**get, "Keys": get["Keys"][count:]}}
        return answered(request, HTTPStatus.OK, body)

    return fault


# --- Folds ---------------------------------------------------------------------------------------


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


def test_the_sums_of_a_fold_from_an_older_version_come_from_its_difference(stack: Stack) -> None:
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
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]
    assert versions(stack) == [1, 3]


# --- Updates of a sequence number, which are not changes -----------------------------------------


def changes_between_updates() -> list[StreamRecord]:
    """Return the records of three changes.

    A record that updates only a sequence number comes before and after each change.
    """
    orders = Past("orders")
    orders.change(START - 1, 1)
    for number in range(3):
        orders.update_sequence_number()
        orders.change(START + number, 1)
        orders.update_sequence_number()
    return orders.records[1:]


CHANGES = [1, 4, 7]  # the positions of the changes among these records


def test_an_updated_sequence_number_is_not_a_change(stack: Stack) -> None:
    records = changes_between_updates()

    assert stack.record(records) == len(records)
    assert versions(stack) == [2, 3, 4]
    assert stack.messages(DEAD_LETTERS) == []
    assert changes_by_hour(stack) == {("orders", "08"): (3, 3)}


def test_a_batch_of_updated_sequence_numbers_makes_no_request(stack: Stack, wire: Wire) -> None:
    records = [each for place, each in enumerate(changes_between_updates()) if place not in CHANGES]

    assert stack.record(records) == len(records)
    assert wire.operations() == []
    assert stack.messages(DEAD_LETTERS) == []


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
    assert stack.messages(DEAD_LETTERS) == []
    assert versions(stack) == [1]


def test_an_updated_sequence_number_with_a_change_by_hand_is_parked(stack: Stack) -> None:
    orders = Past("orders")
    orders.change(START, 1)
    record = deepcopy(orders.update_sequence_number())
    record["dynamodb"]["NewImage"]["value"] = {"N": "2"}

    assert stack.record([orders.records[0], record]) == 2
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]


@pytest.mark.parametrize("written", [0, 1, 2])
@pytest.mark.parametrize("operation", ["BatchWriteItem", "UpdateItem"])
def test_among_updated_sequence_numbers_the_first_failed_change_is_reported(
    stack: Stack, wire: Wire, operation: str, written: int
) -> None:
    records = changes_between_updates()
    for position, name in zip(CHANGES, "abc", strict=True):
        # Each change is of a different counter, so each is added to the trend separately.
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
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [records[4]]
    assert versions(stack) == [2, 4]
