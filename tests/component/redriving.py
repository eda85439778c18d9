"""Helpers for tests of RedriveHistory, which records parked stream records again.

A parked record is a stream record that RecordHistory moved to the dead-letter queue.
"""

import json
from collections.abc import Callable
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.past import DEAD_LETTERS, START, Past
from tests.stack import Item, Stack
from tests.times import HOUR
from tests.wire import delivered

Deploy = Callable[[], None]


def without_waiting(request: AWSPreparedRequest) -> AWSResponse:
    """Deliver a request, but set its WaitTimeSeconds to 0: moto would wait in real time."""
    assert isinstance(request.body, bytes)
    parameters = json.loads(request.body)
    if "WaitTimeSeconds" in parameters:
        request.body = json.dumps(parameters | {"WaitTimeSeconds": 0}).encode()
    return delivered(request)


def redrive(stack: Stack) -> Any:  # noqa: ANN401
    return stack.invoke("RedriveHistory", {})


def parked(stack: Stack) -> list[Any]:
    """Return the visible records in the dead-letter queue. The records stay visible."""
    messages = stack.sqs.receive_message(
        QueueUrl=stack.refs[DEAD_LETTERS], MaxNumberOfMessages=10, VisibilityTimeout=0
    ).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


def message_count(stack: Stack) -> int:
    """Return the number of messages in the dead-letter queue, including the invisible ones."""
    attributes = stack.sqs.get_queue_attributes(
        QueueUrl=stack.refs[DEAD_LETTERS], AttributeNames=["All"]
    )["Attributes"]
    visible = attributes["ApproximateNumberOfMessages"]
    return int(visible) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


def make_changes(operations: str, counter_id: str = "orders", start: float = START) -> Past:
    """Return a counter with changes. The interval between two changes is one second.


    Each change adds a different amount. Every third amount is negative.

    Args:
        operations: one character for each step. `+` makes an increment. `*` makes a change with an
            operation that RecordHistory does not know yet. `|` makes no change, but advances the
            time to the beginning of the next hour.
        counter_id: the counter.
        start: the time one second before the first change, in seconds since the epoch.
    """
    past = Past(counter_id)
    now = start
    for operation in operations:
        if operation == "|":
            now = (now // HOUR + 1) * HOUR
            continue
        now += 1
        by = 10 ** len(past.records) * (-1 if len(past.records) % 3 == 2 else 1)
        past.change(now, by, "multiply" if operation == "*" else "increment")
    return past


def stored_items(stack: Stack, counter_id: str) -> dict[str, list[Item]]:
    """Return a counter's items in the history and the trend.

    In the returned items, the counter's id is replaced. So a test can compare the items of two
    counters.
    """
    return {
        table: json.loads(
            json.dumps(
                sorted(
                    (
                        item
                        for item in stack.items(table)
                        if item["counter_id"] == {"S": counter_id}
                    ),
                    key=lambda item: (len(item.get("version", {}).get("N", "")), str(item)),
                )
            ).replace(counter_id, "counter")
        )
        for table in ("HistoryTable", "TrendTable")
    }


def items_without_parking(stack: Stack, operations: str, start: float = START) -> dict[str, Any]:
    """Return the items that a counter with these changes must have in the history and the trend.

    To get these items, record the same changes for another counter, without parking any record.
    """
    twin = make_changes(operations, "twin", start)
    twin.record(stack)
    return stored_items(stack, "twin")
