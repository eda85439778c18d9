"""Helpers for tests of RedriveHistory."""

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
    """Set WaitTimeSeconds to 0, because moto would wait in real time."""
    assert isinstance(request.body, bytes)
    parameters = json.loads(request.body)
    if "WaitTimeSeconds" in parameters:
        request.body = json.dumps(parameters | {"WaitTimeSeconds": 0}).encode()
    return delivered(request)


def redrive(stack: Stack) -> Any:  # noqa: ANN401
    return stack.invoke("RedriveHistory", {})


def parked(stack: Stack) -> list[Any]:
    """Return the records that are visible in the dead-letter queue. They stay visible."""
    messages = stack.sqs.receive_message(
        QueueUrl=stack.refs[DEAD_LETTERS], MaxNumberOfMessages=10, VisibilityTimeout=0
    ).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


def message_count(stack: Stack) -> int:
    """Return the number of messages in the dead-letter queue, visible or not."""
    attributes = stack.sqs.get_queue_attributes(
        QueueUrl=stack.refs[DEAD_LETTERS], AttributeNames=["All"]
    )["Attributes"]
    visible = attributes["ApproximateNumberOfMessages"]
    return int(visible) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


def make_changes(operations: str, counter_id: str = "orders", start: float = START) -> Past:
    """Return a counter and its changes, made at intervals of a second.

    Each change adds a different amount. Every third amount is negative.

    Args:
        operations: a character for each step. `+` is an increment. `*` is a change with an
            operation that RecordHistory does not know yet. `|` advances the time to the beginning
            of the next hour.
        counter_id: the counter.
        start: a second before the first change, in seconds since the epoch.
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

    The counter's id is replaced, so that the items of two counters can be compared.
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
    """Return the items of a counter with these changes if none of their records was parked."""
    twin = make_changes(operations, "twin", start)
    twin.record(stack)
    return stored_items(stack, "twin")
