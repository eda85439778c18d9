"""Lambda's runtime around an artifact: its client, its environment, and events for a function."""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import aws_template, runtime_api
from tests.aws_template import ROOT

from bench import database
from bench.artifacts import PYTHON, Artifact

REGION = "eu-west-1"
EVENTS = ROOT / "events"
ANSWER_SECONDS = 60
DEADLINE_SECONDS = 900  # Lambda's longest, so that no function thinks that its time is up
STOP_SECONDS = 10

_PROBES = ("probe.py", "loop.py")


@dataclass(frozen=True)
class Runtime:
    """What Lambda has beside a function: `directory` is its runtime client, `endpoint` is AWS."""

    directory: Path
    endpoint: str

    def environment(self, artifact: Artifact) -> dict[str, str]:
        """Return the environment that Lambda and the template give a function.

        The artifact is not written to, as on Lambda: there is no bytecode but what it brings.
        """
        return {
            "PATH": os.defpath,
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "PYTHONPATH": str(self.directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "ASIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "AWS_SESSION_TOKEN": "token" * 100,  # about as long as Lambda's
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{PYTHON}",
            "AWS_LAMBDA_FUNCTION_NAME": artifact.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": aws_template.parameter("MemorySize"),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{artifact.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/22/[$LATEST]0123456789abcdef",
            "LAMBDA_TASK_ROOT": str(artifact.directory),
            "LAMBDA_RUNTIME_DIR": str(self.directory),
            "_HANDLER": artifact.handler,
            **self._variables(artifact),
        }

    def _variables(self, artifact: Artifact) -> dict[str, str]:
        """Return the variables of the template; the peers', which have no such function, are two.

        A table is named by its logical id: so the database tells them apart.
        """
        for function in aws_template.functions().values():
            if function.module == artifact.name:
                variables = aws_template.GLOBALS["Environment"]["Variables"] | function.environment
                return {name: self._value(value) for name, value in variables.items()}
        return {"COUNTER_TABLE": "CounterTable", "RECEIPT_TABLE": "ReceiptTable"}

    def _value(self, value: Any) -> str:  # noqa: ANN401  whatever stands in the template
        if not isinstance(value, dict):
            return str(value)
        name = value["Ref"]
        if name in aws_template.tables():
            return str(name)
        if name in aws_template.queues():
            return f"{self.endpoint}/123456789012/{name}"
        return "tally" if name == "AWS::StackName" else aws_template.parameter(name)


@contextmanager
def running() -> Iterator[Runtime]:
    """Lay out the runtime, with the bench's probes in it, and serve the database."""
    with tempfile.TemporaryDirectory() as scratch, database.serving() as endpoint:
        directory = Path(scratch)
        for name in ("awslambdaric", "simplejson", "snapshot-restore-py"):
            distribution = importlib.metadata.distribution(name)
            for top in {file.parts[0] for file in distribution.files or []}:
                if top != ".." and not top.endswith((".dist-info", ".libs")):
                    (directory / top).symlink_to(Path(str(distribution.locate_file(top))))
        for probe in _PROBES:
            (directory / f"bench_{probe}").symlink_to(Path(__file__).parent / probe)
        yield Runtime(directory, endpoint)


def first_answer(
    runtime: Runtime,
    artifact: Artifact,
    event: Mapping[str, Any],
    variables: Mapping[str, str] | None = None,
) -> tuple[float, Any]:
    """Start a function as Lambda does, in a process of its own, and hand it an event.

    Args:
        runtime: what is there beside it.
        artifact: the function.
        event: what it is asked.
        variables: more for its environment.

    Returns:
        The seconds from the start of the process to the answer, and the answer.

    Raises:
        RuntimeError: it failed, or answered an error; with its log.
    """
    with runtime_api.serving(DEADLINE_SECONDS) as api, tempfile.TemporaryFile("w+") as log:
        api.events.put(event)
        environment = runtime.environment(artifact) | {
            "AWS_LAMBDA_RUNTIME_API": api.address,
            **(variables or {}),
        }
        handler = environment["_HANDLER"]
        start = time.perf_counter()
        with subprocess.Popen(
            # -S: what is installed for development is out of reach.
            [sys.executable, "-S", "-m", "awslambdaric", handler],
            cwd=artifact.directory,
            env=environment | {"BENCH_STARTED": repr(start)},
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                outcome = api.outcomes.get(timeout=ANSWER_SECONDS)
                seconds = time.perf_counter() - start
            finally:
                process.kill()
                process.wait(STOP_SECONDS)
        body = outcome.body
        if outcome.kind != "response" or body.get("statusCode", 200) != 200:  # noqa: PLR2004
            log.seek(0)
            message = f"{artifact.name}: {outcome}\n{log.read()}"
            raise RuntimeError(message)
        return seconds, body
