"""Runs `sam build` once for all tests that need the built functions."""

import fcntl
import os
import shutil
from pathlib import Path

from tests.aws_template import ROOT

from deployment import BUILD, BUILD_STAMP, build, is_built
from emulator_process import free_port, run_emulator

KEPT = ROOT / ".aws-sam" / "e2e"
LOG = KEPT / "sam-build.log"  # the output of `sam build`


def put_build_into(directory: Path) -> None:
    """Put a build of the current sources where an emulator with that directory expects it.

    The first call runs `sam build` and keeps the build. Later calls use the kept build.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    with KEPT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests may run in several processes
        if not is_built(KEPT):
            with run_emulator(KEPT, free_port()) as emulator:
                build(emulator)
        shutil.copytree(KEPT / BUILD, directory / BUILD, copy_function=_link)
        shutil.copy(KEPT / BUILD_STAMP, directory)


def _link(source: str, target: str) -> None:
    """Create a hard link, which is faster than a copy. Nothing writes to the files of a build."""
    try:
        os.link(source, target)
    except OSError:  # source and target are on different file systems
        shutil.copy2(source, target)
