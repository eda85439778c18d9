"""AuditHistory: its event, its report, and the progress that an audit saves."""

import json
from typing import Any

import pytest
from tests.component.auditing import audit, findings, versions
from tests.contents import delete_entries
from tests.past import Past
from tests.stack import Stack
from tests.times import BEGINNING, HOUR
from tests.wire import Wire

from counters import clock
from counters.errors import CounterError


@pytest.mark.usefixtures("audited_orders", "later")
def test_audited_entries_are_not_read_again(stack: Stack, audited_orders: Past, wire: Wire) -> None:
    audit(stack, counter_id="orders")
    audited_orders.record(
        stack, [audited_orders.change(BEGINNING + 20 * HOUR, 1) for _ in range(3)]
    )
    wire.sent.clear()

    report = audit(stack, counter_id="orders")

    assert (report["entries"], report["findings"]) == (3, [])
    queries = [sent for sent in wire.sent if sent.operation == "Query"]
    tables = [query.parameters["TableName"] for query in queries]
    assert tables.count(stack.refs["HistoryTable"]) == 1
    assert audit(stack, counter_id="orders")["entries"] == 0


# --- Reports and events --------------------------------------------------------------------------


@pytest.mark.usefixtures("audited_orders", "later")
def test_a_finding_is_logged_but_an_audit_by_hand_does_not_change_the_state_of_the_alarm(
    stack: Stack, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    delete_entries(stack, 30)
    capsys.readouterr()
    caplog.clear()

    report = audit(stack, counter_id="orders")

    (line,) = [vars(record) for record in caplog.records if record.levelname == "INFO"]
    assert line["message"] == "audited counter orders, 59 entries, 1 findings"
    assert line["answer"] == json.loads(json.dumps(line["answer"])) == report
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    reported = vars(error)["finding"]
    assert (reported["counter_id"], reported["version"]) == ("orders", 30)
    assert "_aws" not in capsys.readouterr().out  # it publishes no metrics


@pytest.mark.usefixtures("audited_orders", "later")
def test_a_finding_is_reported_again_until_it_is_repaired(
    stack: Stack, audited_orders: Past
) -> None:
    delete_entries(stack, 30)
    assert versions(findings(stack)) == versions(findings(stack)) == [30]

    audited_orders.record(stack, audited_orders.records[29:30])

    assert findings(stack) == []


@pytest.mark.usefixtures("audited_orders", "later")
def test_later_audits_continue_from_an_accepted_version(stack: Stack) -> None:
    delete_entries(stack, 30)

    assert findings(stack, after=31) == []
    assert audit(stack, counter_id="orders")["entries"] == 0
    assert versions(findings(stack, after=0)) == [30]


PAST = clock.timestamp(BEGINNING)
SEGMENT = {"number": 0, "segments": 1, "since": PAST}
NOT_SEGMENTS: list[tuple[object, str]] = [
    (segment, "segment: must be a segment that the step begin or audit returned")
    for segment in ({}, {"number": 0}, {**SEGMENT, "since": 5}, {**SEGMENT, "place": ""})
]
NOT_NIGHTS: list[tuple[dict[str, object], str]] = [
    ({"segments": []}, "segments: must be a list of segments"),
    ({"segments": [5]}, "segment: must be a JSON object"),
    ({"segments": [SEGMENT], "audited": 5}, "audited: must be a list of segments"),
    ({"segments": [SEGMENT], "audited": [{"number": "0"}]}, NOT_SEGMENTS[0][1]),
]
NOT_OBJECTS: list[object] = [None, [], "orders", 7, True, [{}]]


@pytest.mark.usefixtures("audited_orders", "later")
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
        *[
            (event, "counter_id: is missing. To audit all counters, start NightlyAudit.")
            for event in ({}, {"after": 1})
        ],
        ({"step": "sweep"}, "step: unknown field"),
        ({"counter": "orders"}, "counter: unknown field"),
        ({"counter_id": "orders", "version": 1}, "version: unknown field"),
        *[
            ({"step": "audit", "segment": segment}, message)
            for segment, message in [("x", "segment: must be a JSON object"), *NOT_SEGMENTS]
        ],
        *[
            (
                {"step": "end", "nightly": {"began_at": began_at, "segments": [SEGMENT]}},
                "began_at: must be a time that is not in the future",
            )
            for began_at in (None, 5, "9999-12-31T00:00:00.000Z")
        ],
        *[
            ({"step": "end", "nightly": {"began_at": PAST, **segments}}, message)
            for segments, message in NOT_NIGHTS
        ],
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
    """Check that the traceback in Lambda's response has only the line of the handler."""
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert [frame.name for frame in raised.traceback][1:] == ["invoke", "handler"]


@pytest.mark.usefixtures("audited_orders", "later")
@pytest.mark.parametrize("after", [1, 29, 31, 59, 60])
def test_any_version_in_the_history_can_be_accepted(stack: Stack, after: int) -> None:
    delete_entries(stack, 30)

    found = versions(findings(stack, after=after))

    assert found == ([30] if after < 30 else [])
