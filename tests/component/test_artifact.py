"""What `sam build` makes, under the runtime that Lambda runs it with."""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests import aws_endpoint, aws_template, runtime_api
from tests.aws_template import ROOT, Function
from tests.component.samples import CHECKS, load, prepare
from tests.stack import REGION, Stack

FUNCTIONS = aws_template.functions()
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
BUILD_SECONDS = 300
INVOCATION_SECONDS = 60
STOP_SECONDS = 10

# A handler that tells where the modules come from that a function's module brings with it.
ORIGINS = """
import importlib
import sys


def handler(event, context):
    importlib.import_module(event["module"])
    return {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
"""


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sam build` makes of the template: a directory for each function."""
    scratch = tmp_path_factory.mktemp("sam")
    here = Path(sys.executable).parent
    build = subprocess.run(
        [
            here / "sam",
            "build",
            "--no-cached",
            "--build-dir",
            scratch / "build",
            "--parameter-overrides",
            f"PythonRuntime={PYTHON}",
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert build.returncode == 0, build.stdout
    assert "Build Succeeded" in build.stdout
    assert "warn" not in build.stdout.lower(), build.stdout
    return scratch / "build"


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of what Lambda has beside a function: its runtime client, and nothing else."""
    directory = tmp_path_factory.mktemp("runtime")
    for name in ("awslambdaric", "simplejson", "snapshot-restore-py"):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []}:
            if top != ".." and not top.endswith((".dist-info", ".libs")):
                link = directory / top
                link.symlink_to(Path(str(distribution.locate_file(top))))
    (directory / "origins.py").write_text(ORIGINS)
    return directory


@contextmanager
def running(
    function: Function, artifacts: Path, runtime: Path, stack: Stack, log: Path
) -> Iterator[runtime_api.RuntimeApi]:
    """Run a function as Lambda does; it finds AWS, and the Runtime API, on 127.0.0.1."""
    directory = artifacts / function.name
    with (
        aws_endpoint.serving() as endpoint,
        runtime_api.serving(max(INVOCATION_SECONDS, function.timeout)) as api,
        log.open("w") as output,
        subprocess.Popen(
            # -S: what is installed for development is out of reach.
            [sys.executable, "-S", "-m", "awslambdaric", function.handler],
            cwd=directory,
            env={
                "PATH": os.defpath,
                "LANG": "en_US.UTF-8",
                "TZ": ":UTC",
                "PYTHONPATH": str(runtime),
                "AWS_LAMBDA_RUNTIME_API": api.address,
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_SESSION_TOKEN": "token",
                "AWS_REGION": REGION,
                "AWS_DEFAULT_REGION": REGION,
                "AWS_EXECUTION_ENV": f"AWS_Lambda_{PYTHON}",
                "AWS_LAMBDA_FUNCTION_NAME": function.name,
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(aws_template.GLOBALS["MemorySize"]),
                "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
                "AWS_LAMBDA_LOG_FORMAT": aws_template.GLOBALS["LoggingConfig"]["LogFormat"],
                "AWS_LAMBDA_LOG_GROUP_NAME": f"{function.name}LogGroup",
                "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/22/[$LATEST]0123456789abcdef",
                "LAMBDA_TASK_ROOT": str(directory),
                "LAMBDA_RUNTIME_DIR": str(runtime),
                "_HANDLER": function.handler,
                **stack.environment(function),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield api
        finally:
            process.kill()
            process.wait(STOP_SECONDS)


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
def test_the_artifact_brings_all_that_it_imports(
    stack: Stack, artifacts: Path, runtime: Path, tmp_path: Path, function: Function
) -> None:
    teller = replace(function, handler="origins.handler")

    with running(teller, artifacts, runtime, stack, tmp_path / "log") as api:
        outcome = api.invoke({"module": function.module})

    assert outcome.kind == "response", outcome
    directory = artifacts / function.name
    origins = {name: Path(file) for name, file in outcome.body.items() if file}
    for name in (function.module, "counters", "boto3", "botocore", "aws_lambda_powertools"):
        assert origins[name].is_relative_to(directory)
    python = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")]
    for name, file in origins.items():
        assert any(file.is_relative_to(place) for place in (directory, runtime, *python)), name
        assert "site-packages" not in file.relative_to(file.anchor).parts, name


@every_function
def test_the_artifact_holds_nothing_but_what_runs(artifacts: Path, function: Function) -> None:
    directory = artifacts / function.name
    names = {path.name for path in directory.iterdir()}

    assert {f"{each.module}.py" for each in FUNCTIONS.values()} <= names
    assert not names & {"tests", "events", "pytest", "moto", "template.yaml"}
