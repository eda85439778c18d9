"""Two concurrent runs of a function. The test chooses the order of their requests."""

import importlib
import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.output import silence
from tests.proxy import Context
from tests.sizes import FULL, cases
from tests.stack import Stack
from tests.wire import Wire, delivered

from counters import clock


class Run:
    """One invocation of the function, in its own thread. It stops before each of its requests."""

    def __init__(self, runs: "Runs", event: Mapping[str, Any]) -> None:
        self.event = event
        self.ended = False
        self.answer: Any = None
        self._runs = runs
        self._error: BaseException | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def step(self) -> None:
        """Run until just before the next request.

        The first step starts the run. Each further step first sends the request before which the
        run stopped.
        """
        if self.ended:
            return
        if self.thread.ident is None:
            self.thread.start()
        else:
            self._go.release()
        self._stopped.acquire()
        if self._error:
            raise self._error

    def finish(self) -> None:
        while not self.ended:
            self.step()

    def stop(self) -> None:
        """Wait until the test calls `step`. Only the run's own thread calls this."""
        self._stopped.release()
        self._go.acquire()

    def _run(self) -> None:
        name, stack = self._runs.name, self._runs.stack
        deadline = clock.now() + stack.functions[name].timeout
        try:
            self.answer = self._runs.handler(self.event, Context(name, deadline=deadline))
        except BaseException as error:  # noqa: BLE001  `step` raises it in the test's thread
            self._error = error
        self.ended = True
        self._stopped.release()


class Runs:
    """Runs of one function. The test sends one request of one run at a time."""

    def __init__(self, stack: Stack, wire: Wire, name: str) -> None:
        self.stack = stack
        self.wire = wire
        self.name = name
        self.handler = importlib.import_module(stack.functions[name].module).handler
        self.alter_parameters: Callable[[dict[str, Any]], dict[str, Any]] = lambda parameters: (
            parameters
        )
        self._runs: list[Run] = []

    def run(self, **event: object) -> Run:
        """Return a new run. The run's first step starts it."""
        self._runs.append(Run(self, event))
        return self._runs[-1]

    @contextmanager
    def interleaving(self) -> Iterator[None]:
        environment = self.stack.in_environment(self.stack.functions[self.name])
        through = patch.object(self.wire, "through", self._carry)
        with environment, through, silence():
            yield

    def _carry(self, request: AWSPreparedRequest) -> AWSResponse:
        thread = threading.current_thread()
        for run in self._runs:
            if run.thread is thread:
                run.stop()
        assert isinstance(request.body, bytes)
        request.body = json.dumps(self.alter_parameters(json.loads(request.body))).encode()
        return delivered(request)


def run_in_order(first: Run, second: Run, order: Sequence[bool]) -> None:
    """Run the steps of two runs in this order. After these steps, finish both runs.


    In `order`, False is a step of the first run, and True is a step of the second run.
    """
    for number in order:
        (second if number else first).step()
    first.finish()
    second.finish()


def orders(steps: int, *, same_event: bool = False) -> Iterator[list[bool]]:
    """Yield orders for `run_in_order`.

    In the first orders, one run pauses after some of its steps. During this pause, the other run
    makes all or half of its own steps. All further orders are random.

    Args:
        steps: the number of steps of each run.
        same_event: whether both runs have the same event. If so, it does not matter which run
            pauses. `make test` lets only the first run pause.
    """
    first = range(1, steps + 1, cases(full=1, part=2 if same_event else 3))
    for before, between in itertools.product(first, (2 * steps, steps // 2)[: cases(2, 1)]):
        yield [False] * before + [True] * between
        if FULL or not same_event:
            yield [True] * before + [False] * between
    source = random.Random(steps)
    for _ in range(cases(full=300, part=2)):
        yield [source.random() < 0.5 for _ in range(2 * steps)]
