"""Finds the processes of Lambda functions, so that a test can kill them. This needs /proc."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from emulator_process import Emulator

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


def function_pids(emulator: Emulator, function: str) -> list[int]:
    """Return the ids of the processes that run a function.

    Such a process has its script open, and the path of the script has the name of the function. The
    emulator opens the script, too, when it starts such a process.

    Args:
        emulator: the emulator that runs the function.
        function: the name of the deployed function.
    """
    script = re.compile(rf"ministack-lambda-{re.escape(function)}-[^/]*/_worker\.py$")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has already ended, or belongs to another user
            pid, group = int(process.name), emulator.process.pid
            is_child = pid != group and os.getpgid(pid) == group
            if is_child and any(map(script.search, _open_files(process))):
                found.append(pid)
    return found


def _open_files(process: Path) -> Iterator[str]:
    for file in (process / "fd").iterdir():
        with suppress(OSError):  # the process has closed it in the meantime
            yield str(file.readlink())
