"""Gets the functions of the last release from the project's git history."""

import io
import py_compile
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.aws_template import ROOT

# The commit or the tag of the last release: 0.1.0. CONTRIBUTING.md says when to change it.
RELEASE = "c7d7c2a3bd55012b953d71c3c4852e90a1e623d7"


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
    released.extractall(directory, filter="data")
    for path in map(directory.joinpath, released.getnames()):
        if path.suffix == ".py":
            compiled = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(path), invalidation_mode=compiled)


def _sources() -> tarfile.TarFile:
    try:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", f"{RELEASE}:functions"],  # noqa: S607
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"needs the project's git history, with the last release ({RELEASE[:7]})")
    return tarfile.open(fileobj=io.BytesIO(archive))
