"""The local stack of `make run` keeps its state when it is stopped or killed.

After a kill, the next `make run` prints which changes may be lost.
"""

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
from tests.e2e.producer import Producer
from tests.e2e.service import Caller, token_for, wait_for
from tests.kept_build import put_stack_into
from tests.sizes import FULL, cases

from deployment import Stack, deploy, read_stack
from emulator_process import Emulator, free_port, run_emulator
from local_settings import HOST

START_SECONDS = 180
STOP_SECONDS = 5
# The visibility timeout of IncrementQueue in this test. If a batch was in flight when the state was
# saved, the batch is redelivered after this time. `make test` sets 1 second to save time. The
# template sets 60 seconds.
REDELIVERY_SECONDS = cases(60, part=1)
SAVED_SECONDS = 60  # enough to save a small state on a busy machine


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory for the emulators of all tests. It has a saved state with a new stack."""
    with tempfile.TemporaryDirectory(prefix="tally-") as name:
        directory = Path(name) / "with spaces"
        directory.mkdir()
        put_stack_into(directory)
        yield directory


def is_stopped(emulator: Emulator) -> bool:
    """Return whether the processes of the emulator and of its functions end within STOP_SECONDS."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(emulator.process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_restart_continues_from_the_saved_state_and_stop_leaves_no_process(
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
            # If the stack stopped before these messages are deleted, SQS would hold back later
            # messages of their group for the visibility timeout.
            producer.wait_until_done()
    assert_no_process_is_left(emulator)
    assert_private(directory)
    make_readable_by_others(directory)  # as earlier versions of Tally left it

    with run_emulator(directory, free_port(), persist=True) as emulator:
        restarted = deploy(emulator)
        assert not (directory / "sam-deploy.log").exists()  # not deployed again
        assert_private(directory)
        assert restarted == with_port(stack, emulator.port)
        with Caller(restarted.url, old_token) as caller:
            assert caller.get(counter).body == before
            assert caller.get(f"{counter}/history").body == history
            assert caller.post(counter).body["version"] == 3
        with Caller(restarted.url, token_for(restarted, restarted.scopes)) as caller:
            assert caller.post(counter).body["value"] == 12
            entries = caller.history(counter, entries=4)
            # The queue must not number its messages from the beginning again. If it did, the
            # counter would treat this message as a duplicate.
            producer = Producer(restarted, caller)
            producer.send("queue", {"counter_id": "queued"})
            assert producer.value("queued", 3) == 3
            producer.put(restarted.outputs["EventBusName"], "shop", {"counter_id": "queued"})
            assert producer.value("queued", 4) == 4
    assert_no_process_is_left(emulator)

    assert capfd.readouterr().err == ""
    assert entries[:2] == history
    assert [(entry["version"], entry["previous_value"], entry["value"]) for entry in entries] == [
        (1, 0, 1),
        (2, 1, 10),
        (3, 10, 11),
        (4, 11, 12),
    ]


def test_start_after_a_kill_restores_the_saved_state_and_says_what_may_be_lost(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with running(directory, port) as (runner, stack):
        emulator_pid = int((directory / "emulator.pid").read_text())
        with Caller(stack.url, token_for(stack, stack.scopes)) as caller:
            acknowledged = kill_while_counting(stack, caller, directory, [runner.pid, emulator_pid])
    capfd.readouterr()

    for victim in ("the emulator", "nobody") if FULL else ("nobody",):
        with run_emulator(directory, port, persist=True) as emulator:
            version = acknowledged_version(capfd.readouterr().err, acknowledged)
            with Caller(stack.url, token_for(stack, stack.scopes)) as caller:
                assert_consistent(caller, version)
                if victim != "nobody":
                    pids = [emulator.process.pid]
                    acknowledged = kill_while_counting(stack, caller, directory, pids)
        capfd.readouterr()

    with run_emulator(directory, port, persist=True):
        assert capfd.readouterr().err == ""  # the previous run was stopped, not killed


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
    """Send increments until a saved state includes some of them. Kill the processes meanwhile.


    Returns:
        The time of each answer, in seconds since the epoch, and the version in it.
    """
    producer = Producer(stack, caller)
    producer.set_visibility_timeout(REDELIVERY_SECONDS)
    producer.send("queue", *[{"counter_id": "sent"}] * 5)
    answers: list[tuple[float, int]] = []
    stopped = threading.Event()

    def count() -> None:
        with Caller(stack.url, token_for(stack, stack.scopes)) as other:
            while not stopped.is_set():
                try:
                    version = other.post("/counters/killed").body["version"]
                    answers.append((time.time(), version))
                except (urllib3.exceptions.HTTPError, OSError):
                    return

    counting = threading.Thread(target=count)
    counting.start()
    # Wait until the state is saved after the first answer. Meanwhile, more increments are sent.
    wait_for(lambda: answers and saved_at(directory) > answers[0][0], seconds=SAVED_SECONDS)
    assert saved_at(directory) > answers[0][0]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    stopped.set()
    counting.join()
    return answers


def acknowledged_version(stderr: str, acknowledged: list[tuple[float, int]]) -> int:
    """Return the last version that was acknowledged before the state was last saved.

    Args:
        stderr: the error output of the next start, which has the time of the last save.
        acknowledged: the time of each answer, and the version in the answer.
    """
    pattern = r"The last run was killed\. Its state was last saved at (\S+): changes after .*\n"
    stderr = stderr.removeprefix("Waiting for the last processes of a killed run to end.\n")
    match = re.fullmatch(pattern, stderr)
    assert match, stderr
    last_save = datetime.fromisoformat(match[1]).timestamp()
    saved = [version for answered_at, version in acknowledged if answered_at < last_save]
    assert saved, "no increment was saved before the kill"
    return max(saved)


def assert_consistent(caller: Caller, version: int) -> None:
    """Check that the counters are consistent after a restart.

    - No saved change is lost.
    - The histories have no gaps.
    - Each queue message is counted once.
    """
    # On a busy machine, a function can take longer than its timeout to start.
    counter = wait_for(
        lambda: caller.get("/counters/killed"), lambda answer: answer.status != 504, seconds=60
    ).body
    assert counter["version"] >= version
    caller.whole_history("/counters/killed", seconds=START_SECONDS)  # RecordHistory starts, too
    assert caller.post("/counters/killed").body["version"] == counter["version"] + 1
    caller.whole_history("/counters/killed")
    # Five messages were sent before each kill. The saved state has each message, either in the
    # queue or counted in the counter.
    sent = wait_for(
        lambda: int(caller.get("/counters/sent").body["value"]),
        lambda value: value in {5, 10},
        seconds=REDELIVERY_SECONDS + 30,  # in the saved state, a batch may be in flight
    )
    assert sent in {5, 10}
    caller.whole_history("/counters/sent")


def with_port(stack: Stack, port: int) -> Stack:
    """Return the same stack, but with another port in its URLs."""
    old_port = stack.endpoint_url.rpartition(":")[2]
    fields = json.loads(json.dumps(asdict(stack)).replace(f":{old_port}", f":{port}"))
    return Stack(**{**fields, "scopes": tuple(fields["scopes"])})


def make_readable_by_others(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def assert_private(directory: Path) -> None:
    """Check that other users cannot read the directory, the state or the logs."""
    state = directory / "state"
    for path in (directory, state, *state.rglob("*"), *directory.glob("*.log")):
        assert not path.stat().st_mode & 0o077, path


def assert_no_process_is_left(emulator: Emulator) -> None:
    assert is_stopped(emulator)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, emulator.port)).close()
