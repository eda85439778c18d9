"""In the local stack, processes of functions are forks of one that has loaded their packages."""

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from function_processes import Forker

PROGRAM = """
import os, sys, botocore
print(botocore.LOADED_BY, os.getpid(), os.getcwd(), os.environ["NAME"], flush=True)
print(sys.stdin.readline(), end="", flush=True)
sys.stderr.write(sys.stdin.readline())
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the forks")


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[IO[str]]:
    """Return a file that this process has locked."""
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@pytest.fixture
def forker(lock: IO[str]) -> Iterator[Forker]:
    forker = Forker([lock.fileno()])
    yield forker
    forker.close()


@pytest.fixture
def start(forker: Forker, tmp_path: Path) -> Callable[[str], Any]:
    """Return a function that starts a process with a value of the variable NAME."""
    package = tmp_path / "code" / "botocore"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os\nLOADED_BY = os.getpid()\n")
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    return lambda name: forker(
        [sys.executable, str(script)], cwd=str(package.parent), env={"NAME": name}
    )


def test_each_process_is_a_fork_with_its_own_environment_and_pipes(
    start: Callable[[str], Any], tmp_path: Path
) -> None:
    processes = [start("a"), start("b")]

    lines = [each.stdout.readline().split() for each in processes]
    for each in processes:
        each.stdin.write(f"to {each.pid}\nerror of {each.pid}\n")

    assert [line[1:] for line in lines] == [
        [str(each.pid), str(tmp_path / "code"), name]
        for each, name in zip(processes, "ab", strict=True)
    ]
    assert {line[0] for line in lines}.isdisjoint(line[1] for line in lines)
    assert lines[0][0] == lines[1][0], "the packages were loaded twice"
    for each in processes:
        assert each.stdout.read() == f"to {each.pid}\n"
        assert each.stderr.read() == f"error of {each.pid}\n"


@pytest.mark.parametrize("stop", ["terminate", "kill"])
def test_a_process_runs_until_it_is_stopped(start: Callable[[str], Any], stop: str) -> None:
    process, other = start("a"), start("b")
    process.stdout.readline()

    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.01)
    getattr(process, stop)()

    assert process.wait(timeout=60) is not None
    assert process.poll() is not None
    assert process.stdout.read() == ""
    assert other.poll() is None
    other.kill()


def test_processes_end_with_the_one_that_forks_and_hold_the_lock_until_then(
    forker: Forker, start: Callable[[str], Any], lock: IO[str]
) -> None:
    process = start("a")
    process.stdout.readline()
    lock.close()  # now only the processes of the functions hold it

    with Path(lock.name).open() as next_run:
        with pytest.raises(BlockingIOError):
            fcntl.flock(next_run, fcntl.LOCK_EX | fcntl.LOCK_NB)
        forker.close()
        assert process.wait(timeout=60) is not None
        fcntl.flock(next_run, fcntl.LOCK_EX)
    assert process.stdout.read() == ""
