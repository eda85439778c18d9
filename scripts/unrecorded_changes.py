"""Finds the changes of restored counters that the restored history or trend lacks.

The history is written from CounterTable's stream, so it is always a little behind the counters. A
restored CounterTable has a new, empty stream. So nothing would record the last changes before the
time of the restore. But the old HistoryTable has their entries.

From such an entry, this module makes the stream record again, and parks the record: sends it to
HistoryDeadLetterQueue. From there, RedriveHistory writes the change to the restored history, and
computes the trend of its hour again.
"""

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]

# How far the history may have been behind the counters at the time of the restore. If it was
# further behind, the audit reports the missing changes 24 hours after the restore.
LATEST = dt.timedelta(hours=1)


@dataclass
class Found:
    """The changes that the restored history or trend lacks.

    Attributes:
        records: stream records to be parked.
        lost: a line of text for each counter with changes that the old history lacks, too.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def find(old_history: str, tables: Mapping[str, str], time: dt.datetime) -> Found:
    """Find the changes of the hour before a time that restored tables lack.

    Args:
        old_history: the name of the old HistoryTable.
        tables: the name of each restored table, by its logical id.
        time: the time to which the tables are restored.
    """
    since = (time - LATEST).astimezone(dt.UTC).isoformat(timespec="milliseconds")
    since = since.replace("+00:00", "Z")
    found = Found()
    for counter in _changed_since(tables["CounterTable"], since):
        counter_id, version = counter["counter_id"]["S"], int(counter["version"]["N"])
        old, old_end = _entries(old_history, counter_id, version, since)
        new, new_end = _entries(tables["HistoryTable"], counter_id, version, since)
        end = max(old_end, new_end)
        entries = {each: item for each, item in {**old, **new}.items() if each >= end}
        lacking = {each for each in entries if each not in new}
        lacking |= set(_newest_unfolded(tables["TrendTable"], entries))
        found.records += [stream_record(entries[each]) for each in sorted(lacking)]
        if gaps := {*range(min(entries, default=version), version + 1)} - entries.keys():
            found.lost.append(
                f"{counter_id}: {len(gaps)} changes up to version {max(gaps)} have no entry in any"
                f" table. Accept the findings of this counter up to version {version}."
            )
    return found


def park(queue_url: str, records: Iterable[Mapping[str, Any]]) -> None:
    """Send stream records to the dead-letter queue of the history."""
    sqs = boto3.client("sqs")
    for record in records:
        sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps(record))


def stream_record(entry: "Item") -> dict[str, Any]:
    """Return the stream record of the change that an item of HistoryTable describes."""
    change = {
        name: entry[name]
        for name in ("operation", "actor", "request_id", "events", "increase", "decrease", "sender")
        if name in entry
    }
    version = int(entry["version"]["N"])
    return {
        "eventID": f"restored:{entry['counter_id']['S']}:{version}",
        "dynamodb": {
            "NewImage": {
                "counter_id": entry["counter_id"],
                "value": entry["value"],
                "version": entry["version"],
                "created_at": entry["counter_created_at"],
                "updated_at": entry["created_at"],
                "change": {"M": {**change, "at": entry["created_at"]}},
            },
            "OldImage": {"value": entry["previous_value"], "version": {"N": str(version - 1)}},
        },
    }


def _changed_since(table: str, time: str) -> "Iterator[Item]":
    """Yield the counters that changed at a time (RFC 3339) or later."""
    pages = boto3.client("dynamodb").get_paginator("scan")
    for page in pages.paginate(
        TableName=table,
        FilterExpression="updated_at >= :time",
        ExpressionAttributeValues={":time": {"S": time}},
    ):
        yield from page["Items"]


def _entries(
    table: str, counter_id: str, version: int, since: str
) -> "tuple[dict[int, Item], int]":
    """Read the entries of a counter from a version down, until one is from before a time.

    Returns:
        The items of the entries by version, and the lowest version that was read. This is 0 if
        there are no lower versions.
    """
    found: dict[int, Item] = {}
    pages = boto3.client("dynamodb").get_paginator("query")
    for page in pages.paginate(
        TableName=table,
        KeyConditionExpression="#counter_id = :counter_id AND #version <= :version",
        ExpressionAttributeNames={"#counter_id": "counter_id", "#version": "version"},
        ExpressionAttributeValues={
            ":counter_id": {"S": counter_id},
            ":version": {"N": str(version)},
        },
        ScanIndexForward=False,
        ConsistentRead=True,
    ):
        found |= {int(item["version"]["N"]): item for item in page["Items"]}
        if any(item["created_at"]["S"] < since for item in page["Items"]):
            return found, min(found)
    return found, 0


def _newest_unfolded(trend: str, entries: "Mapping[int, Item]") -> Iterator[int]:
    """Yield the newest version of each hour whose trend does not include that version."""
    newest = {entries[version]["created_at"]["S"][:13]: version for version in sorted(entries)}
    dynamodb = boto3.client("dynamodb")
    for hour, version in newest.items():
        key = {
            "counter_id": entries[version]["counter_id"],
            "hour": {"S": f"{hour}:00:00.000Z"},
        }
        item = dynamodb.get_item(TableName=trend, Key=key, ConsistentRead=True).get("Item", {})
        if int(item.get("last_version", {"N": "0"})["N"]) < version:
            yield version
