"""What `sam build` makes, built once for all emulators that the tests start."""

import fcntl
import os
import shutil
from pathlib import Path

from tests.aws_template import ROOT

from deployment import BUILD, BUILD_STAMP, build, is_built
from emulator_process import free_port, run_emulator

KEPT = ROOT / ".aws-sam" / "e2e"


def put_build_into(directory: Path) -> None:
    """Put a build of the present sources where an emulator with this directory expects it."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with KEPT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes run the tests
        if not is_built(KEPT):
            with run_emulator(KEPT, free_port()) as emulator:
                build(emulator)
        shutil.copytree(KEPT / BUILD, directory / BUILD, copy_function=_link)
        shutil.copy(KEPT / BUILD_STAMP, directory)


def _link(source: str, target: str) -> None:
    """Make a hard link: it is faster than a copy, and nothing writes to the files of a build."""
    try:
        os.link(source, target)
    except OSError:  # the two are on different file systems
        shutil.copy2(source, target)
