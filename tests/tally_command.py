"""Runs the command `tally` in the process of the test."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from typer import testing

from tally_client.command.app import app

# Typer makes the parsers of all commands from their Python functions. It would do so for each run,
# which takes half of the CPU time of a run.
_get_command: Any = testing._get_command  # type: ignore[attr-defined]  # noqa: SLF001  it has no type
testing._get_command = cache(_get_command)  # type: ignore[attr-defined]  # noqa: SLF001  as above


def run(arguments: Sequence[str], **options: Any) -> testing.Result:  # noqa: ANN401  of CliRunner
    """Run the command. The options are those of `CliRunner.invoke`."""
    return testing.CliRunner().invoke(app, arguments, **options)
