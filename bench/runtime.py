"""Runs a built function as Lambda does: with Lambda's runtime client and environment variables."""

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
DEADLINE_SECONDS = 900  # the longest timeout on Lambda, so that no function runs out of time

_PROBES = ("probe.py", "loop.py")


@dataclass(frozen=True)
class Runtime:
    """What a function needs to run as on Lambda.

    Attributes:
        directory: the directory of the runtime client.
        endpoint: the endpoint URL that the function uses for every AWS service.
    """

    directory: Path
    endpoint: str

    def environment(self, artifact: Artifact) -> dict[str, str]:
        """Return the environment variables that Lambda and the template give a function.

        One more variable, PYTHONDONTWRITEBYTECODE, stops Python from writing bytecode into the
        artifact. On Lambda, Python cannot write there either.
        """
        return {
            **lambda_runtime.environment(
                artifact.name, artifact.handler, artifact.directory, self.directory, self.endpoint
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self._variables(artifact),
        }

    def _variables(self, artifact: Artifact) -> dict[str, str]:
        """Return the environment variables that the template gives a function.

        The peers (other programs that count, for comparison) are not in Tally's template. They get
        the names of two tables. The name of each table is its logical id in the template, because
        `database.py` recognizes a table by its logical id.
        """
        for function in aws_template.functions().values():
            if function.module == artifact.name:
                return {name: self._value(value) for name, value in function.environment.items()}
        return {"COUNTER_TABLE": "CounterTable", "RECEIPT_TABLE": "ReceiptTable"}

    def _value(self, value: Any) -> str:  # noqa: ANN401  anything that a template may contain
        if not isinstance(value, dict):
            return str(value)
        if "Ref" not in value:
            return "AROAFORWARDER1234567"  # the id of a role; or the name of any parameter
        name = value["Ref"]
        if name in aws_template.tables():
            return str(name)
        if name in aws_template.queues():
            return f"{self.endpoint}/123456789012/{name}"
        if name == "PublicPrefix":
            return "public:"  # the prefix of the counter in the sample events
        return "tally" if name == "AWS::StackName" else aws_template.parameter(name)


@contextmanager
def running() -> Iterator[Runtime]:
    """Set up what functions need to run as on Lambda. Remove it when the with block ends.

    This includes the runtime client, the database of `database.py`, and two modules that a function
    can import: `bench_probe` and `bench_loop`.
    """
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
        runtime: what the function needs to run as on Lambda.
        artifact: the function.
        event: the event with which the function is invoked.
        variables: additional environment variables.

    Returns:
        The seconds from the start of the process to the response, and the response.

    Raises:
        RuntimeError: if the function failed or responded with an error. The message has the
            function's log.
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
