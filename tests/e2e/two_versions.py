"""Runs the released and the current version of the functions side by side, on the same tables."""

import itertools
import json
import random
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import conformance, released
from tests.e2e import workers
from tests.e2e.service import client, physical_name
from tests.e2e.workers import InvocationResult, Workers

from deployment import Stack

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

RELEASED, CURRENT = "released", "current"


class TwoVersions:
    """Both versions of the functions.

    Both versions of an HTTP function run at the same time, as while CodeDeploy shifts the traffic.
    Any other function runs one version at a time, because a deployment changes it at once.

    Attributes:
        version_of: the version that handled each invocation, by the id of the invocation.
    """

    def __init__(
        self, stack: Stack, pools: Mapping[str, Workers], code: Mapping[str, Path]
    ) -> None:
        self.version_of: dict[str, str] = {}
        self._stack = stack
        self._pools = pools
        self._code = code
        self._chances = random.Random(1)
        self._turns: dict[str, Iterator[str]] = {}
        self._lock = threading.Lock()

    def deploy(self, version: str, functions: Sequence[str]) -> None:
        """Let these deployed functions run this version from now on."""
        lambda_: LambdaClient = client(self._stack, "lambda")
        for function in functions:
            lambda_.update_function_code(
                FunctionName=physical_name(self._stack, function),
                ZipFile=self._code[version].read_bytes(),
            )

    def run(self, version: str, function: str, event: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Deploy this version of a function, send it an event, and return its result."""
        self.deploy(version, [function])
        reply = client(self._stack, "lambda").invoke(
            FunctionName=physical_name(self._stack, function), Payload=json.dumps(event)
        )
        result = json.load(reply["Payload"])
        assert "FunctionError" not in reply, result
        return result

    def invoke(self, function: str, event: Mapping[str, Any]) -> InvocationResult:
        """Send an event to one version of an HTTP function, and check the answer.

        Requests with the same Idempotency-Key go to both versions in turn.
        """
        key = (event["headers"] or {}).get("Idempotency-Key")
        with self._lock:
            turns = [RELEASED, CURRENT]
            self._chances.shuffle(turns)
            turn = self._turns.setdefault(key, itertools.cycle(turns)) if key else iter(turns)
            version = next(turn)
        return self.invoke_version(version, function, event)

    def invoke_version(
        self, version: str, function: str, event: Mapping[str, Any]
    ) -> InvocationResult:
        """Send an event to this version of an HTTP function, and check the answer."""
        result = self._pools[version].invoke(function, event)
        self.version_of[result.request_id] = version
        # The released version follows the contract of its release.
        if version == CURRENT and result.outcome and result.outcome.kind == "response":
            conformance.check_answer(event, result.outcome.body)
        return result


@contextmanager
def side_by_side(
    stack: Stack, build: Path, numbers: Mapping[str, int], directory: Path
) -> Iterator[TwoVersions]:
    """Run workers of both versions until the with block ends.

    Args:
        stack: the deployed stack, which has the current version.
        build: the directory with the builds of the current functions.
        numbers: the number of workers of each HTTP function and version, by logical id.
        directory: an empty directory.
    """
    builds = {CURRENT: build, RELEASED: directory / "build"}
    artifacts = {CURRENT: build / next(iter(numbers)), RELEASED: directory / "artifact"}
    released.put_artifact_into(artifacts[RELEASED], artifacts[CURRENT])
    builds[RELEASED].mkdir()
    for function in numbers:
        (builds[RELEASED] / function).symlink_to(artifacts[RELEASED])
    code = {
        version: Path(shutil.make_archive(str(directory / version), "zip", artifact))
        for version, artifact in artifacts.items()
    }
    with ExitStack() as running:
        pools = {}
        for version in (CURRENT, RELEASED):
            place = directory / f"{version}-workers"
            place.mkdir()
            pools[version] = running.enter_context(
                workers.running(builds[version], stack, numbers, stack.endpoint_url, place)
            )
        yield TwoVersions(stack, pools, code)
