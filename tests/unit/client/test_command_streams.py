"""Output that cannot be written, and arguments that are not UTF-8, end in documented exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest
from tests.unit.client.fake_service import FakeService

from tally_client.command import main

FULL = Path("/dev/full")
PROGRAM = "from tally_client.command import main; main()"

needs_full = pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")


@pytest.fixture(autouse=True)
def variables(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of the command."""
    monkeypatch.setenv("TALLY_URL", service.url)
    monkeypatch.setenv("TALLY_TOKEN_URL", service.url.replace("/v1", "/oauth2/token"))
    monkeypatch.setenv("TALLY_CLIENT_ID", "client")
    monkeypatch.setenv("TALLY_CLIENT_SECRET", "secret")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)


def code_of_main(*arguments: str) -> int:
    """Run the command in this process, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tally", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def run(
    arguments: list[str | bytes],
    stdout: int | IO[str] = subprocess.PIPE,
    stderr: int | IO[str] = subprocess.PIPE,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@needs_full
@pytest.mark.parametrize(
    "command",
    [
        "get a",
        "get a --json",
        "list",
        "list --json",
        "list --values",
        "list --values --json",
        "history a",
        "history a --json",
        "trend a",
        "trend a --json",
        "watch a --count 1",
        "export a",
        "export a --json",
        "--help",
        "get --help",
    ],
)
@pytest.mark.parametrize("buffering", [1, -1], ids=["by line", "in blocks"])
def test_output_that_cannot_be_written_is_one_line_and_exit_code_13(
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    buffering: int,
) -> None:
    service.change("a", 1, "increment")
    with FULL.open("w", buffering=buffering, encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert code_of_main(*command.split()) == 13
    (line,) = capsys.readouterr().err.splitlines()
    detail = json.loads(line)["detail"] if "--json" in command else line
    assert "output: No space left on device" in detail
    assert "NotWritten" in line
    assert "applied" not in line


@needs_full
def test_a_change_whose_result_cannot_be_written_is_reported_as_applied_with_its_key(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("increment a", "increment a --json", "increment a --key k", "set a 7"):
        with FULL.open("w", encoding="utf-8") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert code_of_main(*command.split()) == 13
    text, as_json, chosen, of_set = capsys.readouterr().err.splitlines()
    first, second, third = (each.headers["idempotency-key"] for each in service.requests("POST"))
    assert text.endswith(f"device. The change was applied, with the key {first}.")
    assert json.loads(as_json)["error"] == "NotWritten"
    assert json.loads(as_json)["key"] == second
    assert third == "k"
    assert chosen.endswith("The change was applied, with the key k.")
    assert of_set.endswith("device. The change was applied.")
    assert service.by_operation("a") == {1: 3, 4: 1}


@needs_full
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_when_python_ends_it_changes_neither_the_exit_code_nor_the_message(
    unbuffered: str,
) -> None:
    with FULL.open("w", encoding="utf-8") as full:
        done = run(["increment", "a"], stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 13
    assert len(done.stderr.splitlines()) == 1


@needs_full
@pytest.mark.parametrize(
    ("command", "code"), [("get a/b", 4), ("get a/b --json", 4), ("nonsense", 2)]
)
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    with FULL.open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert code_of_main(*command.split()) == code


@pytest.mark.parametrize("command", ["increment a", "export a", "trend a"])
def test_a_closed_standard_output_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert code_of_main(*command.split()) == 13
    error = capsys.readouterr().err
    assert error.startswith("NotWritten: standard output: it is closed")
    assert ("applied" in error) == command.startswith("increment")


def test_a_closed_standard_error_changes_no_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert code_of_main("get", "a/b") == 4


def test_a_standard_error_that_nobody_reads_changes_no_exit_code() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:  # noqa: PTH123  a descriptor
        assert run(["get", "a/b"], stderr=pipe).returncode == 4


def test_a_character_that_the_encoding_lacks_cannot_be_written() -> None:
    done = run(["trend", "a"], PYTHONIOENCODING="ascii")
    assert done.returncode == 13
    assert done.stderr == (
        "NotWritten: standard output: the encoding ascii does not have '\\u2588'\n"
    )


@pytest.mark.parametrize("command", ["list", "increment a", "export a"])
def test_a_closed_pipe_ends_the_command_silently(service: FakeService, command: str) -> None:
    service.change("a", 1, "increment")
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:  # noqa: PTH123  a descriptor
        done = run([*command.split()], stdout=pipe)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("list \udcff", 4),
        ("list --values \udcff", 4),
        ("get \udcff", 4),
        ("increment a --key \udcff", 4),
        ("increment a --by \udcff", 2),
        ("get a --at \udcff", 2),
        ("history a --since \udcff", 2),
        ("trend a --interval \udcff", 2),
        ("watch a --every \udcff", 2),
        ("--deadline \udcff get a", 2),
        ("\udcff", 2),
    ],
    ids=ascii,
)
def test_an_argument_that_is_not_utf_8_is_invalid(
    service: FakeService, capsys: pytest.CaptureFixture[str], command: str, code: int
) -> None:
    assert code_of_main(*command.split()) == code
    error = capsys.readouterr().err
    assert error.startswith("InvalidRequest: " if code == 4 else "Usage: ")
    assert service.seen == []


def test_an_argument_that_is_not_utf_8_is_invalid_from_a_shell() -> None:
    done = run(["list", b"\xff", "--json"])
    assert done.returncode == 4
    assert json.loads(done.stderr)["error"] == "InvalidRequest"


@pytest.mark.parametrize(
    "words",
    [
        {"COMP_WORDS": "tally get \udcff", "COMP_CWORD": "2"},
        {"COMP_WORDS": "tally \udcff", "COMP_CWORD": "1"},
    ],
    ids=ascii,
)
def test_the_completion_of_a_word_that_is_not_utf_8_offers_nothing(
    service: FakeService, words: Mapping[str, str]
) -> None:
    service.change("orders", 1, "increment")
    program = PROGRAM.replace("main()", "import sys; sys.argv[0] = 'tally'; main()")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **words, "_TALLY_COMPLETE": "complete_bash"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"", b"")


def test_a_file_may_have_a_name_that_is_not_utf_8(service: FakeService, tmp_path: Path) -> None:
    service.change("a", 1, "increment")
    file = os.fsencode(tmp_path) + b"/\xff.csv"
    try:
        Path(os.fsdecode(file)).touch()
    except OSError:
        pytest.skip("the file system accepts only names in UTF-8")
    assert code_of_main("export", "a", "--output", os.fsdecode(file)) == 0
    assert Path(os.fsdecode(file)).read_text().startswith("version,")
