"""Another AWS resource: it counts by messages to the queue and by events on a bus."""

import json
import uuid
from typing import Any

from tests.e2e.service import Caller, client, wait_for

from local_stack import Stack

SECONDS = 30


class Producer:
    """Sends messages and events, and waits for what comes of them."""

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

    def value(self, counter: str, expected: int, seconds: float = SECONDS) -> int:
        """Return the value of a counter, once it is as expected, or when that takes too long."""
        path = f"/counters/{counter}"
        return wait_for(
            lambda: int(self.caller.get(path).body["value"]),
            lambda value: value == expected,
            seconds,
        )

    def entries(self, counter: str) -> list[Any]:
        """Return the history of a counter, once it is complete."""
        return self.caller.whole_history(f"/counters/{counter}")
