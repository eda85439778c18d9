"""Runs the built functions as Lambda does, in processes that can be killed at any time."""

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
from tests import aws_template, lambda_runtime, runtime_api
from tests.e2e.service import client, physical_name
from tests.proxy import TIMEOUT
from tests.runtime_api import Outcome

from deployment import Stack

START_SECONDS = 60
NO_OUTCOME = Outcome("killed", None)


class InvocationResult(NamedTuple):
    """The result of an invocation. `outcome` is None if the process was killed or timed out."""

    request_id: str  # Lambda's id of the invocation, which is stored with a change of a counter
    began: float  # time.monotonic()
    outcome: Outcome | None


class Worker:
    """Runs one process of a function, which handles one event at a time.

    If the process has died, the worker starts a new process for the next event.
    """

    def __init__(self, access_key: str, variables: Mapping[str, str], log: IO[str]) -> None:
        self.access_key = access_key  # tells the proxy which worker sent a request
        self._log = log
        self._variables = {**variables, "AWS_ACCESS_KEY_ID": access_key}
        self._running = ExitStack()
        self._lock = threading.RLock()  # do not kill a process while it is being replaced
        self._start()

    def invoke(self, event: Mapping[str, Any]) -> InvocationResult:
        """Send an event to the process. Kill the process at the function's timeout.

        Raises:
            RuntimeError: the process did not start in time.
        """
        while True:
            with self._lock:
                if self._process.poll() is not None:
                    self.stop()
                    self._start()
            began = time.monotonic()
            self._api.events.put(event)
            try:
                invocation = self._api.invocations.get(timeout=START_SECONDS)
            except queue.Empty as error:
                message = "a worker did not start"
                raise RuntimeError(message) from error
            if invocation is not None:
                break
        try:
            outcome = self._api.outcomes.get(timeout=max(0, invocation.deadline - time.time()))
        except queue.Empty:
            outcome = NO_OUTCOME
        if outcome is NO_OUTCOME:
            self.kill()
            return InvocationResult(invocation.request_id, began, None)
        return InvocationResult(invocation.request_id, began, outcome)

    def kill(self) -> None:
        """Kill the process with SIGKILL, so that it cannot clean up."""
        with self._lock:
            self._process.kill()
            self._process.wait()
            self._api.invocations.put(None)
            self._api.events.put(None)
            self._api.outcomes.put(NO_OUTCOME)

    def stop(self) -> None:
        self._running.close()

    def _start(self) -> None:
        self._api = self._running.enter_context(runtime_api.serving(TIMEOUT))
        self._running.callback(self._api.events.put, None)
        self._process = self._running.enter_context(
            lambda_runtime.process(self._api, self._variables, self._log)
        )


class Workers:
    """A pool of workers for each function."""

    def __init__(self) -> None:
        self.kills = Counter[str]()
        self._workers: dict[str, Worker] = {}
        self._free: dict[str, queue.SimpleQueue[Worker]] = {}
        self._lock = threading.Lock()

    def add(self, function: str, worker: Worker) -> None:
        self._workers[worker.access_key] = worker
        self._free.setdefault(function, queue.SimpleQueue()).put(worker)

    def invoke(self, function: str, event: Mapping[str, Any]) -> InvocationResult:
        """Wait until a worker of the function is free, and send the event to this worker."""
        worker = self._free[function].get()
        try:
            return worker.invoke(event)
        finally:
            self._free[function].put(worker)

    def kill(self, access_key: str, when: str) -> None:
        """Kill the worker with this access key. `kills` counts the kill under the name `when`."""
        with self._lock:
            self.kills[when] += 1
        self._workers[access_key].kill()

    @contextmanager
    def killing(self, chances: random.Random, seconds: float) -> Iterator[None]:
        """Kill a random worker every `seconds` seconds on average."""
        stopped = threading.Event()

        def kill() -> None:
            while not stopped.wait(chances.uniform(0, 2 * seconds)):
                self.kill(chances.choice(list(self._workers)), "at any time")

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            stopped.set()
            killer.join()

    def stop(self) -> None:
        for worker in self._workers.values():
            worker.stop()


@contextmanager
def running(
    build: Path, stack: Stack, numbers: Mapping[str, int], proxy_url: str, directory: Path
) -> Iterator[Workers]:
    """Run workers that reach the database through a proxy. Stop them when the with block ends.


    Args:
        build: has a directory for each built function, with its logical id as its name.
        stack: the deployed stack. Each worker gets the environment variables that its function has
            in this stack.
        numbers: the number of workers of each function. The keys are the functions' logical ids.
        proxy_url: the workers' DynamoDB endpoint.
        directory: an empty directory. The workers write their log to the file `log` in it.
    """
    if not lambda_runtime.is_available():
        pytest.skip(f"needs {lambda_runtime.NEEDS}")
    runtime = directory / "runtime"
    runtime.mkdir()
    lambda_runtime.link_runtime_client(runtime)
    lambda_ = client(stack, "lambda")
    workers = Workers()
    with ExitStack() as stopping:
        log = stopping.enter_context((directory / "log").open("a"))
        stopping.callback(workers.stop)
        for name, number in numbers.items():
            function = aws_template.functions()[name]
            configuration = lambda_.get_function_configuration(
                FunctionName=physical_name(stack, name)
            )
            variables = {
                **lambda_runtime.environment(
                    name,
                    function.handler,
                    build / name,
                    runtime,
                    stack.endpoint_url,
                ),
                **configuration["Environment"]["Variables"],
                "AWS_REGION": stack.region,
                "AWS_DEFAULT_REGION": stack.region,
                "AWS_ENDPOINT_URL_DYNAMODB": proxy_url,
            }
            for each in range(number):
                workers.add(name, Worker(f"WORKER{name}{each}".upper(), variables, log))
        yield workers
