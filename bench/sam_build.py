"""Runs `sam build` as a user would."""

import os
import subprocess
import sys
from pathlib import Path

from tests.aws_template import ROOT
from tests.lambda_runtime import PYTHON

BUILD_SECONDS = 300


def build(template: Path, target: Path, *parameters: str) -> str:
    """Build each function of a template into its own directory, for this version of Python.

    Args:
        template: the path of the template.
        target: the directory to build into. `sam build` creates this directory.
        parameters: values for parameters of the template, as `name=value`.

    Returns:
        The output of the command.

    Raises:
        RuntimeError: the build failed. The message is the output of the command.
    """
    bin_directory = Path(sys.executable).parent
    completed = subprocess.run(
        [
            *(bin_directory / "sam", "build", "--no-cached"),
            *("--template-file", template, "--build-dir", target),
            *("--parameter-overrides", f"PythonRuntime={PYTHON}", *parameters),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        | {"PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if completed.returncode:
        raise RuntimeError(completed.stdout)
    return completed.stdout
