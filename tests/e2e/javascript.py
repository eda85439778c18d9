"""docs/first-steps.mjs, and Node to run it."""

import shutil
import subprocess

import pytest
from tests.aws_template import ROOT

PROGRAM = ROOT / "docs" / "first-steps.mjs"
NODE = 18  # the first version of Node with `fetch`


def node() -> str:
    """Return the path of Node. Skip the test if there is none that can run the program."""
    path = shutil.which("node")
    if path:
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        if int(version.stdout.removeprefix("v").partition(".")[0]) >= NODE:
            return path
    pytest.skip(f"docs/first-steps.mjs was not run: Node {NODE} or later is not installed")
