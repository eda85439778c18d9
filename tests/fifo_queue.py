"""A simulated FIFO queue. Its messages are delivered to IngestIncrements as SQS and Lambda do it.

Each test decides which messages are delivered, and when. It also decides whether a message is
deleted after its delivery.
"""

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stack import Stack

ARN = "arn:aws:sqs:eu-west-1:123456789012:tally-test-IncrementQueue.fifo"
SENDER = "AROAEXAMPLE12345678:checkout"
FIRST, STEP = 18849496460467696128, 256  # sequence numbers like those of SQS
MAX_BATCH = 10  # messages in a batch: Lambda's limit for FIFO queues
DEAD_LETTERS = "IncrementDeadLetterQueue"


@dataclass(frozen=True)
class Message:
    """A message in the queue."""

    arn: str
    group: str
    sequence_number: int
    body: str
    sender: str
    attribute: str = ""  # the message attribute `sender`, which any sender can set

    @cached_property
    def message_id(self) -> str:
        name = f"{self.arn} {self.group} {self.sequence_number}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name))

    def record(self, receive_count: int = 1) -> dict[str, Any]:
        """Return the message as Lambda passes it to a function."""
        return {
            "messageId": self.message_id,
            "receiptHandle": f"{self.sequence_number}-{receive_count}",
            "body": self.body,
            "attributes": {
                "ApproximateReceiveCount": str(receive_count),
                "SentTimestamp": "1795341600123",
                "SequenceNumber": str(self.sequence_number),
                "MessageGroupId": self.group,
                "SenderId": self.sender,
                "MessageDeduplicationId": hashlib.sha256(self.message_id.encode()).hexdigest(),
                "ApproximateFirstReceiveTimestamp": "1795341600130",
            },
            "messageAttributes": {
                name: {
                    "stringValue": value,
                    "stringListValues": [],
                    "binaryListValues": [],
                    "dataType": "String",
                }
                for name, value in {"sender": self.attribute}.items()
                if value
            },
            "md5OfBody": hashlib.md5(self.body.encode(), usedforsecurity=False).hexdigest(),
            "eventSource": "aws:sqs",
            "eventSourceARN": self.arn,
            "awsRegion": self.arn.split(":")[3],
        }


@dataclass
class FifoQueue:
    """A FIFO queue.

    SQS and Lambda deliver messages by these rules:

    - A message is delivered only if each earlier message of its group is in the same batch, or has
      been deleted.
    - A message can be delivered again until it is deleted. The new batch can have more or fewer of
      the messages that follow it in its group.
    - After a batch has been delivered once, it can reach the function again at any time.

    Attributes:
        sent: all messages.
        waiting: the messages that are not deleted yet, by group, in order.
    """

    arn: str = ARN
    first: int = FIRST
    step: int = STEP
    sent: list[Message] = field(default_factory=list)
    waiting: dict[str, list[Message]] = field(default_factory=dict)

    def send(
        self, body: str, group: str = "checkout", sender: str = SENDER, attribute: str = ""
    ) -> Message:
        number = self.first + self.step * len(self.sent)
        message = Message(self.arn, group, number, body, sender, attribute)
        self.sent.append(message)
        self.waiting.setdefault(group, []).append(message)
        return message

    def batch(self, lengths: Mapping[str, int]) -> list[Message]:
        """Return a batch of the first waiting messages of each group.

        Args:
            lengths: how many messages to take from each group, by group.
        """
        return [
            message
            for group, length in lengths.items()
            for message in self.waiting.get(group, [])[:length]
        ]

    def delete(self, batch: Sequence[Message], failed: Iterable[Message]) -> None:
        """Delete the messages of a delivered batch, except the failed messages, as Lambda does."""
        deleted = set(batch) - set(failed)
        for group in {message.group for message in deleted}:
            remaining = [message for message in self.waiting[group] if message not in deleted]
            if remaining:
                self.waiting[group] = remaining
            else:
                del self.waiting[group]


def deliver(stack: "Stack", *batch: Message) -> list[Message]:
    """Deliver a batch to IngestIncrements, and return the failed messages.

    The answer of IngestIncrements reports which messages failed.
    """
    assert 1 <= len(set(batch)) <= MAX_BATCH
    response = stack.invoke(
        "IngestIncrements", {"Records": [message.record() for message in batch]}
    )
    assert response.keys() == {"batchItemFailures"}
    assert all(failure.keys() == {"itemIdentifier"} for failure in response["batchItemFailures"])
    # If a function reports an unknown id, Lambda treats the whole batch as failed. So fail here if
    # an id is unknown.
    by_id = {message.message_id: message for message in batch}
    failed = [by_id[failure["itemIdentifier"]] for failure in response["batchItemFailures"]]
    assert len(set(failed)) == len(failed)
    for first in failed:
        # If a message failed, the function must report the later messages of its group, too. Lambda
        # deletes every message that is not reported. If Lambda deleted a later message, that
        # message would have been counted before the failed message.
        later = {message for message in batch if _is_later(message, first)}
        assert later <= set(failed)
    return failed


def _is_later(message: Message, other: Message) -> bool:
    if (message.arn, message.group) != (other.arn, other.group):
        return False
    return message.sequence_number > other.sequence_number


@dataclass(frozen=True)
class Parked:
    """A message in the dead-letter queue."""

    body: str
    group: str
    deduplication_id: str
    reason: str = field(default="", compare=False)


def as_parked(message: Message) -> Parked:
    """Return the form that a parked message must have in the dead-letter queue."""
    return Parked(message.body, message.group, message.message_id)


def parked(stack: "Stack") -> list[Parked]:
    """Receive and delete all messages of the dead-letter queue. Return them in FIFO order."""
    url = stack.refs[DEAD_LETTERS]
    found = []
    while messages := stack.sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        MessageSystemAttributeNames=["All"],
        MessageAttributeNames=["All"],
    ).get("Messages"):
        for message in messages:
            attributes = message["Attributes"]
            found.append(
                Parked(
                    message["Body"],
                    attributes["MessageGroupId"],
                    attributes["MessageDeduplicationId"],
                    message["MessageAttributes"]["reason"]["StringValue"],
                )
            )
            stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found
