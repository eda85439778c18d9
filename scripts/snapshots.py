"""The local stack's saved state: a snapshot of all services, replaced as a whole.

Each service's state is a file named after its content. The index names the files of one snapshot,
so replacing the index replaces the snapshot. A kill leaves either the old one or the new one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

INDEX = "snapshot.index"

RUNNING = "running"
STOPPED = "stopped"
DEPLOYING = "deploying"  # stopped in the midst of a deployment, whose state is of no use

# Callers wrote what these hold. The others hold addresses of the emulator, with its port.
WRITTEN_BY_CALLERS = {"dynamodb", "s3", "cloudwatch_logs"}


class DamagedError(Exception):
    """The saved state cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Snapshot:
    """What the index says."""

    saved_at: float  # in seconds since the epoch: it holds every change made before
    port: int
    # RUNNING: the run goes on, or was killed. STOPPED: it saved everything.
    # DEPLOYING: it was stopped during a deployment.
    end: str
    files: dict[str, str]  # of each service


def write(
    directory: Path, texts: Mapping[str, str], *, saved_at: float, port: int, end: str
) -> None:
    """Replace the snapshot in `directory`. A service without a text keeps the one that it has."""
    old = read_index(directory)
    files = dict(old.files) if old else {}
    for service, text in texts.items():
        content = text.encode()
        files[service] = f"{service}.{hashlib.blake2b(content, digest_size=12).hexdigest()}.json"
        if not (directory / files[service]).exists():
            _replace(directory / files[service], content)
    write_index(directory, Snapshot(saved_at, port, end, files))
    kept = set(files.values())
    for path in (*directory.glob("*.json"), *directory.glob("*.unfinished")):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def write_index(directory: Path, snapshot: Snapshot) -> None:
    """Replace the index alone."""
    _replace(directory / INDEX, json.dumps(asdict(snapshot), indent=1).encode())


def read_index(directory: Path) -> Snapshot | None:
    """Return what the index says, or None if there is none.

    Raises:
        DamagedError: the index cannot be read.
    """
    try:
        return Snapshot(**json.loads((directory / INDEX).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise damaged(directory, INDEX) from error


def read(directory: Path, port: int) -> dict[str, str]:
    """Return the saved text of each service, with the emulator's addresses moved to `port`.

    Raises:
        DamagedError: a file of the snapshot is missing.
    """
    snapshot = read_index(directory)
    if snapshot:
        try:
            texts = {
                service: (directory / name).read_text() for service, name in snapshot.files.items()
            }
        except (OSError, ValueError) as error:
            raise damaged(directory, str(error)) from error
    else:  # MiniStack's own layout, which it writes at its end only
        texts = {path.stem: path.read_text() for path in directory.glob("*.json")}
    # An address is a whole JSON string, or the end of a key. One in the body of a message is the
    # caller's.
    address = re.compile(
        r"""(?:(?<=")|(?<=\\u0000'))(http://(?:localhost|127\.0\.0\.1)):\d+(?=/\d{12}/[^"'/\\]+["'])"""
    )
    return {
        service: text if service in WRITTEN_BY_CALLERS else address.sub(rf"\1:{port}", text)
        for service, text in texts.items()
    }


def lost(directory: Path) -> str | None:
    """Return one line about what the last run may have lost, or None if it saved everything.

    Raises:
        DamagedError: the index cannot be read.
    """
    snapshot = read_index(directory)
    if not snapshot or snapshot.end == STOPPED:
        return None
    saved_at = datetime.fromtimestamp(snapshot.saved_at, UTC).isoformat(timespec="milliseconds")
    how = "killed" if snapshot.end == RUNNING else "stopped while it was deploying"
    return (
        f"The last run was {how}. Its state was last saved at {saved_at.replace('+00:00', 'Z')}:"
        " changes after that may be lost."
    )


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def damaged(directory: Path, what: str) -> DamagedError:
    """Return the error for a saved state that cannot be read."""
    return DamagedError(
        f"the saved state is damaged ({what}): delete {directory} to start without it"
    )
