"""Callers of one counter in simulated time, one step at a time, in whatever order a test asks for.

Each caller is an invocation of the increment handler in a thread of its own. It stops before each
of its requests to the database, and at each of its waits, until it is told to go on; between two
steps nothing moves. So a test decides who goes on, who dies where, what is still on its way then,
when the history is written, and what the clock says.
"""

import importlib
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from unittest.mock import patch

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.proxy import TIMEOUT, Context
from tests.stack import Stack
from tests.wire import Fault, Wire, delivered

from counters import clock

STEP = 0.01  # seconds that a step takes
BEGINNING = 1_800_000_000.0  # seconds since the epoch


class Killed(BaseException):
    """The function was killed here."""


def dies(_request: AWSPreparedRequest) -> NoReturn:
    """Kill the function before the request leaves it."""
    raise Killed


def dies_after(request: AWSPreparedRequest) -> NoReturn:
    """Kill the function before the reply reaches it."""
    delivered(request)
    raise Killed


class Caller:
    """One invocation of the increment handler."""

    def __init__(self, world: "World", name: str, event: dict[str, Any]) -> None:
        self.name = name
        self.event = event
        self.started = False
        self.over = False
        self.answer: dict[str, Any] | None = None
        self.told: list[str] = []  # what the database has answered
        self.pending: AWSPreparedRequest | None = None  # what it is about to ask
        self.deadline = 0.0
        self.wakes = 0.0
        self._world = world
        self._killed = False
        self._error: BaseException | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)

    def step(self) -> None:
        """Let it go on to its next stop; past its deadline it is killed instead."""
        self._world.time = max(self._world.time + STEP, self.wakes)
        if self.started and self._world.time >= self.deadline:
            self.kill()
            return
        if self.started:
            self._go.release()
        else:
            self.started = True
            self.deadline = self._world.time + TIMEOUT
            threading.Thread(target=self._run, name=self.name).start()
        self._wait_for_stop()

    def run(self) -> None:
        """Let it go on to its end."""
        while not self.over:
            self.step()

    def kill(self) -> None:
        """End it where it is: what it was about to ask for, it does not ask."""
        self._killed = True
        if self.started and not self.over:
            self._go.release()
            self._wait_for_stop()
        self.over = True

    def stop(self, wakes: float = 0.0) -> None:
        """Wait, in its own thread, until it is told to go on, not before the time `wakes`."""
        self.wakes = wakes
        self._stopped.release()
        self._go.acquire()
        self.wakes = 0.0
        if self._killed:
            raise Killed

    def _wait_for_stop(self) -> None:
        self._stopped.acquire()
        if self._error:
            raise self._error

    def _run(self) -> None:
        handler = importlib.import_module("increment_counter").handler
        try:
            self.answer = handler(self.event, Context("IncrementCounter", self.name, self.deadline))
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  it goes on in the test's thread
            self._error = error
        self.over = True
        self._stopped.release()


class World:
    """The time, the callers, and what they have changed."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire
        self.time = BEGINNING
        self.callers: list[Caller] = []
        self.applied: list[dict[str, Any]] = []  # the counter's item after each change
        self.fault: Fault = delivered  # what the next requests meet
        self._unrecorded: list[dict[str, Any]] = []

    def call(self, name: str, event: dict[str, Any]) -> Caller:
        """Return a new caller, who has not begun."""
        self.callers.append(Caller(self, name, event))
        return self.callers[-1]

    def unrecorded(self) -> int:
        """Return how many changes are not in the history yet."""
        return len(self._unrecorded)

    def record(self, *, without: int | None = None) -> None:
        """Write the changes into the history, but not the version `without`: it is parked."""
        records = [
            record
            for record in self._unrecorded
            if int(record["dynamodb"]["NewImage"]["version"]["N"]) != without
        ]
        self._unrecorded.clear()
        with patch.object(self.wire, "through", delivered):
            assert self.stack.record(records) == len(records)

    def deliver(self, request: AWSPreparedRequest) -> AWSResponse:
        """Let the database answer, and note what that changes of the counter."""
        assert isinstance(request.body, bytes)
        asked = json.loads(request.body)
        try:
            return self.fault(request)
        finally:
            if (
                asked.get("TableName") == self.stack.refs["CounterTable"]
                and "UpdateExpression" in asked
            ):
                self._note(asked["Key"])

    def _note(self, key: dict[str, Any]) -> None:
        """Put what has become of the counter into its stream."""
        table = self.stack.refs["CounterTable"]
        item = self.stack.dynamodb.get_item(TableName=table, Key=key).get("Item")
        if item is None or (self.applied and self.applied[-1] == item):
            return
        images: dict[str, Any] = {"NewImage": item}
        if self.applied:
            images["OldImage"] = self.applied[-1]
        self.applied.append(item)
        self._unrecorded.append({"dynamodb": images})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let this world's time and requests be those of the code."""
        variables = self.stack.environment(self.stack.functions["IncrementCounter"])
        with (
            patch.dict("os.environ", variables),
            patch.object(clock, "now", lambda: self.time),
            patch.object(clock, "sleep", self._sleep),
            patch.object(self.wire, "through", self._carry),
        ):
            logging.disable()  # it takes a fifth of the time, and nobody reads it
            try:
                yield
            finally:
                logging.disable(logging.NOTSET)
                for caller in self.callers:
                    caller.kill()

    def _carry(self, request: AWSPreparedRequest) -> AWSResponse:
        caller = self._caller()
        caller.pending = request
        caller.stop()
        caller.pending = None
        response = self.deliver(request)
        caller.told.append(response.text)
        return response

    def _sleep(self, seconds: float) -> None:
        self._caller().stop(self.time + seconds)

    def _caller(self) -> Caller:
        name = threading.current_thread().name
        return next(caller for caller in self.callers if caller.name == name)
