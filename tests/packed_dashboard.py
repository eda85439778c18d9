"""The dashboard as the build packs it, for functions that run from the sources."""

import sys
import tempfile
from functools import cache
from pathlib import Path

import dashboard
from counters import dashboard as served


@cache
def use() -> None:
    """Let the functions in this process serve the packed dashboard. The first call packs it."""
    with tempfile.TemporaryDirectory() as directory:
        packed = Path(directory, "dashboard")
        dashboard.pack(packed, sys.executable)
        served.DIRECTORY = packed
        # The functions read all files once, and keep them.
        served.assets()
        served.template()


def asset_path(name: str) -> str:
    """Return the path of a file that the page loads."""
    use()
    return f"/assets/{served.digest()}/{name}"
