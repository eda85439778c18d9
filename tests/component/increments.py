"""Helpers for tests of IncrementQueue: its messages, and the counters that they change."""

import json
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.fifo_queue import FifoQueue, Message
from tests.stack import Stack, StreamRecord
from tests.wire import (
    Fault,
    conflict,
    delivered,
    refused_internally,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock

MAX = 2**53 - 1

# A counter's item stores the last sequence number of each message group, for up to this many
# groups.
GROUPS_IN_ITEM = 8

REFUSED = [throttled, conflict, unreachable, request_lost, refused_internally]
every_sign = pytest.mark.parametrize("sign", [1, -1], ids=["up", "down"])


def message_body(counter_id: object = "orders", **fields: object) -> str:
    """Return the body of a message that asks to add to a counter."""
    return json.dumps({"counter_id": counter_id, **fields})


def event_body(source: object = "shop.checkout", **fields: object) -> str:
    """Return a message body that is an event from EventBridge."""
    return json.dumps(
        {
            "version": "0",
            "id": "7bf73129-1428-4cd3-a780-95db273d1602",
            "detail-type": "Count",
            "source": source,
            "account": "123456789012",
            "time": "2026-11-22T10:00:00Z",
            "region": "eu-west-1",
            "resources": [],
            "detail": {"counter_id": "orders"},
            **fields,
        }
    )


def send(
    queue: FifoQueue, *amounts: int, group: str = "checkout", counter_id: str = "orders"
) -> list[Message]:
    """Send a message for each amount."""
    return [queue.send(message_body(counter_id, by=by), group) for by in amounts]


def value_and_version(stack: Stack, counter_id: str = "orders") -> tuple[int, int]:
    """Return a counter's value and version."""
    counter = stack.request("GET", f"/counters/{counter_id}").body
    return counter["value"], counter["version"]


def stored_item(stack: Stack, counter_id: str = "orders") -> Any:  # noqa: ANN401  an item
    return next(
        item for item in stack.items("CounterTable") if item["counter_id"] == {"S": counter_id}
    )


def record_and_read_history(stack: Stack, counter_id: str = "orders") -> list[dict[str, Any]]:
    """Record all changes in the history, and return the counter's entries."""
    records = stack.changes()
    assert stack.record(records) == len(records)
    entries: list[dict[str, Any]] = stack.request("GET", f"/counters/{counter_id}/history").body
    return entries


def event_count(record: StreamRecord) -> int:
    return int(record["dynamodb"]["NewImage"]["change"]["M"]["events"]["N"])


def only_for(counter_id: str, fault: Fault) -> Fault:
    """Return a fault that applies `fault` only to requests for one counter."""

    def fault_of_counter(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        key = json.loads(request.body)["Key"]
        return (fault if key == {"counter_id": {"S": counter_id}} else delivered)(request)

    return fault_of_counter


def answered_after(seconds: float, times: list[float]) -> Fault:
    """Return a fault that delays replies, and appends the time of each request to `times`."""

    def answer_late(request: AWSPreparedRequest) -> AWSResponse:
        times.append(clock.now())
        clock.sleep(seconds)
        return delivered(request)

    return answer_late


def set_near_limit(stack: Stack, sign: int, room: int) -> None:
    """Set "orders" to a value that is `room` away from a limit.

    The limit is the maximum if `sign` is 1, and the minimum if `sign` is -1.
    """
    body = {"value": sign * (MAX - room)}
    assert stack.request("PUT", "/counters/orders", body=body).status == 200
