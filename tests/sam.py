"""`sam build`, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.aws_template import ROOT

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
BUILD_SECONDS = 300


def build(template: Path, target: Path, *parameters: str) -> str:
    """Build a template's functions for this Python, a directory for each.

    Args:
        template: the template.
        target: where the directories come; it is made.
        parameters: more of the template's parameters, as `name=value`.

    Returns:
        What was printed.

    Raises:
        RuntimeError: it failed; with what was printed.
    """
    here = Path(sys.executable).parent
    done = subprocess.run(
        [
            *(here / "sam", "build", "--no-cached"),
            *("--template-file", template, "--build-dir", target),
            *("--parameter-overrides", f"PythonRuntime={PYTHON}", *parameters),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout)
    return done.stdout
