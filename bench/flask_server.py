"""Runs the Flask peer: an HTTP server with SQLite that counts, for comparison with Tally."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.artifacts import Artifact
from emulator_process import free_port

STOP_SECONDS = 10


@contextmanager
def serving(artifact: Artifact) -> Iterator[str]:
    """Start the server, yield its address, and stop the server when the with block ends.

    The server may need a moment before it accepts connections.
    """
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as scratch,
        subprocess.Popen(
            # -S hides the packages that are installed for development.
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
