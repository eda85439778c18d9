"""Flask, which is none of Lambda's: a server of its own, and a file for its database."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.artifacts import Artifact
from local_stack import free_port

STOP_SECONDS = 10


@contextmanager
def serving(artifact: Artifact) -> Iterator[str]:
    """Start it, and give the address at which it answers in a moment."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as scratch,
        subprocess.Popen(
            # -S: what is installed for development is out of reach.
            [sys.executable, "-S", "app.py", str(port)],
            cwd=artifact.directory,
            env={
                "PATH": os.defpath,
                "PYTHONDONTWRITEBYTECODE": "1",
                "DATABASE": str(Path(scratch) / "counters.sqlite"),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(STOP_SECONDS)
