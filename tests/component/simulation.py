"""Concurrent callers of one counter in simulated time. The test runs the callers step by step.

Each caller is an invocation of the increment handler in its own thread. A step ends before the next
request to DynamoDB or at a pause. The caller then waits until the test runs the caller's next step.
So the test decides:

- which caller takes the next step
- which caller is killed, and at which step
- which requests of a killed caller still arrive
- when changes are recorded in the history
- what the clock says
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
    """Simulates CounterTable's stream: compares the counters before and after each request."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self._stack = stack
        self._wire = wire
        self._counters: dict[str, Item] = {}
        self._unrecorded: list[StreamRecord] = []

    def capture(self, request: AWSPreparedRequest) -> list[Item]:
        """Add a request's changes to the stream. Return the items of the changed counters."""
        assert isinstance(request.body, bytes)
        parameters = json.loads(request.body)
        changed = []
        for write in parameters.get("TransactItems", [{"Update": parameters}]):
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
        """Return the number of changes that are not in the history yet."""
        return len(self._unrecorded)

    def record(self, *, without: int | None = None) -> None:
        """Write all waiting changes to the history, except the change with version `without`."""
        records = [
            record
            for record in self._unrecorded
            if int(record["dynamodb"]["NewImage"]["version"]["N"]) != without
        ]
        self._unrecorded.clear()
        if records:
            with (
                patch.object(self._wire, "through", delivered),
                # No simulation reads the trend. Writing it would take two thirds of the CPU time.
                patch.object(trend, "fold", lambda entries, _until: len(entries)),
            ):
                assert self._stack.record(records) == len(records)

    def begin(self, item: Item) -> None:
        """Tell the stream which item a counter has before its next change."""
        self._counters[item["counter_id"]["S"]] = item

    def forget(self) -> None:
        """Forget all counters and changes. Tests call this after they have emptied the tables."""
        self._counters.clear()
        self._unrecorded.clear()


class Caller:
    """One invocation of the increment handler."""

    def __init__(self, world: "World", name: str, event: dict[str, Any]) -> None:
        self.name = name
        self.event = event
        self.started = False
        self.finished = False
        self.answer: dict[str, Any] | None = None
        self.responses: list[str] = []  # the bodies of DynamoDB's replies
        self.pending: AWSPreparedRequest | None = None  # the request that the next step sends
        self.deadline = 0.0
        self.resume_at = 0.0
        self._world = world
        self._killed = False
        self._error: BaseException | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)

    def step(self) -> None:
        """Run the invocation until its next stop. If its deadline has passed, kill it instead."""
        self._world.time = max(self._world.time + STEP, self.resume_at)
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
        """Run the invocation to its end."""
        while not self.finished:
            self.step()

    def kill(self) -> None:
        """Kill the invocation before it sends its next request."""
        self._killed = True
        if self.started and not self.finished:
            self._go.release()
            self._wait_for_stop()
        self.finished = True

    def stop(self, resume_at: float = 0.0) -> None:
        """Wait until the test runs the next step. Only the invocation's own thread calls this.


        Args:
            resume_at: the earliest time of the next step, in seconds since the epoch.
        """
        self.resume_at = resume_at
        self._stopped.release()
        self._go.acquire()
        self.resume_at = 0.0
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
        except BaseException as error:  # noqa: BLE001  raised again in the test's thread
            self._error = error
        self.finished = True
        self._stopped.release()


class World:
    """The clock, the callers, and the changes that the callers have made."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire
        self.time = BEGINNING
        self.callers: list[Caller] = []
        self.applied: list[Item] = []  # the item of the counter after each change
        self.fault: Fault = delivered  # the fault that the next requests meet
        self.stream = Stream(stack, wire)

    def call(self, name: str, event: dict[str, Any]) -> Caller:
        """Add a caller, without starting it."""
        self.callers.append(Caller(self, name, event))
        return self.callers[-1]

    def deliver(self, request: AWSPreparedRequest) -> AWSResponse:
        """Send a request to DynamoDB, and capture the changes that it makes."""
        try:
            return self.fault(request)
        finally:
            self.applied += self.stream.capture(request)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Give the functions this world's clock, and send their requests through this world."""
        with (
            self.stack.in_environment(self.stack.functions["IncrementCounter"]),
            patch.object(clock, "now", lambda: self.time),
            patch.object(clock, "sleep", self._sleep),
            patch.object(self.wire, "through", self._carry),
        ):
            logging.disable()  # logging takes a fifth of the CPU time
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
        caller.responses.append(response.text)
        return response

    def _sleep(self, seconds: float) -> None:
        self._caller().stop(self.time + seconds)

    def _caller(self) -> Caller:
        name = threading.current_thread().name
        return next(caller for caller in self.callers if caller.name == name)
