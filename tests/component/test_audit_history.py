"""AuditHistory: reports every mismatch between a counter, its history and its trend."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.contents import delete_entries, prepare_once
from tests.past import Past
from tests.stack import Stack
from tests.wire import Wire, delivered, throttled

from counters import clock, history, store
from counters.errors import CounterError
from counters.model import Entry

HOUR, DAY = 3600, 24 * 3600  # seconds
BEGINNING = 1_795_341_600.0  # 2026-11-22T10:00:00Z
LATER = BEGINNING + 30 * DAY

Finding = dict[str, Any]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time to 30 days after the first change."""
    monkeypatch.setattr(clock, "now", lambda: LATER)


@pytest.fixture
def orders(stack: Stack) -> Past:
    """A counter with 60 changes, one every ten minutes, and its history and trend."""
    past = Past("orders")
    for number in range(60):
        past.change(BEGINNING + 600 * number, -3 if number % 5 == 4 else 2)
    prepare_once(stack, "60 changes of orders", lambda: past.record(stack))
    return past


def audit(stack: Stack, **event: object) -> dict[str, Any]:
    report: dict[str, Any] = stack.invoke("AuditHistory", event)
    return report


def findings(stack: Stack, counter_id: str = "orders", **event: object) -> list[Finding]:
    report = audit(stack, counter_id=counter_id, **event)
    assert report["finished"]
    found: list[Finding] = report["findings"]
    return found


def versions(found: list[Finding]) -> list[int | None]:
    return [finding["version"] for finding in found]


def change_entry(stack: Stack, version: int | str, **attributes: Any) -> None:  # noqa: ANN401
    key: Any = {"counter_id": {"S": "orders"}, "version": {"N": str(version)}}
    table = stack.refs["HistoryTable"]
    item = stack.dynamodb.get_item(TableName=table, Key=key).get("Item", {})
    stack.dynamodb.put_item(TableName=table, Item={**item, **key, **attributes})


def copy_entry(stack: Stack, version: int, to_version: int) -> None:
    table = stack.refs["HistoryTable"]
    key: Any = {"counter_id": {"S": "orders"}, "version": {"N": str(version)}}
    item = stack.dynamodb.get_item(TableName=table, Key=key)["Item"]
    stack.dynamodb.put_item(TableName=table, Item={**item, "version": {"N": str(to_version)}})


def change_hour(stack: Stack, hour: float, **attributes: Any) -> None:  # noqa: ANN401
    key: Any = {"counter_id": {"S": "orders"}, "hour": {"S": clock.timestamp(hour)}}
    table = stack.refs["TrendTable"]
    item = stack.dynamodb.get_item(TableName=table, Key=key).get("Item", {})
    stack.dynamodb.put_item(TableName=table, Item={**item, **key, **attributes})


@pytest.mark.usefixtures("orders", "later")
def test_an_intact_counter_has_no_findings(stack: Stack) -> None:
    assert audit(stack, counter_id="orders") == {
        "counters": 1,
        "entries": 60,
        "finished": True,
        "findings": [],
    }


def test_a_counter_that_was_never_written_has_no_findings(stack: Stack) -> None:
    assert findings(stack, "nobody") == []


@pytest.mark.usefixtures("orders", "later")
def test_audited_entries_are_not_read_again(stack: Stack, orders: Past, wire: Wire) -> None:
    audit(stack, counter_id="orders")
    orders.record(stack, [orders.change(BEGINNING + 20 * HOUR, 1) for _ in range(3)])
    wire.sent.clear()

    report = audit(stack, counter_id="orders")

    assert (report["entries"], report["findings"]) == (3, [])
    queries = [sent for sent in wire.sent if sent.operation == "Query"]
    tables = [query.parameters["TableName"] for query in queries]
    assert tables.count(stack.refs["HistoryTable"]) == 1
    assert audit(stack, counter_id="orders")["entries"] == 0


# --- Faults in the history -----------------------------------------------------------------------


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize("version", [1, 2, 30, 59])
def test_a_missing_entry_is_found(stack: Stack, version: int) -> None:
    delete_entries(stack, version)

    assert [(each["counter_id"], each["version"]) for each in findings(stack)] == [
        ("orders", version)
    ]


@pytest.mark.usefixtures("orders", "later")
def test_a_missing_last_entry_is_found_after_the_streams_retention(
    stack: Stack,
) -> None:
    delete_entries(stack, 60)

    assert versions(findings(stack)) == [60]


@pytest.mark.usefixtures("orders", "later")
def test_consecutive_missing_entries_are_one_finding(stack: Stack) -> None:
    delete_entries(stack, 20, 21, 22)

    (finding,) = findings(stack)

    assert finding["version"] == 20
    assert "from 20 to 22" in finding["detail"]


@pytest.mark.usefixtures("orders", "later")
def test_a_changed_value_is_found_at_its_version(stack: Stack) -> None:
    change_entry(stack, 28, value={"N": "1000"})

    found = findings(stack)

    assert versions(found) == [28, 29]
    assert "does not add up" in found[0]["detail"]


@pytest.mark.usefixtures("orders", "later")
def test_an_entry_that_does_not_start_from_the_previous_value_is_found(stack: Stack) -> None:
    change_entry(stack, 30, value={"N": "1000"}, previous_value={"N": "990"}, by={"N": "10"})

    found = findings(stack)

    assert [each["version"] for each in found if not each["hour"]] == [30, 31]
    assert [each["hour"] for each in found if each["hour"]] == ["2026-11-22T14:00:00.000Z"]


@pytest.mark.usefixtures("orders", "later")
def test_a_last_entry_with_another_value_than_the_counter_is_found(stack: Stack) -> None:
    change_entry(stack, 60, value={"N": "1000"}, by={"N": "1000"}, previous_value={"N": "0"})

    assert versions([each for each in findings(stack) if not each["hour"]]) == [60, 60]


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize("version", [61, 1000])
def test_an_extra_entry_after_the_last_is_found(stack: Stack, version: int) -> None:
    copy_entry(stack, 60, version)

    assert versions(findings(stack)) == [version]


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize("version", [0, -1])
def test_an_extra_entry_before_the_first_is_found(stack: Stack, version: int) -> None:
    copy_entry(stack, 1, version)

    assert versions(findings(stack)) == [version]


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize("version", ["7", "7.5"])
def test_a_malformed_entry_is_found(stack: Stack, version: str) -> None:
    change_entry(stack, version, operation={"N": "1"}, created_at={"S": "yesterday"})

    details = [each["detail"] for each in findings(stack) if not each["hour"]]

    assert details == [f"the entry of version {version} is malformed"]


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize(
    ("sums", "by"),
    [((3, 0), 2), ((2, 1), 2), ((0, 0), 2), ((-1, -3), 2), ((2, 5), 2), ((0, 2), 2)],
    ids=str,
)
def test_an_entry_whose_increase_and_decrease_do_not_add_up_is_found(
    stack: Stack, sums: tuple[int, int], by: int
) -> None:
    increase, decrease = ({"N": str(number)} for number in sums)
    change_entry(stack, 28, increase=increase, decrease=decrease)

    (finding,) = [each for each in findings(stack) if not each["hour"]]

    assert finding["version"] == 28
    assert finding["detail"] == (
        f"version 28 does not add up: an increase of {sums[0]} and a decrease of {sums[1]}"
        f" do not make {by}"
    )


@pytest.mark.usefixtures("orders", "later")
def test_the_increase_and_decrease_of_an_hour_are_compared_separately(
    stack: Stack, orders: Past
) -> None:
    start = BEGINNING + 20 * HOUR
    orders.fold(start, 7, 9, events=5)
    orders.fold(start + 1, 3, 3)
    orders.record(stack)
    assert findings(stack) == []

    change_hour(stack, start, increase={"N": "9"}, decrease={"N": "11"})

    # The difference of the two is the same.
    assert [each["hour"] for each in findings(stack, after=0)] == [clock.timestamp(start)]


def test_a_missing_entry_of_a_counter_that_keeps_changing_is_found(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past("orders")
    past.record(stack, [past.change(BEGINNING + HOUR * number, 1) for number in range(10)])
    for night in range(1, 5):
        now = BEGINNING + DAY * night
        monkeypatch.setattr(clock, "now", lambda now=now: now)
        for hour in range(24):
            past.change(now - DAY + HOUR * (11 + hour), 1)  # never recorded in the history
        past.store(stack)

        found = audit(stack)["findings"]

        assert versions(found) == ([] if night < 3 else [11]), night


def test_a_malformed_counter_does_not_stop_the_audit_of_others(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: LATER)
    for name in ("orders", "stock"):
        past = Past(name)
        past.record(stack, [past.change(BEGINNING + number, 1) for number in range(3)])
    stack.dynamodb.update_item(
        TableName=stack.refs["CounterTable"],
        Key={"counter_id": {"S": "stock"}},
        UpdateExpression="REMOVE change",
    )
    delete_entries(stack, 2)

    report = audit(stack)

    assert report["finished"]
    assert {each["counter_id"] for each in report["findings"]} == {"orders", "stock"}
    of_stock = findings(stack, "stock")
    assert of_stock in ([each] for each in report["findings"])
    assert of_stock[0]["detail"] == "an item of this counter is malformed: change is missing"


@pytest.mark.parametrize("later_changes", [0, 1, 3])
@pytest.mark.parametrize("seconds", [0, 60])
def test_the_history_of_a_deleted_counter_is_found(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, later_changes: int, seconds: int
) -> None:
    monkeypatch.setattr(clock, "now", lambda: BEGINNING)
    stack.request("POST", "/counters/orders")
    stack.dynamodb.delete_item(
        TableName=stack.refs["CounterTable"], Key={"counter_id": {"S": "orders"}}
    )
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + seconds)
    for _ in range(1 + later_changes):
        stack.request("POST", "/counters/orders")
    changes = stack.changes()
    assert stack.record(changes) == len(changes)
    assert len(stack.items("HistoryTable")) == 1 + later_changes
    (counter,) = stack.items("CounterTable")
    assert counter["version"] == {"N": str(1 + later_changes)}

    found = findings(stack, after=0)

    # The old entry is recognized if its counter has another creation time, or if its version is
    # the last one of the new counter.
    if seconds or not later_changes:
        assert 1 in versions(found)
        assert all(
            "different change" in each["detail"] or "created" in each["detail"] for each in found
        )


WRONG_SUMS = [
    pytest.param({"changes": {"N": "7"}}, id="changes"),
    pytest.param({"increase": {"N": "7"}}, id="increase"),
    pytest.param({"decrease": {"N": "7"}}, id="decrease"),
    pytest.param({"close": {"N": "7"}}, id="close"),
    pytest.param({"first_version": {"N": "1"}}, id="first_version"),
    pytest.param({"last_version": {"N": "1"}}, id="last_version"),
]


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize("wrong_sums", WRONG_SUMS)
def test_a_wrong_sum_in_an_hour_of_the_trend_is_found(
    stack: Stack, wrong_sums: dict[str, Any]
) -> None:
    change_hour(stack, BEGINNING + 3 * HOUR, **wrong_sums)

    (finding,) = findings(stack)

    assert finding["hour"] == "2026-11-22T13:00:00.000Z"
    assert finding["version"] == 19
    ((name, value),) = wrong_sums.items()
    stored, adds_up_to = finding["detail"].split(", but the history adds up to ")
    assert stored.startswith("the trend of the hour 2026-11-22T13:00:00.000Z has changes ")
    assert f"{name} {value['N']}" in stored
    assert adds_up_to == (
        "changes 6, increase 10, decrease 3, first_version 19, last_version 24, close 28"
    )


@pytest.mark.usefixtures("orders", "later")
def test_a_missing_hour_of_the_trend_is_found(stack: Stack) -> None:
    stack.dynamodb.delete_item(
        TableName=stack.refs["TrendTable"],
        Key={
            "counter_id": {"S": "orders"},
            "hour": {"S": clock.timestamp(BEGINNING + 9 * HOUR)},
        },
    )

    (finding,) = findings(stack)
    assert finding["hour"] == "2026-11-22T19:00:00.000Z"
    assert finding["detail"].startswith(
        "the trend lacks the hour 2026-11-22T19:00:00.000Z: the history adds up to changes 6, "
    )


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize("hours", [-5, 12, 100])
def test_an_extra_hour_of_the_trend_is_found(stack: Stack, hours: int) -> None:
    sums: dict[str, Any] = {
        name: {"N": "1"}
        for name in ("changes", "increase", "decrease", "first_version", "last_version", "close")
    }
    change_hour(stack, BEGINNING + hours * HOUR, **sums)

    start = clock.timestamp(BEGINNING + hours * HOUR)
    (finding,) = findings(stack)
    assert finding["hour"] == start
    assert finding["detail"] == (
        f"the trend of the hour {start} has changes 1, increase 1, decrease 1, first_version 1,"
        " last_version 1, close 1, but the history has nothing"
    )


def test_a_wrong_sum_is_found_before_the_hour_is_over(
    stack: Stack, orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = BEGINNING + 9 * HOUR + 3001
    monkeypatch.setattr(clock, "now", lambda: now)
    assert findings(stack) == []

    change_hour(stack, BEGINNING + 9 * HOUR, increase={"N": "7"})

    assert orders.item["version"]["N"] == "60"
    assert [each["hour"] for each in findings(stack)] == ["2026-11-22T19:00:00.000Z"]


@pytest.mark.usefixtures("orders", "later")
def test_a_counter_whose_value_was_edited_by_hand_is_found(stack: Stack, orders: Past) -> None:
    orders.item = {**orders.item, "value": {"N": "1"}}
    orders.store(stack)

    assert versions(findings(stack)) == [60]


@pytest.mark.usefixtures("orders", "later")
def test_a_counter_with_a_lower_version_than_its_history_is_found(
    stack: Stack, orders: Past
) -> None:
    audit(stack, counter_id="orders")
    again = Past("orders")
    again.change(BEGINNING + 20 * HOUR, int(orders.item["value"]["N"]))
    again.store(stack)

    assert versions(findings(stack)) == [60]


@pytest.mark.usefixtures("orders", "later")
def test_several_faults_are_all_found(stack: Stack) -> None:
    delete_entries(stack, 10)
    change_entry(stack, 40, value={"N": "1000"})
    change_hour(stack, BEGINNING + 4 * HOUR, changes={"N": "99"})
    extra: dict[str, Any] = {"counter_id": {"S": "orders"}, "version": {"N": "61"}}
    stack.dynamodb.put_item(TableName=stack.refs["HistoryTable"], Item=extra)

    found = findings(stack)

    reported = {(each["version"], each["hour"]) for each in found}
    assert {(10, None), (40, None), (25, "2026-11-22T14:00:00.000Z")} <= reported
    assert any("61" in each["detail"] for each in found)


# --- Reports and events --------------------------------------------------------------------------


@pytest.mark.usefixtures("orders", "later")
def test_a_finding_is_logged_and_counted_in_a_metric(
    stack: Stack, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    delete_entries(stack, 30)
    capsys.readouterr()
    caplog.clear()

    report = audit(stack, counter_id="orders")

    (line,) = [vars(record) for record in caplog.records if record.levelname == "INFO"]
    assert line["answer"] == json.loads(json.dumps(line["answer"])) == report
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    reported = vars(error)["finding"]
    assert (reported["counter_id"], reported["version"]) == ("orders", 30)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (metrics,) = [line for line in lines if "_aws" in line]
    assert (metrics["stack"], metrics["service"]) == ("tally-test", "tally")
    assert metrics["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Tally"
    assert metrics["AuditFindings"] == [1.0]
    assert metrics["EntriesAudited"] == [59.0]
    assert metrics["CountersAudited"] == [1.0]


@pytest.mark.usefixtures("orders", "later")
def test_a_finding_is_reported_again_until_it_is_repaired(stack: Stack, orders: Past) -> None:
    delete_entries(stack, 30)
    assert versions(findings(stack)) == versions(findings(stack)) == [30]

    orders.record(stack, orders.records[29:30])

    assert findings(stack) == []


@pytest.mark.usefixtures("orders", "later")
def test_later_audits_continue_from_an_accepted_version(stack: Stack) -> None:
    delete_entries(stack, 30)

    assert findings(stack, after=31) == []
    assert audit(stack, counter_id="orders")["entries"] == 0
    assert versions(findings(stack, after=0)) == [30]


NOT_OBJECTS: list[object] = [None, [], "orders", 7, True, [{}]]


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize(
    ("event", "message"),
    [
        *[(value, "event: must be a JSON object") for value in NOT_OBJECTS],
        *[
            ({"counter_id": name}, r"counter_id: must match [A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
            for name in ("-", "", None, 7, ["orders"], {"S": "orders"}, "a" * 129)
        ],
        *[
            ({"counter_id": "orders", "after": after}, "after: must be an integer")
            for after in ("1", None, True, 1.0, [1], {"version": 1})
        ],
        ({"counter_id": "orders", "after": -1}, "after: must be 0 or greater"),
        ({"counter_id": "orders", "after": 61}, "after: must be at most 60, the counter's version"),
        (
            {"counter_id": "orders", "after": 2**53},
            "after: must be from -9007199254740991 to 9007199254740991",
        ),
        (
            {"counter_id": "orders", "after": 30},
            "after: version 30 is not in the history. Use a version that is.",
        ),
        ({"counter_id": "nobody", "after": 1}, "after: must be at most 0, the counter's version"),
        ({"after": 1}, "after: must be given together with counter_id"),
        ({"counter": "orders"}, "counter: unknown field"),
        ({"counter_id": "orders", "version": 1}, "version: unknown field"),
    ],
    ids=str,
)
def test_a_malformed_event_is_rejected_with_a_short_error_and_writes_nothing(
    stack: Stack,
    event: Any,  # noqa: ANN401  any JSON value
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    audit(stack, counter_id="orders")
    delete_entries(stack, 30)
    before = stack.contents()
    capsys.readouterr()

    with pytest.raises(CounterError) as raised:
        stack.invoke("AuditHistory", event)

    assert str(raised.value) == message
    assert_only_handler_in_traceback(raised)
    assert stack.contents() == before
    assert capsys.readouterr().out == ""


def assert_only_handler_in_traceback(raised: pytest.ExceptionInfo[CounterError]) -> None:
    """Check that Lambda's response has the error's text and only the handler's traceback line."""
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert [frame.name for frame in raised.traceback][1:] == ["invoke", "handler"]


@pytest.mark.usefixtures("orders", "later")
@pytest.mark.parametrize("after", [1, 29, 31, 59, 60])
def test_any_version_in_the_history_can_be_accepted(stack: Stack, after: int) -> None:
    delete_entries(stack, 30)

    found = versions(findings(stack, after=after))

    assert found == ([30] if after < 30 else [])


# --- Not findings --------------------------------------------------------------------------------


def test_a_missing_last_entry_is_not_a_finding_while_the_stream_may_still_add_it(
    stack: Stack, orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = BEGINNING + 20 * HOUR
    late = [orders.change(start + number, 1) for number in range(3)]
    orders.store(stack)

    def found(seconds: float) -> list[int | None]:
        monkeypatch.setattr(clock, "now", lambda: start + seconds)
        return versions(findings(stack))

    assert found(10) == found(DAY) == []
    assert found(DAY + 30) == [61]

    orders.record(stack, late)
    assert found(DAY + 20) == []


@pytest.mark.parametrize("missing", [[58], [57, 58], [59]], ids=str)
def test_an_audit_stops_at_a_gap_while_the_stream_may_still_fill_it(
    stack: Stack, orders: Past, monkeypatch: pytest.MonkeyPatch, missing: list[int]
) -> None:
    delete_entries(stack, *missing)
    made_after_gap = BEGINNING + 600 * missing[-1]  # when the entry after the gap was made

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

    orders.record(stack, orders.records[missing[0] - 1 : missing[-1]])
    assert report(DAY + 2) == (unread + len(missing), [])
    assert report(DAY + 3) == (0, [])


def test_a_gap_that_the_stream_fills_in_time_is_never_a_finding(
    stack: Stack, orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_entries(stack, 58)
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 600 * 60)
    assert findings(stack) == []

    orders.record(stack, orders.records[57:58])

    monkeypatch.setattr(clock, "now", lambda: LATER)
    assert audit(stack, counter_id="orders")["entries"] == 3
    assert findings(stack) == findings(stack, after=0) == []


def test_a_missing_hour_is_not_a_finding_while_the_stream_may_still_add_it(
    stack: Stack, orders: Past, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = BEGINNING + 20 * HOUR
    late = [orders.change(start + 600 * number, 1) for number in range(12)]
    orders.store(stack)
    wire.fail("UpdateItem", itertools.repeat(throttled))
    assert stack.record(late) == 0, "the changes are in the history but not in the trend"
    wire.fail("UpdateItem", [])

    def found(seconds: float) -> list[str]:
        monkeypatch.setattr(clock, "now", lambda: start + seconds)
        return [finding["hour"] for finding in findings(stack)]

    assert found(3 * HOUR) == found(DAY) == []
    assert found(DAY + 2 * HOUR) == ["2026-11-23T06:00:00.000Z", "2026-11-23T07:00:00.000Z"]

    orders.record(stack, late)
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
        # The nightly audit can run after any of these changes.
        monkeypatch.setattr(clock, "now", lambda now=hour_start + seconds + 10: now)
        assert findings(stack) == []
    monkeypatch.setattr(clock, "now", lambda: LATER)

    assert findings(stack) == findings(stack, after=0) == []


@pytest.mark.usefixtures("later")
def test_a_change_during_the_audit_is_not_a_finding(stack: Stack, orders: Past, wire: Wire) -> None:
    def late(request: AWSPreparedRequest) -> AWSResponse:
        orders.record(stack, [orders.change(BEGINNING + 20 * HOUR, 1)])
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


@pytest.mark.usefixtures("orders", "later")
def test_an_expired_start_of_the_history_is_not_a_finding(stack: Stack) -> None:
    stack.refs["HistoryDays"] = "29"
    delete_entries(stack, *range(1, 20), 25)

    assert findings(stack) == []


@pytest.mark.usefixtures("orders")
def test_a_missing_start_of_the_history_is_a_finding_before_its_expiry(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 10 * DAY)
    stack.refs["HistoryDays"] = "29"
    delete_entries(stack, 1, 2, 3)

    assert versions(findings(stack)) == [1]


@pytest.mark.usefixtures("orders")
def test_entries_that_expired_after_their_audit_are_not_findings(
    stack: Stack, orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.refs["HistoryDays"] = "29"
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 20 * HOUR)
    assert findings(stack) == []
    new = [orders.change(BEGINNING + 10 * DAY + 600 * number, 1) for number in range(20)]
    orders.record(stack, new)
    delete_entries(stack, *range(1, 70))

    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 29 * DAY - HOUR)
    assert versions(findings(stack)) == [61], "the last audited entry has not expired"
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 40 * DAY)
    assert findings(stack) == []


# --- Nightly audits ------------------------------------------------------------------------------


def record_three_changes(stack: Stack, *names: str, time: float = BEGINNING) -> None:
    for name in names:
        past = Past(name)
        for number in range(3):
            past.change(time + number, 1)
        past.record(stack)


def test_the_first_nightly_audit_covers_all_counters_and_later_ones_only_changed_counters(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_three_changes(stack, "a", "b", "c")
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 2 * DAY)
    first = audit(stack)
    record_three_changes(stack, "d", time=BEGINNING + 2 * DAY + 1)
    monkeypatch.setattr(clock, "now", lambda: BEGINNING + 3 * DAY)
    second = audit(stack)

    assert (first["counters"], first["entries"], first["findings"]) == (3, 9, [])
    assert (second["counters"], second["entries"], second["findings"]) == (1, 3, [])


def test_a_nightly_audit_names_the_counter_of_a_finding(stack: Stack, orders: Past) -> None:
    record_three_changes(stack, "a", "b")
    delete_entries(stack, 30)

    report = audit(stack)

    assert report["counters"] == 3
    assert [(each["counter_id"], each["version"]) for each in report["findings"]] == [
        (orders.counter_id, 30)
    ]


def test_a_change_just_before_a_nightly_audit_is_audited_the_next_night(
    stack: Stack, orders: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = BEGINNING + 20 * HOUR
    orders.change(night - 30, 1)
    orders.store(stack)
    monkeypatch.setattr(clock, "now", lambda: night)
    assert audit(stack)["findings"] == []

    monkeypatch.setattr(clock, "now", lambda: night + DAY)

    assert versions(audit(stack)["findings"]) == [61]


def test_an_unfinished_nightly_audit_continues_the_next_night(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_three_changes(stack, *(f"counter{number}" for number in range(5)))
    calls = itertools.count(1)
    now, pages = LATER, history.pages

    def slow_pages(
        counter_id: str, after: int, until: float
    ) -> Iterator[list[tuple[str, Entry | None]]]:
        nonlocal now
        if next(calls) % 3 == 0:
            now += 850  # seconds: longer than an audit may take, but shorter than the timeout
        yield from pages(counter_id, after, until)

    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(store, "_SCAN_SIZE", 2)
    monkeypatch.setattr(history, "pages", slow_pages)

    reports = [audit(stack) for _ in range(3)]

    # An audit ends after three counters. A scan page has two, so the next begins at the third.
    assert [report["counters"] for report in reports] == [3, 3, 1]
    assert [report["finished"] for report in reports] == [False, False, True]
    assert sum(report["entries"] for report in reports) == 15
    assert audit(stack)["entries"] == 0
