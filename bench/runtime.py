"""Runs a built function as Lambda does: with its runtime client, its environment, and events."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import aws_template, lambda_runtime, runtime_api

from bench import database
from bench.artifacts import Artifact

ANSWER_SECONDS = 60
DEADLINE_SECONDS = 900  # Lambda's maximum, so that no function runs out of time

_PROBES = ("probe.py", "loop.py")


@dataclass(frozen=True)
class Runtime:
    """What surrounds a function on Lambda.

    Attributes:
        directory: the directory of the runtime client.
        endpoint: the endpoint URL of every AWS service.
    """

    directory: Path
    endpoint: str

    def environment(self, artifact: Artifact) -> dict[str, str]:
        """Return the environment that a function gets from Lambda and from the template.

        As on Lambda, Python cannot write bytecode into the artifact.
        """
        return {
            **lambda_runtime.environment(
                artifact.name, artifact.handler, artifact.directory, self.directory, self.endpoint
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self._variables(artifact),
        }

    def _variables(self, artifact: Artifact) -> dict[str, str]:
        """Return a function's environment variables in the template.

        The peers are not in the template and get two variables. Tables are named by their logical
        ids, because `database.py` tells tables apart by these.
        """
        for function in aws_template.functions().values():
            if function.module == artifact.name:
                return {name: self._value(value) for name, value in function.environment.items()}
        return {"COUNTER_TABLE": "CounterTable", "RECEIPT_TABLE": "ReceiptTable"}

    def _value(self, value: Any) -> str:  # noqa: ANN401  anything that a template may contain
        if not isinstance(value, dict):
            return str(value)
        if "Ref" not in value:
            return "AROAFORWARDER1234567"  # the id of a role
        name = value["Ref"]
        if name in aws_template.tables():
            return str(name)
        if name in aws_template.queues():
            return f"{self.endpoint}/123456789012/{name}"
        return "tally" if name == "AWS::StackName" else aws_template.parameter(name)


@contextmanager
def running() -> Iterator[Runtime]:
    """Set up the runtime with the bench's probes, and start the database of `database.py`."""
    with tempfile.TemporaryDirectory() as scratch, database.serving() as endpoint:
        directory = Path(scratch)
        lambda_runtime.link_runtime_client(directory)
        for probe in _PROBES:
            (directory / f"bench_{probe}").symlink_to(Path(__file__).parent / probe)
        yield Runtime(directory, endpoint)


def first_answer(
    runtime: Runtime,
    artifact: Artifact,
    event: Mapping[str, Any],
    variables: Mapping[str, str] | None = None,
) -> tuple[float, Any]:
    """Start a function as Lambda does, in its own process, and invoke it once.

    Args:
        runtime: the runtime around the function.
        artifact: the function.
        event: the event that it is invoked with.
        variables: additional environment variables.

    Returns:
        The seconds from the start of the process to its response, and the response.

    Raises:
        RuntimeError: the function failed or responded with an error. The message has its log.
    """
    with runtime_api.serving(DEADLINE_SECONDS) as api, tempfile.TemporaryFile("w+") as log:
        api.events.put(event)
        environment = runtime.environment(artifact) | dict(variables or {})
        start = time.perf_counter()
        environment["BENCH_STARTED"] = repr(start)
        with lambda_runtime.process(api, environment, log):
            outcome = api.outcomes.get(timeout=ANSWER_SECONDS)
            seconds = time.perf_counter() - start
        body = outcome.body
        if outcome.kind != "response" or body.get("statusCode", 200) != 200:  # noqa: PLR2004  HTTP
            log.seek(0)
            message = f"{artifact.name}: {outcome}\n{log.read()}"
            raise RuntimeError(message)
        return seconds, body
