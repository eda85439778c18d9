"""A FIFO queue of SQS, and what hands its messages to a function, as SQS and Lambda do it.

Nobody knows when: a test says which messages are handed out, and what becomes of the answer.
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
FIRST, STEP = 18849496460467696128, 256  # as SQS numbers messages
MOST = 10  # messages of a FIFO queue in a batch
DEAD_LETTERS = "IncrementDeadLetterQueue"


@dataclass(frozen=True)
class Message:
    """A message as it is in the queue."""

    arn: str
    group: str
    sequence_number: int
    body: str
    sender: str
    attribute: str = ""  # the attribute `sender`, which anyone may write

    @cached_property
    def message_id(self) -> str:
        name = f"{self.arn} {self.group} {self.sequence_number}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name))

    def record(self, receive_count: int = 1) -> dict[str, Any]:
        """Return what Lambda hands to a function."""
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
    """The messages that nobody has deleted yet.

    A message is handed out only while all in front of it in its group are in the same batch or
    deleted. It may be handed out again, with more or fewer behind it, until it is deleted; and a
    batch that was handed out once may reach the function at any time later.
    """

    arn: str = ARN
    first: int = FIRST
    step: int = STEP
    sent: list[Message] = field(default_factory=list)
    waiting: dict[str, list[Message]] = field(default_factory=dict)  # by group, in order

    def send(
        self, body: str, group: str = "checkout", sender: str = SENDER, attribute: str = ""
    ) -> Message:
        number = self.first + self.step * len(self.sent)
        message = Message(self.arn, group, number, body, sender, attribute)
        self.sent.append(message)
        self.waiting.setdefault(group, []).append(message)
        return message

    def batch(self, lengths: Mapping[str, int]) -> list[Message]:
        """Return so many messages of each group, from the first that is there on."""
        return [
            message
            for group, length in lengths.items()
            for message in self.waiting.get(group, [])[:length]
        ]

    def delete(self, batch: Sequence[Message], failed: Iterable[Message]) -> None:
        """Delete the messages of a batch that did not fail, as Lambda does."""
        done = set(batch) - set(failed)
        for group in {message.group for message in done}:
            left = [message for message in self.waiting[group] if message not in done]
            if left:
                self.waiting[group] = left
            else:
                del self.waiting[group]


def deliver(stack: "Stack", *batch: Message) -> list[Message]:
    """Hand a batch to the function; return the messages that it reports as failed."""
    assert 1 <= len(set(batch)) <= MOST
    answer = stack.invoke("IngestIncrements", {"Records": [message.record() for message in batch]})
    assert answer.keys() == {"batchItemFailures"}
    assert all(failure.keys() == {"itemIdentifier"} for failure in answer["batchItemFailures"])
    # Lambda takes an id that it does not know as a failure of the whole batch.
    given = {message.message_id: message for message in batch}
    failed = [given[failure["itemIdentifier"]] for failure in answer["batchItemFailures"]]
    assert len(set(failed)) == len(failed)
    for first in failed:
        # What is behind a failed message would be deleted, and come before it in the end.
        behind = {message for message in batch if _is_behind(message, first)}
        assert behind <= set(failed)
    return failed


def _is_behind(message: Message, other: Message) -> bool:
    if (message.arn, message.group) != (other.arn, other.group):
        return False
    return message.sequence_number > other.sequence_number


@dataclass(frozen=True)
class Parked:
    """A message of the dead-letter queue."""

    body: str
    group: str
    deduplication_id: str
    reason: str = field(default="", compare=False)


def as_parked(message: Message) -> Parked:
    """Return what a message becomes in the dead-letter queue."""
    return Parked(message.body, message.group, message.message_id)


def parked(stack: "Stack") -> list[Parked]:
    """Return the messages of the dead-letter queue, and take them from it."""
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
