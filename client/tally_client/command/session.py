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
    tally: Client | None = None
    with reported(as_json=as_json, key=lambda: tally.key if tally else None):
        tally = Client.from_env(deadline=deadline)
        with tally:
            yield tally


@contextmanager
def reported(*, as_json: bool, key: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Run the block of one command. Report an error, and exit with its code.

    Args:
        as_json: whether errors are reported as JSON.
        key: returns the idempotency key of the last change; None if it has none.

    Raises:
        typer.Exit: an error was reported.
    """
    try:
        yield
    except errors.TallyError as error:
        _report(error, as_json=as_json)
        code = exits.code_of(error)
    except KeyboardInterrupt as error:
        _report_interrupt(error, key(), as_json=as_json)
        code = exits.INTERRUPTED
    else:
        return
    raise typer.Exit(code)


@contextmanager
def after_change(key: str | None) -> Iterator[None]:
    """Run a block that prints the result of a change.

    Args:
        key: the idempotency key of the change; None if it has none.

    Raises:
        NotWritten: the result could not be printed. The error says that the change was applied.
    """
    try:
        yield
    except exits.NotWritten as error:
        with_key = f", with the key {key}" if key else ""
        detail = f"{error}. The change was applied{with_key}."
        raise exits.NotWritten(detail, key=key) from error


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


def _report_interrupt(error: KeyboardInterrupt, key: str | None, *, as_json: bool) -> None:
    """Print how to resume a change that was under way.

    Args:
        error: the error. If a change was under way, the error has a note.
        key: the idempotency key of the last change.
        as_json: whether to print JSON, even if no change was under way.
    """
    notes = getattr(error, "__notes__", [])
    if as_json:
        known: dict[str, object] = {"key": key} if notes and key else {}
        _say_json("Interrupted", " ".join(notes) or "The command was interrupted.", known)
    elif notes:
        streams.say(" ".join(notes))


def _say_json(kind: str, detail: str, members: dict[str, object]) -> None:
    # ASCII, because a terminal may have no encoding for other letters.
    streams.say(json.dumps({"error": kind, "detail": detail, **members}))
