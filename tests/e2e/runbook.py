"""Follows the runbook: runs the commands of its sections as the pages show them, and logs them."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tests.aws_template import ROOT
from tests.e2e import loaded_commands

from deployment import Stack
from local_settings import CREDENTIALS, STACK_NAME

COMMAND_SECONDS = 300
# How much of the output of a command the log has.
LOGGED_LINES = 12
LOGGED_CHARACTERS = 160
LOG = ROOT / ".aws-sam" / "rehearsal.log"

# The sections with the commands of the rehearsal, by page.
SECTIONS = {
    "counting-from-aws.md": ("IncrementDeadLetterQueue",),
    "operations.md": (
        "A message group that does not move on",
        "HistoryParkedAlarm",
        "Redrive parked records",
        "Run an audit",
    ),
    "restoring.md": (
        "Before you begin",
        "1. Copy the tables",
        "2. Stop the changes",
        "3. Switch to the new tables",
        "5. Start again",
        "6. Look at what is lost",
        "If the time was wrong",
    ),
}

# A block of kind `console` has a prompt before each command, and can have output. A block without a
# kind has commands only. A block in a list is indented.
_BLOCK = re.compile(r"^( *)```(console)?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def commands(page: str, heading: str) -> list[str]:
    """Return the commands of a section, in order. A command may have several lines.

    Args:
        page: the name of the page in docs/.
        heading: the heading of the section.
    """
    text = (ROOT / "docs" / page).read_text()
    match = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert match, f"docs/{page} has no section {heading}"
    level = len(match[1])
    section = re.split(rf"^#{{1,{level}}} ", text[match.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    found = []
    for indent, kind, block in _BLOCK.findall(section):
        text = re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)
        if kind:
            # The lines after a command are its output, or belong to the command if it is not
            # complete without them.
            found += [
                next(_complete(shown.splitlines())) for shown in f"\n{text}".split("\n$ ")[1:]
            ]
        else:
            found += _complete(text.splitlines())
    return found


def _complete(lines: Sequence[str]) -> Iterator[str]:
    """Join lines to complete commands, and yield the commands."""
    command: list[str] = []
    for line in lines:
        command.append(line)
        if _is_complete("\n".join(command)):
            yield "\n".join(command)
            command = []


def _is_complete(command: str) -> bool:
    if command.endswith("\\"):
        return False
    return not subprocess.run(
        ["/bin/bash", "-nc", command], capture_output=True, check=False
    ).returncode


class Runbook:
    """Runs commands of the pages against a stack, and logs each step with its time.

    Attributes:
        ran: the number of commands that were run.
    """

    def __init__(self, stack: Stack, clone: Path) -> None:
        self.ran = 0
        self._stack = stack
        self._clone = clone
        self._began = time.monotonic()
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_text("")

    def log(self, text: str) -> None:
        """Add a line to the log."""
        line = f"{time.strftime('%H:%M:%S')} {time.monotonic() - self._began:6.1f} s  {text}"
        print(line, flush=True)
        with LOG.open("a") as file:
            file.write(f"{line}\n")

    def follow(
        self,
        page: str,
        heading: str,
        only: str = "",
        change: Callable[[str], str] = str,
        first: str = "",
        **variables: str,
    ) -> list[str]:
        """Run the commands of a section. Return what each of them printed.

        Args:
            page: the name of the page in docs/.
            heading: the heading of the section.
            only: run only the commands that contain this text.
            change: puts the values of this run into a command, in place of those on the page.
            first: commands that define what the section uses, from an earlier section.
            variables: more variables than the outputs of the stack.
        """
        assert heading in SECTIONS[page]
        self.log(f'docs/{page}, section "{heading}"')
        shown = [command for command in commands(page, heading) if only in command]
        assert shown, f"the section has no command with {only}"
        return [self.run(change(command), first, variables) for command in shown]

    def run(self, command: str, first: str = "", variables: Mapping[str, str] | None = None) -> str:
        """Run a command in a shell of its own. Return what it printed.

        Args:
            command: the command.
            first: commands that run before it in the same shell.
            variables: more variables than the outputs of the stack.
        """
        began = time.monotonic()
        done = subprocess.run(
            ["/bin/bash", "-ec", f"{first}\n{command}"],
            cwd=self._clone,
            env={
                **CREDENTIALS,
                "AWS_ENDPOINT_URL": self._stack.endpoint_url,
                "AWS_DEFAULT_REGION": self._stack.region,
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "AWS_PAGER": "",
                "SAM_CLI_TELEMETRY": "0",
                "HOME": str(self._clone),
                "PATH": f"{self._clone}:{Path(sys.executable).parent}:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "STACK": STACK_NAME,
                **self._stack.outputs,
                **(variables or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        self.ran += 1
        self.log(f"$ {command}    ({time.monotonic() - began:.1f} s)")
        lines = (done.stdout + done.stderr).splitlines()
        for line in lines[:LOGGED_LINES]:
            self.log(f"    {line[:LOGGED_CHARACTERS]}")
        if len(lines) > LOGGED_LINES:
            self.log(f"    … {len(lines) - LOGGED_LINES} more lines")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def opened(stack: Stack, clone: Path) -> Iterator[Runbook]:
    """Yield a runbook for a stack.

    Args:
        stack: the stack.
        clone: an empty directory. The commands run here, as in a clone of the repository.
    """
    (clone / ".local").mkdir()
    (clone / ".local" / "stack.json").write_text(json.dumps(asdict(stack)))
    (clone / ".venv").symlink_to(sys.prefix)
    (clone / "scripts").symlink_to(ROOT / "scripts")
    with loaded_commands.installed(clone, "aws"):
        yield Runbook(stack, clone)
