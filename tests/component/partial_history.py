"""Helpers for tests in which the history lacks some changes of a counter."""

import itertools
import json
from collections.abc import Collection
from http import HTTPStatus

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.past import START, Past
from tests.proxy import Reply
from tests.stack import Stack
from tests.wire import Fault, Wire, answered, delivered, denied


def make_counter(count: int, interval: float = 1, name: str = "orders") -> Past:
    """Return a counter with `count` increments by 1, one every `interval` seconds."""
    past = Past(name)
    for number in range(count):
        past.change(START + interval * number, 1)
    return past


def only_written(positions: Collection[int]) -> Fault:
    """Return a fault that lets a BatchWriteItem write only some of its items.

    Args:
        positions: the positions of these items in the request. The first position is 0.
    """

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        ((table, writes),) = json.loads(request.body)["RequestItems"].items()
        accepted = [write for position, write in enumerate(writes) if position in positions]
        rest = [write for position, write in enumerate(writes) if position not in positions]
        if accepted:
            request.body = json.dumps({"RequestItems": {table: accepted}}).encode()
            delivered(request)
        unprocessed = {"UnprocessedItems": {table: rest} if rest else {}}
        return answered(request, HTTPStatus.OK, unprocessed)

    return fault


def get_history(stack: Stack, query: str = "", name: str = "orders") -> Reply:
    return stack.request("GET", f"/counters/{name}/history", query=query)


def versions(reply: Reply) -> list[int]:
    assert reply.status == 200, reply.body
    return [entry["version"] for entry in reply.body]


def is_throttled(reply: Reply) -> bool:
    return reply.status == 503 and reply.body["type"] == "urn:tally:problem:throttled"


def record_without_trend(stack: Stack, wire: Wire, past: Past, first: int, last: int) -> None:
    """Write the changes from version `first` to `last` to the history, but not to the trend."""
    wire.fail("UpdateItem", itertools.repeat(denied))
    assert stack.record(past.records[first - 1 : last]) == 0
    wire.fail("UpdateItem", [])
