"""A session: runs one command with a client, and reports its errors."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import typer

from tally_client import errors
from tally_client.command import exits, streams
from tally_client.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tally_client.exchange import Reply, Request
    from tally_client.retrying import Change

T = TypeVar("T")

# Those that an error has, besides `error` and `detail`. docs/client.md describes them.
MEMBERS = ("kind", "status", "value", "version", "key", "request_id")


class Client(Tally):
    """A client that tells the idempotency key of the last change.

    Attributes:
        key: the key; None if there was no change, or if the change has no key.
    """

    key: str | None = None

    def _change(self, request: Request, parse: Callable[[Reply], T], how: Change) -> T:
        self.key = how.key
        return super()._change(request, parse, how)


@contextmanager
def opened(deadline: float, *, as_json: bool) -> Iterator[Client]:
    """Open a client for one command. Report an error, and exit with its code.

    Args:
        deadline: how many seconds each request may take.
        as_json: whether errors are reported as JSON.

    Raises:
        typer.Exit: an error was reported.
    """
    try:
        with Client.from_env(deadline=deadline) as tally:
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
        streams.say(f"{kind}: {error}" + (f" (the value is {value})" if value is not None else ""))
        return
    members = {name: getattr(error, name, None) for name in MEMBERS}
    known = {name: value for name, value in members.items() if value not in (None, "")}
    _say_json(kind, str(error), known)


def _report_interrupt(error: KeyboardInterrupt, *, as_json: bool) -> None:
    """Print how to resume a change that was under way."""
    for note in getattr(error, "__notes__", []):
        if as_json:
            _say_json("Interrupted", note, {})
        else:
            streams.say(note)


def _say_json(kind: str, detail: str, members: dict[str, object]) -> None:
    # ASCII, because a terminal may have no encoding for other letters.
    streams.say(json.dumps({"error": kind, "detail": detail, **members}))
