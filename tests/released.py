"""Gets the functions of the last release from the project's git history."""

import io
import os
import py_compile
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from tests.aws_template import ROOT

# The last release: its number, and its tag or commit. CONTRIBUTING.md says when to change them.
RELEASE = ("0.1.0", "c7d7c2a3bd55012b953d71c3c4852e90a1e623d7")


def put_artifact_into(directory: Path, build: Path) -> None:
    """Put the released functions into a directory, with the packages of a current build.

    Skips the test if the git history is missing, for example in a source archive.

    Args:
        directory: a new directory for the artifact.
        build: the directory of a built function.
    """
    released = _sources()
    ours = {path.name for path in (ROOT / "functions").iterdir()} | {"dashboard", "__pycache__"}
    shutil.copytree(
        build, directory, ignore=lambda place, _: ours if Path(place) == build else set[str]()
    )
    released.extractall(directory)
    for path in map(directory.joinpath, released.namelist()):
        if path.suffix == ".py":
            compiled = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(path), invalidation_mode=compiled)


def changelog() -> str:
    """Return the changelog of the last release. Skip the test if the git history is missing."""
    return _git("show", f"{RELEASE[1]}:CHANGELOG.md").decode()


def _sources() -> zipfile.ZipFile:
    archive = _git("archive", "--format=zip", f"{RELEASE[1]}:functions")
    return zipfile.ZipFile(io.BytesIO(archive))


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments],  # noqa: S607
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        message = f"needs the project's git history, with the release {RELEASE[0]}"
        if os.environ.get("TALLY_HISTORY") == "required":
            pytest.fail(message)
        pytest.skip(message)
