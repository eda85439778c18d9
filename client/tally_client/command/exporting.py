"""Export of a history, as CSV or as JSON lines."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime as dt
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tally_client.command import exits, output, streams
from tally_client.errors import InvalidRequest
from tally_client.model import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tally_client.model import Counter
    from tally_client.tally import Tally

Format = Literal["csv", "jsonl"]

COLUMNS = tuple(field.name for field in dataclasses.fields(Entry))

# Two versions can be in a different order than their times only if their times are less than this
# apart (docs/history.md, Times).
_DISORDER = dt.timedelta(seconds=20)
# Names of standard output. If it is a file, opening it by such a name would empty the file.
_STANDARD_OUTPUT = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_FIRST_TIME = dt.datetime.min.replace(tzinfo=dt.UTC) + _DISORDER


def export(  # noqa: PLR0913  the options of the command
    tally: Tally,
    counter_id: str,
    *,
    form: Format,
    file: Path | None,
    since: dt.datetime | None,
    until: dt.datetime | None,
) -> None:
    """Write the history of a counter.

    A file gets its name when it is complete. An earlier file of this name stays until then.

    Args:
        tally: the client.
        counter_id: the name of the counter.
        form: the format.
        file: where to write; None for standard output.
        since: only changes at or after this time.
        until: only changes before this time.

    Raises:
        Incomplete: the history does not have all changes yet.
        NotWritten: the file could not be written.
        TallyError: the history could not be read to its end.
    """
    if since and until and since >= until:
        detail = "until: must be later than since"
        raise InvalidRequest(detail, kind="invalid-request")
    counter = tally.get(counter_id)
    with _destination(file) as target:
        write = _writer(form, target)
        for entry in _with_progress(_entries(tally, counter, since, until), counter.version):
            if (since is None or since <= entry.created_at) and (
                until is None or entry.created_at < until
            ):
                write(entry)


def _entries(
    tally: Tally, counter: Counter, since: dt.datetime | None, until: dt.datetime | None
) -> Iterator[Entry]:
    """Yield all entries of a period, and some entries before and after it.

    The history ends before a change that is not recorded yet. So the entries must continue up to
    the version that the counter has, or until they are certainly past the period.

    Raises:
        Incomplete: they end before that.
    """
    begin = max(since, _FIRST_TIME) - _DISORDER if since else None
    last = 0
    for entry in tally.history(counter.counter_id, since=begin):
        if until and entry.created_at - until >= _DISORDER:
            return
        yield entry
        last = entry.version
    changed_since = begin is None or (counter.updated_at and counter.updated_at >= begin)
    if changed_since and last < counter.version:
        detail = f"The history does not have all changes up to version {counter.version} yet."
        raise exits.Incomplete(detail)


def _writer(form: Format, target: TextIO) -> Callable[[Entry], object]:
    """Return a function that writes an entry."""
    if form == "jsonl":
        return lambda entry: target.write(output.as_json(output.members(entry)) + "\n")
    table = csv.DictWriter(target, COLUMNS, lineterminator="\n")
    table.writeheader()
    return lambda entry: table.writerow(output.members(entry))


@contextlib.contextmanager
def _destination(file: Path | None) -> Iterator[TextIO]:
    """Open the file for writing.

    A regular file replaces an earlier one if the block ends without an error. Anything else, such
    as a device or a pipe, is written directly.

    Raises:
        NotWritten: the file could not be written.
    """
    if file is None or str(file) in _STANDARD_OUTPUT:
        with streams.standard_output() as target:
            yield target
        return
    try:
        if _is_special(file):
            with file.open("w", encoding="utf-8", newline="") as target:
                yield target
        else:
            with _replacing(file.resolve()) as target:  # a link stays a link
                yield target
    except (OSError, UnicodeEncodeError) as error:
        raise exits.NotWritten.to(file, error) from error


def _is_special(file: Path) -> bool:
    """Return whether something exists here that is not a regular file, such as a device.

    Raises:
        OSError: it cannot be known, for example because of a link to itself.
    """
    try:
        return not stat.S_ISREG(file.stat().st_mode)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[TextIO]:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as target:  # noqa: PTH123  a handle
            yield target
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask()
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
