"""Makes `.venv` and installs packages in it: `environment.py run` or `environment.py all`.

`make` runs it before its targets, with the interpreter that PYTHON names. It imports nothing that
has to be installed, writes to standard error only, and does nothing if all is there.
"""

from __future__ import annotations

import fcntl
import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / ".local" / "lock"  # held by a running local stack

# What each set installs. `all` includes `run`.
SETS = {
    "run": ("scripts/requirements.txt", "functions/requirements.txt"),
    "all": ("requirements.txt", "scripts/requirements.txt", "functions/requirements.txt"),
}

# What is in it: the interpreter, and of each set the hash of its requirements. Written last, so a
# .venv without it was never finished.
STAMP = VENV / "tally.json"

NOT_DOWNLOADED = (
    "The packages could not be downloaded: the package index does not answer. Connect to the"
    " network, or set PIP_INDEX_URL to an index that is in reach, and repeat."
)

# Parts of what pip says if it reaches no package index.
_OFFLINE = (
    "Failed to establish a new connection",
    "Connection refused",
    "Max retries exceeded",
    "Name or service not known",
    "NameResolutionError",
    "NewConnectionError",
    "Network is unreachable",
    "ProxyError",
    "Temporary failure in name resolution",
    "nodename nor servname",
    "ConnectTimeoutError",
    "ReadTimeoutError",
)


def main(wanted: str) -> None:
    """Bring `.venv` to where it has the set `wanted`, `run` or `all`.

    Raises:
        SystemExit: it cannot be; the message says why, in one line.
    """
    if sys.version_info < (3, 11):  # noqa: UP036  `make` runs this with any Python
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Python 3.11 or newer is needed, not {version}: try make PYTHON=python3.13")
    root = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(root, fcntl.LOCK_EX)  # `make run` and `make test` may begin at once
    there = read_stamp()
    if there.get("python") == interpreter() and there.get(wanted) == digest(wanted):
        replace_sam()
        return
    difference = reason_to_rebuild(there, wanted)
    if difference:
        if is_running():
            sys.exit(f"{difference}, and a local stack is running from it: stop that first")
        say(f"Making .venv with {wanted_packages(wanted)}: {difference}.")
        run(sys.executable, "-m", "venv", "--clear", str(VENV))
        there = {"python": interpreter()}
    else:
        say(f"Adding {wanted_packages(wanted)} to .venv.")
    install(SETS[wanted][0])
    replace_sam()
    STAMP.write_text(json.dumps({**there, "run": digest("run"), wanted: digest(wanted)}))


def reason_to_rebuild(there: dict[str, str], wanted: str) -> str | None:
    """Return why `.venv` has to be made anew, or None if packages can be added to it."""
    if not VENV.exists():
        return "there is none"
    if "python" not in there or not (VENV / "bin" / "python").exists():
        return ".venv is not finished, or its Python is gone"
    if there["python"] != interpreter():
        return f".venv has {there['python']}, and PYTHON is {interpreter()}"
    if any(there[name] != digest(name) for name in ("run", wanted) if name in there):
        return ".venv has other versions than the requirements name"
    return None


def read_stamp() -> dict[str, str]:
    """Return what is in `.venv`, as far as it is finished."""
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp


def interpreter() -> str:
    """Return what tells this interpreter from others that may have the same name."""
    version = ".".join(map(str, sys.version_info[:2]))
    return f"{sys.implementation.name} {version} of {os.path.realpath(sys.base_prefix)}"


def digest(name: str) -> str:
    """Return a hash of all that a set's requirements say."""
    content = b"\0".join((ROOT / path).read_bytes() for path in SETS[name])
    return hashlib.sha256(content).hexdigest()[:16]


def is_running() -> bool:
    """Tell whether a local stack runs from this directory."""
    try:
        with LOCK.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def wanted_packages(name: str) -> str:
    """Return what a set is for."""
    return "what the local stack needs" if name == "run" else "what tests and checks need, too"


def install(requirements: str) -> None:
    """Install a requirements file.

    Raises:
        SystemExit: pip failed.
    """
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    # Bytecode is made when a module is first imported: most of them never are.
    options = ["--quiet", "--no-input", "--no-compile", "--retries", "2"]
    done = captured(*pip, "install", *options, "--requirement", str(ROOT / requirements))
    if not done.returncode:
        return
    if is_offline(done.stdout):
        sys.exit(NOT_DOWNLOADED)
    say(done.stdout.rstrip())
    sys.exit(f"pip could not install {requirements}: what it says is above.")


def replace_sam() -> None:
    """Put `scripts/sam` in the place of the `sam` that pip installs."""
    ours, installed = ROOT / "scripts" / "sam", VENV / "bin" / "sam"
    if not installed.exists() or not filecmp.cmp(ours, installed, shallow=False):
        shutil.copy(ours, installed)


def is_offline(output: str) -> bool:
    """Tell from its output whether pip failed because it reached no package index."""
    return any(sign in output for sign in _OFFLINE)


def run(*command: str) -> None:
    """Run a program to its end, without its output unless it fails.

    Raises:
        SystemExit: it failed.
    """
    done = captured(*command)
    if done.returncode:
        say(done.stdout.rstrip())
        sys.exit(f"{' '.join(command)} failed: what it says is above.")


def captured(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and return its status and all that it wrote, as `stdout`."""
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def say(text: str) -> None:
    """Report progress."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    if sys.argv[1] == "idle":
        if is_running():
            sys.exit("A local stack is running: stop it first.")
    else:
        main(sys.argv[1])
