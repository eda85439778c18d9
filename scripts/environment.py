"""Creates `.venv` and installs packages into it: `environment.py run` or `environment.py all`.

`make` runs this script before the targets that need packages, with the interpreter that the make
variable PYTHON names. The script imports only the standard library, and writes only to standard
error. If all packages are already installed, the script does nothing.

`environment.py idle` installs nothing. This command fails if a local stack is running.
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
CLIENT = "client"  # the package tally_client, with the command `tally`
LOCK = ROOT / ".local" / "lock"  # held by a running local stack

# The sets of packages, and the files that define each set. pip installs the first file, which
# includes the other requirements files. `all` includes `run`.
_RUN = ("scripts/requirements.txt", "functions/requirements.txt", f"{CLIENT}/pyproject.toml")
SETS = {
    "run": _RUN,
    "all": ("requirements.txt", *_RUN),
}

# This file says what is in .venv: the interpreter, and a hash of the files that define each
# installed set. The file is written last. If the file is missing, .venv is incomplete.
STAMP = VENV / "tally.json"

NOT_DOWNLOADED = (
    "The packages could not be downloaded, because the package index does not respond. Connect to"
    " the network, or set PIP_INDEX_URL to an index that you can reach, and try again."
)

# If pip cannot reach a package index, its output contains one of these texts.
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
    """Install a set of packages into `.venv`, and create or rebuild `.venv` if necessary.

    Args:
        wanted: the name of the set, `run` or `all`.

    Raises:
        SystemExit: the installation failed. The message says why, in one line.
    """
    if sys.version_info < (3, 11):  # noqa: UP036  `make` runs this with any Python
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Python 3.11 or newer is needed, not {version}: try make PYTHON=python3.13")
    root = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(root, fcntl.LOCK_EX)  # `make run` and `make test` may start at the same time
    installed = read_stamp()
    if installed.get("python") == interpreter() and installed.get(wanted) == digest(wanted):
        replace_sam()
        return
    difference = reason_to_rebuild(installed, wanted)
    if difference:
        if is_running():
            sys.exit(f"{difference}, and a local stack is running from it: stop that first")
        say(f"Creating .venv ({difference})…")
        run(sys.executable, "-m", "venv", "--clear", str(VENV))
        installed = {"python": interpreter()}
    say(f"Installing the packages for {purpose(wanted)}: this can take a minute or two…")
    install("--requirement", SETS[wanted][0])
    # The requirements files have the build backend and all packages that the client needs. So pip
    # downloads nothing, and .venv has exactly the versions in these files.
    install("--no-build-isolation", "--no-deps", "--editable", CLIENT)
    replace_sam()
    STAMP.write_text(json.dumps({**installed, "run": digest("run"), wanted: digest(wanted)}))


def reason_to_rebuild(installed: dict[str, str], wanted: str) -> str | None:
    """Return why `.venv` must be rebuilt. Return None if it is enough to install more packages.

    Args:
        installed: the result of `read_stamp`.
        wanted: the name of the set to install.
    """
    if not VENV.exists():
        return "there is none yet"
    if "python" not in installed or not (VENV / "bin" / "python").exists():
        return ".venv is incomplete, or its Python is gone"
    if installed["python"] != interpreter():
        return f".venv has {installed['python']}, and PYTHON is {interpreter()}"
    if any(installed[name] != digest(name) for name in ("run", wanted) if name in installed):
        return ".venv has other versions than the requirements files"
    return None


def read_stamp() -> dict[str, str]:
    """Return the content of `STAMP`, or an empty dictionary if there is no complete `.venv`."""
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp


def interpreter() -> str:
    """Return a text that identifies this interpreter: implementation, version and directory."""
    version = ".".join(map(str, sys.version_info[:2]))
    return f"{sys.implementation.name} {version} of {os.path.realpath(sys.base_prefix)}"


def digest(name: str) -> str:
    """Return a hash of the files that define a set."""
    content = b"\0".join((ROOT / path).read_bytes() for path in SETS[name])
    return hashlib.sha256(content).hexdigest()[:16]


def is_running() -> bool:
    """Return whether a local stack is running from this directory."""
    try:
        with LOCK.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def purpose(name: str) -> str:
    """Return what a set of packages is for, as text for the user."""
    return "the local stack" if name == "run" else "the local stack, tests and checks"


def install(*what: str) -> None:
    """Install a requirements file or a package.

    Args:
        what: options of pip. The last one is a path in the repository.

    Raises:
        SystemExit: pip failed.
    """
    *chosen, path = what
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    # Do not compile the modules. Most modules are never imported, and Python compiles a module when
    # it is first imported.
    options = ["--quiet", "--no-input", "--no-compile", "--retries", "2"]
    done = captured(*pip, "install", *options, *chosen, str(ROOT / path))
    if not done.returncode:
        return
    if is_offline(done.stdout):
        sys.exit(NOT_DOWNLOADED)
    say(done.stdout.rstrip())
    sys.exit(f"pip could not install {path}: see its output above.")


def replace_sam() -> None:
    """Copy `scripts/sam` over the `sam` command that pip installed."""
    ours, installed = ROOT / "scripts" / "sam", VENV / "bin" / "sam"
    if not installed.exists() or not filecmp.cmp(ours, installed, shallow=False):
        shutil.copy(ours, installed)


def is_offline(output: str) -> bool:
    """Return whether pip's output shows that pip could not reach a package index."""
    return any(sign in output for sign in _OFFLINE)


def run(*command: str) -> None:
    """Run a program and wait for it to finish. Print its output only if it fails.

    Raises:
        SystemExit: the program failed.
    """
    done = captured(*command)
    if done.returncode:
        say(done.stdout.rstrip())
        sys.exit(f"{' '.join(command)} failed: see its output above.")


def captured(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program, wait for it to finish, and return its status and output.

    The attribute `stdout` of the result has both the standard output and the standard error.
    """
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def say(text: str) -> None:
    """Print a line about the progress to standard error."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    if sys.argv[1] == "idle":
        if is_running():
            sys.exit("A local stack is running: stop it first.")
    else:
        main(sys.argv[1])
