"""The nightly audit: the state machine, and the steps of AuditHistory that it invokes."""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from bench import audit as bench
from tests import state_machine
from tests.aws_template import TEMPLATE
from tests.component.auditing import LATER, audit, findings, nightly, versions
from tests.component.output import metrics
from tests.contents import delete_entries
from tests.past import Past
from tests.sizes import cases
from tests.stack import Stack
from tests.state_machine import FailedError, StatesError
from tests.times import BEGINNING, DAY, HOUR
from tests.wire import Wire, delivered, dies, dies_after, throttled

from counters import audit as audits
from counters import clients, clock, history, store
from counters.model import Entry
from counters.verification import MOST_FINDINGS

TRIES = clients._MOST_ATTEMPTS  # noqa: SLF001  how often a function sends a throttled request
RETRIES = state_machine.retries("NightlyAudit", "Begin")


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: LATER)
    monkeypatch.setattr(clock, "sleep", lambda _seconds: None)


def record_three_changes(stack: Stack, *names: str, time: float = BEGINNING) -> None:
    for name in names:
        past = Past(name)
        for number in range(3):
            past.change(time + number, 1)
        past.record(stack)


def counted(result: Mapping[str, Any]) -> tuple[int, int, int]:
    return result["counters"], result["entries"], result["findings"]


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Return the counters and the versions of the findings in the log."""
    found = [vars(record)["finding"] for record in caplog.records if "finding" in vars(record)]
    return [(finding["counter_id"], finding["version"]) for finding in found]


def saved(stack: Stack) -> Any:  # noqa: ANN401  any JSON value
    """Return what AuditTable stores about the last clean nightly audit."""
    item = stack.item("AuditTable", "*")
    return json.loads(item["state"]["S"]) if item else None


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


# --- Invocations that fail or run out of time ----------------------------------------------------


@pytest.mark.parametrize("operation", ["Query", "PutItem"])
def test_an_invocation_that_crashes_is_repeated_and_counts_no_counter_twice(
    stack: Stack, wire: Wire, operation: str
) -> None:
    stack.refs["AuditSegments"] = "2"
    record_three_changes(stack, *(f"counter{number}" for number in range(9)))
    delete_entries(stack, 2, counter_id="counter5")
    wire.fail(operation, [delivered, delivered, dies, *[delivered] * 3, dies_after])

    result = nightly(stack)

    assert (result["counters"], result["findings"], result["finished"]) == (9, 1, True)


def test_a_segment_that_keeps_failing_leaves_the_results_of_the_others_and_fails_the_audit(
    stack: Stack, wire: Wire, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    stack.refs["AuditSegments"] = "2"
    names = [f"counter{number}" for number in range(9)]
    record_three_changes(stack, *names)
    for name in names:
        delete_entries(stack, 2, counter_id=name)
    wire.fail("Scan", [throttled] * TRIES * (RETRIES + 1))
    capsys.readouterr()

    with pytest.raises(FailedError):
        nightly(stack)

    assert "segment 0 is not finished: ThrottledError" in caplog.messages
    found = len(logged(caplog))
    assert 0 < found < 9
    published = metrics(capsys.readouterr().out)
    assert published["CountersAudited"] == published["AuditFindings"] == [found]
    assert saved(stack) is None
    # The next one covers all counters.
    assert nightly(stack)["counters"] == 9


def test_what_was_audited_before_an_invocation_is_throttled_is_not_audited_again(
    stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stack.refs["AuditSegments"] = "1"
    record_three_changes(stack, "a", "b", "c")
    monkeypatch.setattr(store, "_SCAN_SIZE", 2)
    pauses: list[float] = []
    monkeypatch.setattr(clock, "sleep", pauses.append)
    wire.fail("Scan", [delivered] + [throttled] * TRIES)

    assert counted(nightly(stack)) == (3, 9, 0)
    saves = [sent for sent in wire.sent if sent.operation == "PutItem"]
    assert len(saves) == 4  # the progress of each counter, and the end
    assert max(pauses) == pauses[-1] == 30  # seconds
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.message.startswith("segment 0: stopped after ")


def test_an_error_loses_nothing_of_what_was_found_before_it_and_is_logged_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stack.refs["AuditSegments"] = "1"
    record_three_changes(stack, "a", "b", "c")
    for name in "abc":
        delete_entries(stack, 2, counter_id=name)
    audit_counter, audited = audits.audit_counter, set()

    def failing(counter_id: str, after: int | None, until: float) -> audits.Report:
        audited.add(counter_id)
        if len(audited) == 3:
            detail = "bug"
            raise RuntimeError(detail)
        return audit_counter(counter_id, after, until)

    monkeypatch.setattr(audits, "audit_counter", failing)

    with pytest.raises(FailedError) as raised:
        nightly(stack)

    result = {"counters": 2, "entries": 4, "findings": 2, "finished": False}
    assert raised.value.args[-1] == result
    assert len(logged(caplog)) == 2
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert "segment 0 is not finished: RuntimeError" in caplog.messages


def test_a_segment_waits_long_for_a_function_that_lambda_refuses_to_start(stack: Stack) -> None:
    record_three_changes(stack, "a")
    refusals = iter(range(RETRIES + 10))

    def call(name: str, event: Any) -> Any:  # noqa: ANN401
        if event["step"] == "audit" and next(refusals, None) is not None:
            name = "Lambda.TooManyRequestsException"
            raise StatesError(name)
        return stack.invoke(name, event)

    assert state_machine.run("NightlyAudit", call)["counters"] == 1


@pytest.mark.parametrize("tolerated", [True, False])
def test_a_child_execution_that_fails_does_not_stop_the_nightly_audit(
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    *,
    tolerated: bool,
) -> None:
    stack.refs["AuditSegments"] = "2"
    record_three_changes(stack, *(f"counter{number}" for number in range(9)))
    if not tolerated:
        all_segments = state_machine.states("NightlyAudit")["AllSegments"]
        monkeypatch.delitem(all_segments, "ToleratedFailurePercentage")
    capsys.readouterr()

    def call(name: str, event: Any) -> Any:  # noqa: ANN401
        if event.get("segment", {}).get("number") == 1:
            error = "States.Runtime"
            raise StatesError(error)
        return stack.invoke(name, event)

    with pytest.raises(FailedError):
        state_machine.run("NightlyAudit", call)

    published = metrics(capsys.readouterr().out)
    (counters,) = published["CountersAudited"]
    assert 0 < counters < 9 if tolerated else counters == 0
    # Without findings, the nightly audit proves nothing about the counters of segment 1.
    assert "AuditFindings" not in published
    assert "segment 1 is not finished: its execution failed" in caplog.messages
    assert saved(stack) is None
    assert nightly(stack)["counters"] == 9


def test_the_state_machine_can_hold_the_most_segments_with_the_longest_content(
    stack: Stack,
) -> None:
    most = TEMPLATE["Parameters"]["AuditSegments"]["MaxValue"]
    stack.refs["AuditSegments"] = str(most)
    numbers = dict.fromkeys(("counters", "entries", "findings"), 10**12)

    def call(name: str, event: Any) -> Any:  # noqa: ANN401
        if event["step"] == "audit":
            return {**event["segment"], **numbers, "after": "x" * 128, "finished": True}
        return stack.invoke(name, event)

    assert state_machine.run("NightlyAudit", call)["counters"] == most * 10**12


def test_an_invocation_that_runs_out_of_time_is_continued(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.refs["AuditSegments"] = "1"
    record_three_changes(stack, *(f"counter{number}" for number in range(7)))
    slow_pages(monkeypatch, every=3, size=3)

    events = []

    def call(name: str, event: Any) -> Any:  # noqa: ANN401
        events.append(event)
        return stack.invoke(name, event)

    assert counted(state_machine.run("NightlyAudit", call)) == (7, 21, 0)
    assert [event["step"] for event in events] == ["begin", "audit", "audit", "audit", "end"]
    # The time was up in the third and in the sixth counter.
    assert [event["segment"]["counters"] for event in events[1:4]] == [0, 2, 5]


def test_a_history_that_takes_several_invocations_counts_as_one_counter(
    stack: Stack, audited_orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audited_orders.counter_id == "orders"
    slow_pages(monkeypatch, every=1, size=25)

    assert counted(nightly(stack)) == (1, 60, 0)


def slow_pages(monkeypatch: pytest.MonkeyPatch, every: int, size: int) -> None:
    """Let some pages of histories take too long for an invocation, but less than its timeout.

    Args:
        monkeypatch: the fixture of pytest.
        every: one page of this many takes too long.
        size: the number of entries in a page.
    """
    calls = itertools.count(1)
    now, pages = LATER, history.pages

    def slow(counter_id: str, after: int, until: float) -> Iterator[list[tuple[str, Entry | None]]]:
        nonlocal now
        entries = list(itertools.chain(*pages(counter_id, after, until)))
        for start in range(0, len(entries), size):
            if next(calls) % every == 0:
                now += 850  # seconds
            yield entries[start : start + size]

    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(history, "pages", slow)


# --- Saved progress ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ['"text"', "5", "[]", '{"hours": []}', "{"])
def test_a_malformed_progress_does_not_stop_the_nightly_audit(
    stack: Stack, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    record_three_changes(stack, "a", "b")
    save(stack, "a", state)
    delete_entries(stack, 2, counter_id="b")

    result = nightly(stack)

    assert (result["counters"], result["finished"]) == (2, True)
    assert {counter_id for counter_id, _ in logged(caplog)} == {"a", "b"}


@pytest.mark.parametrize(
    "state",
    [
        *['"text"', "5", "[]", "{", '{"began_at": 5}', '{"began_at": "now"}'],
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


# --- Many counters -------------------------------------------------------------------------------


def test_many_counters_are_counted_once_although_a_segment_fails(stack: Stack) -> None:
    count = cases(20_000, part=1_000)
    simulation = bench.Simulation(stack, count, cpu_seconds=0.001)

    night = simulation.night(days=2, kills=(99, 0, 40))

    bench.check(night, counters=count, changed=count)
    assert (night.killed, night.result["entries"] > 0, night.repeated > 0) == (3, True, True)
    bench.check(simulation.night(days=3), counters=count, changed=0)
