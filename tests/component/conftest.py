"""The stack in moto, fresh for each test."""

import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ParamValidationError
from botocore.model import OperationModel
from botocore.validate import ParamValidator
from tests.stack import FACTORIES, Stack, running
from tests.wire import Wire

from counters import clock


@pytest.fixture(scope="session")
def session() -> boto3.Session:
    """What botocore has read of AWS's APIs: reading it again for each test would take longest.

    What the functions ask for is validated, which their own clients leave out.
    """
    session = boto3.Session()
    session.events.register("provide-client-params", _validate)
    return session


def _validate(params: dict[str, Any], model: OperationModel, **_: object) -> None:
    assert model.input_shape
    report = ParamValidator().validate(params, model.input_shape)
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())


@pytest.fixture
def stack(session: boto3.Session) -> Iterator[Stack]:
    with running(session) as stack:
        yield stack


@pytest.fixture
def wire(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Wire:  # noqa: ARG001  moto first
    """The wire under the clients of the functions, which wait in a time of their own."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # botocore's
    waited = 0.0

    def wait(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    monkeypatch.setattr(clock, "now", lambda: time.time() + waited)
    monkeypatch.setattr(clock, "sleep", wait)
    wire = Wire()
    for factory in FACTORIES:
        wire.attach(factory())
    return wire
