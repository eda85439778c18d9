"""`sam local` runs every function in a container against the local stack."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import urllib3
from botocore import UNSIGNED
from botocore.config import Config
from samcli.lib.utils.version_checker import AWS_SAM_CLI_PYPI_ENDPOINT
from tests import aws_template
from tests.aws_template import ROOT
from tests.component.samples import load
from tests.e2e.service import Caller, client, wait_for

from deployment import Stack, offered_to_sam_local
from emulator_process import Emulator, free_port
from local_settings import HOST

CONCURRENCY = 3
START_SECONDS = 60
FUNCTIONS = aws_template.functions()

# This code finds an image as SAM does. It runs in its own process, because the library `docker`
# leaves sockets open.
FIND_IMAGE = """
import docker, sys
engine = docker.from_env()
try:
    engine.images.get(sys.argv[1])
except docker.errors.ImageNotFound:
    engine.images.pull(sys.argv[1])
"""

# Environment variables that a user's shell may have. They must not reach a container, and must not
# make SAM send requests to AWS.
USER_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "a-token",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "COUNTER_TABLE": "another",
}


class Trap:
    """A server that takes the place of AWS and of an HTTP proxy.

    It records the first line of each request, but never answers.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.requests: list[bytes] = []
        self.url = f"http://{HOST}:{listener.getsockname()[1]}"
        self._listener = listener

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    self.requests.append(connection.recv(1024).partition(b"\r\n")[0])


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    with socket.create_server((HOST, 0)) as listener:
        trap = Trap(listener)
        thread = threading.Thread(target=trap.run)
        thread.start()
        yield trap
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@dataclass(frozen=True)
class Project:
    """A directory to run `sam` in, like a user's clone of the repository."""

    directory: Path
    has_engine: bool
    variables: dict[str, str] = field(repr=False)

    def skip_without_engine(self) -> None:
        """Skip the test if no container engine is running.

        Each test calls this method. If a fixture did this, pytest would not report all skipped
        tests in one line.
        """
        if not self.has_engine:
            pytest.skip("no container engine (Docker or podman) is running that has Lambda's image")

    def start(self, command: str, **more: Any) -> subprocess.Popen[str]:  # noqa: ANN401
        return subprocess.Popen(
            command.split(), cwd=self.directory, env=self.variables, text=True, **more
        )

    def invoke(self, function: str) -> Any:  # noqa: ANN401
        """Send a function its sample event with `sam local invoke`, and return the answer."""
        event = f"events/{FUNCTIONS[function].module}.json"
        with self.start(
            f".venv/bin/sam local invoke {function} --event {event}",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            answer, log = process.communicate()
        assert process.returncode == 0, log
        assert answer, log
        return json.loads(answer)

    @contextmanager
    def serving(self, command: str) -> Iterator[int]:
        """Run `sam local start-…`, wait until its port accepts connections, and yield the port.

        The command is stopped when the with block ends.
        """
        port = free_port()
        log = self.directory / f"{port}.log"
        with (
            log.open("w") as output,
            self.start(
                f".venv/bin/sam local {command} --port {port}", stdout=output, stderr=output
            ) as process,
        ):
            try:
                assert wait_for(lambda: _listens(port), seconds=START_SECONDS), log.read_text()
                yield port
            finally:
                process.terminate()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port)):
        return True
    return False


@pytest.fixture(scope="module")
def project(
    emulator: Emulator,
    stack: Stack,
    trap: Trap,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Project]:
    """A clone of the repository, with the files that `make run` creates for `sam local`."""
    assert stack.endpoint_url == emulator.endpoint_url
    directory = tmp_path_factory.mktemp("a  clone")
    for name, target in {
        ".local": emulator.directory,
        ".venv": Path(sys.executable).parent.parent,
        "events": ROOT / "events",
        "samconfig.toml": ROOT / "samconfig.toml",
    }.items():
        (directory / name).symlink_to(target)
    trap_variables = dict.fromkeys(("AWS_ENDPOINT_URL", "HTTP_PROXY", "HTTPS_PROXY"), trap.url)
    find_image = [sys.executable, "-c", FIND_IMAGE, image(stack)]
    has_engine = not subprocess.run(find_image, stderr=subprocess.DEVNULL, check=False).returncode
    with offered_to_sam_local(emulator):
        yield Project(directory, has_engine, {**os.environ, **USER_ENVIRONMENT, **trap_variables})


def image(stack: Stack) -> str:
    """Return the name of AWS's image for the functions."""
    (function, *_) = client(stack, "lambda").list_functions()["Functions"]
    (architecture,) = function["Architectures"]
    version = function["Runtime"].removeprefix("python")
    return f"public.ecr.aws/lambda/python:{version}-{architecture}"


def is_expected(function: str, answer: Any) -> bool:  # noqa: ANN401
    """Return whether a function's answer to its sample event is correct.

    The same event may have been sent before, so several answers can be correct.
    """
    match answer:
        case {"statusCode": 200}:
            return bool(FUNCTIONS[function].routes)
        case {"batchItemFailures": []} | {"findings": [], "finished": True}:
            return True
        case {"redriven": 0, "parked": 0}:
            return True
        case {"response": {"claimsAndScopeOverrideDetails": {"accessTokenGeneration": _}}}:
            return True
    return False


def documented(command: str) -> Any:  # noqa: ANN401
    """Return the JSON that the docs show as the output of a command."""
    texts = [path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    shown = rf"^\$ .venv/bin/{command} --event events/get_counter.json\n(.+)$"
    (output,) = re.findall(shown, "\n".join(texts), re.MULTILINE)
    return json.loads(output)


def test_sam_local_invoke_works_for_every_function_with_any_user_environment(
    project: Project, trap: Trap, caller: Caller
) -> None:
    project.skip_without_engine()
    before = caller.get("/counters/sample:stock").body

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        answers = dict(zip(FUNCTIONS, pool.map(project.invoke, FUNCTIONS), strict=True))

    unexpected = {name: each for name, each in answers.items() if not is_expected(name, each)}
    assert not unexpected
    assert answers["GetCounter"] == documented("sam local invoke GetCounter")
    after = caller.get("/counters/sample:stock").body
    assert (after["value"], after["version"]) == (before["value"] + 1, before["version"] + 1)
    (entry,) = caller.history("/counters/sample:stock", entries=1, after=before["version"])
    claims = load("increment_counters")["requestContext"]["authorizer"]["claims"]
    assert entry["actor"] == claims["sub"]
    # SAM asks this host whether a newer version of SAM exists.
    host = urlsplit(AWS_SAM_CLI_PYPI_ENDPOINT).netloc.encode()
    assert [line for line in trap.requests if host not in line] == [], "AWS was contacted"


def test_sam_local_start_lambda_works_for_every_function(project: Project, stack: Stack) -> None:
    project.skip_without_engine()
    with project.serving("start-lambda") as port:
        lambda_ = boto3.client(
            "lambda",
            region_name=stack.region,
            endpoint_url=f"http://{HOST}:{port}",
            config=Config(signature_version=UNSIGNED, proxies={}, read_timeout=START_SECONDS),
        )

        def invoke(function: str) -> Any:  # noqa: ANN401
            event = json.dumps(load(FUNCTIONS[function].module)).encode()
            return json.load(lambda_.invoke(FunctionName=function, Payload=event)["Payload"])

        with ThreadPoolExecutor(CONCURRENCY) as pool:
            answers = dict(zip(FUNCTIONS, pool.map(invoke, FUNCTIONS), strict=True))
        lambda_.close()

    unexpected = {name: each for name, each in answers.items() if not is_expected(name, each)}
    assert not unexpected
    for queue in ("Event", "History", "Increment"):
        url = stack.outputs[f"{queue}DeadLetterQueueUrl"]
        assert "Messages" not in client(stack, "sqs").receive_message(QueueUrl=url)


def test_sam_local_start_api_explains_that_it_has_no_authorizer(project: Project) -> None:
    project.skip_without_engine()
    with project.serving("start-api") as port, urllib3.PoolManager(retries=False) as http:
        answer = http.request("GET", f"http://{HOST}:{port}/counter")

    assert answer.status == 401
    assert "sam local start-api" in answer.json()["detail"]
