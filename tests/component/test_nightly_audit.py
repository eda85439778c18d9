"""The nightly audit: the state machine, and the steps of AuditHistory that it invokes."""

from typing import Any

import pytest
from bench import audit as bench
from tests.component.auditing import (
    LATER,
    audit,
    change_hour,
    counted,
    findings,
    logged,
    nightly,
    record_three_changes,
    saved,
    versions,
)
from tests.component.output import metrics
from tests.contents import delete_entries
from tests.past import Past
from tests.sizes import cases
from tests.stack import Stack
from tests.times import BEGINNING, DAY, HOUR

from counters import clock, trend
from counters.verification import MOST_FINDINGS


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: LATER)
    monkeypatch.setattr(clock, "sleep", lambda _seconds: None)


def save(stack: Stack, key: str, state: str) -> None:
    item: Any = {"counter_id": {"S": key}, "state": {"S": state}}
    stack.dynamodb.put_item(TableName=stack.refs["AuditTable"], Item=item)


@pytest.mark.parametrize("segments", [1, 3, 10])
def test_each_counter_is_in_exactly_one_segment(stack: Stack, segments: int) -> None:
    names = [f"counter{number}" for number in range(20)]
    record_three_changes(stack, *names)
    stack.refs["AuditSegments"] = str(segments)

    assert counted(nightly(stack)) == (20, 60, 0)
    audited = {item["counter_id"]["S"] for item in stack.items("AuditTable")}
    assert audited == {*names, "*"}


def test_the_first_nightly_audit_covers_all_counters_and_later_ones_only_changed_counters(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_three_changes(stack, "a", "b", "c")
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 2 * DAY)
    first = nightly(stack)
    record_three_changes(stack, "d", time=BEGINNING + 2 * DAY + 1)
    stack.refs["AuditSegments"] = "7"  # the number may change from night to night
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 3 * DAY)
    second = nightly(stack)

    assert (counted(first), counted(second)) == ((3, 9, 0), (1, 3, 0))
    assert saved(stack) == {"began_at": clock.timestamp(BEGINNING + 3 * DAY)}


def test_a_change_just_before_a_nightly_audit_is_audited_the_next_night(
    stack: Stack, audited_orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = BEGINNING + 20 * HOUR
    audited_orders.change(night - 30, 1)
    audited_orders.store(stack)
    monkeypatch.setattr(clock, "now", lambda: night)
    assert nightly(stack)["findings"] == 0

    monkeypatch.setattr(clock, "now", lambda: night + DAY)

    assert nightly(stack)["findings"] == 1
    assert versions(findings(stack)) == [61]


def test_one_metric_has_the_sum_of_all_segments(
    stack: Stack, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    record_three_changes(stack, "a", "b", "c")
    delete_entries(stack, 2, counter_id="a")
    delete_entries(stack, 2, counter_id="c")
    capsys.readouterr()

    assert counted(nightly(stack)) == (3, 7, 2)

    published = metrics(capsys.readouterr().out)
    assert published["CountersAudited"] == [3]
    assert published["EntriesAudited"] == [7]
    assert published["AuditFindings"] == [2]
    assert sorted(logged(caplog)) == [("a", 2), ("c", 2)]
    assert "nightly audit: 3 counters, 7 entries, 2 findings" in caplog.messages


def test_a_finding_is_counted_every_night_until_it_is_accepted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_three_changes(stack, "a", "b")
    delete_entries(stack, 2, counter_id="a")
    found = []

    for days in range(2, 7):
        if days == 5:
            audit(stack, counter_id="a", after=3)
        now = BEGINNING + days * DAY
        monkeypatch.setattr(clock, "now", lambda now=now: now)
        capsys.readouterr()
        nightly(stack)
        found += metrics(capsys.readouterr().out)["AuditFindings"]

    assert found == [1, 1, 1, 0, 0]
    assert saved(stack) == {"began_at": clock.timestamp(BEGINNING + 6 * DAY)}


def test_many_findings_of_one_counter_do_not_hide_those_of_others(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    past = Past("many")
    changes = [past.change(BEGINNING + number, 1) for number in range(MOST_FINDINGS + 20)]
    past.record(stack, changes)
    record_three_changes(stack, "few")
    stack.dynamodb.update_item(  # so all of its entries belong to another counter
        TableName=stack.refs["CounterTable"],
        Key={"counter_id": {"S": "many"}},
        UpdateExpression="SET created_at = :time",
        ExpressionAttributeValues={":time": {"S": clock.timestamp(BEGINNING - DAY)}},
    )
    delete_entries(stack, 2, counter_id="few")

    assert nightly(stack)["findings"] == MOST_FINDINGS + 1
    assert {counter_id for counter_id, _ in logged(caplog)} == {"many", "few"}


# --- Saved progress ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        *['"text"', "5", "[]", '{"hours": []}', "{"],
        '{"version": 3, "hours": {"1e300": {}}}',
        pytest.param("[" * 20_000, id="deep"),
    ],
)
def test_a_malformed_progress_does_not_stop_the_nightly_audit(
    stack: Stack, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    record_three_changes(stack, "a", "b")
    save(stack, "a", state)
    delete_entries(stack, 2, counter_id="b")

    result = nightly(stack)

    assert (result["counters"], result["finished"]) == (2, True)
    assert {counter_id for counter_id, _ in logged(caplog)} == {"a", "b"}


def test_a_version_that_dynamodb_would_refuse_is_a_finding(stack: Stack) -> None:
    record_three_changes(stack, "a")
    save(stack, "a", '{"version": true, "hours": {}}')

    (finding,) = findings(stack, "a")

    assert finding["detail"].endswith("version: must be an integer")


@pytest.mark.parametrize(
    "state",
    [
        *['"text"', "5", "[]", "{", '{"began_at": 5}', '{"began_at": "now"}'],
        pytest.param("[" * 20_000, id="deep"),
        # These are the states that Tally 0.1 saved: after an audit, and in an unfinished one.
        '{"started_at": 1790000000.0}',
        '{"since": 0.0, "started_at": 1790000000.0, "position": "a"}',
    ],
)
def test_after_a_state_that_it_does_not_know_a_nightly_audit_covers_all_counters(
    stack: Stack, state: str
) -> None:
    record_three_changes(stack, "a", "b")
    save(stack, "*", state)

    assert nightly(stack)["counters"] == 2
    assert saved(stack) == {"began_at": clock.timestamp(LATER)}


def test_after_a_night_with_a_wrong_clock_nothing_is_hidden_from_later_nights(
    stack: Stack, audited_orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: LATER + 3650 * DAY)
    assert nightly(stack)["findings"] == 0

    monkeypatch.setattr(clock, "now", lambda: LATER)
    audited_orders.record(stack, [audited_orders.change(LATER - 2 * HOUR, 1)])
    change_hour(stack, trend.hour_of(LATER - 2 * HOUR), changes={"N": "7"})

    assert counted(nightly(stack)) == (1, 61, 1)
    change_hour(stack, trend.hour_of(LATER - 2 * HOUR), changes={"N": "1"})
    assert counted(nightly(stack)) == (1, 0, 0)
    assert saved(stack) == {"began_at": clock.timestamp(LATER)}


@pytest.mark.parametrize("updated_at", [None, {"S": ""}], ids=str)
def test_a_counter_with_a_malformed_time_is_audited_every_night(
    stack: Stack,
    caplog: pytest.LogCaptureFixture,
    updated_at: Any,  # noqa: ANN401
) -> None:
    record_three_changes(stack, "a", "b")
    nightly(stack)
    stack.dynamodb.update_item(
        TableName=stack.refs["CounterTable"],
        Key={"counter_id": {"S": "a"}},
        AttributeUpdates={
            "updated_at": {"Value": updated_at} if updated_at else {"Action": "DELETE"}
        },
    )

    result = nightly(stack)

    assert (result["counters"], result["findings"]) == (1, 1)
    assert [counter_id for counter_id, _ in logged(caplog)] == ["a"]


# --- Many counters -------------------------------------------------------------------------------


def test_many_counters_are_counted_once_although_a_segment_fails(stack: Stack) -> None:
    count = cases(20_000, part=1_000)
    simulation = bench.Simulation(stack, count, cpu_seconds=0.001)

    night = simulation.night(days=2, kills=(99, 0, 40))

    bench.check(night, counters=count, changed=count)
    assert (night.killed, night.result["entries"] > 0, night.repeated > 0) == (3, True, True)
    bench.check(simulation.night(days=3), counters=count, changed=0)
