"""A counter's changes at given times, as stream records."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
from tests.stack import Item, Stack, StreamRecord

from counters import clock

BATCH = 100


@dataclass
class Past:
    """A counter and the stream records of its changes."""

    counter_id: str
    item: Item = field(default_factory=dict)
    records: list[StreamRecord] = field(default_factory=list)

    def change(
        self, time: float, by: int, operation: str = "increment", **more: AttributeValueTypeDef
    ) -> StreamRecord:
        """Change the counter by a request.

        Args:
            time: when the request began, in seconds since the epoch.
            by: the difference to the value before.
            operation: "increment" or "set".
            more: more attributes of the item's `change`.
        """
        at = clock.timestamp(time)
        old = self.item
        value = int(old["value"]["N"]) + by if old else by
        version = int(old["version"]["N"]) + 1 if old else 1
        change: Any = {
            "operation": {"S": operation},
            "actor": {"S": "somebody"},
            "request_id": {"S": f"{self.counter_id}-{version}"},
            "at": {"S": at},
            **more,
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
        if "sequence_numbers" in old:
            self.item["sequence_numbers"] = old["sequence_numbers"]
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

    def fold(
        self, time: float, increase: int, decrease: int, events: int = 2, sender: str = ""
    ) -> StreamRecord:
        """Change the counter by a fold of queue events, some positive and some negative."""
        more: Item = {
            "events": {"N": str(events)},
            "increase": {"N": str(increase)},
            "decrease": {"N": str(decrease)},
        }
        if sender:
            more["sender"] = {"S": sender}
        return self.change(time, increase - decrease, "increment", **more)

    def move_number(self) -> StreamRecord:
        """Change only the sequence number of a message group, as a refused event does."""
        old = self.item
        numbers = old.get("sequence_numbers", {}).get("M", {})
        number: AttributeValueTypeDef = {"S": f"{len(self.records):039}"}
        self.item = {**old, "sequence_numbers": {"M": {**numbers, "group": number}}}
        record = {
            "eventID": f"{self.counter_id}-moved-{len(self.records)}",
            "eventName": "MODIFY",
            "eventSource": "aws:dynamodb",
            "dynamodb": {
                "Keys": {"counter_id": {"S": self.counter_id}},
                "SequenceNumber": f"{self.counter_id}-moved-{len(self.records)}",
                "OldImage": old,
                "NewImage": self.item,
            },
        }
        self.records.append(record)
        return record

    def store(self, stack: Stack) -> None:
        """Store the counter without its history."""
        stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=self.item)

    def record(self, stack: Stack, records: Iterable[StreamRecord] | None = None) -> None:
        """Store the counter, and deliver its stream records, or only some, to RecordHistory."""
        self.store(stack)
        given = list(self.records if records is None else records)
        for start in range(0, len(given), BATCH):
            batch = given[start : start + BATCH]
            assert stack.record(batch) == len(batch)
