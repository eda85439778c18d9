"""Callers of one counter in simulated time, whose steps a test runs in any order.

Each caller is an invocation of the increment handler in its own thread. It stops before each of its
requests to the database, and at each pause, until the test lets it go on. Between two steps nothing
happens. So the test decides:

- which caller goes on, and which one dies where;
- which requests are still under way then;
- when the history is written;
- what the clock says.
"""

import importlib
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.proxy import TIMEOUT, Context
from tests.stack import Item, Stack, StreamRecord
from tests.wire import Fault, Killed, Wire, delivered, dies, dies_after

from counters import clock, trend

STEP = 0.01  # seconds that a step takes
BEGINNING = 1_800_000_000.0  # seconds since the epoch

__all__ = ["BEGINNING", "Caller", "Killed", "Stream", "World", "dies", "dies_after"]


class Stream:
    """CounterTable's stream, as a simulation sees it: it looks at the counters after a request."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self._stack = stack
        self._wire = wire
        self._counters: dict[str, Item] = {}
        self._unrecorded: list[StreamRecord] = []

    def note(self, request: AWSPreparedRequest) -> list[Item]:
        """Append what a request has changed. Return the items of the counters that it changed."""
        assert isinstance(request.body, bytes)
        asked = json.loads(request.body)
        changed = []
        for write in asked.get("TransactItems", [{"Update": asked}]):
            update = write.get("Update", {})
            if (
                update.get("TableName") != self._stack.refs["CounterTable"]
                or "UpdateExpression" not in update
            ):
                continue
            counter = update["Key"]["counter_id"]["S"]
            item, before = self._stack.item("CounterTable", counter), self._counters.get(counter)
            if item is None or item == before:
                continue
            images = {"NewImage": item} | ({"OldImage": before} if before else {})
            self._counters[counter] = item
            self._unrecorded.append({"dynamodb": images})
            changed.append(item)
        return changed

    def unrecorded(self) -> int:
        """Return how many changes are not in the history yet."""
        return len(self._unrecorded)

    def record(self, *, without: int | None = None) -> None:
        """Write the changes into the history, except the version `without`."""
        records = [
            record
            for record in self._unrecorded
            if int(record["dynamodb"]["NewImage"]["version"]["N"]) != without
        ]
        self._unrecorded.clear()
        if records:
            with (
                patch.object(self._wire, "through", delivered),
                # No simulation reads the trend, which takes two thirds of the CPU.
                patch.object(trend, "fold", lambda entries, _until: len(entries)),
            ):
                assert self._stack.record(records) == len(records)

    def begin(self, item: Item) -> None:
        """Expect a counter's next change to follow this item."""
        self._counters[item["counter_id"]["S"]] = item

    def forget(self) -> None:
        """Forget the counters, because the tables are empty again."""
        self._counters.clear()
        self._unrecorded.clear()


class Caller:
    """One invocation of the increment handler."""

    def __init__(self, world: "World", name: str, event: dict[str, Any]) -> None:
        self.name = name
        self.event = event
        self.started = False
        self.over = False
        self.answer: dict[str, Any] | None = None
        self.told: list[str] = []  # the answers of the database
        self.pending: AWSPreparedRequest | None = None  # its next request
        self.deadline = 0.0
        self.wakes = 0.0
        self._world = world
        self._killed = False
        self._error: BaseException | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)

    def step(self) -> None:
        """Run it to its next stop. Past its deadline, kill it instead."""
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
        """Run it to its end."""
        while not self.over:
            self.step()

    def kill(self) -> None:
        """End it where it is. It does not send its next request."""
        self._killed = True
        if self.started and not self.over:
            self._go.release()
            self._wait_for_stop()
        self.over = True

    def stop(self, wakes: float = 0.0) -> None:
        """Wait, in its own thread, until the test lets it go on, at the time `wakes` or later."""
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
    """The clock, the callers, and what they have changed."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire
        self.time = BEGINNING
        self.callers: list[Caller] = []
        self.applied: list[Item] = []  # the counter's item after each change
        self.fault: Fault = delivered  # what the next requests meet
        self.stream = Stream(stack, wire)

    def call(self, name: str, event: dict[str, Any]) -> Caller:
        """Return a new caller, which has not started yet."""
        self.callers.append(Caller(self, name, event))
        return self.callers[-1]

    def deliver(self, request: AWSPreparedRequest) -> AWSResponse:
        """Let the database answer, and note what this changes."""
        try:
            return self.fault(request)
        finally:
            self.applied += self.stream.note(request)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Give the functions this world's clock, and send their requests through it."""
        variables = self.stack.environment(self.stack.functions["IncrementCounter"])
        with (
            patch.dict("os.environ", variables),
            patch.object(clock, "now", lambda: self.time),
            patch.object(clock, "sleep", self._sleep),
            patch.object(self.wire, "through", self._carry),
        ):
            logging.disable()  # takes a fifth of the CPU
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
