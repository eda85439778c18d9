"""A session: runs one command with a client, and reports its errors."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from tally_client import errors
from tally_client.command import exits
from tally_client.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMBERS = ("kind", "status", "value", "version", "key", "request_id")


@contextmanager
def opened(deadline: float, *, as_json: bool) -> Iterator[Tally]:
    """Open a client for one command. Report an error, and exit with its code.

    Args:
        deadline: how many seconds each request may take.
        as_json: whether errors are reported as JSON.

    Raises:
        typer.Exit: an error was reported.
    """
    try:
        with Tally.from_env(deadline=deadline) as tally:
            yield tally
    except errors.TallyError as error:
        _report(error, as_json=as_json)
        code = exits.code_of(error)
    except KeyboardInterrupt as error:
        _report_interrupt(error, as_json=as_json)
        code = exits.INTERRUPTED
    else:
        return
    raise typer.Exit(code)


def _report(error: errors.TallyError, *, as_json: bool) -> None:
    """Print an error to standard error."""
    kind = type(error).__name__
    if not as_json:
        value = getattr(error, "value", None)
        _say(f"{kind}: {error}" + (f" (the value is {value})" if value is not None else ""))
        return
    members = {name: getattr(error, name, None) for name in _MEMBERS}
    known = {name: value for name, value in members.items() if value not in (None, "")}
    _say_json(kind, str(error), known)


def _report_interrupt(error: KeyboardInterrupt, *, as_json: bool) -> None:
    """Print how to resume a change that was under way."""
    for note in getattr(error, "__notes__", []):
        if as_json:
            _say_json("Interrupted", note, {})
        else:
            _say(note)


def _say_json(kind: str, detail: str, members: dict[str, object]) -> None:
    _say(json.dumps({"error": kind, "detail": detail, **members}, ensure_ascii=False))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
