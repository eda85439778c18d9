"""The command `tally`."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from tests import tally_command
from tests.unit.client.fake_service import TIME, Answer, FakeService, Seen
from typer.testing import Result


class Command:
    """Runs the command against a service."""

    def __init__(self, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service = service
        monkeypatch.setenv("TALLY_URL", service.url)
        monkeypatch.setenv("TALLY_TOKEN_URL", service.url.replace("/v1", "/oauth2/token"))
        monkeypatch.setenv("TALLY_CLIENT_ID", "client")
        monkeypatch.setenv("TALLY_CLIENT_SECRET", "secret")

    def run(self, text: str) -> Result:
        return tally_command.run(text.split())

    def __call__(self, text: str) -> str:
        result = self.run(text)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def tally(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(service, monkeypatch)


def test_get_increment_and_set(tally: Command) -> None:
    assert tally("get") == "default: 0 (version 0)\n"
    assert tally("increment orders") == f"orders: 1 (version 1, updated {TIME})\n"
    assert tally("increment orders --by -3") == f"orders: -2 (version 2, updated {TIME})\n"
    assert tally("set orders -7 --if-version 2") == f"orders: -7 (version 3, updated {TIME})\n"
    counter = {"counter_id": "orders", "value": -7, "version": 3}
    expected = {**counter, "created_at": TIME, "updated_at": TIME}
    assert json.loads(tally("get orders --json")) == expected


def test_list(tally: Command) -> None:
    for name in ("b", "a", "ab"):
        tally(f"increment {name}")
    assert tally("list") == "a\nab\nb\n"
    assert tally("list a") == "a\nab\n"
    assert json.loads(tally("list --json")) == ["a", "ab", "b"]
    assert tally("list b --values").splitlines() == [
        "counter_id  value  version  updated_at",
        f"b               1        1  {TIME}",
    ]
    assert [each["value"] for each in json.loads(tally("list --values --json"))] == [1, 1, 1]


def test_history(tally: Command, service: FakeService) -> None:
    for by in (1, -20):
        service.change("a", by, "increment")
    assert tally("history a").splitlines() == [
        "version  created_at                operation   by  value  actor",
        f"      1  {TIME}  increment    1      1  client",
        f"      2  {TIME}  increment  -20    -19  client",
    ]
    assert [each["version"] for each in json.loads(tally("history a --newest --json"))] == [2, 1]
    assert json.loads(tally("history a --json")) == service.history["a"]
    assert len(tally("history a --limit 1").splitlines()) == 2
    assert "there are more" in tally.run("history a --limit 1").stderr
    assert tally.run("history a --limit 2").stderr == ""
    assert tally.run("history a --limit 1 --json").stderr == ""
    tally("history a --since 2h --until 2026-11-22T10:00:00Z")
    assert dict(service.seen[-1].query)["to"] == "2026-11-22T10:00:00Z"


def test_trend(tally: Command) -> None:
    text = tally("trend a")
    assert text.startswith("2026-11-22 16 +10 -4 ███")
    assert json.loads(tally("trend a --interval day --json"))[0]["close"] == 6


def test_trend_with_what_was_expected(tally: Command) -> None:
    assert tally("trend a --expected").endswith(" unusual: +33 to +94 expected\n")
    assert "unusual" not in tally("trend a")
    (compared,) = json.loads(tally("trend a --expected --json"))
    assert (compared["expected"], compared["unusual"]) == ({"low": 33, "high": 94}, True)
    (plain,) = json.loads(tally("trend a --json"))
    assert list(plain)[-1] == "close"


def test_watch_shows_each_change(tally: Command, service: FakeService) -> None:
    def change(_: object) -> None:
        if len(service.seen) in (3, 5):
            service.change("a", 1, "increment")

    service.before_answer = change
    lines = tally("watch a --every 0.1 --count 3").splitlines()
    assert [line.split(" (")[0] for line in lines] == ["a: 0", "a: 1", "a: 2"]
    assert len([each for each in service.seen if "if-none-match" in each.headers]) >= 4


def test_export(tally: Command, service: FakeService, tmp_path: Path) -> None:
    service.page = 2
    for by in (1, 2, 3, -4, 5):
        service.change("a", by, "increment")
    rows = list(csv.DictReader(io.StringIO(tally("export a"))))
    assert [int(row["by"]) for row in rows] == [1, 2, 3, -4, 5]
    assert rows[0]["created_at"] == TIME
    file = tmp_path / "a b.jsonl"
    for option in ("--format=jsonl", "--json"):
        result = tally_command.run(["export", "a", option, "--output", str(file)])
        assert result.exit_code == 0, result.output
        assert [json.loads(line) for line in file.read_text().splitlines()] == service.history["a"]


def test_a_failed_export_leaves_the_file_as_it_was(
    tally: Command, service: FakeService, tmp_path: Path
) -> None:
    service.page = 2
    for _ in range(5):
        service.change("a", 1, "increment")
    file = tmp_path / "a.csv"
    file.write_text("before")
    service.plan("", "", "403 forbidden")
    assert tally.run(f"export a --output {file}").exit_code == 5
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def late_history(service: FakeService) -> None:
    """The counter `a` has four changes, one a minute. The history does not have the last yet."""
    for minute in range(4):
        service.change("a", 1, "increment")
        service.history["a"][-1]["created_at"] = f"2026-11-22T10:0{minute}:00Z"
    full = service.list_history

    def late(name: str, seen: Seen) -> Answer:
        status, entries, headers = full(name, seen)
        return status, entries[:-1], headers

    service.list_history = late  # type: ignore[method-assign]


@pytest.mark.usefixtures("late_history")
@pytest.mark.parametrize(
    "period",
    [
        "",
        "--since 2026-11-22T10:01:00Z",
        "--since 2026-11-22T10:02:30Z",  # the history has no entry of this period
        "--since 2026-11-22T16:07:20Z",  # a version before the last can have a later time
        "--until 2026-11-22T10:04:00Z",
        "--until 2026-11-22T10:01:50Z",  # the version after the last entry can have an earlier time
    ],
)
def test_an_export_from_a_late_history_replaces_no_file(
    tally: Command, tmp_path: Path, period: str
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("before")
    result = tally.run(f"export a {period} --output {file} --json")
    assert result.exit_code == 12
    assert json.loads(result.stderr)["error"] == "Incomplete"
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("late_history")
@pytest.mark.parametrize(
    ("period", "versions"),
    [
        ("--since 2026-11-22T16:30:00Z", []),  # the counter has not changed since then
        ("--until 2026-11-22T10:01:00Z", [1]),
        ("--since 2026-11-22T10:00:30Z --until 2026-11-22T10:01:30Z", [2]),
    ],
)
def test_an_export_does_not_need_changes_outside_its_period(
    tally: Command, period: str, versions: list[int]
) -> None:
    rows = csv.DictReader(io.StringIO(tally(f"export a {period}")))
    assert [int(row["version"]) for row in rows] == versions


def test_an_export_to_a_directory_that_does_not_exist_is_an_error(
    tally: Command, tmp_path: Path
) -> None:
    result = tally.run(f"export a --output {tmp_path}/none/a.csv")
    assert (result.exit_code, result.stdout) == (13, "")
    assert result.stderr.startswith("NotWritten: ")


def test_an_export_to_a_link_to_itself_is_an_error(tally: Command, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    result = tally.run(f"export a --output {loop}")
    assert result.exit_code == 13
    assert result.stderr.startswith("NotWritten: ")


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_an_export_to_standard_output_replaces_no_file(tally: Command, name: str) -> None:
    assert tally(f"export a --output {name}") == tally("export a")


def test_an_export_keeps_the_permissions_of_a_file(tally: Command, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.touch(mode=0o600)
    tally(f"export a --output {file}")
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_export_writes_into_a_pipe_and_through_a_link(
    tally: Command, service: FakeService, tmp_path: Path
) -> None:
    service.change("a", 1, "increment")
    text = tally("export a")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    tally(f"export a --output {pipe}")
    assert pipe.is_fifo()
    assert os.read(reader, 10_000).decode() == text
    os.close(reader)
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    tally(f"export a --output {link}")
    assert link.is_symlink()
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("command", "fault", "code", "error"),
    [
        ("increment a", "400 invalid-request", 4, "InvalidRequest"),
        ("increment a", "401 unauthorized", 5, "Unauthorized"),
        ("increment a", "403 forbidden", 5, "Forbidden"),
        ("get a --version 9", "404 not-found", 6, "NotFound"),
        ("increment a --min 2", "", 7, "BoundExceeded"),
        ("set a 1 --if-version 3", "", 8, "VersionMismatch"),
        ("increment a", "422 idempotency-key-reused", 9, "IdempotencyKeyReused"),
        ("increment a", "503 throttled", 10, "Unavailable"),
        ("increment a --key k", "lose", 11, "OutcomeUnknown"),
        ("increment a/b", "", 4, "InvalidRequest"),
        ("get a --at yesterday", "", 2, ""),
        ("get a --at 999999d", "", 2, ""),
        ("get a --at 0001-01-01T00:00:00+14:00", "", 2, ""),
        ("export a --since 1h --until 2h", "", 4, "InvalidRequest"),
        ("set a", "", 2, ""),
        ("set a x", "", 2, ""),
    ],
)
@pytest.mark.usefixtures("three_attempts")
def test_each_error_has_its_exit_code(  # noqa: PLR0913, PLR0917
    tally: Command, service: FakeService, command: str, fault: str, code: int, error: str
) -> None:
    service.faults = lambda: fault
    result = tally.run(command)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(error)
    if error:
        result = tally.run(f"{command} --json")
        assert result.exit_code == code
        assert json.loads(result.stderr)["error"] == error


@pytest.mark.parametrize(
    "command",
    ["get a --at 5x", "history a --since 5x", "trend a --until yesterday", "export a --since 1"],
)
def test_a_text_that_is_no_time_is_reported_with_the_name_of_its_option(
    tally: Command, service: FakeService, command: str
) -> None:
    result = tally.run(command)
    assert result.exit_code == 2
    assert f"'{command.split()[2]}'" in result.stderr
    assert service.seen == []


@pytest.mark.usefixtures("three_attempts")
def test_errors_as_json_have_what_a_program_needs(tally: Command, service: FakeService) -> None:
    result = tally.run("increment a --min 2 --json")
    assert json.loads(result.stderr)["value"] == 0
    service.faults = lambda: "lose"
    result = tally.run("increment a --json")
    key = json.loads(result.stderr)["key"]
    service.faults = str
    assert json.loads(tally(f"increment a --key {key} --json"))["value"] == 1


def test_an_interrupted_command_tells_how_to_resume(
    tally: Command, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tally_client.retrying.pause", interrupt)
    service.faults = lambda: "lose"
    result = tally.run("increment a --key receipt-5")
    assert result.exit_code == 130
    assert "receipt-5" in result.stderr
    result = tally.run("increment a --key receipt-5 --json")
    assert result.exit_code == 130
    error = json.loads(result.stderr)
    assert (error["error"], error["key"]) == ("Interrupted", "receipt-5")
    result = tally.run("get a --json")
    assert result.exit_code == 130
    assert json.loads(result.stderr).keys() == {"error", "detail"}


def test_without_settings_the_exit_code_is_3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TALLY_URL", "TALLY_TOKEN_URL", "TALLY_CLIENT_ID", "TALLY_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    result = tally_command.run(["get"])
    assert result.exit_code == 3
    assert "make run" in result.stderr


def test_every_command_has_help_and_json(tally: Command) -> None:
    commands = ("get", "increment", "set", "list", "history", "trend", "watch", "export")
    overview = tally("--help")
    for command in commands:
        assert command in overview
        assert "--json" in tally(f"{command} --help")


@pytest.mark.usefixtures("tally")
def test_shell_completion_offers_names(service: FakeService) -> None:
    service.change("orders", 1, "increment")
    service.change("other", 1, "increment")
    result = tally_command.run(
        [],
        prog_name="tally",
        env={
            "_TALLY_COMPLETE": "complete_bash",
            "COMP_WORDS": "tally get ord",
            "COMP_CWORD": "2",
        },
    )
    assert result.stdout.split() == ["orders"]


def test_a_narrow_terminal_shows_whole_numbers(
    tally: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "16")
    assert "+10 -4" in tally("trend a")
