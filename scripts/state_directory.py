"""Manages the directory of a local stack: the lock, the log files and the access rights."""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from local_settings import LocalStackError

LEFT_OVER_SECONDS = 60  # how long a save or a build may go on after its local stack was killed
# A shorter wait is not reported. After a normal stop, the last processes end within this time.
SILENT_SECONDS = 1
LOG_LINES_SHOWN = 40


@contextlib.contextmanager
def only_user_of(directory: Path) -> Iterator[int]:
    """Hold the directory's lock until the with block ends.

    Every process that writes to the directory inherits the lock from this process. So the next run
    waits until all these processes have ended, also if this process is killed.

    Yields:
        The file descriptor of the lock.

    Raises:
        LocalStackError: another local stack holds the lock.
    """
    with (directory / "lock").open("a+") as lock:
        began = time.monotonic()
        told = False
        while not _locked(lock):
            waited = time.monotonic() - began
            if _is_running(_holder(lock)) or waited > LEFT_OVER_SECONDS:
                message = f"another local stack is using {directory}: stop it first"
                raise LocalStackError(message)
            if waited > SILENT_SECONDS and not told:
                sys.stderr.write("Waiting for the last processes of a killed run to end.\n")
                told = True
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield lock.fileno()
        finally:
            lock.truncate(0)  # this run has ended, but its last processes may still have the lock


@contextlib.contextmanager
def fresh_directory(directory: Path, prefix: str) -> Iterator[Path]:
    """Create a directory for this run. Delete the directory when the with block ends.

    Args:
        directory: the parent directory.
        prefix: the beginning of the new directory's name. All other directories whose names begin
            with `prefix` are deleted first: runs that were killed left them behind.

    Yields:
        The new directory.
    """
    for left in directory.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=directory, prefix=prefix, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def make_private(directory: Path) -> None:
    """Make the state and the logs unreadable for other users.

    The directory may also have files of earlier versions of Tally, which all users could read.
    """
    state = directory / "state"
    state.mkdir(exist_ok=True)
    for path in (state, *state.rglob("*"), *directory.glob("*.log")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def open_log(path: Path) -> IO[bytes]:
    """Create a log, or replace it.

    Only the user may read the log, because it contains the output of Lambda functions.
    """
    path.unlink(missing_ok=True)
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))


def end_of(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])


def _locked(lock: IO[str]) -> bool:
    """Try to take the lock. Return whether this process holds the lock now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: IO[str]) -> int:
    """Return the process id in a lock file. Return 0 if there is none."""
    lock.seek(0)
    text = lock.read()
    return int(text) if text.isdecimal() else 0


def _is_running(process_id: int) -> bool:
    if not process_id:
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process belongs to another user
        return True
    return True
