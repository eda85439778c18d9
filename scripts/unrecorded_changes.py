"""Completes a restored history and trend, and finds the changes that a restore loses.

The history is written from CounterTable's stream, so it is always a little behind the counters. A
restored CounterTable has a new, empty stream. So nothing would record the last changes before the
time of the restore. But the old HistoryTable has their entries, because the old stack has recorded
them since.
"""

import datetime as dt
import heapq
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import boto3

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]

# A change can be recorded for 15 days: the stream keeps its record for 24 hours, and
# HistoryDeadLetterQueue keeps it for 14 days. One more day, to be safe.
LATEST = dt.timedelta(days=16)

_HOUR = dt.timedelta(hours=1)
_THREADS = 10  # as many as a client of boto3 has connections
_BATCH_SIZE = 25  # the maximum number of items in one BatchWriteItem
_GET_SIZE = 100  # the maximum number of items in one BatchGetItem
_WAIT_SECONDS = 1  # without a wait time, SQS asks only some of its servers
_HIDDEN_SECONDS = 900  # so that SQS delivers each message only once

# What each entry has, and the type of its value in DynamoDB.
_ATTRIBUTES = {
    "value": "N",
    "previous_value": "N",
    "by": "N",
    "operation": "S",
    "actor": "S",
    "request_id": "S",
    "created_at": "S",
    "counter_created_at": "S",
}


def complete(
    old_history: str, tables: Mapping[str, str], moment: dt.datetime, days: int
) -> tuple[int, list[str]]:
    """Copy entries that the restored history lacks. Compute the trend of their hours again.

    This function reads the entries that are not verified: those since the last audit of their
    counter that had no finding. It reads them in both histories. Repeating it does no harm.

    Args:
        old_history: the name of the old HistoryTable.
        tables: the name of each restored table, by its logical id.
        moment: the time to which the tables are restored.
        days: how long the stack keeps the history, in days. 0 means forever.

    Returns:
        The number of copied entries, and a line of text for each counter that has changes without
        an entry in both histories.
    """
    dynamodb = boto3.client("dynamodb")
    complete_one = partial(_complete, dynamodb, old_history, tables, days)
    copied, gaps = 0, []
    pages = dynamodb.get_paginator("scan").paginate(
        TableName=tables["CounterTable"],
        FilterExpression="updated_at >= :time",
        ExpressionAttributeValues={":time": {"S": _text(moment - LATEST)}},
        ConsistentRead=True,
    )
    with ThreadPoolExecutor(_THREADS) as pool:
        for page in pages:
            for counter, (written, missing) in zip(
                page["Items"], pool.map(complete_one, page["Items"]), strict=True
            ):
                copied += written
                if missing:
                    name, version = counter["counter_id"]["S"], counter["version"]["N"]
                    gaps.append(f"{name}: {missing} changes up to version {version} have no entry")
    return copied, gaps


def remove_lost_records(queue_url: str, counter_table: str) -> tuple[int, list[str]]:
    """Delete the parked records of lost changes. Redriven later, they would damage the history.

    Args:
        queue_url: the address of HistoryDeadLetterQueue.
        counter_table: the name of the restored CounterTable.

    Returns:
        The number of records that stay in the queue, and a line of text for each deleted record.
    """
    dynamodb, sqs = boto3.client("dynamodb"), boto3.client("sqs")
    kept, deleted = [], []
    while messages := sqs.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=10,
        VisibilityTimeout=_HIDDEN_SECONDS,
        WaitTimeSeconds=_WAIT_SECONDS,
    ).get("Messages"):
        for message in messages:
            if line := _lost_change(dynamodb, counter_table, message["Body"]):
                sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
                deleted.append(line)
            else:
                kept.append(message["ReceiptHandle"])
    for handle in kept:
        sqs.change_message_visibility(QueueUrl=queue_url, ReceiptHandle=handle, VisibilityTimeout=0)
    return len(kept), deleted


def lost(old_history: str, new_history: str, moment: dt.datetime) -> "Iterator[Item]":
    """Yield the entries of lost changes: those of the old history that the new history lacks.

    Args:
        old_history: the name of the old HistoryTable.
        new_history: the name of the restored HistoryTable, after `complete`.
        moment: the time to which the tables are restored.
    """
    dynamodb = boto3.client("dynamodb")
    # A change that was made after the time may have begun a little before it. And a malformed entry
    # may have no time.
    pages = dynamodb.get_paginator("scan").paginate(
        TableName=old_history,
        FilterExpression="created_at >= :time OR attribute_not_exists(created_at)",
        ExpressionAttributeValues={":time": {"S": _text(moment - _HOUR)}},
        ConsistentRead=True,
    )
    for page in pages:
        for start in range(0, len(page["Items"]), _GET_SIZE):
            items = page["Items"][start : start + _GET_SIZE]
            kept = _changes(dynamodb, new_history, items)
            for item in items:
                if _key(item) not in kept or kept[_key(item)] != item.get("request_id"):
                    yield item


def _complete(
    dynamodb: "DynamoDBClient",
    old_history: str,
    tables: Mapping[str, str],
    days: int,
    counter: "Item",
) -> tuple[int, int]:
    """Complete the history and the trend of one counter.

    Returns:
        The number of copied entries, and the number of changes without an entry.
    """
    if "N" not in counter["version"] or "S" not in counter["created_at"]:
        return 0, 0  # somebody has edited it, so no change of it can be recorded
    last = int(counter["version"]["N"])
    since = _verified_to(dynamodb, tables["AuditTable"], counter)
    since = max(since, _kept_since(days)) if days else since
    first, hour_before = _text(since), _text(since - _HOUR)
    both = heapq.merge(
        _entries(dynamodb, tables["HistoryTable"], counter, is_old=False),
        _entries(dynamodb, old_history, counter, is_old=True),
        key=lambda each: each[0],
        reverse=True,
    )
    copied, missing, expected = 0, 0, last
    batch: list[Item] = []
    hours: dict[str, dict[str, int]] = {}
    for version, found in groupby(both, key=lambda each: each[0]):
        _, is_old, item = next(found)  # if both histories have the entry, the restored one is first
        created_at = item["created_at"]["S"]
        if version <= last:
            missing += expected - version if created_at >= first else 0
            expected = version - 1
        if created_at < hour_before:  # so all lower versions are from before `since`
            break
        if created_at < first:
            continue
        if is_old:
            copied += 1
            batch.append(item)
            if len(batch) == _BATCH_SIZE:
                _write(dynamodb, tables["HistoryTable"], batch)
                batch = []
        _add(hours.setdefault(f"{created_at[:13]}:00:00.000Z", {}), item)
    else:
        missing += 0 if days else expected
    _write(dynamodb, tables["HistoryTable"], batch)
    _store_trend(dynamodb, tables["TrendTable"], counter, hours)
    return copied, missing


def _verified_to(dynamodb: "DynamoDBClient", table: str, counter: "Item") -> dt.datetime:
    """Return a full hour: audits have verified a counter's history and trend before it.

    `counters.progress` describes what AuditTable stores. If this is malformed, nothing is verified.
    """
    key = {"counter_id": counter["counter_id"]}
    item = dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item", {})
    try:
        state = json.loads(item["state"]["S"])
        compared = dt.datetime.fromtimestamp(state["compared"], dt.UTC)
        # After a gap that has expired, `compared` can be later than the last verified entry.
        return _hour(min(compared, dt.datetime.fromisoformat(state["created_at"]) - _HOUR))
    except (KeyError, TypeError, ValueError):
        return dt.datetime.fromtimestamp(0, dt.UTC)


def _entries(
    dynamodb: "DynamoDBClient", table: str, counter: "Item", *, is_old: bool
) -> "Iterator[tuple[int, bool, Item]]":
    """Yield a counter's entries, the highest version first. Leave out malformed entries.

    In the old history, also leave out two kinds of lost changes: those above the version of the
    restored counter, and those of a counter that got the same name after this one was deleted.
    """
    names = {"#counter_id": "counter_id"}
    values = {":counter_id": counter["counter_id"]}
    condition = "#counter_id = :counter_id"
    if is_old:
        names["#version"] = "version"
        values[":version"] = counter["version"]
        condition += " AND #version <= :version"
    for page in dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression=condition,
        ExpressionAttributeNames=names,
        ExpressionAttributeValues=values,
        ScanIndexForward=False,
        ConsistentRead=True,
    ):
        for item in page["Items"]:
            well_formed = all(kind in item.get(name, {}) for name, kind in _ATTRIBUTES.items())
            if well_formed and (not is_old or item["counter_created_at"] == counter["created_at"]):
                yield int(item["version"]["N"]), is_old, item


def _add(sums: dict[str, int], entry: "Item") -> None:
    """Add an entry to the sums of its hour. Its version must be lower than all in the sums."""
    version, by = int(entry["version"]["N"]), int(entry["by"]["N"])
    if not sums:
        sums |= {"changes": 0, "increase": 0, "decrease": 0}
        sums |= {"last_version": version, "close": int(entry["value"]["N"])}
    sums["first_version"] = version
    sums["changes"] += 1
    sums["increase"] += int(entry["increase"]["N"]) if "increase" in entry else max(by, 0)
    sums["decrease"] += int(entry["decrease"]["N"]) if "decrease" in entry else max(-by, 0)


def _store_trend(
    dynamodb: "DynamoDBClient",
    table: str,
    counter: "Item",
    hours: Mapping[str, Mapping[str, int]],
) -> None:
    """Store the sums of a counter's hours, unless the trend has the same sums already."""
    for hour, sums in hours.items():
        key: dict[str, Any] = {"counter_id": counter["counter_id"], "hour": {"S": hour}}
        item = {**key, **{name: {"N": str(value)} for name, value in sums.items()}}
        stored = dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
        if stored != item:
            dynamodb.put_item(TableName=table, Item=item)


def _write(dynamodb: "DynamoDBClient", table: str, items: "Sequence[Item]") -> None:
    left: Any = {table: [{"PutRequest": {"Item": item}} for item in items]} if items else {}
    while left:
        left = dynamodb.batch_write_item(RequestItems=left).get("UnprocessedItems")
        if left:
            time.sleep(1)  # a new table needs a while until it takes more writes


def _lost_change(dynamodb: "DynamoDBClient", counter_table: str, body: str) -> str:
    """Return the counter and the version of a parked record, if its change is lost; else ""."""
    try:
        new = json.loads(body)["dynamodb"]["NewImage"]
        key, version = {"counter_id": {"S": new["counter_id"]["S"]}}, int(new["version"]["N"])
        created_at = new["created_at"]["S"]
    except (KeyError, TypeError, ValueError):
        return ""  # malformed: nobody can record it
    item = dynamodb.get_item(TableName=counter_table, Key=key, ConsistentRead=True).get("Item", {})
    restored = item.get("version", {"N": "0"}).get("N")
    if restored is None:
        return ""  # somebody has edited the counter
    if version <= int(restored) and item["created_at"] == {"S": created_at}:
        return ""
    return f"{key['counter_id']['S']}: version {version}"


def _changes(
    dynamodb: "DynamoDBClient", table: str, items: "Sequence[Item]"
) -> "dict[tuple[str, str], AttributeValueTypeDef | None]":
    """Return the request id of each of these entries that a history has, by counter and version."""
    keys = [{"counter_id": item["counter_id"], "version": item["version"]} for item in items]
    left: Any = {table: {"Keys": keys, "ConsistentRead": True}}
    found: dict[tuple[str, str], AttributeValueTypeDef | None] = {}
    while left:
        reply = dynamodb.batch_get_item(RequestItems=left)
        found |= {_key(item): item.get("request_id") for item in reply["Responses"].get(table, [])}
        left = reply.get("UnprocessedKeys")
    return found


def _key(item: "Item") -> tuple[str, str]:
    return item["counter_id"]["S"], item["version"]["N"]


def _kept_since(days: int) -> dt.datetime:
    """Return a full hour: DynamoDB has not deleted entries since then, because of their age."""
    return _hour(dt.datetime.now(dt.UTC) - dt.timedelta(days=days) + _HOUR)


def _hour(moment: dt.datetime) -> dt.datetime:
    """Return when the hour of a time begins."""
    return moment.replace(minute=0, second=0, microsecond=0)


def _text(moment: dt.datetime) -> str:
    """Return a time as Tally stores it, such as 2026-11-22T16:00:00.000Z."""
    text = moment.astimezone(dt.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
