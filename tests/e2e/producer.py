"""Counts as other AWS resources do: sends messages to IncrementQueue, and events to a bus."""

import json
import uuid
from typing import TYPE_CHECKING, Any

from tests.e2e.service import Caller, client, wait_for

from deployment import Stack

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import QueueAttributeNameType

WAIT_SECONDS = 30


class Producer:
    """Sends messages and events, and waits until they are counted."""

    def __init__(self, stack: Stack, caller: Caller) -> None:
        self.stack = stack
        self.caller = caller
        self.sqs = client(stack, "sqs")
        self.events = client(stack, "events")

    def send(self, group: str, *bodies: object) -> None:
        for start in range(0, len(bodies), 10):
            entries = [
                {
                    "Id": str(number),
                    "MessageBody": body if isinstance(body, str) else json.dumps(body),
                    "MessageGroupId": group,
                    "MessageDeduplicationId": str(uuid.uuid4()),
                }
                for number, body in enumerate(bodies[start : start + 10])
            ]
            reply = self.sqs.send_message_batch(
                QueueUrl=self.stack.outputs["IncrementQueueUrl"], Entries=entries
            )
            assert len(reply["Successful"]) == len(entries)

    def put(self, bus: str, source: str, *details: object) -> None:
        for start in range(0, len(details), 10):
            reply = self.events.put_events(
                Entries=[
                    {
                        "EventBusName": bus,
                        "Source": source,
                        "DetailType": "Count",
                        "Detail": json.dumps(detail),
                    }
                    for detail in details[start : start + 10]
                ]
            )
            assert reply["FailedEntryCount"] == 0

    def value(self, counter: str, expected: int, seconds: float = WAIT_SECONDS) -> int:
        """Wait for a counter's value to be `expected`, or for the time limit. Return the value."""
        path = f"/counters/{counter}"
        return wait_for(
            lambda: int(self.caller.get(path).body["value"]),
            lambda value: value == expected,
            seconds,
        )

    def set_visibility_timeout(self, seconds: int) -> int:
        """Set the visibility timeout of IncrementQueue. Return the previous one."""
        name: QueueAttributeNameType = "VisibilityTimeout"
        url = self.stack.outputs["IncrementQueueUrl"]
        previous = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"]
        self.sqs.set_queue_attributes(QueueUrl=url, Attributes={name: str(seconds)})
        return int(previous[name])

    def wait_until_done(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait until EventQueue and IncrementQueue are empty.

        When this method returns, everything that was sent before the call has been counted or
        parked (moved to a dead-letter queue).
        """
        assert wait_for(self._is_done, seconds=seconds), "a queue still has messages"

    def _is_done(self) -> bool:
        # Events move from EventQueue to IncrementQueue. So read EventQueue first. If IncrementQueue
        # was read first, an event that moves between the two reads would be missed.
        return all(
            number == "0"
            for queue in ("EventQueueUrl", "IncrementQueueUrl")
            for number in self.sqs.get_queue_attributes(
                QueueUrl=self.stack.outputs[queue],
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                ],
            )["Attributes"].values()
        )

    def entries(self, counter: str) -> list[Any]:
        """Return the complete history of a counter."""
        return self.caller.whole_history(f"/counters/{counter}")
