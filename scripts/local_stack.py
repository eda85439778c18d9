"""`template.yaml` on this machine: `local_stack.py run` and `local_stack.py token`.

An emulator (MiniStack) runs the deployed functions in processes of its own; no Docker. Everything
it writes is in one directory, and it listens on 127.0.0.1 only.
"""

import argparse
import base64
import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import boto3
import botocore.session
from botocore.config import Config

import environment
import sam_local
import snapshots

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
HOST = "127.0.0.1"
REGION = "us-east-1"
STACK_NAME = "tally-dev"
START_SECONDS = 60
STOP_SECONDS = 30
LEFT_OVER_SECONDS = 60  # for what a killed run has left: an emulator that saves, or a build
LOG_LINES_SHOWN = 40
PORTS = 1 << 16

# Neither a proxy nor the user's AWS settings may come between this machine and itself.
LOCAL_ONLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class LocalStackError(Exception):
    """The local stack cannot be started or used; the message says why."""


@dataclass(frozen=True)
class Emulator:
    """A running emulator, and the directory of everything it writes."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]
    lock: int  # the file descriptor that keeps other runs out of the directory

    @property
    def endpoint_url(self) -> str:
        """The endpoint of every AWS service."""
        return f"http://{HOST}:{self.port}"


@dataclass(frozen=True)
class Stack:
    """A deployed stack; the fields are those of `.local/stack.json`."""

    url: str
    token_url: str
    client_id: str
    client_secret: str
    scopes: tuple[str, ...]
    endpoint_url: str
    region: str
    outputs: dict[str, str]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
    return port


@contextlib.contextmanager
def local_stack(
    directory: Path, port: int, stack_name: str = STACK_NAME, *, persist: bool = False
) -> Iterator[Stack]:
    """Start an emulator and deploy `template.yaml` to it; stop it at the end.

    Args:
        directory: takes the state, the build and the logs; used by one emulator at a time.
        port: where to listen, on 127.0.0.1.
        stack_name: the name of the CloudFormation stack.
        persist: keep the state, and go on from the one that is there.

    Yields:
        the deployed stack.

    Raises:
        LocalStackError: the port or the directory cannot be used, or a step failed.

    """
    with run_emulator(directory, port, persist=persist) as emulator:
        yield deploy(emulator, stack_name)


@contextlib.contextmanager
def run_emulator(directory: Path, port: int, *, persist: bool = False) -> Iterator[Emulator]:
    """Start an emulator with nothing deployed by us; stop it at the end.

    Takes, yields and raises as `local_stack` does, except that it yields the emulator.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)  # the state has secrets
    with _only_user_of(directory) as lock:
        _check_port(port)
        if persist and (line := _lost(directory / "state")):
            sys.stderr.write(f"{line}\n")
        _make_private(directory)
        with (
            _fresh_directory(directory, "tmp-") as temporary,
            _open_log(directory / "emulator.log") as log,
        ):
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / "emulator.py")],
                cwd=directory,
                env=_emulator_environment(directory, temporary, port, lock, persist=persist),
                stdin=subprocess.PIPE,  # its end tells the emulator that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us only, and we stop it in order
                pass_fds=[lock],
                umask=0o077,  # the state has secrets: those of clients and of users
            )
            (directory / "emulator.pid").write_text(f"{process.pid}\n")
            emulator = Emulator(directory, port, process, lock)
            try:
                _wait_until_ready(emulator)
                yield emulator
            finally:
                _stop(process)
                if persist and _lost(directory / "state"):
                    sys.stderr.write("Not all changes were saved. The next start says from when.\n")


def deploy(emulator: Emulator, stack_name: str = STACK_NAME) -> Stack:
    """Build `template.yaml` and deploy it, as a new stack or as an update.

    Raises:
        LocalStackError: `sam` failed; the message has the end of its output.

    """
    build = emulator.directory / "build"
    cache = emulator.directory / "cache"
    runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
    architecture = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
    parameters = [
        "--parameter-overrides",
        f"Stage=dev PythonRuntime={runtime} Architecture={architecture}",
    ]
    unfinished = emulator.directory / "build.unfinished"
    if unfinished.exists():  # a build was killed: what it has left may be anything
        for left in (build, cache):
            shutil.rmtree(left, ignore_errors=True)
    unfinished.touch()
    _sam(
        emulator,
        "build",
        *("--template-file", str(ROOT / "template.yaml"), "--build-dir", str(build)),
        *("--cached", "--cache-dir", str(cache)),
        *parameters,
    )
    unfinished.unlink()
    _sam(
        emulator,
        "deploy",
        *("--template-file", str(build / "template.yaml"), "--stack-name", stack_name),
        *("--resolve-s3", "--capabilities", "CAPABILITY_IAM"),
        *("--no-confirm-changeset", "--no-fail-on-empty-changeset"),
        # A first deployment that failed must not be in the way of the second.
        *("--on-failure", "DELETE"),
        *parameters,
    )
    return _describe(emulator, stack_name)


def offered_to_sam_local(
    emulator: Emulator, stack_name: str = STACK_NAME
) -> contextlib.AbstractContextManager[None]:
    """Offer a deployed stack to `sam local`: see `sam_local.py`, which writes into `sam`."""
    cloudformation = _client(emulator, "cloudformation")
    lambda_ = _client(emulator, "lambda")
    resources = cloudformation.describe_stack_resources(StackName=stack_name)["StackResources"]
    functions = {
        each["LogicalResourceId"]: lambda_.get_function_configuration(
            FunctionName=each["PhysicalResourceId"]
        )
        for each in resources
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
    address = (HOST, emulator.port)
    return sam_local.offered(directory / "sam", directory / "build", address, functions, settings)


def access_token(stack: Stack) -> str:
    """Get an access token with all scopes, for the stack's app client.

    Raises:
        LocalStackError: nothing answers at the stack's token URL, or it refuses.

    """
    form = {"grant_type": "client_credentials", "scope": " ".join(stack.scopes)}
    client = base64.b64encode(f"{stack.client_id}:{stack.client_secret}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 (our own http URL)
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
        message = f"no token from {stack.token_url}: {error.code} {refusal}"
        raise LocalStackError(message) from error
    except OSError as error:
        message = f"nothing answers at {stack.token_url}: start the stack with `make run`"
        raise LocalStackError(message) from error
    return token


def read_stack(path: Path = LOCAL / "stack.json") -> Stack:
    """Read what a running stack has written.

    Raises:
        LocalStackError: there is no such file: the stack is not running.

    """
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError as error:
        message = "the local stack is not running (or not ready yet): start it with `make run`"
        raise LocalStackError(message) from error
    return Stack(**{**fields, "scopes": tuple(fields["scopes"])})


@contextlib.contextmanager
def _only_user_of(directory: Path) -> Iterator[int]:
    """Hold the directory's lock, and give its file descriptor.

    The processes that write to the directory hold it too. So if this one is killed, the next waits
    until the last of them has ended.
    """
    with (directory / "lock").open("a+") as lock:
        deadline = time.monotonic() + LEFT_OVER_SECONDS
        told = False
        while not _locked(lock):
            if _is_running(_holder(lock)) or time.monotonic() > deadline:
                message = f"another local stack is using {directory}: stop it first"
                raise LocalStackError(message)
            if not told:
                sys.stderr.write("Waiting for what is left of a run that was killed.\n")
                told = True
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: IO[str]) -> int:
    """Return the process id in a lock file, or 0."""
    lock.seek(0)
    text = lock.read()
    return int(text) if text.isdecimal() else 0


def _is_running(process_id: int) -> bool:
    if not process_id:
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def _fresh_directory(directory: Path, prefix: str) -> Iterator[Path]:
    """Make a directory for this run, and delete it after; and those that killed runs have left."""
    for left in directory.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=directory, prefix=prefix, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _make_private(directory: Path) -> None:
    """Let nobody else read the state and the logs, those of earlier versions included."""
    state = directory / "state"
    state.mkdir(exist_ok=True)
    for path in (state, *state.rglob("*"), *directory.glob("*.log")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _lost(state: Path) -> str | None:
    try:
        return snapshots.lost(state)
    except snapshots.DamagedError as error:
        raise LocalStackError(str(error)) from error


def _check_port(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except PermissionError as error:
        message = f"port {port} needs the rights of root: choose a PORT from 1024 on"
        raise LocalStackError(message) from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            message = f"cannot listen on port {port}: {error.strerror}"
            raise LocalStackError(message) from error
        message = f"port {port} is in use: stop what listens there, or choose another PORT"
        raise LocalStackError(message) from error


def _environment() -> dict[str, str]:
    """Return this process's environment without what could lead a child elsewhere."""
    foreign = re.compile("AWS_|SAM_|MINISTACK_|LOCALSTACK_|LAMBDA_|PYTHON")
    ours = {name: value for name, value in os.environ.items() if not foreign.match(name)}
    # `sam build` looks for python3.X, which is beside the interpreter that runs us.
    path = os.pathsep.join([str(Path(sys.executable).parent), ours.get("PATH", os.defpath)])
    return ours | {
        "PATH": path,
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
    }


def _emulator_environment(
    directory: Path, temporary: Path, port: int, lock: int, *, persist: bool
) -> dict[str, str]:
    return _environment() | {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "PERSIST_STATE": str(int(persist)),
        "STATE_DIR": str(directory / "state"),
        "STATE_LOCK": str(lock),
        "TMPDIR": str(temporary),  # its pid file, and the functions' code
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        # At its start and its end MiniStack removes its containers, anyone's, from Docker.
        "DOCKER_HOST": f"unix://{directory}/no-docker.sock",
    }


def _sam_environment(emulator: Emulator) -> dict[str, str]:
    return (
        _environment()
        | CREDENTIALS
        | {
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": emulator.endpoint_url,
            "SAM_CLI_TELEMETRY": "0",
        }
    )


def _wait_until_ready(emulator: Emulator) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and emulator.process.poll() is None:
        with contextlib.suppress(OSError):
            LOCAL_ONLY.open(f"{emulator.endpoint_url}/_ministack/ready", timeout=5).close()
            return
        time.sleep(0.1)
    message = f"the emulator did not start:\n{_end_of(emulator.directory / 'emulator.log')}"
    raise LocalStackError(message)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the emulator save its state and end; then end what is left of its process group."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        sys.stderr.write("The emulator did not stop in time: its last changes may be lost.\n")
    _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started in its own session, and its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _sam(emulator: Emulator, *arguments: str) -> None:
    """Run `sam`, with its output in `sam-build.log` or `sam-deploy.log`.

    Raises:
        LocalStackError: it failed.

    """
    log_path = emulator.directory / f"sam-{arguments[0]}.log"
    with _open_log(log_path) as log:
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
            _kill_group(process)
    if status:
        message = f"`sam {arguments[0]}` failed ({status}):\n{_end_of(log_path)}"
        if environment.NOT_DOWNLOADED in message:
            message = environment.NOT_DOWNLOADED
        raise LocalStackError(message)


def _open_log(path: Path) -> IO[bytes]:
    """Begin a log. Nobody else may read it: what functions log is in it."""
    path.unlink(missing_ok=True)
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])


def _client(emulator: Emulator, service: str) -> Any:  # noqa: ANN401  the caller knows which one
    """Return a client for a service of the emulator."""
    # Neither AWS_PROFILE nor the user's files are read.
    bare = botocore.session.Session(
        {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
    )
    session = boto3.Session(
        botocore_session=bare,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
    )
    # The stubs know the services' names one by one.
    return session.client(  # type: ignore[call-overload]
        service, endpoint_url=emulator.endpoint_url, config=Config(proxies={})
    )


def _describe(emulator: Emulator, stack_name: str) -> Stack:
    cloudformation = _client(emulator, "cloudformation")
    (stack,) = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    client = _client(emulator, "cognito-idp").describe_user_pool_client(
        UserPoolId=outputs["UserPoolId"], ClientId=outputs["ClientId"]
    )["UserPoolClient"]
    # On AWS the API's id is the first label of its host name, and the stage its path.
    api = urllib.parse.urlsplit(outputs["ApiUrl"])
    api_id = api.netloc.partition(".")[0]
    return Stack(
        url=f"{emulator.endpoint_url}/_aws/execute-api/{api_id}{api.path}",
        token_url=f"{emulator.endpoint_url}/oauth2/token",
        client_id=client["ClientId"],
        client_secret=client["ClientSecret"],
        scopes=tuple(client["AllowedOAuthScopes"]),
        endpoint_url=emulator.endpoint_url,
        region=REGION,
        outputs=outputs,
    )


def _run(directory: Path, port: int) -> None:
    """Run the stack until Ctrl-C or SIGTERM."""
    stack_file = directory / "stack.json"
    print(f"Starting Tally on port {port}: half a minute, the first time more.", flush=True)
    with run_emulator(directory, port, persist=True) as emulator, contextlib.ExitStack() as closing:
        stack_file.unlink(missing_ok=True)  # of a run that was killed
        stack = deploy(emulator)
        closing.enter_context(offered_to_sam_local(emulator))
        try:
            _write_atomically(stack_file, json.dumps(asdict(stack), indent=2) + "\n")
            print(_welcome(stack), flush=True)
            emulator.process.wait()
        finally:
            stack_file.unlink(missing_ok=True)
        message = f"the emulator ended by itself:\n{_end_of(directory / 'emulator.log')}"
        raise LocalStackError(message)


def _port(text: str) -> int:
    """Return the port that the user asks for.

    Raises:
        LocalStackError: there is no such port.
    """
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < PORTS):
        message = f"PORT={text} is not a port: choose a number from 1 to {PORTS - 1}"
        raise LocalStackError(message)
    return int(text)


def _write_atomically(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".tmp")
    unfinished.touch(mode=0o600)  # it holds a secret
    unfinished.write_text(text)
    unfinished.replace(path)


def _welcome(stack: Stack) -> str:
    return f"""
Tally is at {stack.url}. In another terminal:

    url={stack.url}
    token=$(make -s token)
    curl -X POST $url/counter -H "Authorization: $token"

Ctrl-C stops it. Counters, history and tokens are kept in .local/.
"""


class _Stopped(BaseException):
    """Ctrl-C or SIGTERM came."""


def _stop_once(_number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not cut the saving of the state short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise _Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, `run` or `token`; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run template.yaml here until Ctrl-C")
    run.add_argument("--port", default="4566")
    token = commands.add_parser("token", help="print an access token with all scopes")
    for command in (run, token):
        command.add_argument("--directory", type=Path, default=LOCAL, help="default: .local")
    options = parser.parse_args(arguments)
    try:
        if options.command == "token":
            print(access_token(read_stack(options.directory / "stack.json")))
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _stop_once)
            _run(options.directory, _port(options.port))
    except _Stopped:
        print("Stopped.")
    except LocalStackError as error:
        sys.stderr.write(f"local_stack.py: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
