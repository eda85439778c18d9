"""Two concurrent runs of AuditHistory, or of RedriveHistory, with requests in any order.

`sam remote invoke` waits a minute for the answer of a function. If there is no answer, the command
starts the function again. So two runs can overlap.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.two_runs import Runs, orders, run_in_order
from tests.contents import clear, delete_entries
from tests.past import Past
from tests.stack import Item, Stack
from tests.times import BEGINNING, DAY, HOUR
from tests.wire import Wire, delivered, reply_lost

from counters import clock, recording
from counters.errors import ThrottledError

LATER = BEGINNING + 30 * DAY
DEAD_LETTERS = "HistoryDeadLetterQueue"
counter_ids = (f"counter{number}" for number in itertools.count())


def test_two_runs_proceed_one_request_at_a_time(stack: Stack, wire: Wire) -> None:
    runs = Runs(stack, wire, "AuditHistory")
    first, second = runs.run(counter_id="orders"), runs.run(counter_id="orders")
    with runs.interleaving():
        first.step()
        first.step()
        second.step()
        assert wire.operations() == ["GetItem"] * 3
        run_in_order(first, second, [])
    assert first.answer == second.answer
    assert first.answer["findings"] == []


# --- AuditHistory --------------------------------------------------------------------------------


@pytest.fixture
def _later(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001  sets the clock
    monkeypatch.setattr(clock, "now", lambda: LATER)


def saved_progress(stack: Stack, counter_id: str) -> dict[str, Any]:
    """Return how far the audit of a counter has got, as saved in AuditTable.

    If `counter_id` is "*", return when the last clean nightly audit began.
    """
    key: Item = {"counter_id": {"S": counter_id}}
    item = stack.dynamodb.get_item(TableName=stack.refs["AuditTable"], Key=key).get("Item")
    state: dict[str, Any] = json.loads(item["state"]["S"]) if item else {}
    return state


def ten_changes(counter_id: str) -> Past:
    past = Past(counter_id)
    for number in range(10):
        past.change(BEGINNING + 600 * number, 1)
    return past


def versions(answer: Mapping[str, Any]) -> list[int]:
    return [finding["version"] for finding in answer["findings"]]


STEPS = 8  # the number of requests in an audit of one counter


@pytest.mark.usefixtures("_later")
def test_a_slower_audit_does_not_overwrite_the_progress_of_a_faster_one(
    stack: Stack, wire: Wire
) -> None:
    for order in orders(STEPS, same_event=True):
        past = ten_changes(next(counter_ids))
        past.record(stack)
        runs = Runs(stack, wire, "AuditHistory")
        first, second = (runs.run(counter_id=past.counter_id) for _ in range(2))
        with runs.interleaving():
            for step, number in enumerate(order):
                if step == order.index(not order[0]):  # the other run is about to start
                    past.record(stack, [past.change(LATER, 1) for _ in range(3)])
                (second if number else first).step()
            progress_reached = saved_progress(stack, past.counter_id).get("version", 0)
            first.finish()
            second.finish()

        assert first.answer["findings"] == second.answer["findings"] == [], order
        state = saved_progress(stack, past.counter_id)
        assert state["version"] >= progress_reached, order
        last = max(run.answer["entries"] for run in (first, second))
        assert state["version"] >= last, order
        again = stack.invoke("AuditHistory", {"counter_id": past.counter_id})
        assert again["findings"] == []
        assert saved_progress(stack, past.counter_id)["version"] == int(past.item["version"]["N"])


@pytest.mark.usefixtures("_later")
def test_a_version_accepted_during_an_audit_stays_accepted(stack: Stack, wire: Wire) -> None:
    for order in orders(STEPS):
        counter_id = next(counter_ids)
        ten_changes(counter_id).record(stack)
        delete_entries(stack, 5, counter_id=counter_id)
        runs = Runs(stack, wire, "AuditHistory")
        without_after = runs.run(counter_id=counter_id)
        with_after = runs.run(counter_id=counter_id, after=6)
        with runs.interleaving():
            run_in_order(without_after, with_after, order)

        assert versions(with_after.answer) == [], order
        assert versions(without_after.answer) in ([], [5]), order
        assert saved_progress(stack, counter_id)["version"] == 10, order
        assert versions(stack.invoke("AuditHistory", {"counter_id": counter_id})) == []


@pytest.mark.parametrize("after", [None, 6])
@pytest.mark.usefixtures("_later")
def test_an_audit_that_cannot_save_progress_fails_only_if_its_event_accepts_a_version(
    stack: Stack, wire: Wire, after: int | None
) -> None:
    counter_id = next(counter_ids)
    ten_changes(counter_id).record(stack)
    delete_entries(stack, 5, counter_id=counter_id)
    event = {"counter_id": counter_id} | ({} if after is None else {"after": after})

    def save_another_first(request: AWSPreparedRequest) -> AWSResponse:
        state = "{}" + " " * len(wire.sent)  # a different text each time
        item: Item = {"counter_id": {"S": counter_id}, "state": {"S": state}}
        stack.dynamodb.put_item(TableName=stack.refs["AuditTable"], Item=item)
        return delivered(request)

    wire.fail("PutItem", itertools.repeat(save_another_first))
    if after is None:
        assert versions(stack.invoke("AuditHistory", event)) == [5]
    else:
        with pytest.raises(ThrottledError, match=r"^after: other audits of this counter"):
            stack.invoke("AuditHistory", event)


@pytest.mark.usefixtures("_later")
def test_a_finding_is_not_skipped_because_of_a_concurrent_audit(stack: Stack, wire: Wire) -> None:
    for order in orders(STEPS):
        past = ten_changes(next(counter_ids))
        past.record(stack)
        counter_id = past.counter_id
        stack.invoke("AuditHistory", {"counter_id": counter_id})
        delete_entries(stack, 5, counter_id=counter_id)
        past.record(stack, [past.change(BEGINNING + 7200, 1) for _ in range(3)])
        runs = Runs(stack, wire, "AuditHistory")
        without_after, from_zero = (
            runs.run(counter_id=counter_id),
            runs.run(counter_id=counter_id, after=0),
        )
        with runs.interleaving():
            run_in_order(without_after, from_zero, order)

        assert versions(from_zero.answer) == [5], order
        assert versions(without_after.answer) in ([], [5]), order
        assert saved_progress(stack, counter_id)["version"] < 5, order
        assert versions(stack.invoke("AuditHistory", {"counter_id": counter_id})) == [5], order


@pytest.mark.usefixtures("_later")
def test_the_end_of_an_earlier_nightly_audit_does_not_hide_a_later_one(
    stack: Stack, wire: Wire
) -> None:
    def end(began_at: float) -> dict[str, Any]:
        segment = {"number": 0, "segments": 1, "since": clock.timestamp(0)}
        audited = [{**segment, "finished": True}]
        begun = {"began_at": clock.timestamp(began_at), "segments": [segment]}
        return {"step": "end", "nightly": {**begun, "audited": audited}}

    for order in orders(4):
        clear(stack, "AuditTable")
        runs = Runs(stack, wire, "AuditHistory")
        earlier, later = runs.run(**end(LATER - HOUR)), runs.run(**end(LATER))
        with runs.interleaving():
            run_in_order(earlier, later, order)

        assert earlier.answer["finished"], order
        assert later.answer["finished"], order
        assert saved_progress(stack, "*") == {"began_at": clock.timestamp(LATER)}, order


@pytest.mark.usefixtures("_later")
def test_a_lost_reply_is_not_mistaken_for_another_audit(stack: Stack, wire: Wire) -> None:
    ten_changes("orders").record(stack)
    wire.sent.clear()
    wire.fail("PutItem", [reply_lost])

    answer = stack.invoke("AuditHistory", {"counter_id": "orders"})

    assert (answer["entries"], answer["findings"]) == (10, [])
    operations = wire.operations()
    assert operations.count("PutItem") == 2
    assert operations[-1] == "GetItem", (
        "the audit reads its saved progress and does not start again"
    )
    assert saved_progress(stack, "orders")["version"] == 10


# --- RedriveHistory ------------------------------------------------------------------------------


def past_with_unknown_operations(counter_id: str) -> Past:
    """Return six changes in two hours. Three have an operation that RecordHistory does not know."""
    past = Past(counter_id)
    for number, operation in enumerate("+*+*+*"):
        time = BEGINNING + number + (HOUR if number > 3 else 0)
        past.change(time, 10**number, "multiply" if operation == "*" else "increment")
    return past


def contents(stack: Stack, counter_id: str) -> dict[str, list[str]]:
    """Return a counter's items in HistoryTable and TrendTable, as JSON texts.

    In the texts, "counter" replaces the counter's id, so that the test can compare two counters.
    """
    return {
        table: [
            json.dumps(item, sort_keys=True).replace(counter_id, "counter")
            for item in stack.dynamodb.query(
                TableName=stack.refs[table],
                KeyConditionExpression="counter_id = :counter_id",
                ExpressionAttributeValues={":counter_id": {"S": counter_id}},
            )["Items"]
        ]
        for table in ("HistoryTable", "TrendTable")
    }


def visible_messages(stack: Stack) -> list[str]:
    """Return the visible messages of the dead-letter queue. They stay visible."""
    messages = stack.sqs.receive_message(
        QueueUrl=stack.refs[DEAD_LETTERS], MaxNumberOfMessages=10, VisibilityTimeout=0
    ).get("Messages", [])
    return [message["Body"] for message in messages]


@pytest.mark.parametrize(
    "twice", [False, True], ids=["messages delivered once", "messages delivered repeatedly"]
)
def test_two_concurrent_redrives_have_the_effect_of_one(
    stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch, *, twice: bool
) -> None:
    def alter_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
        if "WaitTimeSeconds" in parameters:
            parameters["WaitTimeSeconds"] = 0
            parameters["MaxNumberOfMessages"] = 1
            if twice:  # let SQS deliver each message repeatedly
                parameters["VisibilityTimeout"] = 0
        return parameters

    recorded_once = past_with_unknown_operations("twin")
    operations = Literal["increment", "set", "multiply"]
    with monkeypatch.context() as context:
        context.setattr(recording, "Operation", operations)
        recorded_once.record(stack)
    # A malformed message stays in the queue. If SQS delivered it again and again, a run would not
    # end.
    malformed = [] if twice else ["nonsense"]
    for order in orders(10, same_event=True):
        past = past_with_unknown_operations(next(counter_ids))
        past.record(stack)
        for body in malformed:
            stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=body)
        runs = Runs(stack, wire, "RedriveHistory")
        runs.alter_parameters = alter_parameters
        first, second = runs.run(), runs.run()
        with monkeypatch.context() as context, runs.interleaving():
            context.setattr(recording, "Operation", operations)
            run_in_order(first, second, order)

        assert visible_messages(stack) == malformed, order
        assert contents(stack, past.counter_id) == contents(stack, "twin"), order
        redriven = first.answer["redriven"] + second.answer["redriven"]
        assert redriven >= 3 if twice else redriven == 3, order
        for _ in malformed:
            (message,) = stack.sqs.receive_message(QueueUrl=stack.refs[DEAD_LETTERS])["Messages"]
            stack.sqs.delete_message(
                QueueUrl=stack.refs[DEAD_LETTERS], ReceiptHandle=message["ReceiptHandle"]
            )
