"""Fixtures of tests that need a local stack: the end-to-end tests and the browser tests.

Their conftest.py files load this module as a plugin. So the tests of both folders share one
emulator if they run in the same process. If each conftest.py imported the fixtures, pytest would
start an emulator for each folder.
"""

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.service import Caller, token_for
from tests.kept_build import put_stack_into

from deployment import Stack, deploy
from emulator_process import Emulator, free_port, run_emulator


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    with tempfile.TemporaryDirectory(prefix="tally-") as name:
        put_stack_into(Path(name))
        with run_emulator(Path(name), free_port(), load=True) as emulator:
            yield emulator


@pytest.fixture(scope="session")
def stack(emulator: Emulator) -> Stack:
    return deploy(emulator)


@pytest.fixture(scope="session")
def caller(stack: Stack) -> Iterator[Caller]:
    """A caller with every scope."""
    with Caller(stack.url, token_for(stack, stack.scopes)) as caller:
        yield caller


@pytest.fixture
def counter() -> str:
    """The path of a counter that was never written."""
    return f"/counters/{uuid.uuid4()}"
