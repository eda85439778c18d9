"""RecordHistory writes each change to the history.

After a failure, RecordHistory reports the first record that it could not write. Lambda delivers the
reported record and all later records again.
"""

from itertools import chain, repeat
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests import aws_template
from tests.component.output import metrics
from tests.component.stream_records import (
    change_over_http,
    changes_of_two_counters,
    make_changes,
    versions,
    versions_up_to,
    without_field,
)
from tests.past import START, Past
from tests.stack import Stack
from tests.wire import (
    Fault,
    Wire,
    delivered,
    denied,
    internal_error,
    processed,
    reply_lost,
    request_lost,
    throttled,
)

from counters import clock

RECORDING_SECONDS = aws_template.functions()["RecordHistory"].timeout


def after_timeout(fault: Fault) -> Fault:
    """Return `fault`, but delayed until after the function's timeout."""

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
    assert read.operation == ("Query" if count >= 10 else "BatchGetItem")
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
    # The lag is measured from the newest change. The second record has the newest change.
    assert values["HistoryLag"] == [2250]


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
