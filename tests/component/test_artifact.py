"""The artifact of `sam build`: what it contains, and how it runs with Lambda's runtime client."""

import importlib.util
import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import botocore.session
import pytest
from tests import aws_endpoint, aws_template, call_graph, lambda_runtime, runtime_api
from tests.aws_template import Function
from tests.component.samples import CHECKS, load, prepare
from tests.kept_build import LOG, put_build_into
from tests.sizes import FULL, cases
from tests.stack import Stack
from tests.stack import running as running_stack

import artifact
import dashboard
from deployment import BUILD
from emulator_process import free_port

FUNCTIONS = aws_template.functions()

INVOCATION_SECONDS = 60
MEGABYTE = 1 << 20
UNCHECKED_HASH = 0b01  # https://peps.python.org/pep-0552/

# A handler that replaces a function's own handler, and calls it. It returns the answer of that
# handler, the file of each imported module, and the state of the garbage collector.
INSPECTOR = """
import gc
import importlib
import os
import sys

module, _, name = os.environ["HANDLER"].rpartition(".")
own_handler = getattr(importlib.import_module(module), name)


def handler(event, context):
    answer = own_handler(event, context)
    origins = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return {
        "answer": answer,
        "origins": origins,
        "collected": gc.isenabled(),
        "frozen": gc.get_freeze_count(),
    }
"""

# A program with one argument, n. It sends a request to each AWS service in every n-th region of
# each partition, and prints the URLs of the requests.
PRINT_URLS = """
import json
import sys
import botocore.session

addresses = []


def send(request, **_):
    addresses.append(request.url)
    raise InterruptedError


session = botocore.session.get_session()
calls = {
    "dynamodb": lambda client: client.get_item(TableName="t", Key={"counter_id": {"S": "c"}}),
    "sqs": lambda client: client.send_message(QueueUrl="queue", MessageBody="{}"),
    "ssm": lambda client: client.get_parameter(Name="parameter"),
}
for service, call in calls.items():
    for partition in session.get_available_partitions():
        for region in session.get_available_regions(service, partition)[:: int(sys.argv[1])]:
            client = session.create_client(service, region)
            client.meta.events.register("before-send", send)
            try:
                call(client)
            except InterruptedError:
                pass
print(json.dumps(addresses))
"""

# A program that imports the modules of its arguments, and prints the files of all loaded modules.
PRINT_IMPORTED_FILES = """
import importlib
import json
import sys

for name in sys.argv[1:]:
    importlib.import_module(name)
files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
print(json.dumps([file for file in files if file]))
"""

# These modules are slow to import, and no function needs them.
NEVER_NEEDED = {
    "asyncio",
    "aws_lambda_powertools.event_handler",
    "aws_xray_sdk",
    "awscrt",
    "boto3",
    "botocore.crt.auth",
    "email.mime",
    "importlib.metadata",  # only urllib3 would import it
    "pydantic",
    "s3transfer",
}
# A function must not import a module of `counters` from which it uses no code. The modules in this
# set are exceptions: other modules of `counters` import them.
SHARED_IMPORTS = {"counters.listing", "counters.timeline", "counters.trend"}
HTTP_ONLY = {"counters.gateway", "counters.idempotency", "counters.request"}
NEVER_FOR_HTTP = {
    "counters.audit",
    "counters.verification",
    "counters.forwarding",
    "counters.ingestion",
    "counters.metrics",
    "counters.recording",
}


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of `sam build`, in a directory for each function."""
    directory = tmp_path_factory.mktemp("sam")
    put_build_into(directory)
    printed = LOG.read_text()
    assert "Build Succeeded" in printed
    assert "warn" not in printed.lower(), printed
    return directory / BUILD


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with INSPECTOR, and with the runtime client that Lambda provides."""
    if not lambda_runtime.is_available():
        pytest.skip(f"needs {lambda_runtime.NEEDS}")
    directory = tmp_path_factory.mktemp("runtime")
    lambda_runtime.link_runtime_client(directory)
    (directory / "inspector.py").write_text(INSPECTOR)
    return directory


@contextmanager
def running(  # noqa: PLR0913, PLR0917
    function: Function,
    artifacts: Path,
    runtime: Path,
    variables: Mapping[str, str],
    output: IO[str],
    endpoint_url: str,
) -> Iterator[runtime_api.RuntimeApi]:
    """Run a function as Lambda does, but with INSPECTOR as its handler.

    The function sends its requests to `endpoint_url` instead of AWS.
    """
    directory = artifacts / function.name
    with runtime_api.serving(max(INVOCATION_SECONDS, function.timeout)) as api:
        environment = lambda_runtime.environment(
            function.name, "inspector.handler", directory, runtime, endpoint_url
        )
        all_variables = {**environment, **variables, "HANDLER": function.handler}
        with lambda_runtime.process(api, all_variables, output):
            yield api


@dataclass(frozen=True)
class Run:
    """What happened when a function handled its sample event."""

    function: Function
    stack: Stack
    outcome: runtime_api.Outcome
    logged: list[dict[str, Any]]
    # Sent in the init phase. None if the function calls no AWS service.
    first_request: aws_endpoint.ReceivedRequest | None
    requests: list[aws_endpoint.ReceivedRequest]  # sent by the handler


@pytest.fixture(scope="module", params=list(FUNCTIONS.values()), ids=list(FUNCTIONS))
def run(
    request: pytest.FixtureRequest,
    session: botocore.session.Session,
    artifacts: Path,
    runtime: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    """Run each function once for all tests, because a run takes almost a second."""
    function: Function = request.param
    log = tmp_path_factory.mktemp(function.name) / "log"
    with running_stack(session) as stack, aws_endpoint.serving() as endpoint:
        if function.routes:
            prepare(stack)
        with (
            log.open("w") as output,
            running(
                function, artifacts, runtime, stack.environment(function), output, endpoint.url
            ) as api,
        ):
            first_request = None
            if call_graph.uses(function.module).calls:
                first_request = endpoint.requests.get(timeout=INVOCATION_SECONDS)
            outcome = api.invoke(load(function.module))
        requests = [endpoint.requests.get() for _ in range(endpoint.requests.qsize())]
        logged = [json.loads(line) for line in log.read_text().splitlines()]
        yield Run(function, stack, outcome, logged, first_request, requests)
        stack.clear(set(stack.refs.values()), ())  # the pool sees no changes of other processes


def test_the_built_function_handles_its_sample_event(run: Run) -> None:
    assert run.outcome.kind == "response", run.outcome
    CHECKS[run.function.module](run.stack, run.outcome.body["answer"])


def test_an_event_writes_at_most_one_log_line_and_no_warning(run: Run) -> None:
    metrics = [line for line in run.logged if "_aws" in line]
    start, *lines = [line for line in run.logged if line not in metrics]

    assert start["message"] == "Cold start"
    assert max(len(metrics), len(lines)) <= 1
    assert all(line["level"] == "INFO" for line in lines)
    assert not (run.function.routes and lines), "the access log has a line about the request"


def test_a_function_imports_only_what_its_artifact_has_and_what_it_needs(
    run: Run, artifacts: Path, runtime: Path
) -> None:
    directory = artifacts / run.function.name
    modules = run.outcome.body["origins"]

    origins = {name: Path(file) for name, file in modules.items() if file}
    for name in (run.function.module, "counters", "botocore", "aws_lambda_powertools"):
        assert origins[name].is_relative_to(directory)
    python = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")]
    for name, file in origins.items():
        assert any(file.is_relative_to(place) for place in (directory, runtime, *python)), name
        assert "site-packages" not in file.relative_to(file.anchor).parts, name
    unused = call_graph.modules().keys() - call_graph.uses(run.function.module).modules
    for_others = NEVER_FOR_HTTP if run.function.routes else HTTP_ONLY
    forbidden = NEVER_NEEDED | (unused - SHARED_IMPORTS) | for_others
    assert modules.keys() & forbidden == set()


def test_the_objects_of_the_init_phase_are_exempt_from_garbage_collection(run: Run) -> None:
    assert run.outcome.body["collected"]
    assert run.outcome.body["frozen"] > 10_000


def test_the_first_event_uses_the_connection_that_the_init_phase_opened(run: Run) -> None:
    if run.first_request is None:
        assert not run.requests
        return
    assert run.first_request.method == "GET"
    # RedriveHistory reads from SQS first. The queue is empty, so it sends nothing to DynamoDB.
    if run.function.name != "RedriveHistory":
        assert run.requests[0] == replace(run.first_request, method="POST")


# Each function opens one connection in its init phase: to DynamoDB, as GetCounter does, to SQS, as
# ForwardEvents does, or to Systems Manager, as ShowDashboard does.
ONE_PER_SERVICE = ["GetCounter", "ForwardEvents", "ShowDashboard"]


@pytest.mark.parametrize("name", FUNCTIONS if FULL else ONE_PER_SERVICE)
def test_an_unreachable_service_in_the_init_phase_is_not_an_error(
    artifacts: Path, runtime: Path, tmp_path: Path, name: str
) -> None:
    function = FUNCTIONS[name]
    variables = dict.fromkeys(function.environment, "1")  # the values do not matter
    unused_endpoint = f"http://127.0.0.1:{free_port()}"

    with (
        (tmp_path / "log").open("w") as output,
        running(function, artifacts, runtime, variables, output, unused_endpoint) as api,
    ):
        outcome = api.invoke({})

    assert outcome.kind == "error", "the function must start, and then refuse the malformed event"


def test_all_functions_have_the_same_artifact(artifacts: Path) -> None:
    def contents(directory: Path) -> dict[Path, bytes]:
        files = (path for path in directory.rglob("*") if path.is_file())
        return {path.relative_to(directory): path.read_bytes() for path in files}

    first, *others = (contents(artifacts / name) for name in FUNCTIONS)

    assert all(other == first for other in others), "SAM uploads identical artifacts only once"


@pytest.fixture
def artifact_directory(artifacts: Path) -> Path:
    """The artifact of one function. The artifacts of all functions are identical."""
    return artifacts / "IncrementCounter"


def test_the_artifact_has_only_what_the_functions_need(artifact_directory: Path) -> None:
    names = {path.name for path in artifact_directory.iterdir()}

    modules = {f"{each.module}.py" for each in FUNCTIONS.values()}
    assert modules | artifact.FILES | {"dashboard"} <= names
    assert not names & {"tests", "events", "pytest", "moto", "template.yaml", "bin"}
    assert not names & {"Makefile", "requirements.txt"}
    data = artifact_directory / "botocore" / "data"
    assert {path.name for path in data.iterdir() if path.is_dir()} == {"dynamodb", "sqs", "ssm"}
    size = sum(path.stat().st_size for path in artifact_directory.rglob("*"))
    assert size < 15 * MEGABYTE


@pytest.mark.parametrize("directory", ["functions", "dashboard", "stand_ins"])
def test_a_change_of_any_source_leads_to_a_new_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    for name in ("functions", "dashboard", "stand_ins"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("before")
    monkeypatch.setattr(artifact, "ROOT", tmp_path)
    monkeypatch.setattr(artifact, "FUNCTIONS", tmp_path / "functions")
    monkeypatch.setattr(artifact, "STAND_INS", tmp_path / "stand_ins")
    monkeypatch.setattr(dashboard, "SOURCES", tmp_path / "dashboard")
    before = artifact.key([])
    assert artifact.key([]) == before

    (tmp_path / directory / "file").write_text("after")

    assert artifact.key([]) != before


def test_bytecode_does_not_depend_on_the_time_of_its_source(artifact_directory: Path) -> None:
    sources = list(artifact_directory.rglob("*.py"))

    assert len(sources) > 200
    for source in sources:
        bytecode = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        assert bytecode[:4] == importlib.util.MAGIC_NUMBER
        assert int.from_bytes(bytecode[4:8], "little") == UNCHECKED_HASH, source


def test_almost_all_code_in_the_artifact_is_imported(
    artifact_directory: Path,
) -> None:
    modules = [function.module for function in FUNCTIONS.values()]
    imported = set(
        printed_json(
            *("-S", "-c", PRINT_IMPORTED_FILES, *modules),
            PYTHONPATH=str(artifact_directory),
            AWS_LAMBDA_FUNCTION_NAME="function",  # lets the modules create their clients
            AWS_DEFAULT_REGION="eu-west-1",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}",
        )
    )

    sizes = {str(path): path.stat().st_size for path in artifact_directory.rglob("*.py")}
    unused = {path: size for path, size in sizes.items() if path not in imported}

    # Less than 10% of the code may be unused. Some modules are used only on other operating
    # systems, or with other settings.
    assert sum(unused.values()) < 0.1 * sum(sizes.values()), sorted(unused, key=sizes.__getitem__)


def test_the_artifact_has_the_same_endpoints_as_the_complete_botocore(
    artifact_directory: Path,
) -> None:
    program = ("-c", PRINT_URLS, str(cases(full=1, part=4)))
    ours = printed_json("-S", *program, PYTHONPATH=str(artifact_directory))

    assert len(ours) > cases(full=60, part=20)
    assert ours == printed_json(*program)


def printed_json(*arguments: str, **environment: str) -> list[str]:
    """Run Python with AWS keys. Return the last line that it prints. Modules log lines, too."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    printed: list[str] = json.loads(done.stdout.splitlines()[-1])
    return printed


def test_the_artifact_has_exactly_the_operations_that_the_functions_call() -> None:
    called: dict[str, set[str]] = {}
    for function in FUNCTIONS.values():
        for factory, method in call_graph.uses(function.module).calls:
            called.setdefault(factory, set()).add(
                "".join(word.capitalize() for word in method.split("_"))
            )

    assert called == artifact.SERVICES
