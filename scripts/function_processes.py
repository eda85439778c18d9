"""Corrects how MiniStack starts the processes of Lambda functions, so that they start faster.

- All processes of a function share one copy of its code.
- A process can import only what is in its artifact, and Python's standard library.
- On Linux, a process is a fork of a process that has already loaded botocore and Powertools from
  the artifact. A start spends most of its time on loading them.
"""

import contextlib
import hashlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from ministack.core import lambda_runtime

import function_forks

_END_OF_LOG = "\x04"  # a line that no function writes
_LOG_SECONDS = 5.0  # how long the end of a log may take after the answer
_ENDED = 1  # the exit code of a fork that has ended; nobody needs the real one


def use(lock: int) -> None:
    """Install the corrections in MiniStack.

    Args:
        lock: the file descriptor of the lock that keeps other runs out of the directory. The
            processes of functions inherit it. So if this process is killed, the next run waits
            until they have ended. Otherwise, one of them could still change a counter of that run.
    """
    _share_code()
    _run_functions_alone()
    _mark_end_of_log()
    start = (
        Forker([lock]) if sys.platform == "linux" else partial(subprocess.Popen, pass_fds=[lock])
    )
    lambda_runtime.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": start})


def _share_code() -> None:
    """Let all processes of a Lambda function run from one copy of the function's code.

    Without this correction, MiniStack unpacks a copy for each process. For 32 concurrent callers,
    the copies take 2 GB and half a minute.
    """
    lock = threading.Lock()
    copies = Path(tempfile.gettempdir()) / "code"

    class SharedZip(zipfile.ZipFile):
        def extractall(self, path: Any = None, members: Any = None, pwd: Any = None) -> None:  # noqa: ANN401  as in ZipFile
            if self.fp is None:
                super().extractall(path, members, pwd)  # raises the error for a closed file
                return
            self.fp.seek(0)
            copy = copies / hashlib.sha256(self.fp.read()).hexdigest()
            with lock:
                if not copy.exists():
                    unfinished = copy.with_suffix(".unfinished")
                    super().extractall(unfinished, members, pwd)
                    unfinished.rename(copy)
            Path(path).rmdir()
            Path(path).symlink_to(copy)

    lambda_runtime.zipfile = types.SimpleNamespace(**{**vars(zipfile), "ZipFile": SharedZip})


def _run_functions_alone() -> None:
    """Let Lambda functions import only what is in their artifacts, and Python's standard library.

    Without this correction, a function would also find the packages of this emulator. So a package
    that is missing from the artifact would be noticed only on AWS. And botocore would import
    packages that only tests and tools need, which doubles the time of a cold start.
    """
    only_python = """
import os, sys
library = os.path.dirname(os.__file__)
sys.path = [each for each in sys.path if each.startswith(library) and "-packages" not in each]
"""
    lambda_runtime._PYTHON_WORKER_SCRIPT = only_python + lambda_runtime._PYTHON_WORKER_SCRIPT


def _mark_end_of_log() -> None:
    """Let a Lambda function mark the end of its log, so that its answer does not wait for more.

    Without this correction, MiniStack looks for more lines every millisecond. If a function writes
    no line, its answer waits 50 milliseconds.
    """
    answer = "        _real_stdout.flush()\n\nrun()"
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    mark = f'        sys.stderr.write("\\n{_END_OF_LOG}\\n"); sys.stderr.flush()\n'
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(answer, mark + answer)

    def read_to_mark(worker: Any, **_waits: float) -> str:  # noqa: ANN401  MiniStack's own
        lines = []
        with contextlib.suppress(queue.Empty):  # the process has ended
            while (line := worker._stderr_queue.get(timeout=_LOG_SECONDS)) != _END_OF_LOG:
                lines += [line] if line else []
        return "\n".join(lines)

    lambda_runtime.Worker._drain_stderr_bounded = read_to_mark


class ForkedProcess:
    """A fork. It has the part of the interface of subprocess.Popen that MiniStack uses."""

    def __init__(self, parent: socket.socket, script: str, cwd: str, env: dict[str, str]) -> None:
        """Start the fork.

        Args:
            parent: the socket of the process that forks.
            script: the path of the Python program to run.
            cwd: the directory to run it in.
            env: its environment.

        Raises:
            OSError: the process that forks has ended.
        """
        its_input, write = os.pipe()
        read, its_output = os.pipe()
        read_error, its_error = os.pipe()
        self._life, its_life = os.pipe()
        self.stdin: IO[str] = open(write, "w", buffering=1, encoding="utf-8")  # noqa: PTH123, SIM115
        self.stdout: IO[str] = open(read, encoding="utf-8")  # noqa: PTH123, SIM115
        self.stderr: IO[str] = open(read_error, encoding="utf-8")  # noqa: PTH123, SIM115
        try:
            request = json.dumps([script, cwd, env]).encode()
            socket.send_fds(parent, [request], [its_input, its_output, its_error, its_life])
        finally:
            for descriptor in (its_input, its_output, its_error, its_life):
                os.close(descriptor)
        # The fork writes its process id as its first line. Without one, it has ended already.
        line = os.read(self._life, 20)
        self.pid = int(line or 0)
        self.returncode: int | None = None if line else _ENDED

    def __del__(self) -> None:
        """Close the pipes."""
        os.close(self._life)
        for file in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                file.close()

    def poll(self) -> int | None:
        """Return None while the fork runs."""
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the fork has ended.

        Raises:
            subprocess.TimeoutExpired: the fork is still running after `timeout` seconds.
        """
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def terminate(self) -> None:
        """Send SIGTERM to the fork."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the fork."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _ended_within(self, seconds: float | None) -> int | None:
        # `select` cannot wait for descriptors above 1023, which many functions would need.
        waiting = select.poll()
        waiting.register(self._life, select.POLLIN | select.POLLHUP)
        if self.returncode is None and waiting.poll(None if seconds is None else 1000 * seconds):
            self.returncode = _ENDED
        return self.returncode


class Forker:
    """Takes the place of subprocess.Popen in MiniStack."""

    def __init__(self, inherited: Sequence[int] = ()) -> None:
        """Start no process yet.

        Args:
            inherited: the file descriptors that all processes of functions inherit.
        """
        self._inherited = inherited
        self._lock = threading.Lock()
        self._parents: dict[Path, Parent] = {}  # by the directory of the code

    def __call__(self, arguments: list[str], **options: Any) -> Any:  # noqa: ANN401  of two classes
        """Start a process of a function.

        Args:
            arguments: the interpreter, and the path of the program.
            options: the options of subprocess.Popen.

        Returns:
            The process: a fork if the runtime is Python and the code includes botocore.
        """
        code = Path(options.get("cwd") or ".").resolve()
        if arguments[0] == sys.executable and (code / "botocore").is_dir():
            with self._lock, contextlib.suppress(OSError):
                parent = self._parents.get(code) or Parent(code, self._inherited)
                self._parents[code] = parent
                return ForkedProcess(parent.socket, arguments[1], options["cwd"], options["env"])
        return subprocess.Popen(arguments, pass_fds=self._inherited, **options)

    def close(self) -> None:
        """Stop the processes that fork, and their forks."""
        for parent in self._parents.values():
            parent.socket.close()
            parent.process.wait()


class Parent:
    """The process that forks for one copy of the code.

    When its socket is closed, it ends, and its forks are killed.
    """

    def __init__(self, code: Path, inherited: Sequence[int]) -> None:
        """Start the process."""
        self.socket, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_end:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(function_forks.__file__)), str(code)],
                stdin=its_end.fileno(),
                cwd=code,
                pass_fds=inherited,
            )
