"""The stack of `make run`: stopped or killed, it goes on, and says what may be lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pytest
import urllib3
from tests.aws_template import ROOT
from tests.e2e.kept_build import put_build_into
from tests.e2e.producer import Producer
from tests.e2e.service import Caller, token_for, wait_for
from tests.sizes import cases

from deployment import Stack, deploy, read_stack
from emulator_process import Emulator, free_port, run_emulator
from local_settings import HOST

START_SECONDS = 180
STOP_SECONDS = 5
# The visibility timeout of IncrementQueue, which is 60 seconds in the template: a batch that was in
# flight when the state was saved is delivered again after it.
REDELIVERY_SECONDS = cases(60, part=1)
SAVED_SECONDS = 60  # the longest that a save of a small state may take on a busy machine


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory without state. It has a build, which saves time."""
    with tempfile.TemporaryDirectory(prefix="tally-") as name:
        directory = Path(name) / "with spaces"
        directory.mkdir()
        put_build_into(directory)
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


def test_a_restart_goes_on_where_the_stop_was_and_leaves_nothing_running(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counter = "/counters/kept"

    with run_emulator(directory, free_port(), persist=True) as emulator:
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
    assert_private(directory)
    make_readable(directory)  # as earlier versions did

    with run_emulator(directory, free_port(), persist=True) as emulator:
        again = deploy(emulator)
        assert_private(directory)
        assert again == moved(stack, emulator.port)
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
            producer.put(again.outputs["EventBusName"], "shop", {"counter_id": "queued"})
            assert producer.value("queued", 4) == 4
    assert_nothing_runs(emulator)

    assert capfd.readouterr().err == ""
    assert entries[:2] == history
    assert [(entry["version"], entry["previous_value"], entry["value"]) for entry in entries] == [
        (1, 0, 1),
        (2, 1, 10),
        (3, 10, 11),
        (4, 11, 12),
    ]


def test_after_a_kill_the_next_start_has_what_was_saved_and_says_what_may_be_lost(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with running(directory, port) as (runner, stack):
        emulator_pid = int((directory / "emulator.pid").read_text())
        with Caller(stack.url, token_for(stack, stack.scopes)) as caller:
            known = kill_while_counting(stack, caller, directory, [runner.pid, emulator_pid])
    capfd.readouterr()

    for victim in ("the emulator", "nobody"):
        with run_emulator(directory, port, persist=True) as emulator:
            version = version_that_must_be_there(capfd.readouterr().err, known)
            with Caller(stack.url, token_for(stack, stack.scopes)) as caller:
                assert_whole(caller, version)
                if victim != "nobody":
                    pids = [emulator.process.pid]
                    known = kill_while_counting(stack, caller, directory, pids)
        capfd.readouterr()

    with run_emulator(directory, port, persist=True):
        assert capfd.readouterr().err == ""  # the last one was stopped in order


@contextmanager
def running(directory: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Stack]]:
    """Run the stack as `make run` does."""
    script = str(ROOT / "scripts" / "local_stack.py")
    with subprocess.Popen(
        [sys.executable, script, "run", f"--port={port}", f"--directory={directory}"],
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            file = directory / "stack.json"
            wait_for(lambda: file.exists() or process.poll() is not None, seconds=START_SECONDS)
            yield process, read_stack(file)
        finally:
            process.terminate()


def saved_at(directory: Path) -> float:
    """Return the time of the last save, in seconds since the epoch."""
    time_: float = json.loads((directory / "state" / "snapshot.index").read_text())["saved_at"]
    return time_


def kill_while_counting(
    stack: Stack, caller: Caller, directory: Path, pids: list[int]
) -> list[tuple[float, int]]:
    """Count until something of it is saved, then kill while the counting goes on.

    Returns:
        When each answer had come, in seconds since the epoch, and the version that it told.
    """
    producer = Producer(stack, caller)
    producer.set_visibility_timeout(REDELIVERY_SECONDS)
    producer.send("queue", *[{"counter_id": "queued"}] * 5)
    answers: list[tuple[float, int]] = []
    stop = threading.Event()

    def count() -> None:
        with Caller(stack.url, token_for(stack, stack.scopes)) as other:
            while not stop.is_set():
                try:
                    version = other.post("/counters/killed").body["version"]
                    answers.append((time.time(), version))
                except (urllib3.exceptions.HTTPError, OSError):
                    return

    counting = threading.Thread(target=count)
    counting.start()
    # A save is behind the first answer, and more answers are under way.
    wait_for(lambda: answers and saved_at(directory) > answers[0][0], seconds=SAVED_SECONDS)
    assert saved_at(directory) > answers[0][0]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    stop.set()
    counting.join()
    return answers


def version_that_must_be_there(told: str, known: list[tuple[float, int]]) -> int:
    """Return the last version acknowledged before the time that the next start names."""
    pattern = r"The last run was killed\. Its state was last saved at (\S+): changes after .*\n"
    told = told.removeprefix("Waiting for the last processes of a killed run to end.\n")
    match = re.fullmatch(pattern, told)
    assert match, told
    named = datetime.fromisoformat(match[1]).timestamp()
    saved = [version for came, version in known if came < named]
    assert saved, "nothing was saved before the kill"
    return max(saved)


def assert_whole(caller: Caller, version: int) -> None:
    """The counters go on, no history has a gap, and each message that is known is counted once."""
    counter = caller.get("/counters/killed").body
    assert counter["version"] >= version
    caller.whole_history("/counters/killed")
    assert caller.post("/counters/killed").body["version"] == counter["version"] + 1
    caller.whole_history("/counters/killed")
    # Each five messages were in the queue or in the counter when the state was saved.
    queued = wait_for(
        lambda: int(caller.get("/counters/queued").body["value"]),
        lambda value: value in {5, 10},
        seconds=REDELIVERY_SECONDS + 30,  # a batch may have been in flight when it was saved
    )
    assert queued in {5, 10}
    caller.whole_history("/counters/queued")


def moved(stack: Stack, port: int) -> Stack:
    """Return the stack as it is on another port."""
    old_port = stack.endpoint_url.rpartition(":")[2]
    fields = json.loads(json.dumps(asdict(stack)).replace(f":{old_port}", f":{port}"))
    return Stack(**{**fields, "scopes": tuple(fields["scopes"])})


def make_readable(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def assert_private(directory: Path) -> None:
    """Nobody else can enter the directory, or read the state or a log in it."""
    state = directory / "state"
    for path in (directory, state, *state.rglob("*"), *directory.glob("*.log")):
        assert not path.stat().st_mode & 0o077, path


def assert_nothing_runs(emulator: Emulator) -> None:
    assert is_stopped(emulator)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, emulator.port)).close()
