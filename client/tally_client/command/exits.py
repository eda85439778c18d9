"""Exit codes and error messages of the command."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from tally_client import errors
from tally_client.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

# The first class that fits decides. docs/client.md lists the codes.
CODES: tuple[tuple[type[errors.TallyError], int], ...] = (
    (errors.SettingsMissing, 3),
    (errors.Unauthorized, 5),
    (errors.Forbidden, 5),
    (errors.NotFound, 6),
    (errors.BoundExceeded, 7),
    (errors.VersionMismatch, 8),
    (errors.IdempotencyKeyReused, 9),
    (errors.Refused, 4),
    (errors.Unavailable, 10),
    (errors.OutcomeUnknown, 11),
)
INCOMPLETE = 12
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_MEMBERS = ("kind", "status", "value", "version", "key", "request_id")


@contextmanager
def session(deadline: float, *, as_json: bool) -> Iterator[Tally]:
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
        report(error, as_json=as_json)
        code = next(code for kind, code in CODES if isinstance(error, kind))
    except KeyboardInterrupt as error:
        for note in getattr(error, "__notes__", []):
            say(note)
        code = INTERRUPTED
    else:
        return
    raise typer.Exit(code)


def report(error: errors.TallyError, *, as_json: bool) -> None:
    """Print an error to standard error."""
    kind = type(error).__name__
    if not as_json:
        value = getattr(error, "value", None)
        say(f"{kind}: {error}" + (f" (the value is {value})" if value is not None else ""))
        return
    members = {name: getattr(error, name, None) for name in _MEMBERS}
    known = {name: value for name, value in members.items() if value not in (None, "")}
    say(json.dumps({"error": kind, "detail": str(error), **known}, ensure_ascii=False))


def say(text: str) -> None:
    """Print a line to standard error."""
    sys.stderr.write(f"{text}\n")
