"""Changes that a counter went through at given times, as the stream has them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.stack import Item, Stack, StreamRecord

from counters import clock

BATCH = 100


@dataclass
class Past:
    """A counter, and the stream records of its changes."""

    counter_id: str
    item: Item = field(default_factory=dict)
    records: list[StreamRecord] = field(default_factory=list)

    def change(self, time: float, by: int, operation: str = "increment") -> StreamRecord:
        """Change the counter by a request that begins at a time in seconds since the epoch."""
        at = clock.timestamp(time)
        old = self.item
        value = int(old["value"]["N"]) + by if old else by
        version = int(old["version"]["N"]) + 1 if old else 1
        change: Any = {
            "operation": {"S": operation},
            "actor": {"S": "somebody"},
            "request_id": {"S": f"{self.counter_id}-{version}"},
            "at": {"S": at},
        }
        self.item = {
            "counter_id": {"S": self.counter_id},
            "catalog": {"S": "counters"},
            "value": {"N": str(value)},
            "version": {"N": str(version)},
            "created_at": old["created_at"] if old else {"S": at},
            "updated_at": {"S": at},
            "change": {"M": change},
        }
        images: dict[str, Any] = {"NewImage": self.item}
        if old:
            images["OldImage"] = old
        record = {
            "eventID": f"{self.counter_id}-{version}",
            "eventName": "MODIFY" if old else "INSERT",
            "eventSource": "aws:dynamodb",
            "dynamodb": {
                "Keys": {"counter_id": {"S": self.counter_id}},
                "SequenceNumber": f"{self.counter_id}-{version}",
                **images,
            },
        }
        self.records.append(record)
        return record

    def store(self, stack: Stack) -> None:
        """Put the counter where it stands, without its history."""
        stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=self.item)

    def record(self, stack: Stack, records: Iterable[StreamRecord] | None = None) -> None:
        """Put the counter where it stands, and deliver its stream, or these records of it."""
        self.store(stack)
        given = list(self.records if records is None else records)
        for start in range(0, len(given), BATCH):
            batch = given[start : start + BATCH]
            assert stack.record(batch) == len(batch)
