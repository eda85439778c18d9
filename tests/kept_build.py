"""Runs `sam build` and `sam deploy` once for all tests that need a build or a stack."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.aws_template import ROOT

from deployment import BUILD, BUILD_STAMP, build, deploy, is_built
from emulator_process import free_port, run_emulator

KEPT = ROOT / ".aws-sam" / "e2e"
LOG = KEPT / "sam-build.log"  # the output of `sam build`
STATE = KEPT / "state"
STATE_STAMP = STATE / "scripts"  # a hash of the scripts that made the state


def put_stack_into(directory: Path) -> None:
    """As `put_build_into`, but also put the saved state of an emulator with a new stack there.

    To use the stack, load the state. A later `deploy` finds that the stack is deployed.
    """
    put_build_into(directory)
    with _lock():
        digest = _digest_of_scripts()
        if not STATE_STAMP.exists() or STATE_STAMP.read_text() != digest:
            shutil.rmtree(STATE, ignore_errors=True)
            with run_emulator(KEPT, free_port(), persist=True) as emulator:
                deploy(emulator)
            STATE_STAMP.write_text(digest)
        shutil.copytree(STATE, directory / "state")


def put_build_into(directory: Path) -> None:
    """Put a build of the current sources where an emulator with that directory expects it.

    The first call runs `sam build` and keeps the build. Later calls use the kept build.
    """
    with _lock():
        if not is_built(KEPT):
            shutil.rmtree(STATE, ignore_errors=True)
            with run_emulator(KEPT, free_port()) as emulator:
                build(emulator)
        shutil.copytree(KEPT / BUILD, directory / BUILD, copy_function=_link)
        _refer_to_the_sources(directory / BUILD / "template.yaml")
        shutil.copy(KEPT / BUILD_STAMP, directory)


def _refer_to_the_sources(template: Path) -> None:
    """Correct the paths of README.md and LICENSE in a copied template. They are relative to it."""
    text = template.read_text()
    template.unlink()  # it is a link to the kept template
    template.write_text(text.replace(os.path.relpath(ROOT, KEPT / BUILD), str(ROOT)))


def _digest_of_scripts() -> str:
    digest = hashlib.sha256()
    for path in sorted((ROOT / "scripts").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _lock() -> Iterator[None]:
    """Keep the other processes that run tests out of the with block."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with KEPT.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _link(source: str, target: str) -> None:
    """Create a hard link, which is faster than a copy. Nothing writes to the files of a build."""
    try:
        os.link(source, target)
    except OSError:  # source and target are on different file systems
        shutil.copy2(source, target)
