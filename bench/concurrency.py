"""Sends concurrent increments, loses some replies of the database, and checks the final value."""

import copy
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
from tests import lambda_runtime, runtime_api
from tests.component.samples import load
from tests.e2e import fault_proxy
from tests.e2e.fault_proxy import ReplyLoss
from tests.e2e.service import client

from bench import artifacts, flask_server, runtime
from bench.artifacts import FLASK, Artifact
from bench.report import Section, bars, table
from bench.runtime import Runtime
from deployment import Stack
from emulator_process import free_port
from local_stack import local_stack

INCREMENTS = 3200
CALLERS = 8
TRIES = 20  # the maximum number of requests that a caller sends for one increment
LOST = 0.02  # the share of replies to counter writes that are lost
REQUEST_SECONDS = 30
START_SECONDS = 30

TALLY_TABLES = {
    "COUNTER_TABLE": "CounterTable",
    "HISTORY_TABLE": "HistoryTable",
    "RECEIPT_TABLE": "ReceiptTable",
}

# The peers are the programs other than Tally. The first mapping has the keys of their tables. The
# second mapping has the environment variables that contain the names of the tables.
PEERS_KEYS = {"PeerCounters": "counter_id", "PeerReceipts": "id"}
PEERS_TABLES = {"COUNTER_TABLE": "PeerCounters", "RECEIPT_TABLE": "PeerReceipts"}

# A function that sends an increment once, and returns whether the response was a 200. Its argument
# is an idempotency key. Some of the measured services ignore it.
Send = Callable[[str], bool]


@dataclass(frozen=True)
class Outcome:
    """The final value of the counter, and the number of requests that were repeats."""

    value: int
    repeats: int


def measure() -> Section:
    """Measure, and return the section of docs/benchmarks.md. This takes about five minutes."""
    with ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        stack = opened.enter_context(local_stack(directory, free_port()))
        proxy, endpoint = opened.enter_context(fault_proxy.serving(stack.endpoint_url))
        running = opened.enter_context(runtime.running())
        _make_tables(stack)
        tally = {name: stack.outputs[table] for name, table in TALLY_TABLES.items()}
        peers = artifacts.peers()
        bare, mangum, floor = (peers[name] for name in ("bare_boto3", "fastapi_mangum", "floor"))
        programs = {
            "Tally, with a key": (artifacts.ours()["increment_counter"], tally, True),
            "Powertools, with a key": (peers["powertools"], PEERS_TABLES, True),
            "FastAPI, Mangum": (mangum, PEERS_TABLES, False),
            "a bare handler with boto3": (bare, PEERS_TABLES, False),
            "the floor (no SDK)": (floor, PEERS_TABLES, False),
        }
        reply_loss = ReplyLoss(LOST)
        outcomes = {}
        for name, (program, tables, keyed) in programs.items():
            print(f"  {name}…", file=sys.stderr, flush=True)
            with proxy.failing(tables["COUNTER_TABLE"], reply_loss):
                outcomes[name] = _count(stack, endpoint, running, program, tables, keyed=keyed)
        outcomes["Flask, SQLite (nothing lost)"] = _flask(peers[FLASK])
        text = _text(outcomes, reply_loss.lost)
    return Section("Concurrent increments", "python -m bench.concurrency", text)


def _make_tables(stack: Stack) -> None:
    """Create the peers' tables. The tables have no stream, because the peers keep no history."""
    for name, key in PEERS_KEYS.items():
        client(stack, "dynamodb").create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        )


def _all_at_once(senders: list[Send]) -> int:
    """Let all callers send their increments at the same time.

    Args:
        senders: the callable with which each caller sends an increment once. A caller repeats an
            increment until the response is a 200.

    Returns:
        The number of requests that were repeats.
    """
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


def _count(  # noqa: PLR0913  a measurement needs all of these
    stack: Stack,
    endpoint: str,
    running: Runtime,
    program: Artifact,
    tables: Mapping[str, str],
    *,
    keyed: bool,
) -> Outcome:
    """Let all callers count with a program that runs as on Lambda. Each caller has its own process.

    Args:
        stack: the local stack. The program uses its database.
        endpoint: the address of the proxy, which forwards requests to the database and loses some
            replies.
        running: what the program needs to run as on Lambda.
        program: the program.
        tables: the names of the program's tables, by environment variable.
        keyed: whether callers send an Idempotency-Key.
    """
    counter = str(uuid.uuid4())
    sample = _event(counter)
    environment = {
        **running.environment(program),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": stack.region,
        "AWS_DEFAULT_REGION": stack.region,
        **tables,
    }

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
        apis = [opened.enter_context(runtime_api.serving(REQUEST_SECONDS)) for _ in range(CALLERS)]
        for api in apis:
            opened.enter_context(lambda_runtime.process(api, environment))
        repeats = _all_at_once([sender(api) for api in apis])
    item = client(stack, "dynamodb").get_item(
        TableName=tables["COUNTER_TABLE"], Key={"counter_id": {"S": counter}}
    )["Item"]
    return Outcome(int(item["value"]["N"]), repeats)


def _event(counter: str) -> dict[str, Any]:
    event = load("increment_counter")
    event["path"] = event["requestContext"]["path"] = f"/counters/{counter}"
    event["pathParameters"] = {"counter_id": counter}
    event["body"] = None
    return event


def _flask(artifact: Artifact) -> Outcome:
    """Let all callers count with Flask over HTTP. Its database is a file, so no reply gets lost."""
    http = urllib3.PoolManager(maxsize=CALLERS, timeout=REQUEST_SECONDS, retries=False)
    patient = urllib3.Retry(START_SECONDS * 10, backoff_factor=0.1, backoff_max=0.1)
    with flask_server.serving(artifact) as address:
        url = f"{address}/counter"
        http.request("POST", url, retries=patient)  # creates the counter
        repeats = _all_at_once(
            [lambda _key: http.request("POST", url).status == HTTPStatus.OK] * CALLERS
        )
        last = http.request("POST", url).json()["value"]
    return Outcome(last - 2, repeats)  # without the first and the last request


def _text(outcomes: dict[str, Outcome], lost: int) -> str:
    introduction = (
        f"{CALLERS} callers increment one counter at the same time, {INCREMENTS:,} times in all."
        "\n\n"
        "- A caller repeats an increment until it gets a 200.\n"
        f"- A proxy loses {LOST:.0%} of the database's replies to writes of the counter, {lost}"
        " replies in all. The database has applied the writes whose replies are lost.\n"
        f"- Each program runs in {CALLERS} processes with AWS's runtime client, and uses the"
        " database of the local stack. If the program is Tally, the local stack also writes the"
        " history.\n"
        "- If a reply is lost, boto3 itself sends the write again. An idempotency key protects"
        " against repeats by callers, but not against these retries by boto3.\n"
        f"- The column `error` is the final value of the counter minus {INCREMENTS:,}."
    )
    rows = [
        (name, f"{each.value:,}", f"{each.value - INCREMENTS:+,}", each.repeats)
        for name, each in outcomes.items()
    ]
    drawn = {name: each.value - INCREMENTS for name, each in outcomes.items()}
    return "\n\n".join(
        [
            introduction,
            table(("program", "counter", "error", "repeats by callers"), rows),
            bars("Error of the counter", "increments", drawn),
        ]
    )


if __name__ == "__main__":
    print(measure().markdown())
