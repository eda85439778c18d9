"""The nightly audit: invocations that fail or run out of time, and child executions that fail."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from tests import state_machine
from tests.aws_template import TEMPLATE
from tests.component.auditing import LATER, counted, logged, nightly, record_three_changes, saved
from tests.component.output import metrics
from tests.contents import delete_entries
from tests.past import Past
from tests.stack import Stack
from tests.state_machine import FailedError, StatesError
from tests.wire import Wire, delivered, dies, dies_after, throttled

from counters import audit as audits
from counters import clients, clock, history, store
from counters.model import Entry

TRIES = clients._MOST_ATTEMPTS  # noqa: SLF001  how often a function sends a throttled request
RETRIES = state_machine.retries("NightlyAudit", "Begin")


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: LATER)
    monkeypatch.setattr(clock, "sleep", lambda _seconds: None)


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
    assert "segment 0: audited 2 counters, 4 entries, 2 findings" in caplog.messages
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
