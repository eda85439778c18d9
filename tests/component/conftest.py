"""The stack in moto, fresh for each test."""

import time
from collections.abc import Iterator

import boto3
import pytest
from tests.stack import FACTORIES, Stack, running
from tests.wire import Wire

from counters import clock


@pytest.fixture(scope="session")
def session() -> boto3.Session:
    """What botocore has read of AWS's APIs: reading it again for each test would take longest."""
    return boto3.Session()


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
