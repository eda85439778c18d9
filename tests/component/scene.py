"""The stack in simulated time. A test plans which fault, if any, each request to AWS meets.

Waiting takes no real time. Timeouts are exact to the millisecond.
"""

import importlib
import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn
from unittest.mock import patch

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ReadTimeoutError
from tests import conformance
from tests.component.simulation import BEGINNING, Stream
from tests.past import Past
from tests.proxy import ALL_RIGHTS, TIMEOUT, Context, proxy_event
from tests.stack import Stack
from tests.wire import (
    Fault,
    Killed,
    Wire,
    connection_lost,
    delivered,
    reply_lost,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock
from counters.clients import ATTEMPT

LATEST = TIMEOUT - ATTEMPT  # latest start of a request, in seconds after the invocation began


def slow(request: AWSPreparedRequest) -> AWSResponse:
    """Apply the request, and answer just before the client's read timeout."""
    return delivered(request)


def throttled_slowly(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request after 0.3 seconds."""
    return throttled(request)


# How many seconds a request takes if it meets this fault. All times are within the timeouts in
# counters.clients.
SECONDS: dict[Fault, float] = {
    slow: 1.9,
    throttled_slowly: 0.3,
    reply_lost: 2.0,
    request_lost: 2.0,
    connection_lost: 0.5,
    unreachable: 1.0,
}
QUICK = 0.005  # seconds that any other request takes


@dataclass
class Invocation:
    """One invocation of a function.

    Attributes:
        began: when the invocation began, in simulated seconds since the epoch.
        requests: the operation of each request to AWS, and the fault that the request met.
        times: when each of the requests was sent, in simulated seconds since the epoch.
        answer: the function's return value; None if the function was killed.
        ended: when the invocation ended, in simulated seconds since the epoch.
    """

    context: Context
    began: float
    requests: list[tuple[str, Fault]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    answer: dict[str, Any] | None = None
    ended: float = 0.0

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
        """The last part of the problem's `type`; empty if the answer reports no problem."""
        return str(self.body.get("type", "")).rpartition(":")[2]

    @property
    def replayed(self) -> bool:
        return self.headers.get("Idempotent-Replayed") == "true"

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.requests]


class Scene:
    """The stack in simulated time.

    Attributes:
        time: the simulated time, in seconds since the epoch.
        skew: how many seconds the functions' clock is ahead of `time`.
        choose_fault: chooses a fault for each request for which the test has planned no fault. It
            takes the request's operation, and returns the fault.
    """

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire
        self.time = BEGINNING
        self.skew = 0.0
        self.choose_fault: Callable[[str], Fault] = lambda _operation: delivered
        # The running invocations. Each invocation runs while a request of the invocation before it
        # in this list is under way.
        self._invocations: list[Invocation] = []
        self.stream = Stream(stack, wire)
        self._delayed: list[tuple[float, AWSPreparedRequest]] = []

    @contextmanager
    def running(self) -> Iterator["Scene"]:
        """Let the functions use the simulated time, and send their requests through the scene."""
        with (
            patch.object(clock, "now", lambda: self.time + self.skew),
            patch.object(clock, "sleep", self.advance),
            patch.object(self.wire, "through", self._carry),
        ):
            logging.disable()  # logging takes a fifth of the CPU time
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
        """Send a request about one counter to the function of its route."""
        return self.send(method, f"/counters/{counter}", body, headers, caller)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        caller: str = "somebody",
    ) -> Invocation:
        """Send a request to the function of its route.

        If the function takes longer than its timeout, the invocation has no answer.
        """
        function, route, parameters = self.stack.route(method, path)
        text = b"" if body is None else json.dumps(body).encode()
        event = proxy_event(
            route, path, parameters, "", headers or {}, text, ALL_RIGHTS | {"sub": caller}
        )
        invocation = Invocation(Context(function.name), self.time)
        handler = importlib.import_module(function.module).handler
        self._invocations.append(invocation)
        try:
            with self.stack.in_environment(function):
                answer = handler(event, invocation.context)
            conformance.check_answer(event, answer)
            if clock.now() < invocation.context.deadline:
                invocation.answer = answer
        except Killed:
            pass
        finally:
            self._invocations.pop()
        invocation.ended = self.time
        return invocation

    def add(
        self,
        counter: str,
        by: int = 1,
        key: str | None = None,
        bounds: Mapping[str, int] | None = None,
    ) -> Invocation:
        """Send an increment of one counter to the function IncrementCounter."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.call("POST", counter, {"by": by, **(bounds or {})}, headers)

    def plan(self, operation: str, *faults: Fault) -> None:
        """Plan the faults that the next requests for an operation meet, in order."""
        self.plan_each(operation, faults)

    def plan_each(self, operation: str, faults: Iterable[Fault]) -> None:
        """Plan the faults that the next requests for an operation meet, in order.

        Each request takes its fault from `faults` at the time of the request.
        """
        self.wire.fail(operation, (partial(self._meet, fault) for fault in faults))

    def advance(self, seconds: float) -> None:
        """Advance the time. Apply the delayed requests that are due by the new time."""
        self.time += seconds
        while self._delayed and self._delayed[0][0] <= self.time:
            _, request = self._delayed.pop(0)
            delivered(request)
            self.stream.capture(request)

    def lost_and_applied_later(self, request: AWSPreparedRequest, seconds: float) -> NoReturn:
        """Apply the request `seconds` later. The sender of the request sees only a read timeout."""
        self.apply_later(request, seconds)
        raise ReadTimeoutError(endpoint_url=request.url)

    def apply_later(self, request: AWSPreparedRequest, seconds: float) -> None:
        """Apply the request `seconds` later."""
        self._delayed.append((self.time + seconds, request))
        self._delayed.sort(key=lambda entry: entry[0])

    def delayed_requests(self) -> int:
        """Return the number of delayed requests that are not applied yet."""
        return len(self._delayed)

    def begin(self, past: Past) -> None:
        """Store a counter and its history."""
        with patch.object(self.wire, "through", delivered):
            past.record(self.stack)
        self.stream.begin(past.item)

    def record(self, *, without: int | None = None) -> None:
        """Write all waiting changes to the history, except the change with version `without`."""
        self.stream.record(without=without)

    def empty(self) -> None:
        """Empty the tables."""
        self.stack.empty_tables()
        self.stream.forget()

    def delete(self, counter: str) -> None:
        """Delete a counter's item. Tally never does this, but an operator can do it by hand."""
        key = {"counter_id": {"S": counter}}
        self.stack.dynamodb.delete_item(TableName=self.stack.refs["CounterTable"], Key=key)

    def value(self, counter: str) -> int:
        """Return a counter's stored value; 0 if the counter does not exist."""
        item = self.stack.item("CounterTable", counter)
        return int(item["value"]["N"]) if item else 0

    def receipts(self) -> int:
        return len(self.stack.items("ReceiptTable"))

    def _carry(self, request: AWSPreparedRequest) -> AWSResponse:
        return self._meet(self.choose_fault(_operation(request)), request)

    def _meet(self, fault: Fault, request: AWSPreparedRequest) -> AWSResponse:
        invocation = self._invocations[-1]
        if clock.now() >= invocation.context.deadline:
            raise Killed
        invocation.requests.append((_operation(request), fault))
        invocation.times.append(self.time)
        try:
            return fault(request)
        finally:
            self.stream.capture(request)
            self.advance(SECONDS.get(fault, QUICK))


def _operation(request: AWSPreparedRequest) -> str:
    target = request.headers["X-Amz-Target"]
    text = target.decode() if isinstance(target, bytes) else str(target)
    return text.rpartition(".")[2]


def one_of(faults: Sequence[Fault], source: random.Random) -> Callable[[str], Fault]:
    """Return a function for `choose_fault` that chooses one of these faults at random."""
    return lambda _operation: source.choice(faults)
