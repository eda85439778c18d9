"""Standard output and standard error, which can be full, closed, or a pipe that nobody reads."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from tally_client.command import exits

if TYPE_CHECKING:
    from collections.abc import Iterator

_OUTPUT = "standard output"


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Open standard output for a block that writes to it.

    Raises:
        NotWritten: it is full or closed, or its encoding lacks a character.
        BrokenPipeError: nobody reads the pipe any more. Typer then ends the command.
    """
    target = _stream("stdout")
    if target is None:
        detail = f"{_OUTPUT}: it is closed"
        raise exits.NotWritten(detail)
    try:
        yield target
        target.flush()
    except BrokenPipeError:
        raise
    except (OSError, UnicodeEncodeError) as error:
        raise exits.NotWritten.to(_OUTPUT, error) from error


def say(text: str) -> None:
    """Print a line to standard error. If that is full or closed, nobody can be told."""
    target = _stream("stderr")
    try:
        if target:
            target.write(f"{text}\n")
            target.flush()
    except OSError:
        pass


def discard_unwritten() -> None:
    """Discard what could not be written, at the end of the command.

    Otherwise, Python would try again when it ends, print a message of its own, and change the exit
    code.
    """
    for stream in filter(None, (_stream("stdout"), _stream("stderr"))):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _stream(name: str) -> TextIO | None:
    """Return a stream. Python has none if its descriptor was closed when the process began."""
    stream: TextIO | None = getattr(sys, name)
    return stream
