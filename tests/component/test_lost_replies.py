"""What becomes of a change if replies are lost: each rule, planned, and thousands at random.

Time is simulated, so that waiting costs nothing and timeouts can be told to the millisecond.
"""

import heapq
import importlib
import itertools
import json
import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn
from unittest.mock import patch

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ReadTimeoutError
from tests.component.simulation import BEGINNING, Killed, dies, dies_after
from tests.proxy import TIMEOUT, Context, proxy_event
from tests.sizes import cases
from tests.stack import Stack, StreamRecord
from tests.wire import (
    Fault,
    Wire,
    conflict,
    connection_lost,
    delivered,
    internal_error,
    refused_internally,
    reply_lost,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock, idempotency
from counters.clients import ATTEMPT

HOUR = 3600.0  # seconds
LATEST = TIMEOUT - ATTEMPT  # seconds into an invocation: no call begins later

LOST = [reply_lost, connection_lost, internal_error]  # applied, and the reply does not say so
REFUSED = [throttled, conflict, unreachable]  # certainly not applied


def slow(request: AWSPreparedRequest) -> AWSResponse:
    """Answer in time, but only just."""
    return delivered(request)


def throttled_slowly(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request, but take a while for it."""
    return throttled(request)


# How long the caller waits for what comes of a request, in seconds: at most the timeouts of
# counters.clients.
SECONDS: dict[Fault, float] = {
    slow: 1.9,
    throttled_slowly: 0.3,
    reply_lost: 2.0,
    request_lost: 2.0,
    connection_lost: 0.5,
    unreachable: 1.0,
}
QUICK = 0.005


@dataclass
class Invocation:
    """One invocation of a function: what it asked the database for, and what it answered."""

    context: Context
    began: float
    asked: list[tuple[str, Fault]] = field(default_factory=list)  # and what that met
    times: list[float] = field(default_factory=list)  # when it asked
    answer: dict[str, Any] | None = None  # None: it was killed
    over: float = 0.0

    @property
    def status(self) -> int:
        return int(self.answer["statusCode"]) if self.answer else 0

    @property
    def text(self) -> str:
        return str(self.answer["body"]) if self.answer else ""

    @property
    def body(self) -> dict[str, Any]:
        return dict(json.loads(self.text)) if self.text else {}

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.answer["headers"]) if self.answer else {}

    @property
    def problem(self) -> str:
        """The last part of the problem's type; nothing, if there is none."""
        return str(self.body.get("type", "")).rpartition(":")[2]

    @property
    def replayed(self) -> bool:
        return self.headers.get("Idempotent-Replayed") == "true"

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.asked]


class Scene:
    """The stack in simulated time: what each request of a function meets, and what it changes."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire
        self.time = BEGINNING
        self.skew = 0.0  # seconds by which the clock of the next functions is fast
        self.chance: Callable[[str], Fault] = lambda _operation: delivered
        self._invocations: list[Invocation] = []  # the last runs, those before it wait for it
        self._counters: dict[str, dict[str, Any]] = {}
        self._unrecorded: list[StreamRecord] = []
        self._under_way: list[tuple[float, AWSPreparedRequest]] = []

    @contextmanager
    def running(self) -> Iterator["Scene"]:
        """Let this scene's time and requests be those of the code."""
        with (
            patch.object(clock, "now", lambda: self.time + self.skew),
            patch.object(clock, "sleep", self.advance),
            patch.object(self.wire, "through", self._carry),
        ):
            logging.disable()  # it takes a fifth of the time, and nobody reads it
            try:
                yield self
            finally:
                logging.disable(logging.NOTSET)

    def call(
        self,
        method: str,
        counter: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        caller: str = "somebody",
    ) -> Invocation:
        """Return what a function made of a request for a counter."""
        return self.send(method, f"/counters/{counter}", body, headers, caller)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        caller: str = "somebody",
    ) -> Invocation:
        """Return what a function made of a request; past its timeout it has made nothing of it."""
        function, route, parameters = self.stack.route(method, path)
        text = b"" if body is None else json.dumps(body).encode()
        event = proxy_event(route, path, parameters, "", headers or {}, text, {"sub": caller})
        invocation = Invocation(Context(function.name), self.time)
        handler = importlib.import_module(function.module).handler
        self._invocations.append(invocation)
        try:
            with patch.dict(os.environ, self.stack.environment(function)):
                answer = handler(event, invocation.context)
            if clock.now() < invocation.context.deadline:
                invocation.answer = answer
        except Killed:
            pass
        finally:
            self._invocations.pop()
        invocation.over = self.time
        return invocation

    def add(
        self,
        counter: str,
        by: int = 1,
        key: str | None = None,
        bounds: Mapping[str, int] | None = None,
    ) -> Invocation:
        """Return what IncrementCounter made of an increment."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.call("POST", counter, {"by": by, **(bounds or {})}, headers)

    def plan(self, operation: str, *faults: Fault) -> None:
        """Let the next requests for an operation meet these, one each; those behind, nothing."""
        self.plan_each(operation, faults)

    def plan_each(self, operation: str, faults: Iterable[Fault]) -> None:
        """Let the next requests for an operation meet these; each is taken when it is needed."""
        self.wire.fail(operation, (partial(self._meet, fault) for fault in faults))

    def advance(self, seconds: float) -> None:
        """Let time pass; what was held up arrives."""
        self.time += seconds
        while self._under_way and self._under_way[0][0] <= self.time:
            _, request = self._under_way.pop(0)
            delivered(request)
            self._note(request)

    def held_up(self, request: AWSPreparedRequest, seconds: float) -> NoReturn:
        """Let the request arrive later, when the caller has given it up."""
        self.hold_up(request, seconds)
        raise ReadTimeoutError(endpoint_url=request.url)

    def hold_up(self, request: AWSPreparedRequest, seconds: float) -> None:
        """Let the request be applied later."""
        self._under_way.append((self.time + seconds, request))
        self._under_way.sort(key=lambda entry: entry[0])

    def under_way(self) -> int:
        """Return how many requests are still to be applied."""
        return len(self._under_way)

    def record(self, *, without: int | None = None) -> None:
        """Write the changes into the history; that to the version `without` is parked."""
        records = [
            record
            for record in self._unrecorded
            if int(record["dynamodb"]["NewImage"]["version"]["N"]) != without
        ]
        self._unrecorded.clear()
        if records:
            with patch.object(self.wire, "through", delivered):
                assert self.stack.record(records) == len(records)

    def value(self, counter: str) -> int:
        """Return the counter's value as it is stored; 0 if it is not there."""
        item = self._read(counter)
        return int(item["value"]["N"]) if item else 0

    def receipts(self) -> int:
        return len(self.stack.items("ReceiptTable"))

    def _carry(self, request: AWSPreparedRequest) -> AWSResponse:
        return self._meet(self.chance(_operation(request)), request)

    def _meet(self, fault: Fault, request: AWSPreparedRequest) -> AWSResponse:
        invocation = self._invocations[-1]
        if clock.now() >= invocation.context.deadline:
            raise Killed
        invocation.asked.append((_operation(request), fault))
        invocation.times.append(self.time)
        try:
            return fault(request)
        finally:
            self._note(request)
            self.advance(SECONDS.get(fault, QUICK))

    def _note(self, request: AWSPreparedRequest) -> None:
        """Put what has become of the counters into their stream."""
        assert isinstance(request.body, bytes)
        asked = json.loads(request.body)
        updates = [write["Update"] for write in asked.get("TransactItems", [{"Update": asked}])]
        for update in updates:
            of_counter = update.get("TableName") == self.stack.refs["CounterTable"]
            if not of_counter or "UpdateExpression" not in update:
                continue
            counter = update["Key"]["counter_id"]["S"]
            item, before = self._read(counter), self._counters.get(counter)
            if item is None or item == before:
                continue
            images = {"NewImage": item} | ({"OldImage": before} if before else {})
            self._counters[counter] = item
            self._unrecorded.append({"dynamodb": images})

    def _read(self, counter: str) -> Any:  # noqa: ANN401
        table = self.stack.refs["CounterTable"]
        key = {"counter_id": {"S": counter}}
        return self.stack.dynamodb.get_item(TableName=table, Key=key).get("Item")


def _operation(request: AWSPreparedRequest) -> str:
    target = request.headers["X-Amz-Target"]
    text = target.decode() if isinstance(target, bytes) else str(target)
    return text.rpartition(".")[2]


@pytest.fixture
def scene(stack: Stack, wire: Wire) -> Iterator[Scene]:
    with Scene(stack, wire).running() as scene:
        yield scene


def one_of(faults: Sequence[Fault], source: random.Random) -> Callable[[str], Fault]:
    """Return the chance that every request meets one of the faults."""
    return lambda _operation: source.choice(faults)


def meanwhile(action: Callable[[], object], fault: Fault = delivered) -> Fault:
    """Return the fault before which something else happens."""

    def after(request: AWSPreparedRequest) -> AWSResponse:
        action()
        return fault(request)

    return after


# --- One change ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", REFUSED)
def test_what_was_certainly_not_applied_is_repeated_and_counts_once(
    scene: Scene, fault: Fault
) -> None:
    scene.plan("UpdateItem", fault, fault, fault)

    reply = scene.add("hits", 5)

    assert reply.status == 200
    assert (reply.body["value"], reply.body["version"]) == (5, 1)
    assert reply.operations() == ["UpdateItem"] * 4
    assert scene.value("hits") == 5


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_reply_of_what_was_applied_is_answered_as_if_nothing_had_happened(
    scene: Scene, fault: Fault
) -> None:
    scene.add("hits", 2)
    scene.plan("UpdateItem", fault)

    reply = scene.add("hits", 5)

    assert reply.status == 200
    assert (reply.body["value"], reply.body["version"]) == (7, 2)
    assert reply.headers["ETag"] == '"2"'
    assert reply.operations() == ["UpdateItem", "BatchGetItem"]
    assert scene.value("hits") == 7


@pytest.mark.parametrize("fault", LOST)
def test_after_a_lost_reply_a_condition_is_not_refused_by_the_change_itself(
    scene: Scene, fault: Fault
) -> None:
    scene.add("hits", 2)
    scene.plan("UpdateItem", fault)

    reply = scene.call("PUT", "hits", {"value": 5}, {"If-Match": '"1"'})

    assert reply.status == 200
    assert (reply.body["value"], reply.body["version"]) == (5, 2)
    assert reply.operations() == ["UpdateItem", "BatchGetItem"]


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_reply_is_found_in_the_history_if_others_have_changed_the_counter_since(
    scene: Scene, fault: Fault
) -> None:
    scene.add("hits", 2)

    def others() -> None:
        for _ in range(3):
            scene.add("hits", 100)
        scene.record()

    scene.plan("UpdateItem", fault)
    scene.plan("BatchGetItem", meanwhile(others))

    reply = scene.add("hits", 5)

    assert reply.status == 200
    assert (reply.body["value"], reply.body["version"]) == (7, 2)
    assert reply.operations().count("UpdateItem") == 1
    assert scene.value("hits") == 307


def test_a_lost_reply_is_found_in_the_history_when_that_has_caught_up(scene: Scene) -> None:
    scene.plan("UpdateItem", connection_lost)
    scene.plan(
        "BatchGetItem",
        meanwhile(lambda: scene.add("hits", 100)),
        delivered,
        meanwhile(scene.record),
    )

    reply = scene.add("hits", 5)

    assert (reply.status, reply.body.get("value"), reply.body.get("version")) == (200, 5, 1)
    assert reply.operations().count("BatchGetItem") == 3
    assert scene.value("hits") == 105


@pytest.mark.parametrize("fault", [request_lost, refused_internally, internal_error])
@pytest.mark.parametrize("versions", [0, 1, 40])
def test_a_change_that_may_still_be_made_is_looked_for_and_not_sent_again(
    scene: Scene, versions: int, fault: Fault
) -> None:
    for _ in range(versions):
        scene.add("hits", 1)
    scene.record()
    scene.advance(HOUR)
    scene.plan("UpdateItem", fault)
    # Another change hides it in the counter, and the history is late.
    scene.plan("BatchGetItem", meanwhile(lambda: scene.add("hits", 100)))

    reply = scene.add("hits", 5)

    assert (reply.status, reply.problem) == (503, "outcome-unknown")
    assert "Idempotency-Key" in reply.body["detail"]
    assert reply.operations().count("UpdateItem") == 1
    assert reply.operations().count("BatchGetItem") > 1
    assert scene.value("hits") == versions + 100 + (5 if fault is internal_error else 0)


@pytest.mark.parametrize("fault", [throttled, conflict, unreachable])
def test_nothing_is_sent_after_a_500_whatever_came_before_it(scene: Scene, fault: Fault) -> None:
    scene.plan("UpdateItem", fault, refused_internally)

    reply = scene.add("hits", 5)

    assert (reply.status, reply.problem) == (503, "outcome-unknown")
    assert reply.operations().count("UpdateItem") == 2
    assert scene.value("hits") == 0


def test_a_request_that_arrives_late_is_found(scene: Scene) -> None:
    scene.plan("UpdateItem", partial(scene.held_up, seconds=1.0))

    reply = scene.add("hits", 5)

    assert (reply.status, reply.body["value"]) == (200, 5)
    assert reply.operations().count("UpdateItem") == 1


def test_a_request_that_arrives_after_the_answer_has_been_said_to_be_unknown(
    scene: Scene,
) -> None:
    scene.plan("UpdateItem", partial(scene.held_up, seconds=9.0))

    reply = scene.add("hits", 5)

    assert (reply.status, reply.problem) == (503, "outcome-unknown")
    assert scene.value("hits") == 0
    scene.advance(9.0)
    assert scene.value("hits") == 5


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_never_taken_is_not_applied_and_said_so(scene: Scene, fault: Fault) -> None:
    scene.chance = lambda _operation: fault

    reply = scene.add("hits")

    assert (reply.status, reply.problem) == (503, "throttled")
    assert reply.headers["Retry-After"] == "1"
    assert reply.operations().count("UpdateItem") > 3
    assert scene.value("hits") == 0


@pytest.mark.parametrize("fault", [*LOST, request_lost, refused_internally])
def test_the_sdk_repeats_no_change(scene: Scene, fault: Fault) -> None:
    scene.plan("UpdateItem", fault)

    reply = scene.add("hits")

    assert reply.operations()[:2] == ["UpdateItem", "BatchGetItem"]


def test_no_call_begins_that_could_not_end_in_time(scene: Scene) -> None:
    faults = [slow, reply_lost, request_lost, throttled, unreachable, refused_internally]
    for seed in range(cases(100, part=25)):
        source = random.Random(seed)
        random.seed(seed)  # the code's own jitter
        counter = f"hits{seed}"
        scene.chance = lambda _operation: delivered
        for _ in range(3):
            scene.add(counter)
        scene.record()
        scene.chance = one_of(faults, source)
        for number in range(10):
            reply = scene.add(counter, 1, f"key{number // 3}" if seed % 2 else None)
            assert reply.answer, f"seed {seed}: killed at its timeout: {reply.asked}"
            assert max(reply.times) < reply.began + LATEST, f"seed {seed}: {reply.asked}"
            scene.advance(source.choice([0, 5, 25]))


# --- Once a key ----------------------------------------------------------------------------------


def test_a_repeat_gets_the_original_answer_to_the_letter(scene: Scene) -> None:
    scene.add("hits", 2)
    first = scene.add("hits", 5, "key")
    assert first.operations() == ["PutItem", "UpdateItem"]
    assert (first.status, first.replayed) == (200, False)

    scene.advance(3.0)
    at_once = scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.advance(23 * HOUR)
    much_later = scene.add("hits", 5, "key")

    for repeat in (at_once, much_later):
        assert (repeat.status, repeat.replayed) == (200, True)
        assert (repeat.text, repeat.headers["ETag"]) == (first.text, first.headers["ETag"])
    assert much_later.operations() == ["PutItem"]  # the outcome is in the receipt
    assert scene.value("hits") == 107


def test_a_repeat_gets_the_original_answer_from_the_history(scene: Scene) -> None:
    scene.add("hits", 2)
    first = scene.add("hits", 5, "key")
    scene.call("PUT", "hits", {"value": 1000})
    scene.record()
    scene.advance(20 * HOUR)

    repeat = scene.add("hits", 5, "key")

    assert (repeat.status, repeat.replayed) == (200, True)
    assert (repeat.text, repeat.headers["ETag"]) == (first.text, first.headers["ETag"])
    assert "Query" in repeat.operations()
    assert scene.value("hits") == 1000


@pytest.mark.parametrize("fault", [*LOST, dies_after])
def test_a_repeat_after_a_lost_answer_counts_nothing(scene: Scene, fault: Fault) -> None:
    scene.plan("UpdateItem", fault)
    scene.add("hits", 5, "key")

    repeat = scene.add("hits", 5, "key")

    assert (repeat.status, repeat.body["value"], repeat.replayed) == (200, 5, True)
    assert scene.value("hits") == 5


@pytest.mark.parametrize("fault", [*LOST, *REFUSED, request_lost, refused_internally])
@pytest.mark.parametrize("operation", ["PutItem", "BatchGetItem", "Query", "UpdateItem"])
def test_a_fault_of_any_request_of_a_repeat_changes_no_answer(
    scene: Scene, operation: str, fault: Fault
) -> None:
    first = scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.record()
    scene.plan(operation, fault)

    repeats = [scene.add("hits", 5, "key") for _ in range(3)]

    assert repeats[0].asked.count((operation, fault)) == 1
    assert [repeat.text for repeat in repeats] == [first.text] * 3
    assert scene.value("hits") == 105


@pytest.mark.parametrize("fault", [*LOST, *REFUSED, request_lost, refused_internally])
def test_a_fault_of_the_receipt_does_not_keep_the_change_from_being_made_once(
    scene: Scene, fault: Fault
) -> None:
    scene.plan("PutItem", fault)

    first = scene.add("hits", 5, "key")

    assert (first.status, first.body["value"], first.replayed) == (200, 5, False)
    assert first.operations() == ["PutItem", "PutItem", "UpdateItem"]
    assert scene.receipts() == 1


def test_a_key_with_another_body_is_refused(scene: Scene) -> None:
    first = scene.add("hits", 5, "key")

    others = [scene.add("hits", 6, "key"), scene.add("hits", 5, "key", {"max": 50})]

    for other in others:
        assert (other.status, other.problem) == (422, "idempotency-key-reused")
    assert scene.value("hits") == 5
    assert scene.add("hits", 5, "key").text == first.text


def test_the_same_body_in_other_words_is_the_same(scene: Scene) -> None:
    headers = {"Idempotency-Key": "key"}
    bodies: list[dict[str, object] | None] = [None, {}, {"by": 1}]
    first, *repeats = [scene.call("POST", "hits", body, headers) for body in bodies]

    assert [repeat.text for repeat in repeats] == [first.text] * 2
    assert scene.value("hits") == 1


def test_a_key_is_of_its_caller_and_its_counter(scene: Scene) -> None:
    headers = {"Idempotency-Key": "key"}
    replies = [
        scene.call("POST", "hits", {"by": 1}, headers, "one"),
        scene.call("POST", "hits", {"by": 2}, headers, "another"),
        scene.call("POST", "misses", {"by": 3}, headers, "one"),
    ]

    assert [(reply.status, reply.replayed) for reply in replies] == [(200, False)] * 3
    assert (scene.value("hits"), scene.value("misses")) == (3, 3)


@pytest.mark.parametrize(
    ("bare", "quoted"), [("key", '"key"'), ("a\\b", '"a\\\\b"'), ('a"b', '"a\\"b"')]
)
def test_a_key_is_the_same_bare_and_quoted(scene: Scene, bare: str, quoted: str) -> None:
    first = scene.add("hits", 1, bare)
    repeat = scene.add("hits", 1, quoted)

    assert (repeat.replayed, repeat.text) == (True, first.text)
    assert scene.value("hits") == 1


def test_a_refused_change_leaves_no_receipt_and_the_key_may_succeed_later(
    scene: Scene,
) -> None:
    scene.add("hits", 9)

    refused = scene.add("hits", 2, "key", {"max": 10})

    assert (refused.status, refused.problem, refused.body["value"]) == (409, "bound-exceeded", 9)
    assert scene.receipts() == 0
    scene.call("PUT", "hits", {"value": 8})
    later = scene.add("hits", 2, "key", {"max": 10})
    assert (later.status, later.body["value"], later.replayed) == (200, 10, False)
    assert scene.add("hits", 2, "key", {"max": 10}).text == later.text


@pytest.mark.parametrize("fault", [throttled, throttled_slowly])
def test_what_was_never_taken_leaves_no_receipt(scene: Scene, fault: Fault) -> None:
    for number in range(20):  # the last attempt of each comes at another moment
        scene.plan("UpdateItem", *[fault] * 100)

        reply = scene.add("hits", 5, f"key-{number}")

        assert (reply.status, reply.problem) == (503, "throttled")
        assert scene.receipts() == 0
    scene.plan("UpdateItem")
    assert scene.add("hits", 5, "key-0").body["value"] == 5


@pytest.mark.parametrize("fault", [*REFUSED, request_lost, refused_internally])
def test_a_key_whose_receipt_outlived_a_refusal_is_free_when_the_window_is_over(
    scene: Scene, fault: Fault
) -> None:
    scene.add("hits", 9)
    scene.advance(HOUR)
    began = scene.time
    scene.plan("DeleteItem", fault)
    refused = scene.add("hits", 2, "key", {"max": 10})
    assert refused.problem == "bound-exceeded"
    assert scene.receipts() == 1
    scene.call("PUT", "hits", {"value": 8})
    scene.record()

    told = scene.add("hits", 2, "key", {"max": 10})
    assert (told.status, told.problem) == (409, "in-progress")
    wait = int(told.headers["Retry-After"])
    assert began + clock.APPLY_WINDOW <= scene.time + wait < began + clock.APPLY_WINDOW + 2

    scene.advance(wait)
    later = scene.add("hits", 2, "key", {"max": 10})
    assert (later.status, later.body["value"], later.replayed) == (200, 10, False)


def test_an_attempt_that_died_before_its_change_is_taken_over_when_its_window_is_over(
    scene: Scene,
) -> None:
    scene.plan("UpdateItem", dies)
    assert scene.add("hits", 5, "key").answer is None

    told = scene.add("hits", 5, "key")
    assert (told.status, told.problem) == (409, "in-progress")

    scene.advance(int(told.headers["Retry-After"]))
    later = scene.add("hits", 5, "key")
    assert (later.status, later.body["value"], later.replayed) == (200, 5, False)
    assert scene.add("hits", 5, "key").text == later.text
    assert scene.value("hits") == 5


def test_a_change_that_arrives_within_the_window_of_the_dead_is_found(scene: Scene) -> None:
    scene.plan("UpdateItem", partial(scene.held_up, seconds=15.0))
    assert scene.add("hits", 5, "key").problem == "outcome-unknown"

    told = scene.add("hits", 5, "key")
    assert (told.status, told.problem) == (409, "in-progress")
    assert scene.value("hits") == 0
    scene.advance(int(told.headers["Retry-After"]))

    repeat = scene.add("hits", 5, "key")
    assert (repeat.status, repeat.body["value"], repeat.replayed) == (200, 5, True)
    assert scene.value("hits") == 5


@pytest.mark.parametrize("applied", [True, False])
def test_as_long_as_the_history_is_late_nothing_is_guessed(scene: Scene, applied: bool) -> None:  # noqa: FBT001
    scene.add("hits", 1)
    scene.record()
    scene.plan("UpdateItem", dies_after if applied else dies)
    scene.add("hits", 5, "key")
    scene.add("hits", 100)

    for hours in (0, 1, 20):
        scene.advance(hours * HOUR)
        told = scene.add("hits", 5, "key")
        assert (told.status, told.problem) == (409, "in-progress")
        assert 1 <= int(told.headers["Retry-After"]) <= clock.APPLY_WINDOW
    scene.record()

    repeat = scene.add("hits", 5, "key")
    assert (repeat.status, repeat.body["version"]) == (200, 2 if applied else 3)
    assert repeat.replayed == applied
    assert scene.value("hits") == 106


@pytest.mark.parametrize("applied", [True, False])
def test_where_an_entry_is_missing_nothing_is_ever_guessed(scene: Scene, applied: bool) -> None:  # noqa: FBT001
    scene.add("hits", 1)
    scene.plan("UpdateItem", dies_after if applied else dies)
    scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.add("hits", 100)
    before = scene.value("hits")
    scene.record(without=2)

    for hours in (0, 1, 22):
        scene.advance(hours * HOUR)
        scene.add("hits", 100)
        before += 100
        scene.record()
        told = scene.add("hits", 5, "key")
        assert (told.status, told.problem) == (409, "in-progress")
    assert scene.value("hits") == before


def test_a_missing_entry_from_before_the_attempt_is_in_nobodys_way(scene: Scene) -> None:
    for _ in range(5):
        scene.add("hits", 1)
    scene.record(without=3)
    scene.advance(HOUR)
    scene.plan("UpdateItem", dies)
    scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.record()
    scene.advance(clock.APPLY_WINDOW + 1)

    reply = scene.add("hits", 5, "key")

    assert (reply.status, reply.body["value"], reply.replayed) == (200, 110, False)


def test_who_would_take_over_a_receipt_that_is_gone_by_then_begins_anew(scene: Scene) -> None:
    scene.add("hits", 9)
    scene.record()
    scene.plan("UpdateItem", dies)
    scene.add("hits", 2, "key", {"max": 10})
    scene.advance(clock.APPLY_WINDOW + 1)
    others: list[Invocation] = []

    def take_over() -> None:
        scene.plan("PutItem")
        others.append(scene.add("hits", 2, "key", {"max": 10}))

    scene.plan("PutItem", delivered, meanwhile(take_over))

    reply = scene.add("hits", 2, "key", {"max": 10})

    for refused in (*others, reply):
        assert (refused.status, refused.problem) == (409, "bound-exceeded")
    assert len(others) == 1
    assert scene.receipts() == 0
    assert scene.value("hits") == 9


@pytest.mark.parametrize("fault", [*REFUSED, request_lost, refused_internally])
def test_a_repeat_that_cannot_reach_the_receipt_says_nothing_of_the_first_request(
    scene: Scene, fault: Fault
) -> None:
    first = scene.add("hits", 5, "key")
    scene.plan("PutItem", *[fault] * 200)

    repeat = scene.add("hits", 5, "key")

    assert (repeat.status, repeat.problem) == (503, "outcome-unknown")
    assert "earlier one" in repeat.body["detail"]
    scene.plan("PutItem")
    assert scene.add("hits", 5, "key").text == first.text
    assert scene.value("hits") == 5


def test_a_key_is_not_applied_again_though_its_counter_was_deleted(scene: Scene) -> None:
    scene.add("hits", 100)
    scene.plan("UpdateItem", dies_after)
    scene.add("hits", 5, "key")
    scene.plan("UpdateItem", dies_after)
    scene.add("hits", 7, "another")
    scene.record()
    scene.stack.dynamodb.delete_item(
        TableName=scene.stack.refs["CounterTable"], Key={"counter_id": {"S": "hits"}}
    )
    scene.advance(clock.APPLY_WINDOW + 1)

    another, key = (scene.add("hits", by, key) for by, key in ((7, "another"), (5, "key")))

    assert (another.status, another.replayed, another.body["value"]) == (200, True, 112)
    assert (key.status, key.problem) == (409, "in-progress")
    assert scene.value("hits") == 0


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("recorded", [0, 3])
def test_the_history_of_a_counter_that_was_deleted_decides_nothing(
    scene: Scene,
    applied: bool,  # noqa: FBT001
    recorded: int,
) -> None:
    for _ in range(3):
        scene.add("hits")
    scene.record()
    scene.advance(HOUR)
    scene.stack.dynamodb.delete_item(
        TableName=scene.stack.refs["CounterTable"], Key={"counter_id": {"S": "hits"}}
    )
    scene.plan("UpdateItem", dies_after if applied else dies)
    scene.add("hits", 100, "key")
    for _ in range(1 + recorded):
        scene.add("hits")
    before = scene.value("hits")
    scene.record()  # the first versions are parked: their places are taken
    for _ in range(3):
        scene.advance(clock.APPLY_WINDOW + 1)
        told = scene.add("hits", 100, "key")
        assert (told.status, told.problem) == (409, "in-progress")
    assert scene.value("hits") == before


CLOCKS = [-2.5, 2.5]  # seconds: two clocks may differ by 5


@pytest.mark.parametrize("first", CLOCKS)
@pytest.mark.parametrize("repeat", CLOCKS)
@pytest.mark.parametrize("others", CLOCKS)
@pytest.mark.parametrize("arrives", [0.5, 9.0, 14.9])
def test_clocks_that_differ_apply_no_key_twice(
    scene: Scene, first: float, repeat: float, others: float, arrives: float
) -> None:
    scene.skew = others
    scene.add("hits", 100)
    scene.record()
    scene.advance(15.0)
    scene.skew = first
    began = scene.time
    scene.plan("UpdateItem", partial(scene.held_up, seconds=arrives))
    scene.add("hits", 5, "key")
    answers = []
    while scene.time < began + 60:
        scene.skew = others
        scene.add("hits", 100)
        scene.record()
        scene.skew = repeat
        answers.append(scene.add("hits", 5, "key"))
        scene.advance(0.9)
    scene.record()

    told = {answer.text for answer in answers if answer.status == 200}
    assert len(told) == 1
    assert {answer.status for answer in answers} <= {200, 409}
    assert scene.value("hits") % 100 == 5


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_a_key_holds_for_24_hours_and_then_counts_as_new(scene: Scene, fraction: float) -> None:
    scene.time += fraction
    began = scene.time
    first = scene.add("hits", 5, "key")
    scene.add("hits", 100)
    scene.record()
    for skew in (0.0, clock.CLOCK_DIFFERENCE):
        scene.skew = skew
        scene.time = began + 24 * HOUR - 0.002
        assert scene.add("hits", 5, "key").text == first.text
    scene.skew = 0.0

    scene.time = began + 24 * HOUR + clock.CLOCK_DIFFERENCE + 1.0  # the receipt is still there
    assert scene.receipts() == 1
    anew = scene.add("hits", 6, "key")

    assert (anew.status, anew.body["value"], anew.replayed) == (200, 111, False)
    scene.time = began + 47 * HOUR
    assert scene.add("hits", 6, "key").text == anew.text


# --- At random -----------------------------------------------------------------------------------

COUNTERS = [f"counter{n}" for n in range(8)]
READS = {"BatchGetItem", "Query"}

WEATHER: list[tuple[Fault, int]] = [
    (delivered, 52),
    (reply_lost, 25),
    (throttled, 16),
    (connection_lost, 2),
    (request_lost, 1),
    (internal_error, 2),
    (refused_internally, 2),
    (conflict, 2),
    (unreachable, 2),
]


class Storm:
    """Callers of 8 counters in a scene where every request may meet a fault.

    Now and then, one that asks what became of its change is held up, and `other` happens first;
    now and then the history is written.
    """

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.source = random.Random(seed)
        self.other: Callable[[], None] = lambda: None
        self.met: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._nested = False
        random.seed(seed)  # the code's own jitter
        scene.chance = self._chance

    def _chance(self, operation: str) -> Fault:
        asks = operation == "BatchGetItem"
        if asks and not self._nested and self.source.random() < 0.1:
            self._nested = True
            self.other()
            self._nested = False
        if self.source.random() < 0.2:
            self.scene.record()
        faults, weights = zip(*WEATHER, strict=True)
        fault: Fault = self.source.choices(faults, weights)[0]
        self.met[operation][getattr(fault, "__name__", "")] += 1
        if fault is reply_lost and operation in READS:
            return request_lost  # for a read that is the same, and moto is slow
        if fault is request_lost:  # some of the lost are only held up
            return partial(self.scene.held_up, seconds=self.source.uniform(0, 8))
        return fault

    def calm_down(self) -> None:
        """Let what is under way arrive, and all of it be in the history."""
        self.scene.chance = lambda _operation: delivered
        self.scene.advance(clock.APPLY_WINDOW)
        self.scene.record()

    def print_shares(self) -> None:
        """Print what the requests met, and make sure that it was enough."""
        for operation, met in sorted(self.met.items()):
            shares = {name: met[name] / met.total() for name in ("reply_lost", "throttled")}
            print(f"{operation}: {met.total()} requests, {shares}, {dict(met)}")
            if met.total() >= 100:  # fewer say little about shares
                assert shares["reply_lost"] >= 0.2
                assert shares["throttled"] >= 0.1

    def histories(self) -> dict[str, list[dict[str, Any]]]:
        """Return each counter's history, without gaps and adding up to the counter's value."""
        histories: dict[str, list[dict[str, Any]]] = {counter: [] for counter in COUNTERS}
        for item in self.scene.stack.items("HistoryTable"):
            entry: dict[str, Any] = {
                name: int(value["N"]) if "N" in value else value["S"]
                for name, value in item.items()
            }
            histories[entry["counter_id"]].append(entry)
        for counter, entries in histories.items():
            entries.sort(key=lambda entry: int(entry["version"]))
            value = 0
            for version, entry in enumerate(entries, 1):
                assert (entry["version"], entry["previous_value"]) == (version, value)
                value += entry["by"]
                assert entry["value"] == value
            assert self.scene.value(counter) == value
        return histories


@dataclass
class Wish:
    """What a caller wants applied once, and repeats until it is told what has become of it."""

    key: str
    counter: str
    by: int
    bounds: dict[str, int]
    tries: list[Invocation] = field(default_factory=list)

    def told(self) -> list[Invocation]:
        """Return the tries that were told what has become of it."""
        return [reply for reply in self.tries if _is_told(reply)]


def _is_told(reply: Invocation) -> bool:
    return reply.status == 200 or reply.problem == "bound-exceeded"


class Callers:
    """A dozen callers; each repeats a wish until it is told, then it has the next one."""

    def __init__(self, scene: Scene, source: random.Random, wishes: Sequence[Wish]) -> None:
        self._scene = scene
        self._source = source
        self._order = itertools.count()
        self._to_come = iter(wishes)
        self._waiting: list[tuple[float, int, Wish]] = []  # by the time of the next try
        for wish in itertools.islice(self._to_come, 12):
            self._wait(0, wish)

    def run(self) -> None:
        while self._waiting:
            self.next()

    def next(self) -> None:
        """Let the next try be made, if there is one."""
        if not self._waiting:
            return
        due, _, wish = heapq.heappop(self._waiting)
        self._scene.advance(max(0.0, due - self._scene.time))
        reply = self._scene.add(wish.counter, wish.by, wish.key, wish.bounds)
        assert _is_told(reply) or reply.status in {0, 409, 503}, reply.answer  # 0: killed
        wish.tries.append(reply)
        # Some ask again although they have their answer.
        if not _is_told(reply) or (reply.status == 200 and self._source.random() < 0.05):
            self._wait(int(reply.headers.get("Retry-After", "1")), wish)
        elif following := next(self._to_come, None):
            self._wait(0, following)

    def _wait(self, seconds: float, wish: Wish) -> None:
        due = self._scene.time + seconds + self._source.random()
        heapq.heappush(self._waiting, (due, next(self._order), wish))


def some_amount(source: random.Random) -> int:
    return source.choice([1, source.randint(1, 1000), -source.randint(1, 1000)])


KEYED = cases(5000, part=300)
WITHOUT_KEY = cases(3000, part=200)


def test_keyed_increments_count_exactly_once_each(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_PATIENCE", 0.0)  # to look again is for the callers
    storm = Storm(scene, seed=7)
    source = storm.source
    applied = [
        Wish(f"key{n}", source.choice(COUNTERS), some_amount(source), {}) for n in range(KEYED)
    ]
    refused = [
        Wish(f"bad{n}", source.choice(COUNTERS), some_amount(source), {"min": 10**12})
        for n in range(max(50, KEYED // 16))
    ]
    callers = Callers(scene, source, source.sample(applied + refused, len(applied + refused)))
    storm.other = callers.next

    callers.run()
    storm.calm_down()

    storm.print_shares()
    print_tries([wish.tries for wish in applied + refused])
    histories = storm.histories()
    assert sum(len(history) for history in histories.values()) == KEYED
    for counter in COUNTERS:
        assert scene.value(counter) == sum(wish.by for wish in applied if wish.counter == counter)
    versions = set()
    for wish in applied:
        (body,) = {reply.text for reply in wish.told()}  # the same to the letter
        answer = json.loads(body)
        entry = histories[wish.counter][answer["version"] - 1]
        assert (entry["by"], entry["value"]) == (wish.by, answer["value"])
        # It was made by one of this key's own tries.
        assert entry["request_id"] in {reply.context.aws_request_id for reply in wish.tries}
        versions.add((wish.counter, answer["version"]))
    assert len(versions) == KEYED
    for wish in refused:
        assert {reply.status for reply in wish.told()} == {409}


def print_tries(tries_of_each: Sequence[Sequence[Invocation]]) -> None:
    """Print what the tries came to, and make sure that the history knew some, and some not yet."""
    tries = [reply for tries in tries_of_each for reply in tries]
    answers = Counter(f"{reply.status} {reply.problem}".strip() for reply in tries)
    most = max(len(tries) for tries in tries_of_each)
    print(f"{len(tries)} requests, at most {most} with one key: {dict(answers)} (0: killed)")
    looked_up = [reply for reply in tries if "Query" in reply.operations()]
    found = sum(reply.status == 200 for reply in looked_up)
    replayed = sum(reply.replayed for reply in tries)
    print(f"{replayed} replayed; {len(looked_up)} asked the history, {found} then knew the answer")
    assert 0 < found < len(looked_up)


def test_increments_without_a_key_are_what_their_answers_say(scene: Scene) -> None:
    storm = Storm(scene, seed=3000)
    source = storm.source
    replies: list[tuple[str, int, Invocation]] = []

    def try_one() -> None:
        counter = source.choice(COUNTERS)
        by = some_amount(source)
        bounds = {"min": 10**12} if source.random() < 0.05 else {}
        replies.append((counter, by, scene.add(counter, by, bounds=bounds)))
        scene.advance(source.uniform(0, 1))

    storm.other = try_one
    while len(replies) < WITHOUT_KEY:
        try_one()
    storm.calm_down()

    storm.print_shares()
    entries = {
        entry["request_id"]: entry for history in storm.histories().values() for entry in history
    }
    answers: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    told = {"by reading back": 0, "through the history": 0}
    for counter, by, reply in replies:
        entry = entries.pop(reply.context.aws_request_id, None)
        answers[f"{reply.status} {reply.problem} {'applied' if entry else 'not applied'}"] += 1
        if reply.status == 200:
            assert entry
            assert reply.body == {
                "counter_id": counter,
                "value": entry["value"],
                "version": entry["version"],
                "created_at": entry["counter_created_at"],
                "updated_at": entry["created_at"],
            }
            changes = [fault for operation, fault in reply.asked if operation == "UpdateItem"]
            if changes[-1] is not delivered:
                way = "Query" in reply.operations()
                told["through the history" if way else "by reading back"] += 1
        elif reply.problem in {"throttled", "bound-exceeded"}:
            assert not entry
        else:
            assert reply.problem in {"outcome-unknown", ""}  # "": killed
        if entry:
            assert (entry["counter_id"], entry["by"]) == (counter, by)
            expected[counter] += by
    print(f"answers: {dict(answers)} (0: killed); lost replies resolved: {told}")
    assert not entries  # nobody else's
    assert {counter: scene.value(counter) for counter in COUNTERS} == expected
    assert min(told.values()) > 0
