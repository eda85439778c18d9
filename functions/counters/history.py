"""The recorded changes in DynamoDB: one item of HistoryTable a counter and version."""

import json
import os
import random
import time
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters.clients import dynamodb, reading, sqs
from counters.model import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from counters.model import Order

# The most that one BatchWriteItem takes.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
_BATCH_SIZE = 25
_BATCH_ATTEMPTS = 5

logger = Logger(service="tally")


def page(
    counter_id: str, order: "Order", after: int | None, limit: int
) -> tuple[list[Entry], bool]:
    """Return at most `limit` entries of the counter by version, from behind `after` in that order.

    Returns:
        The entries, and whether there are more.

    Raises:
        ThrottledError: the database did not answer.
    """
    condition = "#counter_id = :counter_id"
    names = {"#counter_id": "counter_id"}
    values: dict[str, AttributeValueTypeDef] = {":counter_id": {"S": counter_id}}
    if after is not None:
        condition += " AND #version > :after" if order == "asc" else " AND #version < :after"
        names["#version"] = "version"
        values[":after"] = {"N": str(after)}
    with reading():
        reply = dynamodb().query(
            TableName=os.environ["HISTORY_TABLE"],
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ScanIndexForward=order == "asc",
            Limit=limit + 1,  # the one too many tells whether there are more
        )
    entries = [_entry(item) for item in reply["Items"]]
    return entries[:limit], len(entries) > limit or "LastEvaluatedKey" in reply


def record(records: "Sequence[dict[str, Any]]") -> int:
    """Write an entry for each stream record; the same one again changes nothing.

    A record that makes no sense goes, whole, to the dead-letter queue.

    Args:
        records: of the stream of CounterTable, with both images, in the stream's order.

    Returns:
        How many of them, from the first on, are done: all, if nothing failed.
    """
    # By key, because one BatchWriteItem takes a key only once; a record may be there twice.
    items: dict[tuple[str, str], tuple[int, dict[str, AttributeValueTypeDef]]] = {}
    undone = []
    for position, stream_record in enumerate(records):
        try:
            item = _item(stream_record)
        except (KeyError, TypeError, ValueError):
            if not _park(stream_record):
                undone.append(position)
        else:
            items.setdefault(_key(item), (position, item))
    entries = list(items.values())
    for start in range(0, len(entries), _BATCH_SIZE):
        failed = _write([item for _, item in entries[start : start + _BATCH_SIZE]])
        undone += [items[key][0] for key in failed]
        if failed:
            break  # all that is behind comes again anyway
    return min(undone, default=len(records))


def _item(stream_record: dict[str, Any]) -> "dict[str, AttributeValueTypeDef]":
    """Return the entry that a stream record makes.

    Raises:
        KeyError, TypeError, ValueError: it is not the record of a change of ours.
    """
    new = stream_record["dynamodb"]["NewImage"]
    old = stream_record["dynamodb"].get("OldImage", {"value": {"N": "0"}, "version": {"N": "0"}})
    version = int(new["version"]["N"])
    if version != int(old["version"]["N"]) + 1:
        detail = "the version did not go up by one"
        raise ValueError(detail)
    value = int(new["value"]["N"])
    previous_value = int(old["value"]["N"])
    change = new["change"]["M"]
    return {
        "counter_id": {"S": new["counter_id"]["S"]},
        "version": {"N": str(version)},
        "value": {"N": str(value)},
        "previous_value": {"N": str(previous_value)},
        "by": {"N": str(value - previous_value)},
        "operation": {"S": change["operation"]["S"]},
        "actor": {"S": change["actor"]["S"]},
        "request_id": {"S": change["request_id"]["S"]},
        "created_at": {"S": change["at"]["S"]},
        "counter_created_at": {"S": new["created_at"]["S"]},
    }


def _entry(item: "Mapping[str, AttributeValueTypeDef]") -> Entry:
    operation = item["operation"]["S"]
    return Entry(
        version=int(item["version"]["N"]),
        value=int(item["value"]["N"]),
        previous_value=int(item["previous_value"]["N"]),
        by=int(item["by"]["N"]),
        operation="set" if operation == "set" else "increment",
        actor=item["actor"]["S"],
        created_at=item["created_at"]["S"],
    )


def _write(
    items: "Sequence[Mapping[str, AttributeValueTypeDef]]",
) -> list[tuple[str, str]]:
    """Put the items and return the keys of those that could not be put."""
    table = os.environ["HISTORY_TABLE"]
    left: Sequence[Any] = [{"PutRequest": {"Item": item}} for item in items]
    for attempt in range(_BATCH_ATTEMPTS):
        try:
            reply = dynamodb().batch_write_item(RequestItems={table: left})
        except (BotoCoreError, ClientError):
            logger.exception("HistoryTable does not take entries")
            break
        left = reply["UnprocessedItems"].get(table, [])
        if not left:
            break
        time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311  jitter, no secret
    return [_key(request["PutRequest"]["Item"]) for request in left]


def _park(stream_record: dict[str, Any]) -> bool:
    """Send the record to the dead-letter queue; return whether it is there."""
    logger.error("parked a stream record", extra={"event_id": stream_record.get("eventID")})
    try:
        sqs().send_message(
            QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"],
            MessageBody=json.dumps(stream_record),
        )
    except (BotoCoreError, ClientError):
        logger.exception("the dead-letter queue does not take the record")
        return False
    return True


def _key(item: "Mapping[str, AttributeValueTypeDef]") -> tuple[str, str]:
    return item["counter_id"]["S"], item["version"]["N"]
