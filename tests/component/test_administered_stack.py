"""Which stack `tally grants` and `tally people` administer, and what happens if AWS fails."""

import builtins
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from tests import aws_endpoint
from tests.component.administration import FAULTS, REGION, Administration, refusing
from tests.http_server import HttpServer

COMMANDS = (
    "grants list",
    "grants set group:readers --scope read",
    "grants remove group:readers",
    "people list",
    "people add alice",
    "people remove alice",
)
GRANT = {"principal": "group:readers", "scopes": ["read"], "prefixes": None}


@pytest.fixture
def local(
    tally: Administration, aws_settings: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[dict[str, Any]]:
    """The content of `stack.json` of a local stack in which moto answers."""
    aws_settings.delenv("TALLY_STACK")
    with aws_endpoint.serving() as endpoint:
        stack = {"endpoint_url": endpoint.url, "region": REGION, "outputs": tally.outputs}
        write(tmp_path, stack)
        yield stack


def write(directory: Path, stack: object) -> None:
    (directory / ".local").mkdir(exist_ok=True)
    (directory / ".local" / "stack.json").write_text(json.dumps(stack))


def put(tally: Administration) -> None:
    tally.put("group:readers", scopes={"SS": ["read"]})


def test_a_stack_is_found_by_its_name(
    tally: Administration, aws_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(tally)
    outputs = {name: {"Value": value} for name, value in (tally.outputs or {}).items()}
    cloudformation = boto3.client("cloudformation", REGION)
    for name, outputs_of_it in (("tally-prod", outputs), ("tally-old", {})):
        template = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}, "Outputs": outputs_of_it}
        cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template))
    tally.outputs = None
    write(tmp_path, {"endpoint_url": "http://127.0.0.1:9", "region": REGION, "outputs": {}})
    assert tally.json("grants --stack tally-prod list") == [GRANT]
    assert tally.json("people --stack tally-prod list") == []
    aws_settings.setenv("TALLY_STACK", "tally-prod")
    assert tally.json("grants list") == [GRANT]
    error = tally.error("grants --stack tally-none list", 6)
    assert "no stack tally-none in the region us-east-1" in error["detail"]
    error = tally.error("grants --stack tally-old list", 3)
    assert "tally-old has no output GrantTable" in error["detail"]


@pytest.mark.parametrize("missing", ["GrantTable", "UserPoolId"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_stack_without_an_output_is_too_old(
    tally: Administration, missing: str, command: str
) -> None:
    assert tally.outputs
    del tally.outputs[missing]
    error = tally.error(command, 3)
    assert error["error"] == "SettingsMissing"
    assert f"no output {missing}. Deploy the current version" in error["detail"]
    assert tally.operations() == []


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_stack_the_error_says_how_to_choose_one(
    tally: Administration, aws_settings: pytest.MonkeyPatch, command: str
) -> None:
    aws_settings.delenv("TALLY_STACK")
    error = tally.error(command, 3)
    assert error["error"] == "SettingsMissing"
    assert "--stack or TALLY_STACK" in error["detail"]
    assert "make run" in error["detail"]
    aws_settings.setenv("TALLY_STACK", "")
    assert tally.error(command, 3) == error
    assert tally.sent == []


def test_an_empty_name_is_not_the_local_stack(tally: Administration, local: dict[str, Any]) -> None:
    assert local
    assert "--stack is empty" in tally.error("grants --stack '' list", 3)["detail"]
    assert tally.sent == []


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"AWS_ACCESS_KEY_ID": None}, "credentials"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "credentials"),
        ({"AWS_DEFAULT_REGION": None}, "region"),
        ({"AWS_DEFAULT_REGION": "no region"}, "region"),
        ({"AWS_PROFILE": "none"}, "none"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "nonsense"),
        ({"AWS_CONFIG_FILE": "broken"}, "broken"),
        ({"AWS_CONFIG_FILE": "process", "AWS_ACCESS_KEY_ID": None}, "missing-program"),
    ],
)
def test_aws_settings_that_cannot_be_used_are_reported(
    tally: Administration,
    aws_settings: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str | None],
    part: str,
) -> None:
    (tmp_path / "broken").write_text("[default\n")
    (tmp_path / "process").write_text("[default]\ncredential_process = missing-program\n")
    tally.outputs = None  # let the SDK use the settings
    for name, value in variables.items():
        if value is None:
            aws_settings.delenv(name)
        else:
            aws_settings.setenv(name, value)
    error = tally.error("people list", 3)
    assert error["error"] == "SettingsMissing"
    assert part in error["detail"]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_boto3_the_error_says_what_to_install(
    tally: Administration, aws_settings: pytest.MonkeyPatch, command: str
) -> None:
    usual: Any = builtins.__import__

    def without(name: str, *rest: Any) -> ModuleType:  # noqa: ANN401
        if name.partition(".")[0] in {"boto3", "botocore"}:
            raise ModuleNotFoundError(name)
        found: ModuleType = usual(name, *rest)
        return found

    aws_settings.setattr(builtins, "__import__", without)
    error = tally.error(command, 3)
    assert 'pip install "tally-client[aws]"' in error["detail"]


def test_other_commands_do_not_import_boto3() -> None:
    program = (
        "import sys; from tally_client.command import app;"
        " print([name for name in sys.modules if name.startswith('boto')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_local_stack_is_found_from_a_directory_in_it(
    tally: Administration,
    aws_settings: pytest.MonkeyPatch,
    local: dict[str, Any],
    tmp_path: Path,
) -> None:
    put(tally)
    (tmp_path / "a" / "b").mkdir(parents=True)
    aws_settings.chdir(tmp_path / "a" / "b")
    assert tally.json("grants list") == [GRANT]
    tally("people add alice --group readers")
    assert tally.groups_of("alice") == {"readers"}
    del local["outputs"]["GrantTable"]
    write(tmp_path, local)
    error = tally.error("people list", 3)
    assert "local stack has no output GrantTable" in error["detail"]


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        ({"endpoint_url": "https://cognito-idp.us-east-1.amazonaws.com"}, "this machine"),
        ({"endpoint_url": "http://127.0.0.1.example:4566"}, "this machine"),
        ({"endpoint_url": None}, "this machine"),
        ({"endpoint_url": 5}, "lacks a member"),
        ({"region": ""}, "region"),
        ({"region": None}, "region"),
        ({"outputs": None}, "lacks a member"),
    ],
)
def test_a_local_stack_that_cannot_be_used_is_reported(
    tally: Administration,
    local: dict[str, Any],
    tmp_path: Path,
    stack: dict[str, Any],
    part: str,
) -> None:
    write(tmp_path, {**local, **stack})
    error = tally.error("grants list", 3)
    assert part in error["detail"]
    assert tally.sent == []
    (tmp_path / ".local" / "stack.json").write_text("{")
    assert "is not JSON" in tally.error("grants list", 3)["detail"]


class Listener:
    """A server on this machine that takes the place of AWS, and refuses each request.

    Attributes:
        url: its URL.
        headers: the headers of each request.
        status: the status of its answers.
        body: the body of its answers.
    """

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.status = 500
        self.body = b'{"__type": "InternalServerError"}'
        self.url = ""

    def serve(self) -> Iterator["Listener"]:
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                listener.headers.append(dict(self.headers))
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(listener.status)
                self.send_header("Content-Length", str(len(listener.body)))
                self.end_headers()
                self.wfile.write(listener.body)

            def log_message(self, *_args: object) -> None:
                pass

        with HttpServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
            yield self
            server.shutdown()


@pytest.fixture
def listener() -> Iterator[Listener]:
    yield from Listener().serve()


def test_the_local_stack_gets_nothing_of_the_users_aws_settings(
    tally: Administration,
    aws_settings: pytest.MonkeyPatch,
    local: dict[str, Any],
    listener: Listener,
    tmp_path: Path,
) -> None:
    write(tmp_path, {**local, "endpoint_url": listener.url, "region": "eu-west-3"})
    config = tmp_path / "config"
    config.write_text(
        "[profile of-the-user]\nregion = us-east-2\nservices = elsewhere\nretry_mode = nonsense\n"
        "[services elsewhere]\ndynamodb =\n  endpoint_url = https://elsewhere.example\n"
    )
    for name, value in {
        "AWS_CONFIG_FILE": str(config),
        "AWS_PROFILE": "of-the-user",
        "AWS_SESSION_TOKEN": "of-the-user",
        "AWS_ENDPOINT_URL": "https://elsewhere.example",
        "AWS_ENDPOINT_URL_DYNAMODB": "https://elsewhere.example",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "HTTP_PROXY": "http://proxy.example:1",
        "http_proxy": "http://proxy.example:1",
    }.items():
        aws_settings.setenv(name, value)
    assert tally.run("grants list").exit_code == 10
    assert tally.run("people list").exit_code == 10
    aws_settings.setenv("AWS_PROFILE", "none")
    assert tally.run("people list").exit_code == 10
    config.write_text("[broken\n")
    assert tally.run("people list").exit_code == 10
    assert len(listener.headers) == 4
    for headers in listener.headers:
        assert "Credential=test/" in headers["Authorization"]
        assert "/eu-west-3/" in headers["Authorization"]
        assert "of-the-user" not in str(headers)


def test_each_request_is_sent_once(
    tally: Administration, local: dict[str, Any], listener: Listener, tmp_path: Path
) -> None:
    write(tmp_path, {**local, "endpoint_url": listener.url})
    for command, code in (("people remove a", 11), ("grants remove a", 11), ("grants list", 10)):
        listener.headers.clear()
        assert tally.run(command).exit_code == code
        assert len(listener.headers) == 1


def test_an_answer_that_is_not_one_of_aws_is_reported(
    tally: Administration, local: dict[str, Any], listener: Listener, tmp_path: Path
) -> None:
    write(tmp_path, {**local, "endpoint_url": listener.url})
    listener.status, listener.body = 200, b"<html>"
    assert "did not answer" in tally.error("people list", 10)["detail"]
    listener.body = b"{}"
    assert "did not answer" in tally.error("people list", 10)["detail"]
    listener.status, listener.body = 404, b"<html>"
    tally.error("people list", 4)


def test_a_stack_that_was_stopped_is_reported(
    tally: Administration, local: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, {**local, "endpoint_url": "http://127.0.0.1:9"})
    error = tally.error("people remove alice", 10)
    assert (error["error"], "could not be reached" in error["detail"]) == ("Unavailable", True)


def test_the_deadline_is_that_of_a_request(
    tally: Administration, aws_settings: pytest.MonkeyPatch
) -> None:
    from tally_client.access import stack  # noqa: PLC0415

    seen: list[float] = []
    usual = stack.find

    def find(name: str | None, deadline: float) -> stack.Stack:
        found = usual(name, deadline)
        for client in (found.dynamodb, found.cognito):
            config: Any = client.meta.config
            seen.extend([config.connect_timeout, config.read_timeout])
        return found

    aws_settings.setattr(stack, "find", find)
    tally("--deadline 2 grants list")
    tally("--deadline 20 grants list")
    assert seen == [2, 2, 2, 2, 5, 20, 5, 20]


@pytest.mark.parametrize("name", FAULTS)
def test_each_error_of_aws_has_its_exit_code(tally: Administration, name: str) -> None:
    fault, at_a_read, at_a_change = FAULTS[name]
    tally.create("alice")
    tally.faults["ListUsers"] = tally.faults["AdminDeleteUser"] = fault
    tally.error("people list", at_a_read)
    result = tally.run("people remove alice --json")
    assert result.exit_code == at_a_change
    is_unknown = json.loads(result.stderr)["error"] == "OutcomeUnknown"
    assert is_unknown == (at_a_change == 11)
    if not is_unknown:
        assert tally.names() == ["alice"]


def test_a_refusal_has_what_a_program_needs(tally: Administration) -> None:
    tally.faults["ListUsers"] = refusing("AccessDeniedException", 400, "no cognito-idp:ListUsers")
    error = tally.error("people list", 5)
    detail = error.pop("detail")
    assert "AccessDeniedException: no cognito-idp:ListUsers" in detail
    assert error == {
        "error": "Forbidden",
        "kind": "AccessDeniedException",
        "status": 400,
        "request_id": "request-7",
    }


def test_each_command_has_help_and_json(tally: Administration) -> None:
    for command in COMMANDS:
        name = " ".join(command.split()[:2])
        assert "--json" in tally(f"{name} --help")
    for group in ("grants", "people"):
        assert "--stack" in tally(f"{group} --help")
        assert "TALLY_STACK" in tally(f"{group} --help")
