"""Fixtures. The stack runs in moto, which simulates AWS. Each test begins with an empty stack."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import botocore
import botocore.loaders
import botocore.session
import pytest
from botocore.exceptions import ParamValidationError
from botocore.validate import ParamValidator
from tests import fast_moto
from tests.component import auditing
from tests.component.administration import Administration, isolated
from tests.component.ledger import Ledger
from tests.component.output import silence
from tests.component.reading import RETENTION_DAYS, record_orders
from tests.component.redriving import Deploy, without_waiting
from tests.component.scene import Scene
from tests.fifo_queue import FifoQueue
from tests.past import START, Past
from tests.stack import FACTORIES, Stack, moto, running
from tests.times import HOUR
from tests.wire import Wire

from counters import clock, dashboard, idempotency, recording
from counters.clients import ATTEMPT

fast_moto.speed_up()


@pytest.fixture(scope="session")
def session() -> botocore.session.Session:
    """A botocore session. All tests share it, because loading AWS's API models is slow.

    The session validates the parameters of each request. The clients that the functions create in
    production do not validate parameters.
    """
    session = botocore.session.get_session()
    session.register("provide-client-params", _validate)
    # moto's DynamoDB needs no signature, and signing takes 6 % of the tests' CPU time.
    session.register("choose-signer.dynamodb", lambda **_call: botocore.UNSIGNED)
    return session


def _validate(**call: Any) -> None:  # noqa: ANN401  of any operation
    report = ParamValidator().validate(call["params"], call["model"].input_shape)
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())


@pytest.fixture(scope="module")
def moto_started() -> Iterator[None]:
    """Start moto once for all tests of a module."""
    with moto():
        yield


@pytest.fixture
def stack(session: botocore.session.Session, moto_started: None) -> Iterator[Stack]:  # noqa: ARG001
    with running(session) as stack:
        yield stack


@pytest.fixture
def wire(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:  # noqa: ARG001  moto first
    """The wire that carries the requests of the functions' clients. A test can let requests fail.

    When a function pauses, the clock advances, so that the pause takes no real time.
    """
    random.seed(1)  # for the jitter of the functions' pauses
    # Let the SDK's own pauses before its retries take no time.
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    waited = 0.0

    def wait(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    monkeypatch.setattr(clock, "now", lambda: time.time() + waited)
    monkeypatch.setattr(clock, "sleep", wait)
    wire = Wire()
    for factory in FACTORIES:
        wire.attach(factory())
    yield wire
    wire.detach()


@pytest.fixture
def scene(stack: Stack, wire: Wire) -> Iterator[Scene]:
    with Scene(stack, wire).running() as scene:
        yield scene


@pytest.fixture
def ledger(stack: Stack, wire: Wire) -> Iterator[Ledger]:
    stack.remove_stream()
    ledger = Ledger(stack, wire)
    with ledger.running():
        yield ledger


@pytest.fixture
def look_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request look only once for the outcome of an earlier request with the same key.

    Without this fixture, a request looks again and again until it finds the outcome. Tests that
    repeat requests themselves do not need this, so they save the CPU time.
    """
    monkeypatch.setattr(idempotency, "PATIENCE", 0.0)


@pytest.fixture
def silent() -> Iterator[None]:
    """Log nothing."""
    with silence():
        yield


@pytest.fixture
def queue() -> FifoQueue:
    return FifoQueue()


@pytest.fixture
def latest_start(stack: Stack, monkeypatch: pytest.MonkeyPatch, wire: Wire) -> float:  # noqa: ARG001
    """Give IngestIncrements a timeout of 10 s. Return the latest time at which a request may start.

    The returned time is in seconds after the beginning of the invocation. The clock advances only
    in pauses: on a busy machine, the code of the test may take a second, which must not count.
    """
    now = time.time()

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(clock, "sleep", wait)
    function = stack.functions["IngestIncrements"]
    stack.functions["IngestIncrements"] = replace(function, timeout=10)
    return 10 - ATTEMPT


@pytest.fixture
def audited_orders(stack: Stack) -> Past:
    """The counter "orders" with 60 changes, to be audited."""
    return auditing.record_orders(stack)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time to 30 days after the first change of an audited counter."""
    monkeypatch.setattr(clock, "now", lambda: auditing.LATER)


@pytest.fixture
def orders(stack: Stack) -> Past:
    """The counter "orders" with its history. There are two more counters.

    In the order of counter ids, these two counters come just before and just after "orders".
    """
    return record_orders(stack)


@pytest.fixture
def unread_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ShowDashboard read its settings at the next request, as a new process does."""
    monkeypatch.setattr(dashboard, "_known", {})


@pytest.fixture
def retention(stack: Stack) -> None:
    """Keep the history for RETENTION_DAYS."""
    stack.refs["HistoryDays"] = str(RETENTION_DAYS)


@pytest.fixture
def public(stack: Stack) -> None:
    """Make the counters public whose names begin with `public:`."""
    stack.refs["PublicPrefix"] = "public:"


@pytest.fixture
def receive_without_waiting(wire: Wire) -> None:
    """Let moto answer a ReceiveMessage request at once, even if the queue has no message."""
    wire.through = without_waiting


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Return a function that simulates a deployment of a new version of RecordHistory.

    The new version knows the operation `multiply`. Until the test calls the function, RecordHistory
    parks records with this operation.
    """
    operations = Literal["increment", "set", "multiply"]
    return lambda: monkeypatch.setattr(recording, "Operation", operations)


@pytest.fixture
def set_clock(
    wire: Wire,  # noqa: ARG001  `wire` sets the clock, too, so it must run first
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[float], None]:
    """Stop the clock an hour after START. Return a function that sets the clock to another time."""
    times: list[float] = [START + HOUR]
    monkeypatch.setattr(clock, "now", lambda: times[0])

    def set_time(time: float) -> None:
        times[0] = time

    return set_time


@pytest.fixture(scope="session")
def loader() -> botocore.loaders.Loader:
    """A loader of AWS's API models. It keeps them, because loading them is slow."""
    return botocore.loaders.create_loader()


@pytest.fixture
def aws_settings(
    moto_started: None,  # noqa: ARG001  moto sets variables of the environment, too
    loader: botocore.loaders.Loader,
    tmp_path: Path,
) -> Iterator[pytest.MonkeyPatch]:
    """The AWS settings of a user. No request leaves this machine."""
    with isolated(tmp_path) as settings:
        settings.setattr(botocore.session, "create_loader", lambda _path: loader)
        yield settings


@pytest.fixture
def tally(aws_settings: pytest.MonkeyPatch) -> Iterator[Administration]:  # noqa: ARG001
    """The command `tally`, with an empty stack to administer."""
    administration = Administration()
    with administration.connected():
        yield administration
