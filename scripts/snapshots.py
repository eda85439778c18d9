"""The local stack's saved state: a snapshot of all services, always replaced as a whole.

A snapshot has one file for each service. The name of the file contains a hash of its content. The
index is another file, which lists the files of the current snapshot. To replace the snapshot, the
emulator first writes the new files, and then replaces the index. If it is killed meanwhile, the
index still lists a complete snapshot, either the old one or the new one.
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
DEPLOYING = "deploying"  # stopped during a deployment, so the last state was not saved

# These services hold data of callers, which must not change. The state of the other services
# contains addresses of the emulator. If the emulator gets a new port, `read` replaces the port in
# them.
WRITTEN_BY_CALLERS = {"dynamodb", "s3", "cloudwatch_logs"}


class DamagedError(Exception):
    """The saved state cannot be read. The message says what to do."""


@dataclass(frozen=True)
class Snapshot:
    """The content of the index.

    Attributes:
        saved_at: when the state was saved, in seconds since the epoch. The snapshot has every
            change that was made before this time.
        port: the port of the emulator.
        end: how the emulator's run ended:
            - RUNNING: the run has not ended yet, or was killed.
            - STOPPED: the run was stopped, and saved everything.
            - DEPLOYING: the run was stopped during a deployment.
        files: the name of each service's file, by service.
    """

    saved_at: float
    port: int
    end: str
    files: dict[str, str]


def write(
    directory: Path, texts: Mapping[str, str], *, saved_at: float, port: int, end: str
) -> None:
    """Replace the snapshot in `directory`.

    Args:
        directory: the directory of the saved state.
        texts: the state of each service, as JSON. A service that is missing here keeps the state
            that it has in the old snapshot.
        saved_at: as in `Snapshot`.
        port: as in `Snapshot`.
        end: as in `Snapshot`.
    """
    old = read_index(directory)
    files = dict(old.files) if old else {}
    for service, text in texts.items():
        content = text.encode()
        files[service] = _name(service, content)
        if not (directory / files[service]).exists():
            _replace(directory / files[service], content)
    write_index(directory, Snapshot(saved_at, port, end, files))
    kept = set(files.values())
    for path in (*directory.glob("*.json"), *directory.glob("*.unfinished")):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _name(service: str, content: bytes) -> str:
    """Return the name of a service's file."""
    return f"{service}.{hashlib.blake2b(content, digest_size=12).hexdigest()}.json"


def write_index(directory: Path, snapshot: Snapshot) -> None:
    """Replace the index, but not the files that it lists."""
    _replace(directory / INDEX, json.dumps(asdict(snapshot), indent=1).encode())


def read_index(directory: Path) -> Snapshot | None:
    """Return the index, or None if there is none.

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
    """Return the saved state of each service, as JSON.

    Args:
        directory: the directory of the saved state.
        port: the emulator's new port. It replaces the old port in the emulator's addresses.

    Raises:
        DamagedError: the index or a file of the snapshot cannot be read.
    """
    snapshot = read_index(directory)
    if snapshot:
        try:
            contents = {
                service: (directory / name).read_bytes() for service, name in snapshot.files.items()
            }
            texts = {service: content.decode() for service, content in contents.items()}
        except (OSError, ValueError) as error:
            raise damaged(directory, str(error)) from error
        for service, content in contents.items():
            if snapshot.files[service] != _name(service, content):
                raise damaged(directory, snapshot.files[service])
    else:  # MiniStack itself saved this state, which has no index
        texts = {path.stem: path.read_text() for path in directory.glob("*.json")}
    # The emulator wrote an address if the address is a whole JSON string, or the end of a key. An
    # address in any other place, such as in the body of a message, is data of a caller.
    address = re.compile(
        r"""(?:(?<=")|(?<=\\u0000'))(http://(?:localhost|127\.0\.0\.1)):\d+(?=/\d{12}/[^"'/\\]+["'])"""
    )
    return {
        service: text if service in WRITTEN_BY_CALLERS else address.sub(rf"\1:{port}", text)
        for service, text in texts.items()
    }


def lost(directory: Path) -> str | None:
    """Return one line that says what the last run may have lost. None if it saved everything.

    Args:
        directory: the directory of the saved state.

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
    """Return the error for a saved state that cannot be read.

    Args:
        directory: the directory of the saved state.
        what: the file, and what is wrong with it.
    """
    return DamagedError(
        f"the saved state is damaged ({what}): delete {directory} to start without it"
    )
