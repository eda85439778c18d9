"""Delivers messages of EventQueue to ForwardEvents, and receives messages of IncrementQueue.

EventQueue is a standard SQS queue, to which EventBridge sends events. The function ForwardEvents
turns each event into a message, and sends the message to IncrementQueue.
"""

import hashlib
import json
import string
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stack import Stack

SENDER = "AIDAEXAMPLE12345678"
# SQS accepts these characters in a message group id and in a deduplication id:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
ACCEPTED_CHARACTERS = string.ascii_letters + string.digits + string.punctuation
ARN = "arn:aws:sqs:eu-west-1:123456789012:tally-test-EventQueue"


@dataclass(frozen=True)
class EventMessage:
    """A message that EventBridge sent to EventQueue."""

    body: str
    message_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def record(self) -> dict[str, Any]:
        """Return the message as Lambda passes it to a function."""
        return {
            "messageId": self.message_id,
            "receiptHandle": f"{self.message_id}-1",
            "body": self.body,
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": "1795341600123",
                "SenderId": SENDER,
                "ApproximateFirstReceiveTimestamp": "1795341600130",
            },
            "messageAttributes": {},
            "md5OfBody": hashlib.md5(self.body.encode(), usedforsecurity=False).hexdigest(),
            "eventSource": "aws:sqs",
            "eventSourceARN": ARN,
            "awsRegion": "eu-west-1",
        }


@dataclass(frozen=True, order=True)
class Forwarded:
    """A message that ForwardEvents sent to IncrementQueue."""

    group: str
    deduplication_id: str
    body: str
    sender: str = field(default=SENDER, compare=False)


def event_body(detail: object, **fields: object) -> str:
    """Return the body of a message of EventQueue: an event of EventBridge with a new id."""
    return json.dumps(
        {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Count",
            "source": "shop.checkout",
            "account": "123456789012",
            "time": "2026-11-22T10:00:00Z",
            "region": "eu-west-1",
            "resources": [],
            "detail": detail,
            **fields,
        }
    )


def event_message(counter_id: object = "orders", **fields: object) -> EventMessage:
    """Return a message of EventQueue with an event that adds to a counter."""
    return EventMessage(event_body({"counter_id": counter_id}, **fields))


def deliver(stack: "Stack", *batch: EventMessage) -> list[EventMessage]:
    """Deliver a batch to ForwardEvents, and return the failed messages.

    The answer of ForwardEvents reports which messages failed.
    """
    response = stack.invoke("ForwardEvents", {"Records": [message.record() for message in batch]})
    assert response.keys() == {"batchItemFailures"}
    assert all(failure.keys() == {"itemIdentifier"} for failure in response["batchItemFailures"])
    # If a function reports an unknown id, Lambda treats the whole batch as failed. Tally's
    # functions must not do this, so the next lines raise KeyError for an unknown id.
    by_id = {message.message_id: message for message in batch}
    failed = [by_id[failure["itemIdentifier"]] for failure in response["batchItemFailures"]]
    assert len(set(failed)) == len(failed)
    return failed


def forwarded(stack: "Stack") -> list[Forwarded]:
    """Receive and delete all messages of IncrementQueue. Return them sorted."""
    return sorted(_received(stack))


def forwarded_bodies(stack: "Stack") -> list[str]:
    """Receive and delete all messages of IncrementQueue. Return their bodies, sorted."""
    messages = forwarded(stack)
    for message in messages:
        for each in (message.group, message.deduplication_id):
            assert 1 <= len(each) <= 128
            assert set(each) <= set(ACCEPTED_CHARACTERS)
    return sorted(message.body for message in messages)


def bodies(*messages: EventMessage) -> list[str]:
    return sorted(message.body for message in messages)


def _received(stack: "Stack") -> Iterable[Forwarded]:
    url = stack.refs["IncrementQueue"]
    while messages := stack.sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        MessageSystemAttributeNames=["All"],
        MessageAttributeNames=["All"],
    ).get("Messages"):
        for message in messages:
            attributes = message["Attributes"]
            yield Forwarded(
                attributes["MessageGroupId"],
                attributes["MessageDeduplicationId"],
                message["Body"],
                message["MessageAttributes"]["sender"]["StringValue"],
            )
            stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
