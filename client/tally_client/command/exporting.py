"""Export of a history, as CSV or as JSON lines."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tally_client.command import output

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator

    from tally_client.model import Entry
    from tally_client.tally import Tally

Format = Literal["csv", "jsonl"]

COLUMNS = (
    "version",
    "value",
    "previous_value",
    "by",
    "increase",
    "decrease",
    "operation",
    "actor",
    "created_at",
    "events",
    "sender",
)


def export(  # noqa: PLR0913  the options of the command
    tally: Tally,
    counter_id: str,
    *,
    form: Format,
    file: Path | None,
    since: dt.datetime | None,
    until: dt.datetime | None,
) -> str | None:
    """Write the history of a counter.

    The file gets its name when it is complete. An earlier file of this name stays until then.

    Args:
        tally: the client.
        counter_id: the name of the counter.
        form: the format.
        file: where to write; None for standard output.
        since: only changes at or after this time.
        until: only changes before this time.

    Returns:
        What is missing at the end of the export, as text for people. None if nothing is.

    Raises:
        TallyError: the history could not be read to its end.
    """
    total = tally.get(counter_id).version
    entries = tally.history(counter_id, since=since, until=until)
    last = 0
    with _destination(file) as target:
        for version in write(_with_progress(entries, total), form, target):
            last = version
    if until is None and since is None and last < total:
        return f"The history does not have the versions from {last + 1} to {total} yet."
    return None


def write(entries: Iterable[Entry], form: Format, target: TextIO) -> Iterator[int]:
    """Write entries. Yield the version of each."""
    table = csv.writer(target, lineterminator="\n")
    if form == "csv":
        table.writerow(COLUMNS)
    for entry in entries:
        members = output.members(entry)
        if form == "csv":
            table.writerow([members.get(name) for name in COLUMNS])
        else:
            target.write(output.as_json(members) + "\n")
        yield entry.version


@contextlib.contextmanager
def _destination(file: Path | None) -> Iterator[TextIO]:
    """Open the file for writing. It replaces an earlier one if the block ends without an error."""
    if file is None:
        yield sys.stdout
        return
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as target:  # noqa: PTH123  a handle
            yield target
        mode = 0o666 & ~_umask()
        Path(name).chmod(mode)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _with_progress(entries: Iterable[Entry], last: int) -> Iterator[Entry]:
    """Yield the entries, and show on standard error how many of the versions up to `last` are done.

    Without a terminal, nothing is shown.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("Export", total=last)
        for entry in entries:
            yield entry
            progress.update(task, completed=min(entry.version, last))
