"""Builds the programs that the benchmarks measure: Tally and its peers.

The peers are other implementations of Tally's increment, for comparison. `sam build` builds Tally
and the peers that run on Lambda. pip installs the Flask peer, which does not run on Lambda.

Builds are kept in .local/bench/. The directory of a build has a digest of its sources in its name,
so a program is built again only after its sources have changed.
"""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests import aws_template
from tests.aws_template import ROOT
from tests.lambda_runtime import PYTHON

from bench import sam_build

PEERS = ROOT / "bench" / "peers"
BUILDS = ROOT / ".local" / "bench"

# The peers that run on Lambda. The keys are the names of their folders, and the values are their
# logical ids in the peers' template.
LAMBDA_PEERS = {
    "powertools": "Powertools",
    "fastapi_mangum": "FastapiMangum",
    "bare_boto3": "BareBoto3",
    "floor": "Floor",
}
FLASK = "flask_sqlite"

# The build of Tally depends on these files and directories.
_SOURCES = ("template.yaml", "functions", "scripts", "Makefile")


@dataclass(frozen=True)
class Artifact:
    """A built program.

    Attributes:
        name: the name of its module or folder.
        directory: the built files.
        handler: the entry point, such as `app.handler`.
        unzipped: the size of the files, in bytes.
        zipped: the size of a zip file with these files, in bytes.
    """

    name: str
    directory: Path
    handler: str
    unzipped: int
    zipped: int


def ours() -> dict[str, Artifact]:
    """Build Tally's functions. Return a mapping from the names of modules to artifacts."""
    sources = [ROOT / source for source in _SOURCES]
    directory = _built("ours", sources, partial(sam_build.build, ROOT / "template.yaml"))
    return {
        function.module: _artifact(directory / name, function.module, function.handler)
        for name, function in aws_template.functions().items()
    }


def peers() -> dict[str, Artifact]:
    """Build the peers. Return a mapping from the names of folders to artifacts.

    Flask is the last peer in the mapping.
    """
    lambdas = _built(
        "peers",
        [PEERS / "template.yaml", *(PEERS / name for name in LAMBDA_PEERS)],
        lambda target: sam_build.build(
            PEERS / "template.yaml",
            target,
            f"Architecture={'arm64' if platform.machine() in {'arm64', 'aarch64'} else 'x86_64'}",
        ),
    )
    flask = _built(FLASK, [PEERS / FLASK], lambda target: _pip(PEERS / FLASK, target))
    built = {
        name: _artifact(lambdas / logical_id, name, "app.handler")
        for name, logical_id in LAMBDA_PEERS.items()
    }
    return {**built, FLASK: _artifact(flask, FLASK, "app.app")}


def _built(kind: str, sources: Iterable[Path], build: Callable[[Path], object]) -> Path:
    """Return the directory of a build. Make the build if it does not exist yet.

    Args:
        kind: the beginning of the directory's name. A new build replaces all builds of its kind.
        sources: the files and directories that the build depends on.
        build: a callable that makes the build in a given directory.

    Raises:
        RuntimeError, subprocess.CalledProcessError: if the build failed.
    """
    directory = BUILDS / f"{kind}-{PYTHON}-{_digest(sources)}"
    if not directory.exists():
        BUILDS.mkdir(parents=True, exist_ok=True)
        for older in BUILDS.glob(f"{kind}-*"):
            _delete(older)
        with tempfile.TemporaryDirectory(dir=BUILDS, prefix="building-") as scratch:
            target = Path(scratch) / "build"
            build(target)
            target.rename(directory)
    return directory


def _digest(sources: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _pip(source: Path, target: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-compile", "--target", target, "--requirement", source / "requirements.txt"),
        ],
        check=True,
    )
    shutil.copy(source / "app.py", target)


def _artifact(directory: Path, name: str, handler: str) -> Artifact:
    """Return an artifact. Its size is measured once, and kept in a file next to its directory."""
    kept = directory.with_name(f"{directory.name}.size.json")
    if not kept.exists():
        kept.write_text(json.dumps(asdict(_size(directory))))
    return Artifact(name, directory, handler, **json.loads(kept.read_text()))


@dataclass(frozen=True)
class _Size:
    unzipped: int
    zipped: int


def _size(directory: Path) -> _Size:
    files = [path for path in directory.rglob("*") if path.is_file()]
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(directory))
        return _Size(sum(path.stat().st_size for path in files), file.tell())


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
