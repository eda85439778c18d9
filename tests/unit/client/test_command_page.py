"""docs/client.md describes each command, option and exit code of `tally`, and no others."""

import re

import typer
from tests.aws_template import ROOT
from tests.console import examples
from tests.documents import read, rows, table
from typer.core import TyperGroup

from tally_client import errors
from tally_client.command import exits, session
from tally_client.command.app import app
from tally_client.model import MAX_INTEGER

COMMAND = typer.main.get_command(app)
assert isinstance(COMMAND, TyperGroup)
# The groups of commands, such as `grants`, and all commands, such as `get` and `grants set`.
GROUPS = {name: each for name, each in COMMAND.commands.items() if isinstance(each, TyperGroup)}
IN_GROUPS = {
    f"{name} {of_group}": command
    for name, group in GROUPS.items()
    for of_group, command in group.commands.items()
}
COMMANDS = {
    **{name: each for name, each in COMMAND.commands.items() if name not in GROUPS},
    **IN_GROUPS,
}
EVERYTHING = {"tally": COMMAND, **GROUPS, **COMMANDS}
PAGE = read("client.md")
# The sections about the command.
TEXT = PAGE[PAGE.index("\n## The command\n") :]

# The commands and groups that have an option, by the names of the option. `tally` is the command
# without one of its commands.
OPTIONS = {
    option: {
        name
        for name, command in EVERYTHING.items()
        for parameter in command.params
        if option in parameter.opts
    }
    for command in EVERYTHING.values()
    for parameter in command.params
    for option in parameter.opts
    if option.startswith("-")
}

CODES = {code for _, code in exits.CODES} | {exits.INTERRUPTED}
OF_PYTHON = {1}  # an exception that nothing handles
OF_TYPER = {2}  # wrong usage


def test_the_page_shows_each_command_with_its_output() -> None:
    shown = {
        word.group(1)
        for each in examples("docs/client.md")
        if each.output and (word := re.match(r"tally ([a-z]+)", each.command))
    }
    assert shown == COMMANDS.keys() - IN_GROUPS.keys()


def test_the_page_lists_exactly_the_commands_that_administer_access() -> None:
    listed = [" ".join(command.split()[1:3]) for command in rows(TEXT, "administration")]
    assert sorted(listed) == sorted(IN_GROUPS)


def test_the_page_lists_exactly_the_options_of_each_command() -> None:
    listed = {
        option: COMMANDS.keys() if row[0] == "all" else set(re.findall(r"`([\w ]+)`", row[0]))
        for option, row in rows(TEXT, "option").items()
    }
    assert listed == OPTIONS


def test_the_page_has_only_options_that_exist() -> None:
    in_each = {"--help"}  # a group adds this option when it runs
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT)) <= OPTIONS.keys() | in_each


def test_the_page_lists_exactly_the_exit_codes() -> None:
    listed = [int(row[0]) for row in table(TEXT, "code")]
    assert listed == sorted({0} | OF_PYTHON | OF_TYPER | CODES)


def test_the_page_has_the_limits_of_each_number() -> None:
    limits = {
        option: (lowest, getattr(parameter, "max", None))
        for command in EVERYTHING.values()
        for parameter in command.params
        for option in parameter.opts
        if (lowest := getattr(parameter, "min", None)) is not None
    }
    assert limits.keys() >= {"--deadline", "--every", "--limit"}
    for option, (lowest, highest) in limits.items():
        has_limit = highest is not None and highest < MAX_INTEGER
        shown = f"from {lowest} to {highest}" if has_limit else f"{lowest} or more"
        assert shown in rows(TEXT, "option")[option][1], option


def test_the_page_lists_exactly_the_members_of_an_error() -> None:
    assert list(rows(TEXT, "member")) == ["error", "detail", *session.MEMBERS]


def test_the_help_lists_exactly_the_exit_codes() -> None:
    (listed,) = re.findall(r"Exit codes: (.*)", app.info.epilog or "")
    codes = {int(code) for code in re.findall(r"\d+", listed)}
    assert codes == {0} | OF_TYPER | CODES


def test_the_page_lists_exactly_the_refusals() -> None:
    refusals = {kind.__name__ for kind in errors.Refused.__subclasses__()}
    assert rows(PAGE, "exception").keys() == refusals


def test_make_run_prints_the_first_commands_of_the_readme() -> None:
    first = [each.command for each in examples("README.md")[:2]]
    assert first == ['export PATH="$PWD/.venv/bin:$PATH"', "tally increment"]
    printed = "".join(f"    {command}\n" for command in first)
    assert printed in (ROOT / "scripts" / "local_stack.py").read_text()
