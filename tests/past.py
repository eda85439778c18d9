"""Builds the records that CounterTable's stream would have for changes at chosen times."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
from tests.stack import Item, Stack, StreamRecord

from counters import clock

START = 1_736_928_000.0  # 2025-01-15T08:00:00Z

DEAD_LETTERS = "HistoryDeadLetterQueue"

BATCH = 100  # stream records in a batch
WRITES = 25  # items in a BatchWriteItem


@dataclass
class Past:
    """A counter and the stream records of its changes so far.

    Attributes:
        item: the item that CounterTable would have for the counter after the changes so far. It is
            empty before the first change.
    """

    counter_id: str
    item: Item = field(default_factory=dict)
    records: list[StreamRecord] = field(default_factory=list)

    def change(
        self,
        time: float,
        by: int,
        operation: str = "increment",
        **attributes: AttributeValueTypeDef,
    ) -> StreamRecord:
        """Add a change, and return its stream record.

        Args:
            time: when the request that makes the change began, in seconds since the epoch.
            by: how much the value changes.
            operation: "increment" or "set".
            attributes: more attributes to store in the map `change` of the counter's item.
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
            **attributes,
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
        """Add a fold: a change that counts several queue messages. Return its stream record."""
        attributes: Item = {
            "events": {"N": str(events)},
            "increase": {"N": str(increase)},
            "decrease": {"N": str(decrease)},
        }
        if sender:
            attributes["sender"] = {"S": sender}
        return self.change(time, increase - decrease, "increment", **attributes)

    def update_sequence_number(self) -> StreamRecord:
        """Update the sequence number of a message group, but not the counter's value and version.

        Tally does this when it refuses an event.

        Returns:
            The stream record of the update.
        """
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
        """Write the counter to CounterTable, without its history."""
        stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=self.item)

    def record(self, stack: Stack, records: Iterable[StreamRecord] | None = None) -> None:
        """Store the counter, and let RecordHistory record its changes.

        Args:
            stack: the stack.
            records: the stream records to deliver; by default, all records of the counter.
        """
        self.store(stack)
        records = list(self.records if records is None else records)
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            assert stack.record(batch) == len(batch)


def store(stack: Stack, counters: Sequence[Item]) -> None:
    """Write counters to CounterTable in batches, without their histories."""
    for start in range(0, len(counters), WRITES):
        writes: Any = [{"PutRequest": {"Item": item}} for item in counters[start : start + WRITES]]
        stack.dynamodb.batch_write_item(RequestItems={stack.refs["CounterTable"]: writes})


def create(stack: Stack, names: Iterable[str]) -> None:
    """Write a counter for each name to CounterTable, with one change and without a history."""
    items = []
    for name in names:
        past = Past(name)
        past.change(START, by=1)
        items.append(past.item)
    store(stack, items)


def take_parked(stack: Stack) -> list[StreamRecord]:
    """Receive all records in the history's dead-letter queue, and return them."""
    return [json.loads(body) for body in stack.messages(DEAD_LETTERS)]
