"""What the tests of IncrementQueue share: its messages, and what became of them."""

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
DAY = 24 * 3600  # seconds
MOST_GROUPS = 8

REFUSED = [throttled, conflict, unreachable, request_lost, refused_internally]
every_sign = pytest.mark.parametrize("sign", [1, -1], ids=["up", "down"])


def counting(counter_id: object = "orders", **fields: object) -> str:
    """Return the body of a message that counts."""
    return json.dumps({"counter_id": counter_id, **fields})


def an_event(source: object = "shop.checkout", **fields: object) -> str:
    """Return the body of a message that EventBridge has sent."""
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
    """Send a message for each of the amounts that a counter is to be changed by."""
    return [queue.send(counting(counter_id, by=by), group) for by in amounts]


def standing(stack: Stack, counter_id: str = "orders") -> tuple[int, int]:
    """Return the value and the version of a counter."""
    counter = stack.request("GET", f"/counters/{counter_id}").body
    return counter["value"], counter["version"]


def stored(stack: Stack, counter_id: str = "orders") -> Any:  # noqa: ANN401  an item
    return next(
        item for item in stack.items("CounterTable") if item["counter_id"] == {"S": counter_id}
    )


def history(stack: Stack, counter_id: str = "orders") -> list[dict[str, Any]]:
    """Record what has changed, and return the counter's history."""
    records = stack.changes()
    assert stack.record(records) == len(records)
    entries: list[dict[str, Any]] = stack.request("GET", f"/counters/{counter_id}/history").body
    return entries


def events_of(record: StreamRecord) -> int:
    return int(record["dynamodb"]["NewImage"]["change"]["M"]["events"]["N"])


def about(counter_id: str, fault: Fault) -> Fault:
    """Return the fault that only the changes of one counter meet."""

    def only(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        key = json.loads(request.body)["Key"]
        return (fault if key == {"counter_id": {"S": counter_id}} else delivered)(request)

    return only


def taking(seconds: float, times: list[float]) -> Fault:
    """Return what answers after a while; it notes when it was asked."""

    def slow(request: AWSPreparedRequest) -> AWSResponse:
        times.append(clock.now())
        clock.sleep(seconds)
        return delivered(request)

    return slow


def near_the_end(stack: Stack, sign: int, room: int) -> None:
    """Set the counter to so much before the end of the integers."""
    body = {"value": sign * (MAX - room)}
    assert stack.request("PUT", "/counters/orders", body=body).status == 200
