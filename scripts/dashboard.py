"""Packs the dashboard: the page, and the files that the page loads.

The page's own files are in the directory `dashboard`. The page draws charts with uPlot, a
JavaScript library. This script takes uPlot from a package whose version and hash are in
`dashboard/requirements.txt`. Of this package, it uses only the library and its style sheet, which
have the MIT licence (`dashboard/uplot-license.txt`).
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from pip_install import install

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "dashboard"
PAGE = "index.html"
REQUIREMENTS = SOURCES / "requirements.txt"

# The files of the package that the page uses.
UPLOT = ("uplot/static/uPlot.iife.js", "uplot/static/uPlot.min.css")

# The directory that keeps these files. So the package is downloaded only once.
KEPT = ROOT / ".aws-sam" / "uplot"


def pack(directory: Path, python: str) -> None:
    """Put the page into a directory, and all files that the page loads into its `assets`.

    Args:
        directory: the directory. It does not exist yet.
        python: the interpreter that runs pip.

    Raises:
        BuildError: pip failed.
    """
    assets = directory / "assets"
    assets.mkdir(parents=True)
    shutil.copy(SOURCES / PAGE, directory)
    own = (each for each in SOURCES.iterdir() if each.is_file())
    for path in (*own, *uplot(python).iterdir()):
        if path.name not in {PAGE, REQUIREMENTS.name}:
            shutil.copy(path, assets)


def uplot(python: str) -> Path:
    """Return the directory in `KEPT` with the files of uPlot. The first call downloads them.

    Args:
        python: the interpreter that runs pip.

    Raises:
        BuildError: pip failed, or the package does not have the hash in `REQUIREMENTS`.
    """
    kept = KEPT / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    if kept.exists():
        return kept
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as temporary:
        package, files = Path(temporary, "package"), Path(temporary, "files")
        install(python, REQUIREMENTS, package, "--require-hashes")
        files.mkdir()
        for name in UPLOT:
            shutil.copy(package / name, files)
        try:
            files.rename(kept)
        except OSError:
            if not kept.exists():  # if it exists, another process was faster
                raise
    return kept
