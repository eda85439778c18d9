"""What `sam build` makes, under the runtime that Lambda runs it with."""

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from tests import aws_endpoint, aws_template, call_graph, lambda_runtime, runtime_api, sam
from tests.aws_template import ROOT, Function
from tests.component.samples import CHECKS, load, prepare
from tests.stack import Stack

import artifact
from local_stack import free_port

FUNCTIONS = aws_template.functions()
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)

INVOCATION_SECONDS = 60
MEGABYTE = 1 << 20
UNCHECKED_HASH = 0b01  # https://peps.python.org/pep-0552/

# A handler that tells how things are when another one has answered an event: where the modules come
# from, and whether garbage is collected, without what the init phase has made.
TELLER = """
import gc
import importlib
import sys


def handler(event, context):
    importlib.import_module(event["module"]).handler(event["event"], context)
    origins = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return {"origins": origins, "collected": gc.isenabled(), "frozen": gc.get_freeze_count()}
"""

# Asks each service in each of its regions something, and prints to which address that went.
ADDRESSES = """
import json
import botocore.session

addresses = []


def send(request, **_):
    addresses.append(request.url)
    raise InterruptedError


session = botocore.session.get_session()
calls = {
    "dynamodb": lambda client: client.get_item(TableName="t", Key={"counter_id": {"S": "c"}}),
    "sqs": lambda client: client.send_message(QueueUrl="queue", MessageBody="{}"),
}
for service, call in calls.items():
    for partition in session.get_available_partitions():
        for region in session.get_available_regions(service, partition):
            client = session.create_client(service, region)
            client.meta.events.register("before-send", send)
            try:
                call(client)
            except InterruptedError:
                pass
print(json.dumps(addresses))
"""

# Imports modules, and prints where all that is imported by then comes from.
IMPORTED = """
import importlib
import json
import sys

for name in sys.argv[1:]:
    importlib.import_module(name)
files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
print(json.dumps([file for file in files if file]))
"""

# What some function does not need, and what is slow to import.
NEVER = {
    "asyncio",
    "aws_lambda_powertools.event_handler",
    "aws_xray_sdk",
    "awscrt",
    "boto3",
    "botocore.crt.auth",
    "email.mime",
    "pydantic",
    "s3transfer",
}
OF_THE_QUEUE = {"counters.forwarding", "counters.ingestion"}
OF_THE_HISTORY = {"counters.audit", "counters.recording", "counters.trend"}
OF_HTTP = {"counters.gateway", "counters.idempotency"}
OF_METRICS = {"counters.metrics"}
FORBIDDEN = {
    "AuditHistory": OF_HTTP | OF_THE_QUEUE | {"counters.recording"},
    "ForwardEvents": OF_HTTP
    | OF_THE_HISTORY
    | OF_METRICS
    | {"counters.ingestion", "counters.store"},
    "GetCounter": OF_THE_QUEUE | OF_THE_HISTORY | OF_METRICS | {"counters.idempotency"},
    "IncrementCounter": OF_THE_QUEUE | OF_THE_HISTORY | OF_METRICS,
    "IncrementCounters": OF_THE_QUEUE | OF_THE_HISTORY | OF_METRICS,
    "IngestIncrements": OF_HTTP | OF_THE_HISTORY | {"counters.forwarding"},
    "ListCounters": OF_THE_QUEUE | OF_THE_HISTORY | OF_METRICS | {"counters.idempotency"},
    "ListHistory": OF_THE_QUEUE | OF_THE_HISTORY | OF_METRICS | {"counters.idempotency"},
    "ListTrend": OF_THE_QUEUE
    | OF_METRICS
    | {"counters.audit", "counters.idempotency", "counters.recording"},
    "RecordHistory": OF_HTTP | OF_THE_QUEUE | {"counters.audit"},
    "RedriveHistory": OF_HTTP | OF_THE_QUEUE | {"counters.audit"},
    "SetCounter": OF_THE_QUEUE | OF_THE_HISTORY | OF_METRICS | {"counters.idempotency"},
}


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sam build` makes of the template: a directory for each function."""
    directory = tmp_path_factory.mktemp("sam") / "build"
    printed = sam.build(ROOT / "template.yaml", directory)
    assert "Build Succeeded" in printed
    assert "warn" not in printed.lower(), printed
    return directory


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of what Lambda has beside a function, and the teller."""
    if not lambda_runtime.is_here():
        pytest.skip(f"needs {lambda_runtime.NEEDS}")
    directory = tmp_path_factory.mktemp("runtime")
    lambda_runtime.lay_out(directory)
    (directory / "teller.py").write_text(TELLER)
    return directory


@contextmanager
def running(  # noqa: PLR0913, PLR0917
    function: Function,
    artifacts: Path,
    runtime: Path,
    stack: Stack,
    log: Path,
    endpoint: str | None = None,
) -> Iterator[runtime_api.RuntimeApi]:
    """Run a function as Lambda does; it finds AWS (if not told where) and its runtime here."""
    directory = artifacts / function.name
    with (
        nullcontext(endpoint) if endpoint else aws_endpoint.serving() as endpoint_url,
        runtime_api.serving(max(INVOCATION_SECONDS, function.timeout)) as api,
        log.open("w") as output,
    ):
        environment = lambda_runtime.environment(
            function.name, function.handler, directory, runtime, endpoint_url
        )
        with lambda_runtime.process(api, environment | stack.environment(function), output):
            yield api


@every_function
def test_the_artifact_answers_the_sample_event(
    stack: Stack, artifacts: Path, runtime: Path, tmp_path: Path, function: Function
) -> None:
    log = tmp_path / "log"
    if function.routes:
        prepare(stack)

    with running(function, artifacts, runtime, stack, log) as api:
        outcome = api.invoke(load(function.module))

    assert outcome.kind == "response", outcome
    CHECKS[function.module](stack, outcome.body)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    metrics = [line for line in lines if "_aws" in line]
    assert len(metrics) <= 1
    levels = [line["level"] for line in lines if line not in metrics]
    assert levels == ["INFO"], "one line a request, and no warning"


@every_function
def test_the_artifact_brings_all_that_it_imports_and_imports_no_more(
    stack: Stack, artifacts: Path, runtime: Path, tmp_path: Path, function: Function
) -> None:
    teller = replace(function, handler="teller.handler")
    if function.routes:
        prepare(stack)

    with running(teller, artifacts, runtime, stack, tmp_path / "log") as api:
        outcome = api.invoke({"module": function.module, "event": load(function.module)})

    assert outcome.kind == "response", outcome
    directory = artifacts / function.name
    origins = {name: Path(file) for name, file in outcome.body["origins"].items() if file}
    for name in (function.module, "counters", "botocore", "aws_lambda_powertools"):
        assert origins[name].is_relative_to(directory)
    python = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")]
    for name, file in origins.items():
        assert any(file.is_relative_to(place) for place in (directory, runtime, *python)), name
        assert "site-packages" not in file.relative_to(file.anchor).parts, name
    others = {each.module for each in FUNCTIONS.values()} - {function.module}
    forbidden = NEVER | FORBIDDEN[function.name] | others
    assert outcome.body["origins"].keys() & forbidden == set()
    assert outcome.body["collected"]
    assert outcome.body["frozen"] > 10_000


@every_function
def test_the_connection_is_open_before_the_first_event_and_serves_it(
    stack: Stack, artifacts: Path, runtime: Path, tmp_path: Path, function: Function
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        running(
            function,
            artifacts,
            runtime,
            stack,
            tmp_path / "log",
            endpoint=f"http://127.0.0.1:{server.getsockname()[1]}",
        ) as api,
    ):
        server.settimeout(INVOCATION_SECONDS)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(INVOCATION_SECONDS)
            assert connection.recv(1024).startswith(b"GET / HTTP/1.1")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            if function.name != "RedriveHistory":  # it asks SQS first
                api.events.put(load(function.module))
                assert connection.recv(1024).startswith(b"POST / HTTP/1.1")


@every_function
def test_no_answer_in_the_init_phase_is_no_error(
    stack: Stack, artifacts: Path, runtime: Path, tmp_path: Path, function: Function
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"

    with running(function, artifacts, runtime, stack, tmp_path / "log", endpoint=nobody) as api:
        outcome = api.invoke({})

    assert outcome.kind == "error", "a malformed event, which the function came to see"


@every_function
def test_the_artifact_holds_nothing_but_what_runs(artifacts: Path, function: Function) -> None:
    directory = artifacts / function.name
    names = {path.name for path in directory.iterdir()}

    assert {f"{each.module}.py" for each in FUNCTIONS.values()} <= names
    assert not names & {"tests", "events", "pytest", "moto", "template.yaml", "bin"}
    assert not names & {"Makefile", "requirements.txt"}
    services = {path.name for path in (directory / "botocore" / "data").iterdir() if path.is_dir()}
    assert services == {"dynamodb", "sqs"}
    assert sum(path.stat().st_size for path in directory.rglob("*")) < 15 * MEGABYTE


def test_all_but_little_of_what_ships_is_imported_by_some_function(artifacts: Path) -> None:
    directory = artifacts / "IncrementCounter"
    modules = [function.module for function in FUNCTIONS.values()]
    imported = set(
        printed_json(
            *("-S", "-c", IMPORTED, *modules),
            PYTHONPATH=str(directory),
            AWS_LAMBDA_FUNCTION_NAME="function",  # so that they make their clients
            AWS_DEFAULT_REGION="eu-west-1",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}",
        )
    )

    sizes = {str(path): path.stat().st_size for path in directory.rglob("*.py")}
    left = {path: size for path, size in sizes.items() if path not in imported}

    # What only other systems need, or other settings than ours.
    assert sum(left.values()) < 0.1 * sum(sizes.values()), sorted(left, key=sizes.__getitem__)


@every_function
def test_bytecode_is_valid_whatever_time_a_file_has(artifacts: Path, function: Function) -> None:
    sources = list((artifacts / function.name).rglob("*.py"))

    assert len(sources) > 200
    for source in sources:
        bytecode = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        assert bytecode[:4] == importlib.util.MAGIC_NUMBER
        assert int.from_bytes(bytecode[4:8], "little") == UNCHECKED_HASH, source


@pytest.mark.parametrize(
    ("override", "there", "missing"),
    [
        ("", "python3.13", None),
        ("", "python3.12", "python3.13"),
        (" PythonRuntime=python3.12", "python3.12", None),
        (" PythonRuntime=python3.12", "python3.13", "python3.12"),
    ],
)
def test_a_stage_is_not_deployed_without_bytecode_for_its_runtime(
    tmp_path: Path, override: str, there: str, missing: str | None
) -> None:
    project, path = tmp_path / "project", tmp_path / "path"
    (project / "scripts").mkdir(parents=True)
    for name in ("scripts/artifact.py", "scripts/environment.py", "template.yaml"):
        shutil.copy(ROOT / name, project / name)
    config = (ROOT / "samconfig.toml").read_text()
    stage = '"Stage=prod"'
    assert stage in config
    (project / "samconfig.toml").write_text(config.replace(stage, f'"Stage=prod{override}"'))
    path.mkdir()
    (path / there).symlink_to(shutil.which("true") or "")

    checked = subprocess.run(
        [sys.executable, "scripts/artifact.py", "check", "prod"],
        cwd=project,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == (1 if missing else 0), checked.stderr
    assert checked.stderr.startswith(missing or "")


def test_a_stage_that_is_not_there_is_not_deployed() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "artifact.py", "check", "moon"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 1
    assert checked.stderr == "samconfig.toml has no stage moon\n"


def test_all_functions_have_the_same_artifact(artifacts: Path) -> None:
    def contents(directory: Path) -> dict[Path, bytes]:
        files = (path for path in directory.rglob("*") if path.is_file())
        return {path.relative_to(directory): path.read_bytes() for path in files}

    first, *others = (contents(artifacts / name) for name in FUNCTIONS)

    assert all(other == first for other in others), "so it is uploaded once"


def test_addresses_are_those_of_the_whole_botocore_in_every_region(artifacts: Path) -> None:
    ours = printed_json("-S", "-c", ADDRESSES, PYTHONPATH=str(artifacts / "IncrementCounter"))

    assert len(ours) > 60
    assert ours == printed_json("-c", ADDRESSES)


def printed_json(*arguments: str, **environment: str) -> list[str]:
    """Return the JSON that Python prints in a process with this environment, and AWS's keys."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_artifact_knows_the_operations_that_are_called() -> None:
    called: dict[str, set[str]] = {}
    for function in FUNCTIONS.values():
        for factory, method in call_graph.uses(function.module).calls:
            service = factory.removesuffix("_once")
            called.setdefault(service, set()).add(
                "".join(word.capitalize() for word in method.split("_"))
            )

    assert called == artifact.SERVICES
