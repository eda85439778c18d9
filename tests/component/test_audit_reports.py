"""AuditHistory reports every finding, even if the audit fails later or finds very many."""

import json
from typing import Any

import pytest
from tests.component.auditing import LATER, audit
from tests.component.output import metrics
from tests.contents import delete_entries
from tests.past import Past
from tests.stack import Stack
from tests.times import BEGINNING, DAY
from tests.wire import Wire, delivered, throttled

from counters import clock, store
from counters.errors import ThrottledError
from counters.verification import MOST_FINDINGS

FIRST, LAST = "first", "last"
MANY = 120  # more findings of one counter than the report of an audit has


@pytest.fixture
def counters(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Two counters, each in a page of its own. The history lacks a version of the first counter."""
    for name in (FIRST, LAST):
        past = Past(name)
        past.record(stack, [past.change(BEGINNING + number, 1) for number in range(3)])
    delete_entries(stack, 2, counter_id=FIRST)
    monkeypatch.setattr(store, "_SCAN_SIZE", 1)
    monkeypatch.setattr(clock, "now", lambda: LATER)
    monkeypatch.setattr(clock, "sleep", lambda _seconds: None)
    return stack


def logged(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return the counters of the findings in the log."""
    records = [vars(record) for record in caplog.records]
    return [record["finding"]["counter_id"] for record in records if "finding" in record]


def test_a_sweep_that_fails_reports_what_it_found_before(
    counters: Stack,
    wire: Wire,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wire.fail("Scan", [delivered] + [throttled] * 50)
    capsys.readouterr()

    with pytest.raises(ThrottledError):
        audit(counters)

    assert logged(caplog) == [FIRST]
    assert metrics(capsys.readouterr().out)["AuditFindings"] == [1]


def test_many_findings_of_one_counter_do_not_hide_those_of_others(
    stack: Stack,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, changes in ((FIRST, MANY), (LAST, 3)):
        past = Past(name)
        past.record(stack, [past.change(BEGINNING + number, 1) for number in range(changes)])
    stack.dynamodb.update_item(  # so all of its entries belong to another counter
        TableName=stack.refs["CounterTable"],
        Key={"counter_id": {"S": FIRST}},
        UpdateExpression="SET created_at = :time",
        ExpressionAttributeValues={":time": {"S": clock.timestamp(BEGINNING - DAY)}},
    )
    delete_entries(stack, 2, counter_id=LAST)
    monkeypatch.setattr(clock, "now", lambda: LATER)
    capsys.readouterr()

    report = audit(stack)

    assert len(report["findings"]) == MOST_FINDINGS
    assert set(logged(caplog)) == {FIRST, LAST}
    assert metrics(capsys.readouterr().out)["AuditFindings"] == [MOST_FINDINGS + 1]


@pytest.mark.parametrize("state", ['"text"', "5", "[]", '{"hours": []}', "{"])
def test_a_malformed_progress_does_not_stop_the_sweep(counters: Stack, state: str) -> None:
    save_progress(counters, LAST, state)

    report = audit(counters)

    assert report["finished"]
    assert {each["counter_id"] for each in report["findings"]} == {FIRST, LAST}


@pytest.mark.parametrize("state", ['"text"', "5", "[]", "{"])
def test_a_sweep_with_a_malformed_state_begins_again(counters: Stack, state: str) -> None:
    save_progress(counters, "*", state)

    report = audit(counters)

    assert (report["counters"], report["finished"]) == (2, True)
    item = counters.dynamodb.get_item(
        TableName=counters.refs["AuditTable"], Key={"counter_id": {"S": "*"}}
    )["Item"]
    assert json.loads(item["state"]["S"]) == {"started_at": LATER}


def save_progress(stack: Stack, key: str, state: str) -> None:
    item: Any = {"counter_id": {"S": key}, "state": {"S": state}}
    stack.dynamodb.put_item(TableName=stack.refs["AuditTable"], Item=item)
