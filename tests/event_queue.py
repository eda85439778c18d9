"""EventQueue, a standard queue of SQS, and what the function forwards from it to IncrementQueue."""

import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stack import Stack

SENDER = "AIDAEXAMPLE12345678"
ARN = "arn:aws:sqs:eu-west-1:123456789012:tally-test-EventQueue"


@dataclass(frozen=True)
class EventMessage:
    """A message as EventBridge puts it into EventQueue."""

    body: str
    message_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def record(self) -> dict[str, Any]:
        """Return what Lambda hands to a function."""
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
    """A message of IncrementQueue."""

    group: str
    deduplication_id: str
    body: str
    sender: str = field(default=SENDER, compare=False)


def an_event(detail: object, **fields: object) -> str:
    """Return the body of an event as EventBridge writes it, with an id of its own."""
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


def deliver(stack: "Stack", *batch: EventMessage) -> list[EventMessage]:
    """Deliver a batch to the function; return the messages that it reports as failed."""
    answer = stack.invoke("ForwardEvents", {"Records": [message.record() for message in batch]})
    assert answer.keys() == {"batchItemFailures"}
    assert all(failure.keys() == {"itemIdentifier"} for failure in answer["batchItemFailures"])
    # Lambda counts the whole batch as failed if it does not know an id.
    sent = {message.message_id: message for message in batch}
    failed = [sent[failure["itemIdentifier"]] for failure in answer["batchItemFailures"]]
    assert len(set(failed)) == len(failed)
    return failed


def forwarded(stack: "Stack") -> list[Forwarded]:
    """Take all messages from IncrementQueue and return them, sorted."""
    return sorted(_received(stack))


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
