"""The commands of the Makefile: what they install, and which errors they report."""

import fcntl
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bench import __main__ as bench
from tests.aws_template import ROOT
from tests.e2e import workers

import artifact
import environment
import local_stack
from deployment import Stack
from emulator_process import free_port
from local_settings import HOST, LOCAL
from state_directory import only_user_of

SCRIPTS = ROOT / "scripts"

# This program replaces pip. It logs the name of the requirements file or package. If PIP_SAYS is
# set, it prints the text in PIP_SAYS, and fails.
PIP = """
import os, sys
with open(os.environ["PIP_LOG"], "a") as log:
    log.write(sys.argv[-1] + "\\n")
sys.exit(os.environ.get("PIP_SAYS"))
"""

# This program replaces venv, because venv takes seconds to create a .venv.
VENV = """
import os, pathlib, shutil, sys
_, clear, directory = sys.argv
assert clear == "--clear"
shutil.rmtree(directory, ignore_errors=True)
binaries = pathlib.Path(directory, "bin")
binaries.mkdir(parents=True)
(binaries / "python").symlink_to(sys.executable)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A new clone that has only the files that `make` needs. The clone's path has spaces."""
    clone = tmp_path / "a  clone"
    (clone / "functions").mkdir(parents=True)
    shutil.copytree(SCRIPTS, clone / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "client").mkdir()
    for name in ("Makefile", "requirements.txt", "functions/Makefile", "client/pyproject.toml"):
        shutil.copy(ROOT / name, clone / name)
    shutil.copy(ROOT / "functions" / "requirements.txt", clone / "functions")
    return clone


class Make:
    """Runs commands in a clone. PIP and VENV replace pip and venv."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.log = clone / "pip.log"
        self.fakes = clone / "fakes"
        for name, text in (("pip", PIP), ("venv", VENV)):
            (self.fakes / name).mkdir(parents=True)
            (self.fakes / name / "__init__.py").touch()
            (self.fakes / name / "__main__.py").write_text(text)

    def __call__(
        self, script: str, *arguments: str, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of the clone. `more` has additional environment variables."""
        return self.run([sys.executable, str(self.clone / "scripts" / script), *arguments], **more)

    def run(self, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        # If `make` runs the tests, it sets these variables.
        make_variables = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
        variables = {
            name: value for name, value in os.environ.items() if name not in make_variables
        }
        return subprocess.run(
            command,
            cwd=self.clone,
            env={
                **variables,
                "PIP_LOG": str(self.log),
                "PYTHONPATH": str(self.fakes),
                "PYTHON": sys.executable,
                **more,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def installed(self) -> list[str]:
        """The requirements files and packages that pip got, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [str(Path(line).relative_to(self.clone)) for line in lines]


@pytest.fixture
def make(clone: Path) -> Make:
    return Make(clone)


@contextmanager
def running_stack(clone: Path) -> Iterator[None]:
    """Hold the lock file of the clone, as a running local stack does."""
    (clone / ".local").mkdir(exist_ok=True)
    with (clone / ".local" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_each_set_of_packages_is_installed_once(make: Make) -> None:
    for packages in ("run", "run", "all", "all", "run"):
        done = make("environment.py", packages)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert make.installed == ["scripts/requirements.txt", "client", "requirements.txt", "client"]


def test_every_command_replaces_the_sam_that_pip_installed(make: Make, clone: Path) -> None:
    sam = clone / ".venv" / "bin" / "sam"
    for _ in range(2):
        make("environment.py", "run")
        assert sam.read_bytes() == (SCRIPTS / "sam").read_bytes()
        assert os.access(sam, os.X_OK)
        sam.write_text("pip's")


def test_after_make_test_make_run_installs_nothing(make: Make) -> None:
    make("environment.py", "all")
    assert make("environment.py", "run").stderr == ""
    assert make.installed == ["requirements.txt", "client"]


def test_make_run_does_not_install_what_only_tests_need() -> None:
    run = (SCRIPTS / "requirements.txt").read_text()
    for package in ("awslambdaric", "pytest", "mypy", "moto", "ruff", "hypothesis"):
        assert package not in run
    assert 'awslambdaric==4.2.2; sys_platform == "linux"' in (ROOT / "requirements.txt").read_text()


def test_the_benchmarks_and_workers_report_a_missing_lambda_runtime_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "awslambdaric" else find(name)
    )
    with pytest.raises(SystemExit, match="built for Linux only"):
        bench.main()
    unused: Any = None
    with (
        pytest.raises(pytest.skip.Exception, match="built for Linux only"),
        workers.running(unused, unused, {}, "", Path()),
    ):
        pass


def test_changed_requirements_rebuild_the_environment(make: Make, clone: Path) -> None:
    make("environment.py", "run")
    (clone / ".venv" / "old").touch()
    with (clone / "functions" / "requirements.txt").open("a") as requirements:
        requirements.write("# another\n")
    assert make("environment.py", "run").returncode == 0
    assert not (clone / ".venv" / "old").exists()


def test_an_unfinished_environment_is_rebuilt(make: Make, clone: Path) -> None:
    assert make("environment.py", "run", PIP_SAYS="killed").returncode
    (clone / ".venv" / "unfinished").touch()
    assert make("environment.py", "run").returncode == 0
    assert not (clone / ".venv" / "unfinished").exists()


def test_another_interpreter_rebuilds_the_environment_unless_a_stack_is_running(
    make: Make, clone: Path
) -> None:
    make("environment.py", "run")
    stamp = clone / ".venv" / "tally.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "python": "cpython 3.11 of /"}))
    with running_stack(clone):
        refused = make("environment.py", "run")
        assert refused.returncode
        (line,) = refused.stderr.splitlines()
        assert line.startswith(".venv has cpython 3.11 of /, and PYTHON is cpython")
        assert line.endswith("a local stack is running from it: stop that first")
        assert make.installed == ["scripts/requirements.txt", "client"]
    assert make("environment.py", "run").returncode == 0
    assert json.loads(stamp.read_text())["python"] == environment.interpreter()


def test_packages_can_be_added_while_a_stack_is_running(make: Make, clone: Path) -> None:
    make("environment.py", "run")
    with running_stack(clone):
        assert make("environment.py", "all").returncode == 0
    assert make.installed == ["scripts/requirements.txt", "client", "requirements.txt", "client"]


def test_a_missing_network_is_reported_in_one_line(make: Make) -> None:
    done = make(
        "environment.py", "run", PIP_SAYS="Failed to establish a new connection: [Errno -3]"
    )
    assert done.returncode
    assert done.stderr.splitlines()[-1] == environment.NOT_DOWNLOADED
    assert "Errno" not in done.stderr


def test_other_errors_of_pip_are_printed(make: Make) -> None:
    done = make("environment.py", "run", PIP_SAYS="No space left on device")
    assert done.returncode
    assert "No space left on device" in done.stderr


def test_an_old_python_is_refused_in_one_line(make: Make) -> None:
    (make.fakes / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9)\n")
    done = make("environment.py", "run")
    assert done.returncode
    assert done.stderr == "Python 3.11 or newer is needed, not 3.9: try make PYTHON=python3.13\n"


def test_make_token_creates_no_environment_and_prints_only_the_token(
    make: Make, clone: Path
) -> None:
    done = make.run(["make", "-s", "token"])
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert "start it with make run" in done.stderr
    assert not (clone / ".venv").exists()

    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho a-token\n")
    python.chmod(0o755)
    unfinished = make.run(["make", "-s", "token"])
    assert (unfinished.returncode != 0, unfinished.stdout) == (True, "")

    (clone / ".venv" / "tally.json").touch()
    assert make.run(["make", "-s", "token"], PYTHON="another").stdout == "a-token\n"
    assert make.installed == []


def test_make_clean_leaves_a_running_stack_alone(make: Make, clone: Path) -> None:
    with running_stack(clone):
        assert make.run(["make", "clean"]).returncode
        assert (clone / ".local").exists()
    assert make.run(["make", "clean"]).returncode == 0
    assert not (clone / ".local").exists()


def test_make_alone_lists_each_target_on_its_own_line(make: Make) -> None:
    listed = make.run(["make"]).stdout.splitlines()
    targets = [line.split(" - ")[0] for line in listed]
    assert targets == [
        *("help", "run", "token", "check", "test", "test-full"),
        *("bench", "contract", "build", "deploy", "clean"),
    ]


def test_only_confirm_no_deploys_without_asking(make: Make) -> None:
    for confirm, asks in ((), True), (("CONFIRM=yes",), True), (("CONFIRM=no",), False):
        plan = make.run(["make", "-n", "deploy", "STAGE=prod", *confirm]).stdout
        assert '--config-env "prod"' in plan
        assert ("--no-confirm-changeset" not in plan) == asks


def test_sam_finds_the_build_in_a_path_with_spaces(make: Make, clone: Path) -> None:
    (clone / "scripts" / "artifact.py").write_text("import sys\nprint(sys.argv[1:])\n")
    makefile = clone / "functions" / "Makefile"
    done = make.run(
        ["make", "--makefile", str(makefile), "build-GetCounter"], ARTIFACTS_DIR="/to  here"
    )
    assert (done.returncode, done.stdout) == (0, "['make', '/to  here']\n"), done.stderr


@pytest.mark.parametrize("port", ["70000", "0", "abc", "", "-1", "4566 ", "٣"])
def test_an_invalid_port_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], port: str
) -> None:
    directory = tmp_path / "local"
    assert local_stack.main(["run", f"--port={port}", f"--directory={directory}"])
    assert capsys.readouterr().err == (
        f"local_stack.py: PORT={port} is not a port: choose a number from 1 to 65535\n"
    )
    assert not directory.exists()


def test_a_port_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        assert local_stack.main(["run", f"--port={port}", f"--directory={tmp_path}"])
    assert f"port {port} is in use" in capsys.readouterr().err


def test_a_port_that_needs_root_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert local_stack.main(["run", "--port=80", f"--directory={tmp_path}"])
    assert capsys.readouterr().err == (
        "local_stack.py: port 80 needs the rights of root: choose a PORT from 1024 on\n"
    )


def test_a_second_stack_in_the_same_directory_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_stack(tmp_path):
        directory = tmp_path / ".local"
        (directory / "lock").write_text(str(os.getpid()))
        port = free_port()
        assert local_stack.main(["run", f"--port={port}", f"--directory={directory}"])
    assert "another local stack is using" in capsys.readouterr().err


def test_a_run_waits_for_the_last_processes_of_the_run_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_user_of(tmp_path) as lock:
        process = subprocess.Popen(["sleep", "0.5"], pass_fds=[lock])  # noqa: S607
    with process, only_user_of(tmp_path):
        assert process.wait(0.1) == 0
    assert capsys.readouterr().err == ""


PAGE = {"url": "http://p/", "username": "somebody", "password": "a password"}
STACK = Stack("http://u", "http://t", "i", "s", (), "http://e", "us-east-1", PAGE, {})


@pytest.mark.parametrize("directory", [LOCAL, Path(os.path.relpath(LOCAL))])
def test_a_running_stack_says_what_to_do_next(directory: Path) -> None:
    printed = local_stack.welcome(STACK, directory)
    assert "are kept in .local/." in printed
    assert "tally increment" in printed
    assert all(text in printed for text in PAGE.values())


def test_a_stack_in_another_directory_says_where_its_files_are(tmp_path: Path) -> None:
    printed = local_stack.welcome(STACK, tmp_path)
    assert f"are kept in {tmp_path}/." in printed
    assert f"{tmp_path}/stack.json" in printed
    assert "tally increment" not in printed  # `tally` finds only the settings in .local/


def test_make_deploy_checks_the_account_before_it_builds(make: Make) -> None:
    plan = make.run(["make", "-n", "deploy"]).stdout
    assert plan.index("scripts/account.py") < plan.index("sam build")


def test_a_killed_build_does_not_affect_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setattr(artifact, "KEPT", kept)
    monkeypatch.setattr(artifact, "interpreters", lambda: ["python3"])

    def make(directory: Path, _pythons: object) -> None:
        # The pip of the killed build still runs, and writes to the killed build's directory.
        for other in kept.glob("*.unfinished"):
            if other != directory:
                (other / "late").touch()
        assert not any(directory.iterdir())
        (directory / "made").touch()

    monkeypatch.setattr(artifact, "make", make)
    unfinished = kept / f"{artifact.key(['python3'])}.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "part").touch()
    # Delete nothing, as if the directory of the killed build could not be deleted.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)

    artifact.main(tmp_path / "target")

    assert [path.name for path in (tmp_path / "target").iterdir()] == ["made"]
