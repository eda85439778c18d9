"""The stack of `make run`: stopped in order, it goes on where it was."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.producer import Producer
from tests.e2e.service import Caller, token_for

from local_stack import HOST, Emulator, Stack, deploy, free_port, run_emulator

STOP_SECONDS = 5


@pytest.fixture
def directory(emulator: Emulator, stack: Stack) -> Iterator[Path]:
    """A directory without state, but with the build of the session's stack, which saves time."""
    assert stack.endpoint_url == emulator.endpoint_url
    with tempfile.TemporaryDirectory(prefix="tally-") as name:
        directory = Path(name)
        shutil.copytree(emulator.directory / ".aws-sam", directory / ".aws-sam")
        shutil.copy(emulator.directory / "build.toml", directory)
        yield directory


def is_stopped(emulator: Emulator) -> bool:
    """Tell whether nothing of the emulator's process group, its functions included, is left."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(emulator.process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_restart_goes_on_where_the_stop_was_and_leaves_nothing_running(directory: Path) -> None:
    port = free_port()
    counter = "/counters/kept"

    with run_emulator(directory, port, persist=True) as emulator:
        stack = deploy(emulator)
        old_token = token_for(stack, stack.scopes)
        with Caller(stack.url, old_token) as caller:
            caller.post(counter)
            before = caller.put(counter, value=10).body
            history = caller.history(counter, entries=2)
            producer = Producer(stack, caller)
            producer.send("queue", {"counter_id": "queued"}, {"counter_id": "queued"})
            assert producer.value("queued", 2) == 2
    assert_nothing_runs(emulator)

    with run_emulator(directory, port, persist=True) as emulator:
        again = deploy(emulator)
        assert again == stack
        with Caller(again.url, old_token) as caller:
            assert caller.get(counter).body == before
            assert caller.get(f"{counter}/history").body == history
            assert caller.post(counter).body["version"] == 3
        with Caller(again.url, token_for(again, again.scopes)) as caller:
            assert caller.post(counter).body["value"] == 12
            entries = caller.history(counter, entries=4)
            # The queue's sequence numbers go on, or these would be taken for what is in already.
            producer = Producer(again, caller)
            producer.send("queue", {"counter_id": "queued"})
            assert producer.value("queued", 3) == 3
    assert_nothing_runs(emulator)

    assert entries[:2] == history
    assert [(entry["version"], entry["previous_value"], entry["value"]) for entry in entries] == [
        (1, 0, 1),
        (2, 1, 10),
        (3, 10, 11),
        (4, 11, 12),
    ]


def assert_nothing_runs(emulator: Emulator) -> None:
    assert is_stopped(emulator)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, emulator.port)).close()
