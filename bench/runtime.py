"""Lambda's runtime around an artifact: its client, its environment, and events for a function."""

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
DEADLINE_SECONDS = 900  # Lambda's longest, so that no function thinks that its time is up

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
            **lambda_runtime.environment(
                artifact.name, artifact.handler, artifact.directory, self.directory, self.endpoint
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self._variables(artifact),
        }

    def _variables(self, artifact: Artifact) -> dict[str, str]:
        """Return the variables of the template; the peers', which have no such function, are two.

        A table is named by its logical id: so the database tells them apart.
        """
        for function in aws_template.functions().values():
            if function.module == artifact.name:
                return {name: self._value(value) for name, value in function.environment.items()}
        return {"COUNTER_TABLE": "CounterTable", "RECEIPT_TABLE": "ReceiptTable"}

    def _value(self, value: Any) -> str:  # noqa: ANN401  whatever stands in the template
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
    """Lay out the runtime, with the bench's probes in it, and serve the database."""
    with tempfile.TemporaryDirectory() as scratch, database.serving() as endpoint:
        directory = Path(scratch)
        lambda_runtime.lay_out(directory)
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
        environment = runtime.environment(artifact) | dict(variables or {})
        start = time.perf_counter()
        environment["BENCH_STARTED"] = repr(start)
        with lambda_runtime.process(api, environment, log):
            outcome = api.outcomes.get(timeout=ANSWER_SECONDS)
            seconds = time.perf_counter() - start
        body = outcome.body
        if outcome.kind != "response" or body.get("statusCode", 200) != 200:  # noqa: PLR2004
            log.seek(0)
            message = f"{artifact.name}: {outcome}\n{log.read()}"
            raise RuntimeError(message)
        return seconds, body
