"""The examples with `tally` and Node on the pages have the output that the pages show.

The pages are the recording. Times, hours and actors differ in each run, so both sides have a
placeholder in their place. If a test fails, it prints what the page should show.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.console import Example, examples
from tests.e2e import loaded_commands, second_stack
from tests.e2e.javascript import PROGRAM, node
from tests.e2e.service import PAGE, Caller, stored_counters, token_for, wait_for

from deployment import Stack
from emulator_process import Emulator
from tally_client.command import exits

# The pages with examples of `tally`, in the order in which a reader runs them.
PAGES = ("README.md", "docs/client.md")
JAVASCRIPT_PAGE = "docs/api.md"
COLUMNS = "80"  # the width of the chart in docs/client.md
COMMAND_SECONDS = 90
HOUR = 3600
# The trend in docs/client.md has all changes in one hour. Running the page takes less time than
# this, also on a busy machine.
PAGE_SECONDS = 60

CODES = {kind.__name__: code for kind, code in exits.CODES}
_CHANGE = re.compile(r"tally (increment|set)\b")
# What differs in each run. The names of the groups are the names of the placeholders.
_VARYING = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"
    r"|(?P<hour>\d{4}-\d\d-\d\d \d\d)(?= )"
    r"|(?P<actor>\b[0-9A-Za-z]{26}\b)"
)


@pytest.fixture(scope="module")
def fresh(emulator: Emulator, stack: Stack) -> Stack:
    """A stack without counters. This is `stack` if no other test has used it yet."""
    if not stored_counters(stack):
        return stack
    return second_stack.create(emulator, stack, "tally-console")


@pytest.fixture(scope="module")
def fresh_caller(fresh: Stack) -> Iterator[Caller]:
    with Caller(fresh.url, token_for(fresh, fresh.scopes)) as caller:
        yield caller


@pytest.fixture(scope="module")
def clone(fresh: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what `make run` puts into a clone while it runs, and the JavaScript."""
    clone = tmp_path_factory.mktemp("a clone")
    (clone / ".local").mkdir()
    (clone / ".local" / "stack.json").write_text(json.dumps(asdict(fresh)))
    (clone / ".venv").symlink_to(sys.prefix)
    (clone / "docs").mkdir()
    shutil.copy(PROGRAM, clone / "docs")
    return clone


@contextmanager
def loaded_tally(clone: Path) -> Iterator[None]:
    """Put a `tally` into .venv that is loaded already, which makes each command a second faster."""
    (clone / ".venv").unlink()
    (clone / ".venv" / "bin").mkdir(parents=True)
    with loaded_commands.installed(clone / ".venv" / "bin", "tally"):
        yield


def with_placeholders(text: str) -> str:
    """Replace what differs in each run. Equal values get equal placeholders."""
    found: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        kind = str(match.lastgroup)
        number = sum(name.startswith(kind) for name in found.values()) + 1
        return f"<{found.setdefault(match[0], f'{kind} {number}')}>"

    return _VARYING.sub(placeholder, text)


def is_recorded(stack: Stack, caller: Caller) -> bool:
    """Return whether the list of names, the histories and the trends have all changes."""
    versions = {
        each["counter_id"]["S"]: int(each["version"]["N"]) for each in stored_counters(stack)
    }
    if caller.get("/counters").body != sorted(versions):
        return False
    for name, version in versions.items():
        path = f"/counters/{name}"
        entries = caller.get(f"{path}/history?limit={PAGE}").body
        trend = caller.get(f"{path}/trend").body
        if len(entries) != version or sum(each["changes"] for each in trend) != version:
            return False
    return True


def wait_for_the_next_hour_if_it_is_near() -> None:
    left = HOUR - time.time() % HOUR
    if left < PAGE_SECONDS:
        time.sleep(left + 1)


def run(clone: Path, exports: list[str], command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as in a new terminal in the clone, after some `export` commands.

    Its output includes what it writes to standard error.
    """
    return subprocess.run(
        ["/bin/sh", "-c", "\n".join([*exports, command])],
        cwd=clone,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": COLUMNS, "NO_COLOR": "1", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=COMMAND_SECONDS,
        check=False,
    )


def expected_code(output: str) -> int:
    """Return the exit code for an output. An error message begins with the class of the error."""
    return CODES.get(output.partition(":")[0], 0)


def run_all(shown: list[Example], stack: Stack, caller: Caller, clone: Path) -> list[Example]:
    """Run the commands of a page. Return them with what they printed."""
    exports = [each.command for each in shown if each.command.startswith("export ")]
    printed = []
    wait_for_the_next_hour_if_it_is_near()
    has_changed = False
    for each in shown:
        if _CHANGE.match(each.command):
            has_changed = True
        elif has_changed:
            assert wait_for(lambda: is_recorded(stack, caller))
            has_changed = False
        done = run(clone, exports, each.command)
        output = done.stdout.strip("\n")
        assert done.returncode == expected_code(output), f"{each.command}\n{output}"
        printed.append(Example(each.command, output))
    return printed


def assert_recorded(page: str, shown: list[Example], printed: list[Example]) -> None:
    new = "".join(map(str, printed))
    old = "".join(map(str, shown))
    assert with_placeholders(new) == with_placeholders(old), f"{page} should show:\n\n{new}"


@pytest.fixture(scope="module")
def printed(fresh: Stack, fresh_caller: Caller, clone: Path) -> dict[str, list[Example]]:
    """Run the commands of all pages. Return them with what they printed."""
    # If `tally` were found without the `export` on the pages, the tests could not prove it right.
    assert run(clone, [], "command -v tally").returncode
    first, *others = PAGES
    printed = {first: run_all(examples(first), fresh, fresh_caller, clone)}
    with loaded_tally(clone):
        for page in others:
            printed[page] = run_all(examples(page), fresh, fresh_caller, clone)
    return printed


@pytest.mark.parametrize("page", PAGES)
def test_each_command_on_a_page_prints_what_the_page_shows(
    page: str, printed: dict[str, list[Example]]
) -> None:
    assert any(each.command.startswith("tally ") for each in examples(page))
    assert_recorded(page, examples(page), printed[page])


# The example adds a counter, which the list of counters in docs/client.md does not show. So it runs
# after `printed`.
@pytest.mark.usefixtures("printed")
def test_the_javascript_example_prints_what_the_page_shows(clone: Path) -> None:
    shown = [each for each in examples(JAVASCRIPT_PAGE) if each.command.startswith("node ")]
    assert len(shown) == 1
    command = shown[0].command.replace("node", f"'{node()}'", 1)

    done = run(clone, [], command)

    assert done.returncode == 0, done.stdout
    assert_recorded(JAVASCRIPT_PAGE, shown, [Example(shown[0].command, done.stdout.strip("\n"))])
