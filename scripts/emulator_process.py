"""Starts and stops the emulator: runs `emulator.py` without the user's AWS settings."""

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import snapshots
from local_settings import HOST, LOCAL_ONLY, ROOT, LocalStackError
from state_directory import end_of, fresh_directory, make_private, only_user_of, open_log

START_SECONDS = 60
STOP_SECONDS = 30


@dataclass(frozen=True)
class Emulator:
    """A running emulator.

    Attributes:
        directory: the directory to which the emulator writes all its files.
        port: the port of 127.0.0.1 on which the emulator listens.
        process: the process of the emulator.
        lock: the file descriptor of the lock that keeps other runs out of the directory.
    """

    directory: Path
    port: int
    process: subprocess.Popen[bytes]
    lock: int

    @property
    def endpoint_url(self) -> str:
        """The emulator's endpoint, which all its AWS services share."""
        return f"http://{HOST}:{self.port}"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
    return port


@contextlib.contextmanager
def run_emulator(
    directory: Path, port: int, *, load: bool = False, persist: bool = False
) -> Iterator[Emulator]:
    """Start an emulator. Stop the emulator when the with block ends.

    Args:
        directory: the directory for state, builds and logs. Only one emulator can use it at a time.
        port: the port to listen on, on 127.0.0.1.
        load: whether to load the state that an earlier run saved. Without a state, the emulator
            has no stack.
        persist: whether to load the state, and also to save the state of this run.

    Yields:
        The running emulator.

    Raises:
        LocalStackError: the port or the directory cannot be used, the saved state cannot be read,
            or the emulator did not start.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)  # the state contains secrets
    with only_user_of(directory) as lock:
        _check_port(port)
        if persist and (line := _lost(directory / "state")):
            sys.stderr.write(f"{line}\n")
        make_private(directory)
        with (
            fresh_directory(directory, "tmp-") as temporary,
            open_log(directory / "emulator.log") as log,
        ):
            settings = _environment(directory, temporary, port, lock)
            settings["PERSIST_STATE"] = str(int(load or persist))
            settings["SAVE_STATE"] = str(int(persist))
            emulator = Emulator(directory, port, _start(directory, settings, lock, log), lock)
            (directory / "emulator.pid").write_text(f"{emulator.process.pid}\n")
            try:
                _wait_until_ready(emulator)
                yield emulator
            finally:
                _stop(emulator.process)
                if persist and _lost(directory / "state"):
                    sys.stderr.write(
                        "Not all changes were saved. The next start prints the time of the last"
                        " save.\n"
                    )


def clean_environment() -> dict[str, str]:
    """Return this process's environment, without variables that configure AWS tools or Python."""
    foreign = re.compile("AWS_|SAM_|MINISTACK_|LOCALSTACK_|LAMBDA_|PYTHON")
    ours = {name: value for name, value in os.environ.items() if not foreign.match(name)}
    # `sam build` needs python3.X, which is in the same directory as this script's interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), ours.get("PATH", os.defpath)])
    return ours | {
        "PATH": path,
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
    }


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children. The process must have been started in its own session."""
    # On macOS, PermissionError means that only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _start(
    directory: Path, settings: dict[str, str], lock: int, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "emulator.py")],
        cwd=directory,
        env=settings,
        stdin=subprocess.PIPE,  # when this process ends, the pipe ends, and the emulator stops
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so Ctrl-C reaches only this process, which stops the emulator
        pass_fds=[lock],
        umask=0o077,  # the state contains secrets of clients and users
    )


def _environment(directory: Path, temporary: Path, port: int, lock: int) -> dict[str, str]:
    """Return the environment of the emulator."""
    return clean_environment() | {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "STATE_DIR": str(directory / "state"),
        "STATE_LOCK": str(lock),
        "TMPDIR": str(temporary),  # for the emulator's pid file and the functions' code
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        # As on AWS, no token is issued if the trigger IssueToken fails.
        "MINISTACK_COGNITO_PRETOKEN_STRICT": "1",
        # When MiniStack starts and stops, it removes all of its containers from Docker, even those
        # that belong to another running MiniStack. This path is not Docker's socket. So MiniStack
        # cannot reach Docker, and removes nothing.
        "DOCKER_HOST": f"unix://{directory}/no-docker.sock",
    }


def _check_port(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except PermissionError as error:
        message = f"port {port} needs the rights of root: choose a PORT from 1024 on"
        raise LocalStackError(message) from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            message = f"cannot listen on port {port}: {error.strerror}"
            raise LocalStackError(message) from error
        message = f"port {port} is in use: stop the program that uses it, or choose another PORT"
        raise LocalStackError(message) from error


def _lost(state: Path) -> str | None:
    try:
        return snapshots.lost(state)
    except snapshots.DamagedError as error:
        raise LocalStackError(str(error)) from error


def _wait_until_ready(emulator: Emulator) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and emulator.process.poll() is None:
        with contextlib.suppress(OSError):
            LOCAL_ONLY.open(f"{emulator.endpoint_url}/_ministack/ready", timeout=5).close()
            return
        time.sleep(0.1)
    message = f"the emulator did not start:\n{end_of(emulator.directory / 'emulator.log')}"
    raise LocalStackError(message)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the emulator save its state and stop. Then kill the remaining processes of its group."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        sys.stderr.write("The emulator did not stop in time. Its last changes may be lost.\n")
    kill_group(process)
