"""The documented cost of each operation matches what the database reports."""

import importlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import botocore.session
import pytest
from tests.aws_template import ROOT, functions
from tests.e2e.service import Caller, client, physical_name
from tests.fifo_queue import MAX_BATCH, FifoQueue
from tests.meter import FACTORIES, Meter
from tests.proxy import ALL_RIGHTS, Context, proxy_event, reply

from counters import clients
from deployment import Stack
from local_settings import CREDENTIALS

COST = (ROOT / "docs" / "cost.md").read_text()
COUNTING = (ROOT / "docs" / "counting-from-aws.md").read_text()
SENDER = "AROAEXAMPLE12345678AB:a-session-of-30-characters-xxx"


class Handlers:
    """Runs the handlers in the test's process, and measures the capacity that they consume.

    The handlers use the database of the deployed stack.
    """

    def __init__(self) -> None:
        self.meter = Meter()
        self.queue = FifoQueue()

    def request(self, method: str, path: str, **request: Any) -> tuple[float, float]:  # noqa: ANN401
        """Send a request. Return the write units and the read units that it consumed."""
        self.meter.clear()
        for function in functions().values():
            for route in function.routes:
                parameters = route.match(path)
                if route.method == method and parameters is not None:
                    event = proxy_event(
                        route,
                        path,
                        parameters,
                        request.get("query", ""),
                        request.get("headers", {}),
                        json.dumps(request.get("body", {})).encode() if method != "GET" else b"",
                        ALL_RIGHTS | {"sub": "somebody"},
                    )
                    module = importlib.import_module(function.module)
                    answer = reply(module.handler(event, Context(function.name)))
                    assert answer.status == request.get("status", 200), answer
                    return self.meter.units["write"], self.meter.units["read"]
        raise LookupError(method, path)

    def ingest(self, counters: Sequence[str], groups: Sequence[str]) -> float:
        """Deliver a full batch of messages. Return the write units that the batch consumed.

        The messages are spread evenly over the counters and over the message groups. The first
        message of a counter or of a group costs more. So this method first delivers a similar batch
        that is not measured.
        """
        for _ in range(2):
            self.meter.clear()
            records = []
            for number in range(MAX_BATCH):
                body = json.dumps({"counter_id": counters[number % len(counters)]})
                message = self.queue.send(body, groups[number % len(groups)], SENDER)
                records.append(message.record())
            module = importlib.import_module("ingest_increments")
            answer = module.handler({"Records": records}, Context("IngestIncrements"))
            assert answer == {"batchItemFailures": []}
            assert self.meter.units["read"] == 0
        return self.meter.units["write"]


@pytest.fixture
def handlers(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Handlers]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    lambda_ = client(stack, "lambda")
    for function in functions():
        configuration = lambda_.get_function_configuration(
            FunctionName=physical_name(stack, function)
        )
        for name, value in configuration["Environment"]["Variables"].items():
            monkeypatch.setenv(name, value)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", stack.region)
    monkeypatch.setattr(clients, "_session", botocore.session.get_session)
    for factory in FACTORIES:
        factory.cache_clear()
    yield Handlers()
    for factory in FACTORIES:
        factory.cache_clear()


def idempotency_key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


def test_documented_units_of_each_operation_match_the_database(
    handlers: Handlers, counter: str
) -> None:
    new = handlers.request("POST", counter)
    costs = {
        "`GET` of a counter": handlers.request("GET", counter),
        "`POST`": handlers.request("POST", counter),
        "`POST` that makes the counter": new,
        "`POST` refused by `min` or `max`": handlers.request(
            "POST", counter, body={"max": 0}, status=409
        ),
        "`PUT`": handlers.request("PUT", counter, body={"value": 1}),
        "`POST` with a key, first try": handlers.request(
            "POST", counter, headers=idempotency_key("a")
        ),
        "… its first repeat": handlers.request("POST", counter, headers=idempotency_key("a")),
        "… every other repeat": handlers.request("POST", counter, headers=idempotency_key("a")),
    }
    increments = [{"counter_id": f"{counter[10:]}-{number}"} for number in range(10)]
    body = {"increments": increments}
    handlers.request("POST", "/increments", body=body)
    costs["`POST /increments` of 10 counters"] = handlers.request("POST", "/increments", body=body)
    query = "&".join(f"id={each['counter_id']}" for each in increments)
    costs["`GET /counters?id=…` of 10 counters"] = handlers.request("GET", "/counters", query=query)
    rows = [f"| {name} | {write:g} | {read:g} |" for name, (write, read) in costs.items()]
    print("\n".join(rows))
    for change in (costs["`POST`"], costs["`PUT`"]):
        assert list(change) == [1, 0]
    assert list(costs["`POST` with a key, first try"]) == [2, 0]
    for row in rows:
        assert row in COST


def test_documented_write_units_of_a_batch_match_the_database(
    handlers: Handlers,
) -> None:
    names = [f"{uuid.uuid4()}:{'x' * 20}" for _ in range(10)]
    groups = [f"{names[0]}:{number}" for number in range(9)]
    measured = {
        "1 counter": handlers.ingest(names[:1], names[:1]),
        "5 counters": handlers.ingest(names[:5], names[:5]),
        "10 counters": handlers.ingest(names, names),
    }
    by_group = [handlers.ingest(names[:1], [group]) for group in groups]
    # The first message group of this counter was names[0]. So by_group[6] has the cost of the
    # counter's 8th group.
    measured["1 counter, its 8th message group"] = by_group[6]
    measured["1 counter, its 9th message group"] = by_group[7]
    rows = [f"| {name} | {units:g} | {units / MAX_BATCH:g} |" for name, units in measured.items()]
    print("\n".join(rows))

    assert measured["1 counter"] / MAX_BATCH <= 0.15
    for row in rows:
        assert row in COUNTING


def test_page_of_history_reads_one_entry_more_than_it_returns(
    handlers: Handlers, caller: Caller, counter: str
) -> None:
    for _ in range(100):
        caller.post(counter)
    assert len(caller.history(counter, entries=100)) == 100

    for limit in (10, 20, 80):
        handlers.request("GET", f"{counter}/history", query=f"limit={limit}")
        assert handlers.meter.items == limit + 1
