"""HistoryTable: reads and writes history entries, one item for each counter and version.

record_history reads the changes from the stream of CounterTable and writes them to the history. So
the entry of a change is written some time after the change. record_history writes the entries of
one batch in any order. So for a while, the history can have a version and lack a lower version.
"""

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from counters import clock
from counters.clients import UndecidedError, answered, dynamodb, get_items, must_answer
from counters.model import SECONDS, Entry, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from counters.model import Order

# How long the stream of CounterTable keeps the record of a change, in seconds. A change that
# record_history does not read within this time is never added to the history.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html
STREAM_SECONDS = 24 * 60 * 60

# The maximum number of items in one BatchWriteItem.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
_BATCH_SIZE = 25

# The maximum number of items in one BatchGetItem.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html
_GET_SIZE = 100

# Use a Query for at least this many consecutive versions of a counter, and BatchGetItem for fewer.
# A Query that finds nothing takes one read unit, and BatchGetItem one for each key. With 10, a
# batch of a hundred changes needs at most 10 Queries.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
_RUN = 10

logger = Logger(service="tally")


def read(  # noqa: PLR0913  each argument is a part of the query
    counter_id: str,
    first: int,
    last: int,
    until: float,
    limit: int = 1000,
    *,
    newest_first: bool = False,
) -> list[Entry]:
    """Return the entries of a range of versions, with one strongly consistent read.

    Args:
        counter_id: the counter.
        first: the lowest version of the range.
        last: the highest version of the range. If `last` is below `first`, the result is empty.
        until: latest time to start the read, in seconds since the epoch.
        limit: the maximum number of entries.
        newest_first: whether to begin at `last` and return the highest versions first.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    if first > last:
        return []
    reply = answered(
        until,
        lambda: dynamodb().query(
            **_range(counter_id, first, last),
            ConsistentRead=True,
            ScanIndexForward=not newest_first,
            Limit=limit,
        ),
    )
    return [_entry(item) for item in reply["Items"]]


def walk(  # noqa: PLR0913, PLR0917  each argument is a part of the query
    counter_id: str,
    order: "Order",
    first: int,
    last: int,
    limit: int,
    until: float,
    *,
    consistent: bool = False,
) -> "Iterator[Entry]":
    """Yield all entries of a range of versions.

    Args:
        counter_id: the counter.
        order: `asc` to begin at `first`, `desc` to begin at `last`.
        first: the lowest version of the range.
        last: the highest version of the range.
        limit: the maximum number of entries that one read returns.
        until: latest time to start a read, in seconds since the epoch.
        consistent: whether the reads are strongly consistent.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    while first <= last:
        query = _range(counter_id, first, last)
        query |= {
            "ScanIndexForward": order == "asc",
            "Limit": limit,
            "ConsistentRead": consistent,
        }
        reply = answered(until, partial(dynamodb().query, **query))
        yield from map(_entry, reply["Items"])
        if "LastEvaluatedKey" not in reply:
            return
        reached = int(reply["LastEvaluatedKey"]["version"]["N"])
        first, last = (reached + 1, last) if order == "asc" else (first, reached - 1)


def pages(counter_id: str, after: int, until: float) -> "Iterator[list[tuple[str, Entry | None]]]":
    """Yield all of a counter's items above a version, in pages, with strongly consistent reads.

    Args:
        counter_id: the counter.
        after: yield only items with a higher version than `after`. If `after` is 0, yield all
            items, even items with the version 0 or a negative version.
        until: latest time to start a read, in seconds since the epoch.

    Yields:
        A page: a list with the version and the entry of each item. The version is text, as in the
        item's key. The entry is None if the item is malformed.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    query: dict[str, Any] = {
        "KeyConditionExpression": "#counter_id = :counter_id",
        "ExpressionAttributeNames": {"#counter_id": "counter_id"},
        "ExpressionAttributeValues": {":counter_id": {"S": counter_id}},
    }
    if after:
        query["KeyConditionExpression"] += " AND #version > :after"
        query["ExpressionAttributeNames"]["#version"] = "version"
        query["ExpressionAttributeValues"][":after"] = {"N": str(after)}
    while True:
        with must_answer():
            reply = answered(
                until,
                partial(
                    dynamodb().query,
                    TableName=os.environ["HISTORY_TABLE"],
                    ConsistentRead=True,
                    **query,
                ),
            )
        yield [(item["version"]["N"], _entry_or_none(item)) for item in reply["Items"]]
        if "LastEvaluatedKey" not in reply:
            return
        query["ExclusiveStartKey"] = reply["LastEvaluatedKey"]


def _entry_or_none(item: "Mapping[str, AttributeValueTypeDef]") -> Entry | None:
    """Return the entry that an item holds; None if the item is malformed."""
    try:
        entry = _entry(item)
        clock.seconds(entry.counter_created_at)
    except (KeyError, TypeError, ValueError):
        return None
    return entry


def expired(created_at: str) -> bool:
    """Return whether entries with a given time have expired: DynamoDB may delete them.

    If so, all entries with earlier times have expired, too.

    Args:
        created_at: the time (RFC 3339).
    """
    days = int(os.environ["HISTORY_DAYS"])
    return days > 0 and clock.seconds(created_at) + days * SECONDS["day"] <= clock.now()


def is_settled(created_at: str, now: float) -> bool:
    """Return whether no version below an entry can still be added to the history.

    A version can be added for as long as the stream has its record. So there are three steps:
    1. The change of the entry was made at most one apply window after `created_at` (see `clock`).
    2. All lower versions were made before the change of the entry.
    3. The stream keeps the record of each version for at most 24 hours.

    Args:
        created_at: when the attempt that made the entry's change began (RFC 3339).
        now: the current time, in seconds since the epoch.
    """
    return clock.seconds(created_at) + clock.APPLY_WINDOW + STREAM_SECONDS < now


def write(entries: "Sequence[Entry]", until: float) -> int:
    """Write entries. Writing the same entry again changes nothing.

    Args:
        entries: the entries. The list may have the same entry twice.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        The number of entries before the first entry that was not written. If all entries were
        written, the number of all entries.
    """
    # A BatchWriteItem request must not contain the same key twice.
    items: dict[tuple[str, str], tuple[int, dict[str, AttributeValueTypeDef]]] = {}
    for position, entry in enumerate(entries):
        item = _item(entry)
        items.setdefault(_key(item), (position, item))
    unique = list(items.values())
    for start in range(0, len(unique), _BATCH_SIZE):
        failed = _write([item for _, item in unique[start : start + _BATCH_SIZE]], until)
        if failed:
            return min(items[key][0] for key in failed)
    return len(entries)


def free(entries: "Sequence[Entry]", until: float) -> int | None:
    """Count the entries before the first entry that would replace the entry of a different change.

    Args:
        entries: the entries to be written.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        The number of entries before the first entry that would replace the entry of a different
        change. If there is no such entry, the number of all entries. None if DynamoDB did not
        answer in time.
    """
    versions: dict[str, set[int]] = {}
    for entry in entries:
        versions.setdefault(entry.counter_id, set()).add(entry.version)
    try:
        stored = _stored(versions, until)
    except (ClientError, UndecidedError):
        logger.exception("Could not read HistoryTable")
        return None
    # A stored item without a request id is malformed. It must not be replaced, either.
    request_ids = {_key(item): item.get("request_id", {}).get("S", "") for item in stored}
    for position, entry in enumerate(entries):
        key = entry.counter_id, str(entry.version)
        if request_ids.get(key, entry.request_id) != entry.request_id:
            return position
    return len(entries)


def add(entry: Entry, until: float) -> bool:
    """Write an entry, unless it would replace the entry of a different change.

    Args:
        entry: the entry.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        Whether the history has the entry now.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    try:
        answered(
            until,
            lambda: dynamodb().put_item(
                TableName=os.environ["HISTORY_TABLE"],
                Item=_item(entry),
                ConditionExpression="attribute_not_exists(#version) OR #request_id = :request_id",
                ExpressionAttributeNames={"#version": "version", "#request_id": "request_id"},
                ExpressionAttributeValues={":request_id": {"S": entry.request_id}},
            ),
        )
    except dynamodb().exceptions.ConditionalCheckFailedException:
        return False
    return True


def _stored(
    versions: "Mapping[str, set[int]]", until: float
) -> "list[Mapping[str, AttributeValueTypeDef]]":
    """Return keys and request ids of the stored items. Raise ClientError or UndecidedError."""
    names = {"#counter_id": "counter_id", "#version": "version", "#request_id": "request_id"}
    wanted = {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
    items: list[Mapping[str, AttributeValueTypeDef]] = []
    keys: list[dict[str, AttributeValueTypeDef]] = []
    for counter_id, each in versions.items():
        first, last = min(each), max(each)
        if len(each) >= _RUN and last - first < len(each):  # they are consecutive
            query = _range(counter_id, first, last) | wanted | {"ConsistentRead": True}
            while True:
                reply = answered(until, partial(dynamodb().query, **query))
                items += reply["Items"]
                after = reply.get("LastEvaluatedKey")
                if not after:
                    break
                query["ExclusiveStartKey"] = after
        else:
            name: AttributeValueTypeDef = {"S": counter_id}
            keys += [{"counter_id": name, "version": {"N": str(version)}} for version in each]
    for start in range(0, len(keys), _GET_SIZE):
        part = keys[start : start + _GET_SIZE]
        items += get_items(os.environ["HISTORY_TABLE"], part, until, **wanted)
    return items


def _range(counter_id: str, first: int, last: int) -> dict[str, Any]:
    """Return the parameters of a DynamoDB Query for the versions from `first` to `last`."""
    return {
        "TableName": os.environ["HISTORY_TABLE"],
        "KeyConditionExpression": "#counter_id = :counter_id AND #version BETWEEN :first AND :last",
        "ExpressionAttributeNames": {"#counter_id": "counter_id", "#version": "version"},
        "ExpressionAttributeValues": {
            ":counter_id": {"S": counter_id},
            ":first": {"N": str(first)},
            ":last": {"N": str(last)},
        },
    }


def _entry(item: "Mapping[str, AttributeValueTypeDef]") -> Entry:
    by = int(item["by"]["N"])
    return Entry(
        counter_id=item["counter_id"]["S"],
        version=int(item["version"]["N"]),
        value=int(item["value"]["N"]),
        previous_value=int(item["previous_value"]["N"]),
        by=by,
        operation=cast("Operation", item["operation"]["S"]),
        actor=item["actor"]["S"],
        request_id=item["request_id"]["S"],
        created_at=item["created_at"]["S"],
        counter_created_at=item["counter_created_at"]["S"],
        # Only the entry of a change that counts events stores `increase` and `decrease`. For any
        # other entry, compute them from `by`.
        increase=int(item["increase"]["N"]) if "increase" in item else max(by, 0),
        decrease=int(item["decrease"]["N"]) if "decrease" in item else max(-by, 0),
        time=clock.seconds(item["created_at"]["S"]),
        events=int(item["events"]["N"]) if "events" in item else None,
        sender=item["sender"]["S"] if "sender" in item else None,
    )


def _item(entry: Entry) -> "dict[str, AttributeValueTypeDef]":
    item: dict[str, AttributeValueTypeDef] = {
        "counter_id": {"S": entry.counter_id},
        "version": {"N": str(entry.version)},
        "value": {"N": str(entry.value)},
        "previous_value": {"N": str(entry.previous_value)},
        "by": {"N": str(entry.by)},
        "operation": {"S": entry.operation},
        "actor": {"S": entry.actor},
        "request_id": {"S": entry.request_id},
        "created_at": {"S": entry.created_at},
        "counter_created_at": {"S": entry.counter_created_at},
    }
    if entry.events is not None:
        item["events"] = {"N": str(entry.events)}
        item["increase"] = {"N": str(entry.increase)}
        item["decrease"] = {"N": str(entry.decrease)}
    if entry.sender is not None:
        item["sender"] = {"S": entry.sender}
    if days := int(os.environ["HISTORY_DAYS"]):
        expires_at = math.ceil(entry.time) + days * SECONDS["day"]
        item["expires_at"] = {"N": str(expires_at)}
    return item


def _write(
    items: "Sequence[Mapping[str, AttributeValueTypeDef]]", until: float
) -> list[tuple[str, str]]:
    """Write at most 25 items. Return the keys of the items that were not written."""
    table = os.environ["HISTORY_TABLE"]
    left: Sequence[Any] = [{"PutRequest": {"Item": item}} for item in items]
    for _ in clock.attempts(until):
        request = {table: left}
        try:
            reply = answered(
                until,
                lambda: dynamodb().batch_write_item(RequestItems=request),  # noqa: B023
            )
        except (ClientError, UndecidedError):
            logger.exception("Could not write entries to HistoryTable")
            break
        left = reply.get("UnprocessedItems", {}).get(table, [])
        if not left:
            break
    return [_key(request["PutRequest"]["Item"]) for request in left]


def _key(item: "Mapping[str, AttributeValueTypeDef]") -> tuple[str, str]:
    return item["counter_id"]["S"], item["version"]["N"]
