"""What is left of many increments at once when some of the database's replies are lost."""

import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
from tests import runtime_api
from tests.e2e import fault_proxy
from tests.e2e.fault_proxy import Reply
from tests.e2e.service import Caller, client, token_for, variables

from bench import artifacts, runtime
from bench.artifacts import FLASK, Artifact
from bench.report import Section, bars, table
from bench.runtime import EVENTS, Runtime
from local_stack import Stack, free_port, local_stack

INCREMENTS = 3200
CALLERS = 8
TRIES = 20  # of a caller for one increment
LOST = 0.02  # of the replies to writes of counters
REQUEST_SECONDS = 30
START_SECONDS = 30

FUNCTION = "IncrementCounter"
RECEIPTS = "PowertoolsReceipts"

# Sends one increment, once, under a key, and tells whether it was answered 200.
Send = Callable[[str], bool]


@dataclass(frozen=True)
class Outcome:
    """What a counter came to, and how often a caller sent an increment again."""

    value: int
    repeats: int


def measure() -> Section:
    """Measure, for about four minutes, and return what there is to say."""
    with ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        stack = opened.enter_context(local_stack(directory, free_port()))
        proxy, endpoint = opened.enter_context(fault_proxy.serving(stack.endpoint_url))
        losing = _Losing()
        opened.enter_context(proxy.failing(stack.outputs["CounterTable"], losing))
        running = opened.enter_context(runtime.running())
        peers = artifacts.peers()
        _make_receipts(stack)
        outcomes = {
            "Tally, with a key": _tally(stack, endpoint, keyed=True),
            "Tally, without": _tally(stack, endpoint, keyed=False),
            "Powertools, with a key": _peer(
                stack, endpoint, running, peers["powertools"], keyed=True
            ),
            "Powertools, without": _peer(stack, endpoint, running, peers["powertools"]),
            "FastAPI, Mangum": _peer(stack, endpoint, running, peers["fastapi_mangum"]),
            "a bare handler with boto3": _peer(stack, endpoint, running, peers["bare_boto3"]),
            "the floor (no SDK)": _peer(stack, endpoint, running, peers["floor"]),
            "Flask, SQLite (nothing lost)": _flask(peers[FLASK]),
        }
    return Section(
        "Concurrent increments", "python -m bench.concurrency", _text(outcomes, losing.lost)
    )


class _Losing:
    """A fault: each write is applied, and then some of the replies are lost."""

    def __init__(self) -> None:
        self.lost = 0
        self._chances = random.Random(0)  # noqa: S311  the same chances each time

    def __call__(self, forward: Callable[[], Reply]) -> Reply | None:
        reply = forward()
        if self._chances.random() >= LOST:
            return reply
        self.lost += 1
        return None


def _make_receipts(stack: Stack) -> None:
    """Make the table that Powertools' idempotency utility asks for."""
    client(stack, "dynamodb").create_table(
        TableName=RECEIPTS,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )


def _all_at_once(senders: list[Send]) -> int:
    """Let the callers send all increments, each until it is answered 200; return the repeats."""
    start = threading.Barrier(len(senders))

    def send_all(send: Send) -> int:
        repeats = 0
        start.wait(START_SECONDS)
        for _ in range(INCREMENTS // len(senders)):
            key = str(uuid.uuid4())
            repeats += next(number for number in range(TRIES) if send(key))
        return repeats

    with ThreadPoolExecutor(len(senders)) as pool:
        return sum(pool.map(send_all, senders))


def _tally(stack: Stack, endpoint: str, *, keyed: bool) -> Outcome:
    """Count with the deployed service, over HTTP."""
    path = f"/counters/{uuid.uuid4()}"
    token = token_for(stack, ["counters/increment", "counters/read"])
    with ExitStack() as opened:
        opened.enter_context(variables(stack, FUNCTION, AWS_ENDPOINT_URL_DYNAMODB=endpoint))
        callers = [opened.enter_context(Caller(stack.url, token)) for _ in range(CALLERS)]

        def sender(caller: Caller) -> Send:
            def send(key: str) -> bool:
                headers = {"Idempotency-Key": key} if keyed else {}
                return caller.request("POST", path, headers=headers).status == HTTPStatus.OK

            return send

        repeats = _all_at_once([sender(caller) for caller in callers])
        return Outcome(callers[0].get(path).body["value"], repeats)


def _peer(
    stack: Stack, endpoint: str, running: Runtime, peer: Artifact, *, keyed: bool = False
) -> Outcome:
    """Count with a peer, in as many processes as there are callers, each as Lambda runs it."""
    counter = str(uuid.uuid4())
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": stack.region,
        "AWS_DEFAULT_REGION": stack.region,
        "COUNTER_TABLE": stack.outputs["CounterTable"],
        "RECEIPT_TABLE": RECEIPTS,
    }
    sample = _event(counter)

    def sender(api: runtime_api.RuntimeApi) -> Send:
        def send(key: str) -> bool:
            event = copy.deepcopy(sample)
            if keyed:
                event["headers"]["Idempotency-Key"] = key
                event["multiValueHeaders"]["Idempotency-Key"] = [key]
            answer = api.invoke(event)
            return answer.kind == "response" and answer.body["statusCode"] == HTTPStatus.OK

        return send

    with ExitStack() as opened:
        apis = [opened.enter_context(_process(running, peer, environment)) for _ in range(CALLERS)]
        repeats = _all_at_once([sender(api) for api in apis])
    with Caller(stack.url, token_for(stack, ["counters/read"])) as caller:
        return Outcome(caller.get(f"/counters/{counter}").body["value"], repeats)


def _event(counter: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / "increment_counter.json").read_text())
    event["path"] = event["requestContext"]["path"] = f"/counters/{counter}"
    event["pathParameters"] = {"counter_id": counter}
    event["body"] = None
    for headers in ("headers", "multiValueHeaders"):
        event[headers].pop("Idempotency-Key", None)
    return event


@contextmanager
def _process(
    running: Runtime, artifact: Artifact, environment: dict[str, str]
) -> Iterator[runtime_api.RuntimeApi]:
    with (
        runtime_api.serving(REQUEST_SECONDS) as api,
        subprocess.Popen(
            [sys.executable, "-S", "-m", "awslambdaric", artifact.handler],
            cwd=artifact.directory,
            env=running.environment(artifact)
            | environment
            | {"AWS_LAMBDA_RUNTIME_API": api.address},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            yield api
        finally:
            process.kill()
            process.wait(runtime.STOP_SECONDS)


def _flask(artifact: Artifact) -> Outcome:
    """Count with Flask over HTTP; its database is a file, so that no reply is lost."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/counter"
    http = urllib3.PoolManager(maxsize=CALLERS, timeout=REQUEST_SECONDS, retries=False)
    patient = urllib3.Retry(connect=START_SECONDS * 10, backoff_factor=0.1, backoff_max=0.1)
    with (
        tempfile.TemporaryDirectory() as scratch,
        subprocess.Popen(
            [sys.executable, "-S", "app.py", str(port)],
            cwd=artifact.directory,
            env={"PATH": os.defpath, "DATABASE": str(Path(scratch) / "counters.sqlite")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            http.request("POST", url, retries=patient)  # the first, which makes the counter
            repeats = _all_at_once(
                [lambda _key: http.request("POST", url).status == HTTPStatus.OK] * CALLERS
            )
            last = http.request("POST", url).json()["value"]
        finally:
            process.kill()
            process.wait(runtime.STOP_SECONDS)
    return Outcome(last - 2, repeats)  # without the first and the last


def _text(outcomes: dict[str, Outcome], lost: int) -> str:
    told = (
        f"{INCREMENTS:,} increments of one counter by {CALLERS} callers at once, each of whom sends"
        f" an increment again until it is answered 200. Of the database's replies to writes of the"
        f" counter {LOST:.0%} are lost after it was applied ({lost} in all). Tally is the deployed"
        " template on the local stack, called over HTTP; the peers run under AWS's runtime client"
        " on the same database. boto3 repeats a write whose reply it lost, by itself; a key makes"
        " the caller's repeats harmless, but not the SDK's."
    )
    rows = [
        (name, f"{each.value:,}", f"{each.value - INCREMENTS:+,}", each.repeats)
        for name, each in outcomes.items()
    ]
    drawn = {name: each.value - INCREMENTS for name, each in outcomes.items()}
    return "\n\n".join(
        [
            told,
            table(("callers have counted 3,200", "counter", "wrong by", "sent again"), rows),
            bars("Wrong by", "increments", drawn),
        ]
    )


if __name__ == "__main__":
    print(measure().markdown())
