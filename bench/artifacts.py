"""What is measured, built: ours by `sam build`, the peers by their users' `sam build` and pip.

Each build is kept in .local/bench/ under a digest of what it was made from: it is made once.
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

from tests import aws_template, sam
from tests.aws_template import ROOT
from tests.sam import PYTHON

PEERS = ROOT / "bench" / "peers"
BUILDS = ROOT / ".local" / "bench"

# The peers' names in their template; Flask is none of Lambda's, and so not in it.
LAMBDA_PEERS = {
    "powertools": "Powertools",
    "fastapi_mangum": "FastapiMangum",
    "bare_boto3": "BareBoto3",
    "floor": "Floor",
}
FLASK = "flask_sqlite"

# Whatever could change what is built of ours.
_SOURCES = ("template.yaml", "functions", "scripts", "Makefile")


@dataclass(frozen=True)
class Artifact:
    """A program as it is shipped, and its size in bytes, as files and zipped."""

    name: str
    directory: Path
    handler: str
    unzipped: int
    zipped: int


def ours() -> dict[str, Artifact]:
    """Return what `sam build` makes of our functions, each by the name of its module."""
    sources = [ROOT / source for source in _SOURCES]
    directory = _built("ours", sources, partial(sam.build, ROOT / "template.yaml"))
    return {
        function.module: _artifact(directory / name, function.module, function.handler)
        for name, function in aws_template.functions().items()
    }


def peers() -> dict[str, Artifact]:
    """Return the peers, each by the name of its folder: those for Lambda, and then Flask."""
    lambdas = _built(
        "peers",
        [PEERS / "template.yaml", *(PEERS / name for name in LAMBDA_PEERS)],
        lambda target: sam.build(
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
    """Return the directory of a build, which `build` makes unless it is there already.

    An older build of the same kind is deleted.

    Raises:
        RuntimeError, subprocess.CalledProcessError: it cannot be built.
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
    """Return an artifact; its size is measured once, and kept beside it."""
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
