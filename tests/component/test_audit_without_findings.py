"""AuditHistory does not report recent, late or expired changes as findings."""

import itertools

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.auditing import (
    LATER,
    audit,
    change_hour,
    findings,
    versions,
)
from tests.contents import delete_entries
from tests.past import Past
from tests.stack import Stack
from tests.times import BEGINNING, DAY, HOUR
from tests.wire import Wire, delivered, throttled

from counters import clock


@pytest.mark.usefixtures("audited_orders", "later")
def test_an_intact_counter_has_no_findings(stack: Stack) -> None:
    assert audit(stack, counter_id="orders") == {
        "counters": 1,
        "entries": 60,
        "finished": True,
        "findings": [],
    }


def test_a_counter_that_was_never_written_has_no_findings(stack: Stack) -> None:
    assert findings(stack, "nobody") == []


def test_a_missing_last_entry_is_not_a_finding_while_the_stream_may_still_add_it(
    stack: Stack, audited_orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = BEGINNING + 20 * HOUR
    late = [audited_orders.change(start + number, 1) for number in range(3)]
    audited_orders.store(stack)

    def found(seconds: float) -> list[int | None]:
        monkeypatch.setattr(clock, "now", lambda: start + seconds)
        return versions(findings(stack))

    assert found(10) == found(DAY) == []
    assert found(DAY + 30) == [61]

    audited_orders.record(stack, late)
    assert found(DAY + 20) == []


@pytest.mark.parametrize("missing", [[58], [57, 58], [59]], ids=str)
def test_an_audit_stops_at_a_gap_while_the_stream_may_still_fill_it(
    stack: Stack, audited_orders: Past, monkeypatch: pytest.MonkeyPatch, missing: list[int]
) -> None:
    delete_entries(stack, *missing)
    made_after_gap = BEGINNING + 600 * missing[-1]  # the time of the change after the gap

    def report(seconds: float) -> tuple[int, list[int | None]]:
        monkeypatch.setattr(clock, "now", lambda: made_after_gap + seconds)
        given = audit(stack, counter_id="orders")
        assert given["finished"]
        return given["entries"], versions(given["findings"])

    unread = 60 - missing[-1]
    assert report(700) == (60 - len(missing), [])
    assert report(HOUR) == (unread, []), "the audit continues at the gap"
    assert report(DAY) == (unread, [])
    assert report(DAY + clock.APPLY_WINDOW) == (unread, [])
    assert report(DAY + clock.APPLY_WINDOW + 1) == (unread, [missing[0]])

    audited_orders.record(stack, audited_orders.records[missing[0] - 1 : missing[-1]])
    assert report(DAY + 2) == (unread + len(missing), [])
    assert report(DAY + 3) == (0, [])


def test_a_gap_that_the_stream_fills_in_time_is_never_a_finding(
    stack: Stack, audited_orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_entries(stack, 58)
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 600 * 60)
    assert findings(stack) == []

    audited_orders.record(stack, audited_orders.records[57:58])

    monkeypatch.setattr(clock, "now", lambda: LATER)
    assert audit(stack, counter_id="orders")["entries"] == 3
    assert findings(stack) == findings(stack, after=0) == []


def test_a_missing_hour_is_not_a_finding_while_the_stream_may_still_add_it(
    stack: Stack, audited_orders: Past, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = BEGINNING + 20 * HOUR
    late = [audited_orders.change(start + 600 * number, 1) for number in range(12)]
    audited_orders.store(stack)
    wire.fail("UpdateItem", itertools.repeat(throttled))
    assert stack.record(late) == 0, "the changes are in the history but not in the trend"
    wire.fail("UpdateItem", [])

    def found(seconds: float) -> list[str]:
        monkeypatch.setattr(clock, "now", lambda: start + seconds)
        return [finding["hour"] for finding in findings(stack)]

    assert found(3 * HOUR) == found(DAY) == []
    assert found(DAY + 2 * HOUR) == ["2026-11-23T06:00:00.000Z", "2026-11-23T07:00:00.000Z"]

    audited_orders.record(stack, late)
    assert found(DAY + 3 * HOUR) == []
    change_hour(stack, start, changes={"N": "99"})
    assert found(DAY + 4 * HOUR) == [], "an hour that was compared once is not read again"


def test_changes_that_were_applied_in_another_order_than_they_began_are_not_findings(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past("orders")
    hour_start = BEGINNING + HOUR
    for seconds in (-30, -1, 1, -2, 3, -4, 5, 9, 7, 30, HOUR - 1, HOUR + 1, HOUR - 2):
        past.change(hour_start + seconds, 1)
        past.record(stack, past.records[-1:])
        # Audit after each change, because a nightly audit can run at any time.
        monkeypatch.setattr(clock, "now", lambda now=hour_start + seconds + 10: now)
        assert findings(stack) == []
    monkeypatch.setattr(clock, "now", lambda: LATER)

    assert findings(stack) == findings(stack, after=0) == []


@pytest.mark.usefixtures("later")
def test_a_change_during_the_audit_is_not_a_finding(
    stack: Stack, audited_orders: Past, wire: Wire
) -> None:
    def late(request: AWSPreparedRequest) -> AWSResponse:
        audited_orders.record(stack, [audited_orders.change(BEGINNING + 20 * HOUR, 1)])
        return delivered(request)

    wire.fail("Query", [late])

    report = audit(stack, counter_id="orders")

    assert (report["entries"], report["findings"]) == (61, [])


def test_an_hour_is_compared_only_after_its_last_possible_change(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    past, hour_start = Past("orders"), BEGINNING + HOUR
    for seconds in (-30, 1):
        past.change(hour_start + seconds, 1)
    past.record(stack)
    monkeypatch.setattr(clock, "now", lambda: hour_start + 11)
    assert findings(stack) == []

    past.record(stack, [past.change(hour_start - 2, 1)])
    change_hour(stack, BEGINNING, changes={"N": "1"})
    monkeypatch.setattr(clock, "now", lambda: LATER)

    assert [each["hour"] for each in findings(stack)] == [clock.timestamp(BEGINNING)]


@pytest.mark.usefixtures("audited_orders", "later")
def test_an_expired_start_of_the_history_is_not_a_finding(stack: Stack) -> None:
    stack.refs["HistoryDays"] = "29"
    delete_entries(stack, *range(1, 20), 25)

    assert findings(stack) == []


@pytest.mark.usefixtures("audited_orders")
def test_a_missing_start_of_the_history_is_a_finding_before_its_expiry(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 10 * DAY)
    stack.refs["HistoryDays"] = "29"
    delete_entries(stack, 1, 2, 3)

    assert versions(findings(stack)) == [1]


@pytest.mark.usefixtures("audited_orders")
def test_entries_that_expired_after_their_audit_are_not_findings(
    stack: Stack, audited_orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.refs["HistoryDays"] = "29"
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 20 * HOUR)
    assert findings(stack) == []
    new = [audited_orders.change(BEGINNING + 10 * DAY + 600 * number, 1) for number in range(20)]
    audited_orders.record(stack, new)
    delete_entries(stack, *range(1, 70))

    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 29 * DAY - HOUR)
    assert versions(findings(stack)) == [61], "the last audited entry has not expired"
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 40 * DAY)
    assert findings(stack) == []
