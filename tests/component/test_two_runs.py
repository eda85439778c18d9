"""Two runs of AuditHistory, or of RedriveHistory, at the same time, in whatever order they go on.

`sam remote invoke` starts a function a second time when the first run takes over a minute.
"""

import importlib
import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.output import silence
from tests.contents import clear, delete_entries
from tests.past import Past
from tests.proxy import Context
from tests.sizes import FULL, cases
from tests.stack import Item, Stack
from tests.wire import Wire, delivered, reply_lost

from counters import clock, recording, store
from counters.errors import ThrottledError

HOUR, DAY = 3600, 24 * 3600  # seconds
BEGINNING = 1_795_341_600.0  # 2026-11-22T10:00:00Z
LATER = BEGINNING + 30 * DAY
DEAD_LETTERS = "HistoryDeadLetterQueue"

counter_ids = (f"counter{number}" for number in itertools.count())


class Run:
    """An invocation in a thread of its own, which stops before each of its requests."""

    def __init__(self, runs: "Runs", event: Mapping[str, Any]) -> None:
        self.event = event
        self.over = False
        self.answer: Any = None
        self._runs = runs
        self._error: BaseException | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def step(self) -> None:
        """Let it begin, or send its next request and go on to the one after that."""
        if self.over:
            return
        if self.thread.ident is None:
            self.thread.start()
        else:
            self._go.release()
        self._stopped.acquire()
        if self._error:
            raise self._error

    def finish(self) -> None:
        while not self.over:
            self.step()

    def stop(self) -> None:
        """Wait, in its own thread, until it is told to go on."""
        self._stopped.release()
        self._go.acquire()

    def _run(self) -> None:
        name, stack = self._runs.name, self._runs.stack
        deadline = clock.now() + stack.functions[name].timeout
        try:
            self.answer = self._runs.handler(self.event, Context(name, deadline=deadline))
        except BaseException as error:  # noqa: BLE001  it goes on in the test's thread
            self._error = error
        self.over = True
        self._stopped.release()


class Runs:
    """Runs of one function, which go on one request at a time."""

    def __init__(self, stack: Stack, wire: Wire, name: str) -> None:
        self.stack = stack
        self.wire = wire
        self.name = name
        self.handler = importlib.import_module(stack.functions[name].module).handler
        self.alter: Callable[[dict[str, Any]], dict[str, Any]] = lambda asked: asked
        self._runs: list[Run] = []

    def run(self, **event: object) -> Run:
        """Return a run that has not begun."""
        self._runs.append(Run(self, event))
        return self._runs[-1]

    @contextmanager
    def going(self) -> Iterator[None]:
        variables = self.stack.environment(self.stack.functions[self.name])
        through = patch.object(self.wire, "through", self._carry)
        with patch.dict("os.environ", variables), through, silence():
            yield

    def _carry(self, request: AWSPreparedRequest) -> AWSResponse:
        thread = threading.current_thread()
        for run in self._runs:
            if run.thread is thread:
                run.stop()
        assert isinstance(request.body, bytes)
        request.body = json.dumps(self.alter(json.loads(request.body))).encode()
        return delivered(request)


def go(first: Run, second: Run, order: Sequence[bool]) -> None:
    """Let two runs go on in an order, and then to their ends, the first one first."""
    for number in order:
        (second if number else first).step()
    first.finish()
    second.finish()


def orders(steps: int, *, alike: bool = False) -> Iterator[list[bool]]:
    """Yield orders in which one run stops at each step, and the other goes to its end or half-way.

    Others come by chance. If both runs do the same, it does not matter which of them stops.
    """
    first = range(1, steps + 1, cases(full=1, part=2 if alike else 3))
    for before, between in itertools.product(first, (2 * steps, steps // 2)[: cases(2, 1)]):
        yield [False] * before + [True] * between
        if FULL or not alike:
            yield [True] * before + [False] * between
    chance = random.Random(steps)
    for _ in range(cases(full=300, part=2)):
        yield [chance.random() < 0.5 for _ in range(2 * steps)]


def test_the_runs_take_turns(stack: Stack, wire: Wire) -> None:
    runs = Runs(stack, wire, "AuditHistory")
    first, second = runs.run(counter_id="orders"), runs.run(counter_id="orders")
    with runs.going():
        first.step()
        first.step()
        second.step()
        assert wire.operations() == ["GetItem"] * 3
        go(first, second, [])
    assert first.answer == second.answer
    assert first.answer["findings"] == []


# --- AuditHistory --------------------------------------------------------------------------------


@pytest.fixture
def _later(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001  it has a clock too
    monkeypatch.setattr(clock, "now", lambda: LATER)


def saved(stack: Stack, counter_id: str) -> dict[str, Any]:
    """Return what AuditTable holds of a counter, or of the way through all ("*")."""
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


STEPS = 8  # requests of an audit of one counter


@pytest.mark.usefixtures("_later")
def test_the_slower_of_two_audits_does_not_set_the_faster_back(stack: Stack, wire: Wire) -> None:
    for order in orders(STEPS, alike=True):
        past = ten_changes(next(counter_ids))
        past.record(stack)
        runs = Runs(stack, wire, "AuditHistory")
        first, second = (runs.run(counter_id=past.counter_id) for _ in range(2))
        with runs.going():
            for step, number in enumerate(order):
                if step == order.index(not order[0]):  # the other run begins
                    past.record(stack, [past.change(LATER, 1) for _ in range(3)])
                (second if number else first).step()
            reached = saved(stack, past.counter_id).get("version", 0)
            first.finish()
            second.finish()

        assert first.answer["findings"] == second.answer["findings"] == [], order
        state = saved(stack, past.counter_id)
        assert state["version"] >= reached, order
        last = max(run.answer["entries"] for run in (first, second))
        assert state["version"] >= last, order
        again = stack.invoke("AuditHistory", {"counter_id": past.counter_id})
        assert again["findings"] == []
        assert saved(stack, past.counter_id)["version"] == int(past.item["version"]["N"])


@pytest.mark.usefixtures("_later")
def test_a_version_accepted_during_an_audit_stays_accepted(stack: Stack, wire: Wire) -> None:
    for order in orders(STEPS):
        counter_id = next(counter_ids)
        ten_changes(counter_id).record(stack)
        delete_entries(stack, 5, counter_id=counter_id)
        runs = Runs(stack, wire, "AuditHistory")
        plain = runs.run(counter_id=counter_id)
        accepting = runs.run(counter_id=counter_id, after=6)
        with runs.going():
            go(plain, accepting, order)

        assert versions(accepting.answer) == [], order
        assert versions(plain.answer) in ([], [5]), order
        assert saved(stack, counter_id)["version"] == 10, order
        assert versions(stack.invoke("AuditHistory", {"counter_id": counter_id})) == []


@pytest.mark.parametrize("after", [None, 6])
@pytest.mark.usefixtures("_later")
def test_an_audit_that_can_never_save_does_not_claim_to_have_accepted_anything(
    stack: Stack, wire: Wire, after: int | None
) -> None:
    counter_id = next(counter_ids)
    ten_changes(counter_id).record(stack)
    delete_entries(stack, 5, counter_id=counter_id)
    event = {"counter_id": counter_id} | ({} if after is None else {"after": after})

    def forestalled(request: AWSPreparedRequest) -> AWSResponse:
        state = "{}" + " " * len(wire.sent)  # always another
        item: Item = {"counter_id": {"S": counter_id}, "state": {"S": state}}
        stack.dynamodb.put_item(TableName=stack.refs["AuditTable"], Item=item)
        return delivered(request)

    wire.fail("PutItem", itertools.repeat(forestalled))
    if after is None:
        assert versions(stack.invoke("AuditHistory", event)) == [5]
    else:
        with pytest.raises(ThrottledError, match=r"^after: other audits of this counter"):
            stack.invoke("AuditHistory", event)


@pytest.mark.usefixtures("_later")
def test_a_finding_of_one_audit_is_not_skipped_because_of_another(stack: Stack, wire: Wire) -> None:
    for order in orders(STEPS):
        past = ten_changes(next(counter_ids))
        past.record(stack)
        counter_id = past.counter_id
        stack.invoke("AuditHistory", {"counter_id": counter_id})
        delete_entries(stack, 5, counter_id=counter_id)
        past.record(stack, [past.change(BEGINNING + 7200, 1) for _ in range(3)])
        runs = Runs(stack, wire, "AuditHistory")
        plain, anew = runs.run(counter_id=counter_id), runs.run(counter_id=counter_id, after=0)
        with runs.going():
            go(plain, anew, order)

        assert versions(anew.answer) == [5], order
        assert versions(plain.answer) in ([], [5]), order
        assert saved(stack, counter_id)["version"] < 5, order
        assert versions(stack.invoke("AuditHistory", {"counter_id": counter_id})) == [5], order


@pytest.mark.usefixtures("_later")
def test_two_nightly_audits_at_once_have_the_effect_of_one(
    stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SCAN_SIZE", 2)
    names = [f"night{number}" for number in range(5)]
    for name in names:
        ten_changes(name).record(stack)
    delete_entries(stack, 5, counter_id="night3")
    chance = random.Random(5)
    for _ in range(cases(full=400, part=5)):
        clear(stack, "AuditTable")
        runs = Runs(stack, wire, "AuditHistory")
        first, second = runs.run(), runs.run()
        share = chance.random()
        order = [chance.random() < share for _ in range(chance.randrange(70))]
        with runs.going():
            go(first, second, order)

        found = [
            (each["counter_id"], each["version"])
            for run in (first, second)
            for each in run.answer["findings"]
        ]
        assert set(found) == {("night3", 5)}, order
        assert first.answer["finished"]
        assert second.answer["finished"]
        assert saved(stack, "*") == {"started_at": LATER}, order
        reached = {name: saved(stack, name)["version"] for name in names}
        assert reached.pop("night3") < 5, order
        assert set(reached.values()) == {10}, order


@pytest.mark.usefixtures("_later")
def test_a_finished_nightly_audit_is_not_reopened(
    stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SCAN_SIZE", 1)
    for number in range(3):
        ten_changes(f"night{number}").record(stack)
    for steps in range(2, 26, cases(full=1, part=8)):  # the first is to begin
        clear(stack, "AuditTable")
        runs = Runs(stack, wire, "AuditHistory")
        slow, fast = runs.run(), runs.run()
        with runs.going():
            for _ in range(steps):
                slow.step()
            fast.finish()
            while not slow.over:
                assert saved(stack, "*") == {"started_at": LATER}, steps
                slow.step()

        assert saved(stack, "*") == {"started_at": LATER}, steps
        assert slow.answer["findings"] == fast.answer["findings"] == []


@pytest.mark.usefixtures("_later")
def test_a_lost_reply_is_not_mistaken_for_another_audit(stack: Stack, wire: Wire) -> None:
    ten_changes("orders").record(stack)
    wire.sent.clear()
    wire.fail("PutItem", [reply_lost])

    answer = stack.invoke("AuditHistory", {"counter_id": "orders"})

    assert (answer["entries"], answer["findings"]) == (10, [])
    operations = wire.operations()
    assert operations.count("PutItem") == 2
    assert operations[-1] == "GetItem", "it looks, and does not begin again"
    assert saved(stack, "orders")["version"] == 10


# --- RedriveHistory ------------------------------------------------------------------------------


def parked_past(counter_id: str) -> Past:
    """Return changes of two hours, some of which are not understood."""
    past = Past(counter_id)
    for number, operation in enumerate("+*+*+*"):
        time = BEGINNING + number + (HOUR if number > 3 else 0)
        past.change(time, 10**number, "multiply" if operation == "*" else "increment")
    return past


def contents(stack: Stack, counter_id: str) -> dict[str, list[str]]:
    """Return what history and trend hold of a counter, whatever its name."""
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


def waiting(stack: Stack) -> list[str]:
    """Return the messages of the dead-letter queue that can be seen, which they stay."""
    messages = stack.sqs.receive_message(
        QueueUrl=stack.refs[DEAD_LETTERS], MaxNumberOfMessages=10, VisibilityTimeout=0
    ).get("Messages", [])
    return [message["Body"] for message in messages]


@pytest.mark.parametrize("twice", [False, True], ids=["each message once", "some messages twice"])
def test_two_redrives_at_once_have_the_effect_of_one(
    stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch, *, twice: bool
) -> None:
    def alter(asked: dict[str, Any]) -> dict[str, Any]:
        if "WaitTimeSeconds" in asked:
            asked["WaitTimeSeconds"] = 0
            asked["MaxNumberOfMessages"] = 1
            if twice:  # SQS may deliver a message more than once
                asked["VisibilityTimeout"] = 0
        return asked

    twin = parked_past("twin")
    known = Literal["increment", "set", "multiply"]
    with monkeypatch.context() as understood:
        understood.setattr(recording, "Operation", known)
        twin.record(stack)
    nonsense = [] if twice else ["nonsense"]  # received again and again, it would have no end
    for order in orders(10, alike=True):
        past = parked_past(next(counter_ids))
        past.record(stack)
        for body in nonsense:
            stack.sqs.send_message(QueueUrl=stack.refs[DEAD_LETTERS], MessageBody=body)
        runs = Runs(stack, wire, "RedriveHistory")
        runs.alter = alter
        first, second = runs.run(), runs.run()
        with monkeypatch.context() as understood, runs.going():
            understood.setattr(recording, "Operation", known)
            go(first, second, order)

        assert waiting(stack) == nonsense, order
        assert contents(stack, past.counter_id) == contents(stack, "twin"), order
        redriven = first.answer["redriven"] + second.answer["redriven"]
        assert redriven >= 3 if twice else redriven == 3, order
        for _ in nonsense:
            (message,) = stack.sqs.receive_message(QueueUrl=stack.refs[DEAD_LETTERS])["Messages"]
            stack.sqs.delete_message(
                QueueUrl=stack.refs[DEAD_LETTERS], ReceiptHandle=message["ReceiptHandle"]
            )
