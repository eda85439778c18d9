"""The sample events in events/, and checks of what the functions return for these events."""

import json
from collections.abc import Callable
from typing import Any

from tests.aws_template import ROOT
from tests.event_queue import Forwarded, forwarded
from tests.proxy import ALL_RIGHTS, reply
from tests.stack import SETTINGS, Stack

EVENTS = ROOT / "events"

Check = Callable[[Stack, Any], None]

# The checks of the results. Each key is the name of a sample event's file.
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Add a check to CHECKS. The name of the function is the name of the event's file."""
    CHECKS[function.__name__] = function
    return function


def load(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return event


def prepare(stack: Stack) -> None:
    """Prepare a stack for the sample events of the HTTP API.

    Store the counters in the sample event record_history.json, and record their changes. Make the
    counters public whose names begin with `public:`, as on the local stack.
    """
    stack.refs["PublicPrefix"] = "public:"
    records = load("record_history")["Records"]
    for record in records:
        stack.dynamodb.put_item(
            TableName=stack.refs["CounterTable"], Item=record["dynamodb"]["NewImage"]
        )
    stack.record(records)


@check
def issue_token(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert result["response"]["claimsAndScopeOverrideDetails"]["accessTokenGeneration"] == {
        "claimsToAddOrOverride": ALL_RIGHTS,
        "scopesToAdd": [],
        "scopesToSuppress": [],
    }


@check
def get_counter(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert reply(result).status == 200
    assert reply(result).body == {
        "counter_id": "sample:recorded",
        "value": 100,
        "version": 3,
        "created_at": "2026-11-22T10:00:00.123Z",
        "updated_at": "2026-11-22T10:00:03.789Z",
    }


@check
def increment_counter(stack: Stack, result: Any) -> None:  # noqa: ANN401
    counter = reply(result).body
    assert (counter["counter_id"], counter["value"], counter["version"]) == ("sample:orders", 5, 1)
    assert stack.request("GET", "/counters/sample:orders").body == counter


@check
def increment_counters(stack: Stack, result: Any) -> None:  # noqa: ANN401
    orders, stock = reply(result).body
    assert (orders["counter_id"], orders["value"], orders["version"]) == ("sample:orders", 5, 1)
    assert (stock["counter_id"], stock["value"], stock["version"]) == ("sample:stock", 1, 1)
    assert stack.request("GET", "/counters/sample:orders").body == orders
    assert stack.request("GET", "/counters/sample:stock").body == stock


@check
def ingest_increments(stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert result == {"batchItemFailures": []}
    counter = stack.request("GET", "/counters/sample:queued").body
    # The three messages of one message group make one change. The event from the bus makes another
    # change.
    assert (counter["value"], counter["version"]) == (1 + 4 - 2 + 3, 2)
    assert stack.messages("IncrementDeadLetterQueue") == []


@check
def forward_events(stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert result == {"batchItemFailures": []}
    bodies = [record["body"] for record in load("forward_events")["Records"]]
    assert forwarded(stack) == sorted(
        Forwarded("sample:forwarded", json.loads(body)["id"], body) for body in bodies
    )


@check
def set_counter(stack: Stack, result: Any) -> None:  # noqa: ANN401
    counter = reply(result).body
    assert (counter["counter_id"], counter["value"], counter["version"]) == ("sample:orders", 7, 1)
    assert stack.request("GET", "/counters/sample:orders").body == counter


@check
def list_counters(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert reply(result).body == ["sample:recorded", "sample:recorded:set"]


@check
def list_history(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    (entry,) = reply(result).body
    assert (entry["version"], entry["value"], entry["previous_value"]) == (2, 6, 1)
    assert reply(result).headers["Link"] == '<?limit=1&order=desc&after=2>; rel="next"'


@check
def list_trend(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    ten, eleven = reply(result).body
    assert ten == {
        "start": "2026-11-22T10:00:00.000Z",
        "changes": 3,
        "increase": 100,
        "decrease": 0,
        "first_version": 1,
        "last_version": 3,
        "close": 100,
    }
    assert (eleven["changes"], eleven["close"]) == (0, 100)


@check
def show_contract(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert reply(result).body["info"]["title"] == "Tally"


@check
def show_dashboard(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert reply(result).status == 200
    assert f'data-client-id="{SETTINGS["client_id"]}"' in reply(result).body


@check
def show_public_counter(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert (reply(result).body["counter_id"], reply(result).body["version"]) == ("public:visits", 0)


@check
def show_badge(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert reply(result).headers["Content-Type"] == "image/svg+xml"
    assert "<title>visits: 0</title>" in reply(result).body


@check
def redrive_history(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert result == {"redriven": 0, "parked": 0}


@check
def audit_history(_stack: Stack, result: Any) -> None:  # noqa: ANN401
    # The event names a counter that was never written and has no history.
    assert result == {"counters": 1, "entries": 0, "finished": True, "findings": []}


@check
def record_history(stack: Stack, result: Any) -> None:  # noqa: ANN401
    assert result == {"batchItemFailures": []}
    entries = stack.request("GET", "/counters/sample:recorded/history").body
    assert [entry["value"] for entry in entries] == [1, 6, 100]
    assert [entry["operation"] for entry in entries] == ["increment", "increment", "set"]
    assert len(stack.items("HistoryTable")) == 4
    assert len(stack.items("TrendTable")) == 2
    assert stack.messages("HistoryDeadLetterQueue") == []
