"""Output: what the command prints, as text or as JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import TYPE_CHECKING

import typer

from tally_client.command import streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tally_client.model import Counter, Entry, Interval

    Record = Counter | Entry | Interval

ENTRY_COLUMNS = ("version", "created_at", "operation", "by", "value", "actor")
COUNTER_COLUMNS = ("counter_id", "value", "version", "updated_at")


def members(record: Record) -> dict[str, object]:
    """Return a record as the service's JSON has it."""
    found = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    # The service leaves these out, if a change counts no messages.
    return {
        name: timestamp(value) if isinstance(value, dt.datetime) else value
        for name, value in found.items()
        if value is not None or name not in {"events", "sender"}
    }


def interval(record: Interval, compared: bool) -> dict[str, object]:  # noqa: FBT001  an option
    """Return an interval of the trend as the service's JSON has it.

    Args:
        record: the interval.
        compared: whether the request asked for `expected` and `unusual`.
    """
    found = members(record)
    if record.expected is not None:
        found["expected"] = dataclasses.asdict(record.expected)
    if not compared:
        del found["expected"], found["unusual"]
    return found


def timestamp(time: dt.datetime) -> str:
    """Return a time as the service writes it: UTC, milliseconds."""
    return time.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_json(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def show(line: str) -> None:
    """Print a line.

    Raises:
        NotWritten: it could not be printed. The other functions below raise this, too.
    """
    with streams.standard_output():
        typer.echo(line)


def show_counter(counter: Counter, *, json_output: bool) -> None:
    """Print a counter."""
    if json_output:
        show(as_json(members(counter)))
        return
    changed = f", updated {timestamp(counter.updated_at)}" if counter.updated_at else ""
    show(f"{counter.counter_id}: {counter.value} (version {counter.version}{changed})")


def show_table(records: Sequence[Record], columns: Sequence[str]) -> None:
    """Print records in aligned columns, numbers to the right."""
    show_rows([[members(each).get(name) for name in columns] for each in records], columns)


def show_rows(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> None:
    """Print rows in aligned columns, numbers to the right.

    Args:
        rows: the cells of each row.
        columns: the headings.
    """
    texts = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    right = [any(isinstance(value, int) for value in column) for column in zip(*rows, strict=True)]
    for text in texts:
        cells = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(
                text, widths, right or [False] * len(columns), strict=True
            )
        ]
        show("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    return "" if value is None else str(value)
