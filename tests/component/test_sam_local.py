"""What `make run` provides for `sam local`: files, and a relay to the emulator of AWS.

`sam local` runs a function in a container. These tests need no container.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.aws_template import ROOT

import in_container
import sam_local
from emulator_process import free_port
from local_settings import LOCAL

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux uses the Unix socket")

TEMPLATE = """
Globals:
  Function: {MemorySize: !Ref MemorySize}
Resources:
  Table: {Type: AWS::DynamoDB::Table}
  GetCounter:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: GetCounter
      Handler: get_counter.handler
      Environment: {Variables: {COUNTER_TABLE: !Ref Table}}
"""
DEPLOYED = {
    "Handler": "get_counter.handler",
    "Runtime": "python3.12",
    "Architectures": ["x86_64"],
    "Timeout": 10,
    "Environment": {"Variables": {"COUNTER_TABLE": "tally-dev-Table-1"}},
}

# This code replaces the code of a function. It connects to the emulator as a function in a
# container does, and returns the emulator's reply. Its event is the port.
FUNCTION = """
import socket
def handler(event, context):
    with socket.create_connection(("127.0.0.1", event)) as connection:
        connection.sendall(b"counter?")
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile().read()
"""


@contextmanager
def emulator() -> Iterator[tuple[str, int]]:
    """Run a server that takes the place of the emulator, and yield the server's address.

    The server replies to one connection.
    """

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            request = connection.makefile("rb").read()
            connection.sendall(request + b" 7")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()


@pytest.fixture
def build(tmp_path: Path) -> Path:
    (tmp_path / "build" / "GetCounter").mkdir(parents=True)
    (tmp_path / "build" / "template.yaml").write_text(TEMPLATE)
    (tmp_path / "build" / "GetCounter" / "get_counter.py").write_text(FUNCTION)
    return tmp_path / "build"


def test_the_template_for_sam_local_has_the_settings_of_the_deployed_functions(
    build: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "sam"

    with sam_local.offered(
        directory, build, ("127.0.0.1", 1), {"GetCounter": DEPLOYED}, {"AWS_ENDPOINT_URL": "here"}
    ):
        template = json.loads((directory / "template.json").read_text())
        variables = json.loads((directory / "env.json").read_text())

    assert variables == {
        "GetCounter": {"COUNTER_TABLE": "tally-dev-Table-1", "AWS_ENDPOINT_URL": "here"}
    }
    assert template["Globals"] == {"Function": {"MemorySize": {"Ref": "MemorySize"}}}
    assert template["Resources"]["GetCounter"]["Properties"] == {
        "CodeUri": "code",
        "Handler": "in_container.get_counter",
        "Runtime": "python3.12",
        "Architectures": ["x86_64"],
        "Timeout": 10 + sam_local.START_SECONDS,
        "Environment": {"Variables": variables["GetCounter"]},
    }
    assert not directory.exists(), "the files are deleted when the stack stops"


@linux
def test_the_relay_connects_a_function_to_the_emulator(build: Path, tmp_path: Path) -> None:
    # Use a path that is too long for a Unix socket, because the path of a clone can be so long.
    directory = tmp_path / ("deep " * 30) / "sam"
    mounted = tmp_path / "task"
    mounted.symlink_to(directory / "code")
    port = free_port()  # stands for the emulator's port inside the container
    program = f"import in_container; print(in_container.get_counter({port}, None))"

    with (
        emulator() as address,
        sam_local.offered(directory, build, address, {"GetCounter": DEPLOYED}, {}),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "PYTHONPATH": str(mounted)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert (done.stdout, done.returncode) == ("counter? 7\n", 0), done.stderr


@linux
def test_a_connection_closes_at_once_if_the_emulator_is_not_running(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "sam"
    unused_address = ("127.0.0.1", free_port())

    with (
        sam_local.offered(directory, build, unused_address, {"GetCounter": DEPLOYED}, {}),
        socket.socket(socket.AF_UNIX) as connection,
    ):
        monkeypatch.chdir(directory / "code")
        connection.connect(in_container.SOCKET)
        assert connection.recv(1) == b""
    monkeypatch.undo()


def test_samconfig_names_the_files_that_make_run_writes() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]
    written = (LOCAL / "sam").relative_to(ROOT)

    for command in ("local_invoke", "local_start_lambda", "local_start_api"):
        assert config[command]["parameters"] == {
            "template_file": f"{written}/template.json",
            "env_vars": f"{written}/env.json",
            "skip_pull_image": True,
        }


@pytest.mark.parametrize(
    ("command", "settings_kept"),
    [("local invoke GetCounter", False), ("--debug local start-api", False), ("deploy", True)],
)
def test_only_sam_local_ignores_the_users_aws_settings(
    tmp_path: Path, command: str, *, settings_kept: bool
) -> None:
    bin_ = tmp_path / "a  clone"
    bin_.mkdir()
    shutil.copy(ROOT / "scripts" / "sam", bin_)
    (bin_ / "python").write_text('#!/bin/sh\necho "$@"\nenv')
    (bin_ / "python").chmod(0o755)
    user_settings = {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_PROFILE": "work\nAWS_X=1",
        "AWS_CONFIG_FILE": "mine",
    }

    done = subprocess.run(
        [bin_ / "sam", *command.split()],
        env={"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///docker", **user_settings},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    arguments, *variables = done.stdout.splitlines()
    assert arguments == f"-P -m samcli {command}"
    assert "DOCKER_HOST=unix:///docker" in variables
    assert ("AWS_ACCESS_KEY_ID=AKIA" in variables) == settings_kept
    assert ("AWS_PROFILE=work" in variables) == settings_kept
    assert ("AWS_CONFIG_FILE=mine" in variables) == settings_kept
    assert ("AWS_CONFIG_FILE=/dev/null" in variables) != settings_kept
