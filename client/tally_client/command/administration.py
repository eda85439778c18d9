"""What the commands that administer access share: the option `--stack`, and advice after errors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tally_client import errors
from tally_client.access import stack
from tally_client.command import exits

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StackName = Annotated[
    str | None,
    typer.Option(
        "--stack",
        envvar="TALLY_STACK",
        help="The name of the stack in your AWS account. Else the running local stack.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class _Choice:
    """The chosen stack.

    Attributes:
        stack: its name; None for the local stack.
        deadline: how many seconds AWS may take to answer a request.
    """

    stack: str | None
    deadline: float


def choose(context: typer.Context, name: str | None) -> None:
    """Remember the stack for the command that follows.

    Args:
        context: the context of the group of commands.
        name: the name of the stack; None for the local stack.
    """
    context.obj = _Choice(name, context.obj.deadline)


def chosen(context: typer.Context) -> stack.Stack:
    """Find the stack for one command.

    Raises:
        TallyError: the stack was not found.
    """
    choice: _Choice = context.obj
    return stack.find(choice.stack, choice.deadline)


@contextmanager
def if_unknown(advice: str) -> Iterator[None]:
    """Run a block that changes something. If its outcome is unknown, say what to do.

    Args:
        advice: what to do, as one or more sentences.
    """
    try:
        yield
    except errors.OutcomeUnknown as error:
        error.args = (f"{error} {advice}",)
        raise
    except KeyboardInterrupt as error:
        error.add_note(f"The command was interrupted. {advice}")
        raise


@contextmanager
def if_unwritten(advice: str) -> Iterator[None]:
    """Run a block that prints the result of a change. If it cannot be printed, say what to do.

    Args:
        advice: what was changed, and what to do, as one or more sentences.
    """
    try:
        yield
    except (exits.NotWritten, BrokenPipeError) as error:
        # Commands that change nothing end silently if nobody reads the pipe any more.
        reason = exits.NotWritten.to("the output", error) if isinstance(error, OSError) else error
        detail = f"{reason}. {advice}"
        raise exits.NotWritten(detail) from error
