"""What each operation costs in the database, as the database itself reports it."""

import importlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from tests.aws_template import ROOT, functions
from tests.e2e.service import Caller
from tests.proxy import Context, proxy_event, reply

from counters import clients
from local_stack import CREDENTIALS, Stack

FACTORIES = (clients.dynamodb, clients.dynamodb_once)
WRITES = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"}
README = (ROOT / "README.md").read_text()


class Meter:
    """The handlers, in this process, with the database of the stack, and what they consume."""

    def __init__(self) -> None:
        self.units = Counter[str]()
        self.items = 0  # that queries have read
        for factory in FACTORIES:
            events = factory().meta.events
            events.register("provide-client-params.dynamodb", self._ask)
            events.register("after-call.dynamodb", self._read)

    def request(self, method: str, path: str, **request: Any) -> tuple[float, float]:  # noqa: ANN401
        """Make a request; return the write units and the read units that it took."""
        self.units.clear()
        self.items = 0
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
                        {"sub": "somebody"},
                    )
                    module = importlib.import_module(function.module)
                    answer = reply(module.handler(event, Context(function.name)))
                    assert answer.status == request.get("status", 200), answer
                    return self.units["write"], self.units["read"]
        raise LookupError(method, path)

    def _ask(self, params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def _read(self, parsed: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401
        kind = "write" if model.name in WRITES else "read"
        if parsed.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
            # DynamoDB charges the write all the same, but a refusal carries no report of it.
            # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
            self.units[kind] += 1
        consumed = parsed.get("ConsumedCapacity", [])
        for each in consumed if isinstance(consumed, list) else [consumed]:
            self.units[kind] += each["CapacityUnits"]
        self.items += parsed.get("ScannedCount", 0)


@pytest.fixture
def meter(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", stack.region)
    monkeypatch.setenv("RECEIPT_HOURS", "24")
    for table in ("CounterTable", "HistoryTable", "ReceiptTable"):
        name = table.removesuffix("Table").upper() + "_TABLE"
        monkeypatch.setenv(name, stack.outputs[table])
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    for factory in FACTORIES:
        factory.cache_clear()
    yield Meter()
    for factory in FACTORIES:
        factory.cache_clear()


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


def test_the_table_of_costs_in_the_readme_is_what_the_database_reports(
    meter: Meter, counter: str
) -> None:
    new = meter.request("POST", counter)
    costs = {
        "`GET` of a counter": meter.request("GET", counter),
        "`POST`": meter.request("POST", counter),
        "`POST` that makes the counter": new,
        "`POST` refused by `min` or `max`": meter.request(
            "POST", counter, body={"max": 0}, status=409
        ),
        "`PUT`": meter.request("PUT", counter, body={"value": 1}),
        "`POST` with a key, first try": meter.request("POST", counter, headers=key("a")),
        "… its first repeat": meter.request("POST", counter, headers=key("a")),
        "… every other repeat": meter.request("POST", counter, headers=key("a")),
    }
    rows = [f"| {name} | {write:g} | {read:g} |" for name, (write, read) in costs.items()]
    print("\n".join(rows))
    for change in (costs["`POST`"], costs["`PUT`"]):
        assert list(change) == [1, 0]
    assert list(costs["`POST` with a key, first try"]) == [2, 0]
    for row in rows:
        assert row in README


def test_a_page_of_history_reads_itself_and_one_entry_more(
    meter: Meter, caller: Caller, counter: str
) -> None:
    for _ in range(100):
        caller.post(counter)
    assert len(caller.history(counter, entries=100)) == 100

    for limit in (10, 20, 80):
        meter.request("GET", f"{counter}/history", query=f"limit={limit}")
        assert meter.items == limit + 1
