"""The stack in simulated time: a test plans what each request to the database meets.

Waiting costs nothing, and timeouts are exact to the millisecond.
"""

import importlib
import json
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn
from unittest.mock import patch

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ReadTimeoutError
from tests.component.simulation import BEGINNING, Stream
from tests.past import Past
from tests.proxy import TIMEOUT, Context, proxy_event
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

HOUR = 3600.0  # seconds
LATEST = TIMEOUT - ATTEMPT  # seconds into an invocation: the latest start of a request


def slow(request: AWSPreparedRequest) -> AWSResponse:
    """Answer just before the read timeout."""
    return delivered(request)


def throttled_slowly(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request after a while."""
    return throttled(request)


# How long a request takes until it is answered or fails, in seconds: at most the timeouts in
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
    """One invocation of a function: its requests to the database, and its answer."""

    context: Context
    began: float
    asked: list[tuple[str, Fault]] = field(default_factory=list)  # operations, and what they met
    times: list[float] = field(
        default_factory=list
    )  # of these requests, in seconds since the epoch
    answer: dict[str, Any] | None = None  # None: it was killed
    over: float = 0.0  # when it ended

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
        """The last part of the problem's type; empty if the answer is not a problem."""
        return str(self.body.get("type", "")).rpartition(":")[2]

    @property
    def replayed(self) -> bool:
        return self.headers.get("Idempotent-Replayed") == "true"

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.asked]


class Scene:
    """The stack in simulated time. It decides what each request of a function meets."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire
        self.time = BEGINNING
        self.skew = 0.0  # seconds by which the clock of the next functions is ahead
        self.chance: Callable[[str], Fault] = lambda _operation: delivered
        self._invocations: list[
            Invocation
        ] = []  # running now: each was started during the one before it
        self.stream = Stream(stack, wire)
        self._under_way: list[tuple[float, AWSPreparedRequest]] = []

    @contextmanager
    def running(self) -> Iterator["Scene"]:
        """Give the functions this scene's clock, and send their requests through it."""
        with (
            patch.object(clock, "now", lambda: self.time + self.skew),
            patch.object(clock, "sleep", self.advance),
            patch.object(self.wire, "through", self._carry),
        ):
            logging.disable()  # takes a fifth of the CPU
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
        """Send a request for a counter to the function of its route."""
        return self.send(method, f"/counters/{counter}", body, headers, caller)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        caller: str = "somebody",
    ) -> Invocation:
        """Send a request to the function of its route. After its timeout it has no answer."""
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
        """Send an increment to IncrementCounter."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.call("POST", counter, {"by": by, **(bounds or {})}, headers)

    def plan(self, operation: str, *faults: Fault) -> None:
        """Let the next requests for an operation meet one fault each, and the others none."""
        self.plan_each(operation, faults)

    def plan_each(self, operation: str, faults: Iterable[Fault]) -> None:
        """Let the next requests for an operation meet these. The iterator is read as needed."""
        self.wire.fail(operation, (partial(self._meet, fault) for fault in faults))

    def advance(self, seconds: float) -> None:
        """Let time pass. Requests that were held up are applied when they are due."""
        self.time += seconds
        while self._under_way and self._under_way[0][0] <= self.time:
            _, request = self._under_way.pop(0)
            delivered(request)
            self.stream.capture(request)

    def held_up(self, request: AWSPreparedRequest, seconds: float) -> NoReturn:
        """Let the request be applied later, and its caller see a lost reply."""
        self.hold_up(request, seconds)
        raise ReadTimeoutError(endpoint_url=request.url)

    def hold_up(self, request: AWSPreparedRequest, seconds: float) -> None:
        """Let the request be applied later."""
        self._under_way.append((self.time + seconds, request))
        self._under_way.sort(key=lambda entry: entry[0])

    def under_way(self) -> int:
        """Return how many requests are still to be applied."""
        return len(self._under_way)

    def begin(self, past: Past) -> None:
        """Store a counter with its history."""
        with patch.object(self.wire, "through", delivered):
            past.record(self.stack)
        self.stream.begin(past.item)

    def record(self, *, without: int | None = None) -> None:
        """Write the changes into the history, except the version `without`."""
        self.stream.record(without=without)

    def empty(self) -> None:
        """Start again with empty tables."""
        self.stack.empty_tables()
        self.stream.forget()

    def delete(self, counter: str) -> None:
        """Delete a counter, as an operator may. Tally itself never does."""
        key = {"counter_id": {"S": counter}}
        self.stack.dynamodb.delete_item(TableName=self.stack.refs["CounterTable"], Key=key)

    def value(self, counter: str) -> int:
        """Return the value that is stored for a counter; 0 if there is none."""
        item = self.stack.item("CounterTable", counter)
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
            self.stream.capture(request)
            self.advance(SECONDS.get(fault, QUICK))


def _operation(request: AWSPreparedRequest) -> str:
    target = request.headers["X-Amz-Target"]
    text = target.decode() if isinstance(target, bytes) else str(target)
    return text.rpartition(".")[2]


def one_of(faults: Sequence[Fault], source: random.Random) -> Callable[[str], Fault]:
    """Return a `chance` by which every request meets one of the faults."""
    return lambda _operation: source.choice(faults)
