"""Builds and deploys `template.yaml` to an emulator, and describes the deployed stack."""

import base64
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

import environment
import local_person
import sam_local
from emulator_process import Emulator, clean_environment, kill_group
from local_settings import (
    CREDENTIALS,
    HOST,
    LOCAL,
    LOCAL_ONLY,
    REGION,
    ROOT,
    STACK_NAME,
    LocalStackError,
)
from state_directory import end_of, open_log

Report = Callable[[str], None]

# The names of two things in the emulator's directory: the directory with the output of `sam build`,
# and a file with a hash of the sources of this build.
BUILD = "build"
BUILD_STAMP = "build.stamp"
# The tag of a stack with a hash of what the stack was deployed from.
SOURCES_TAG = "tally:sources"
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
ARCHITECTURE = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
PUBLIC_PREFIX = "public:"
AUDIT_SEGMENTS = 4  # each one is a process
PARAMETERS = (
    f"Stage=dev PythonRuntime={RUNTIME} Architecture={ARCHITECTURE} PublicPrefix={PUBLIC_PREFIX}"
    f" AuditSegments={AUDIT_SEGMENTS}"
)


@dataclass(frozen=True)
class Stack:
    """A deployed stack. `.local/stack.json` has the same fields.

    Attributes:
        url: the base URL of the API. It ends with the API's stage.
        token_url: the URL at which clients get access tokens.
        client_id: the id of the app client.
        client_secret: the secret of the app client.
        scopes: the scopes that the app client may ask for.
        endpoint_url: the emulator's endpoint, which all its AWS services share.
        region: the AWS region.
        dashboard: the `url` of the dashboard, and the `username` and `password` of a first person,
            who is an editor.
        outputs: the outputs of the CloudFormation stack.
    """

    url: str
    token_url: str
    client_id: str
    client_secret: str
    scopes: tuple[str, ...]
    endpoint_url: str
    region: str
    dashboard: dict[str, str]
    outputs: dict[str, str]


def deploy(
    emulator: Emulator, stack_name: str = STACK_NAME, report: Report = lambda _step: None
) -> Stack:
    """Build `template.yaml` and deploy it, as a new stack or as an update of the existing stack.

    If the stack was already deployed from the same sources, nothing is done.

    Args:
        emulator: the emulator to deploy to.
        stack_name: the name of the CloudFormation stack.
        report: a function that is called with a line of text when each step begins.

    Returns:
        The deployed stack.

    Raises:
        LocalStackError: `sam` failed. The message has the last lines of the output of `sam`.
    """
    if not is_built(emulator.directory):
        report("Building the functions…")
        build(emulator)
    if not is_deployed(emulator, stack_name):
        report("Deploying the stack to the emulator…")
        _deploy(emulator, stack_name)
    stack = describe(emulator, stack_name)
    local_person.admit(_client(emulator, "cognito-idp"), stack.outputs, stack.dashboard["url"])
    # The sign-in page of the emulator has another address than Cognito's.
    settings = {"client_id": stack.outputs["DashboardClientId"], "sign_in": emulator.endpoint_url}
    _client(emulator, "ssm").put_parameter(
        Name=f"/tally/{stack_name}/dashboard", Value=json.dumps(settings), Overwrite=True
    )
    return stack


def _deploy(emulator: Emulator, stack_name: str) -> None:
    _sam(
        emulator,
        "deploy",
        *("--template-file", str(emulator.directory / BUILD / "template.yaml")),
        *("--stack-name", stack_name, "--tags", f"{SOURCES_TAG}={digest_of_sources()}"),
        *("--resolve-s3", "--capabilities", "CAPABILITY_IAM"),
        *("--no-confirm-changeset", "--no-fail-on-empty-changeset"),
        # If the first deployment of a stack fails, CloudFormation keeps a stack that cannot be
        # updated. So delete this stack.
        *("--on-failure", "DELETE"),
        *("--parameter-overrides", PARAMETERS),
    )


def build(emulator: Emulator) -> None:
    """Build `template.yaml` into the emulator's directory. Any older build there is replaced.

    Raises:
        LocalStackError: `sam` failed. The message has the last lines of the output of `sam`.
    """
    target = emulator.directory / BUILD
    # The stamp is written last. If the stamp is missing, the run that made the build was killed,
    # and the build may be incomplete.
    stamp = emulator.directory / BUILD_STAMP
    stamp.unlink(missing_ok=True)
    digest = digest_of_sources()
    shutil.rmtree(target, ignore_errors=True)
    _sam(
        emulator,
        "build",
        *("--template-file", str(ROOT / "template.yaml"), "--build-dir", str(target)),
        *("--no-cached", "--parameter-overrides", PARAMETERS),
    )
    stamp.write_text(digest)


def is_built(directory: Path) -> bool:
    """Return whether an emulator's directory has a finished build of the current sources."""
    stamp = directory / BUILD_STAMP
    return stamp.exists() and stamp.read_text() == digest_of_sources()


def is_deployed(emulator: Emulator, stack_name: str = STACK_NAME) -> bool:
    """Return whether a stack is complete and was deployed from the present sources."""
    cloudformation = _client(emulator, "cloudformation")
    try:
        (stack,) = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
    except ClientError:  # there is no such stack
        return False
    is_complete = stack["StackStatus"] in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}
    return is_complete and {"Key": SOURCES_TAG, "Value": digest_of_sources()} in stack["Tags"]


def offered_to_sam_local(
    emulator: Emulator, stack_name: str = STACK_NAME
) -> AbstractContextManager[None]:
    """Let `sam local` use a deployed stack until the with block ends.

    The files for `sam local` are in the directory `sam` of the emulator's directory.
    """
    lambda_ = _client(emulator, "lambda")
    resources = _client(emulator, "cloudformation").describe_stack_resources(StackName=stack_name)
    functions = {
        each["LogicalResourceId"]: lambda_.get_function_configuration(
            FunctionName=each["PhysicalResourceId"]
        )
        for each in resources["StackResources"]
        if each["ResourceType"] == "AWS::Lambda::Function"
    }
    settings = {
        **CREDENTIALS,
        "AWS_SESSION_TOKEN": "",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": emulator.endpoint_url,
    }
    directory = emulator.directory
    return sam_local.offered(
        directory / "sam", directory / BUILD, (HOST, emulator.port), functions, settings
    )


def access_token(stack: Stack) -> str:
    """Get an access token with all scopes, for the stack's app client.

    Raises:
        LocalStackError: the stack's token URL does not respond, or refuses to issue a token.
    """
    form = {"grant_type": "client_credentials", "scope": " ".join(stack.scopes)}
    client = base64.b64encode(f"{stack.client_id}:{stack.client_secret}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310  an http URL of this machine
        stack.token_url,
        data=urllib.parse.urlencode(form).encode(),
        headers={
            "Authorization": f"Basic {client}",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    try:
        with LOCAL_ONLY.open(request, timeout=30) as response:
            token: str = json.load(response)["access_token"]
    except urllib.error.HTTPError as error:
        refusal = error.read().decode(errors="replace")
        message = f"{stack.token_url} refused to issue a token: {error.code} {refusal}"
        raise LocalStackError(message) from error
    except OSError as error:
        message = f"{stack.token_url} does not respond: start the stack with `make run`"
        raise LocalStackError(message) from error
    return token


def read_stack(path: Path = LOCAL / "stack.json") -> Stack:
    """Read the description of the running local stack from `stack.json`.

    Raises:
        LocalStackError: the file does not exist. Either no local stack is running, or the local
            stack is not ready yet.
    """
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError as error:
        message = "the local stack is not running, or not ready yet: start it with `make run`"
        raise LocalStackError(message) from error
    return Stack(**{**fields, "scopes": tuple(fields["scopes"])})


def digest_of_sources() -> str:
    """Return a hash of everything that a build and a deployment depend on."""
    digest = hashlib.sha256(PARAMETERS.encode())
    names = ("artifact.py", "dashboard.py", "environment.py", "pip_install.py", "requirements.txt")
    scripts = [ROOT / "scripts" / name for name in names]
    shipped = [
        path
        for name in ("functions", "dashboard")
        for path in (ROOT / name).rglob("*")
        if path.is_file()
    ]
    for path in [ROOT / "template.yaml", *scripts, *sorted(shipped)]:
        if "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _sam(emulator: Emulator, *arguments: str) -> None:
    """Run `sam`, and write its output to `sam-build.log` or `sam-deploy.log`.

    Raises:
        LocalStackError: `sam` failed.
    """
    log_path = emulator.directory / f"sam-{arguments[0]}.log"
    with open_log(log_path) as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("sam")), *arguments],
            cwd=emulator.directory,
            env=_sam_environment(emulator),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[emulator.lock],
        )
        try:
            status = process.wait()
        finally:
            kill_group(process)
    if status:
        message = f"`sam {arguments[0]}` failed ({status}):\n{end_of(log_path)}"
        if environment.NOT_DOWNLOADED in message:
            message = environment.NOT_DOWNLOADED
        raise LocalStackError(message)


def _sam_environment(emulator: Emulator) -> dict[str, str]:
    return (
        clean_environment()
        | CREDENTIALS
        | {
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": emulator.endpoint_url,
            "SAM_CLI_TELEMETRY": "0",
            "SAM_CLI_POLL_DELAY": "0.1",  # seconds; by default SAM polls every 5 seconds
        }
    )


def _client(emulator: Emulator, service: str) -> Any:  # noqa: ANN401  depends on the service
    """Return a client for a service of the emulator."""
    # This session ignores AWS_PROFILE and the user's configuration files.
    bare = botocore.session.Session(
        {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
    )
    session = boto3.Session(
        botocore_session=bare,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
    )
    # boto3's type stubs accept only literal names of services.
    return session.client(  # type: ignore[call-overload]
        service, endpoint_url=emulator.endpoint_url, config=Config(proxies={})
    )


def describe(emulator: Emulator, stack_name: str = STACK_NAME) -> Stack:
    """Read the outputs and the app client of a deployed stack, and return them."""
    cloudformation = _client(emulator, "cloudformation")
    (stack,) = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    client = _client(emulator, "cognito-idp").describe_user_pool_client(
        UserPoolId=outputs["UserPoolId"], ClientId=outputs["ClientId"]
    )["UserPoolClient"]
    # The output `ApiUrl` is a URL as on AWS: the first label of its host name is the API's id, and
    # its path is the stage. The emulator serves the API at a different URL.
    api = urllib.parse.urlsplit(outputs["ApiUrl"])
    api_id = api.netloc.partition(".")[0]
    url = f"{emulator.endpoint_url}/_aws/execute-api/{api_id}{api.path}"
    return Stack(
        url=url,
        token_url=f"{emulator.endpoint_url}/oauth2/token",
        client_id=client["ClientId"],
        client_secret=client["ClientSecret"],
        scopes=tuple(client["AllowedOAuthScopes"]),
        endpoint_url=emulator.endpoint_url,
        region=REGION,
        dashboard={
            "url": f"{url}/",
            "username": local_person.USERNAME,
            "password": local_person.PASSWORD,
        },
        outputs=outputs,
    )
