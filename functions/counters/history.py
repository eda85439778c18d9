"""The recorded changes in DynamoDB: one item of HistoryTable a counter and version."""

import math
import os
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock
from counters.clients import dynamodb, dynamodb_once, reading, unanswered
from counters.model import Counter, Entry, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from counters.model import Order

# The most that one BatchWriteItem takes.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
_BATCH_SIZE = 25
_BATCH_ATTEMPTS = 5

T = TypeVar("T")

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


class UndecidedError(Exception):
    """Whether a change was made cannot be told yet."""


def find(
    counter_id: str, request_id: str, began: float, last_version: int, until: float
) -> tuple[Counter | None, bool]:
    """Look for the change that the attempt `request_id` made of the counter.

    Args:
        counter_id: the counter.
        request_id: of the attempt.
        began: when the attempt began, in seconds since the epoch.
        last_version: the version that the counter has, or had a moment ago.
        until: when no read may begin any more, in seconds since the epoch.

    Returns:
        The counter as the change left it, or None; and whether that is the whole truth up to
        `last_version`: there is an entry for every version at which the change could be.

    Raises:
        UndecidedError: the time is up.
    """
    expected = first_version(counter_id, began, last_version, until)
    complete = True
    while expected <= last_version:
        entries = _between(counter_id, expected, last_version, until)
        if not entries:
            return None, False
        for entry in entries:
            if entry.request_id == request_id:
                return _counter(entry), True
            complete = complete and entry.version == expected
            # Made when the attempt could not make its change any more: so is all that follows.
            if complete and _time(entry) > began + clock.APPLY_WINDOW:
                return None, True
            expected = entry.version + 1
    return None, complete


def first_version(counter_id: str, since: float, last_version: int, until: float) -> int:
    """Return a version below which every change of the counter was made before `since`.

    Mostly it is among the newest, which is one read. Else it is found by bisection over the key: a
    number of reads that grows with the logarithm of `last_version`. The times of changes need not
    grow with their versions, but a change is applied at most the apply window behind its time; so
    whatever is below one that is older than `since` by more than that is older than `since`.
    Entries that are missing do no harm.

    Raises:
        UndecidedError: the time is up.
    """
    older, rest = 0, last_version + 1
    for entry in _between(counter_id, 1, last_version, until, limit=25, newest_first=True):
        if _is_older(entry, since):
            return entry.version + 1
        rest = entry.version
    while rest - older > 1:
        middle = (older + rest) // 2
        entries = _between(counter_id, middle, rest - 1, until, limit=1)
        if entries and _is_older(entries[0], since):
            older = entries[0].version
        else:
            rest = middle
    return older + 1


def write(entries: "Sequence[Entry]") -> int:
    """Write the entries; the same one again changes nothing.

    Returns:
        How many of them, from the first on, are written: all, if nothing failed.
    """
    # By key, because one BatchWriteItem takes a key only once; an entry may be there twice.
    items: dict[tuple[str, str], tuple[int, dict[str, AttributeValueTypeDef]]] = {}
    for position, entry in enumerate(entries):
        item = _item(entry)
        items.setdefault(_key(item), (position, item))
    unique = list(items.values())
    for start in range(0, len(unique), _BATCH_SIZE):
        failed = _write([item for _, item in unique[start : start + _BATCH_SIZE]])
        if failed:
            return min(items[key][0] for key in failed)
    return len(entries)


def _between(  # noqa: PLR0913  what to read, and until when
    counter_id: str,
    first: int,
    last: int,
    until: float,
    *,
    limit: int = 1000,
    newest_first: bool = False,
) -> list[Entry]:
    """Return the entries from the version `first` to `last`, or so many of them: one read.

    Raises:
        UndecidedError: it is past `until`.
    """
    reply = answered(
        until,
        lambda: dynamodb_once().query(
            TableName=os.environ["HISTORY_TABLE"],
            KeyConditionExpression=(
                "#counter_id = :counter_id AND #version BETWEEN :first AND :last"
            ),
            ExpressionAttributeNames={"#counter_id": "counter_id", "#version": "version"},
            ExpressionAttributeValues={
                ":counter_id": {"S": counter_id},
                ":first": {"N": str(first)},
                ":last": {"N": str(last)},
            },
            ConsistentRead=True,
            ScanIndexForward=not newest_first,
            Limit=limit,
        ),
    )
    return [_entry(item) for item in reply["Items"]]


def answered(until: float, read: "Callable[[], T]") -> "T":
    """Return what a read answers; one that the database does not answer is asked again.

    Raises:
        UndecidedError: it is past `until`.
    """
    attempt = 0
    while clock.now() < until:
        try:
            return read()
        except (BotoCoreError, ClientError) as error:
            if not unanswered(error):
                raise
            if not clock.pause(attempt, until):
                raise UndecidedError from error
            attempt += 1
    raise UndecidedError


def _is_older(entry: Entry, since: float) -> bool:
    """Return whether the entry, and so everything below it, was made before `since`."""
    return _time(entry) + clock.APPLY_WINDOW < since


def _time(entry: Entry) -> float:
    return clock.seconds(entry.created_at)


def _counter(entry: Entry) -> Counter:
    """Return the counter as the change of this entry left it."""
    return Counter(
        entry.counter_id,
        entry.value,
        entry.version,
        entry.counter_created_at,
        entry.created_at,
    )


def _entry(item: "Mapping[str, AttributeValueTypeDef]") -> Entry:
    return Entry(
        counter_id=item["counter_id"]["S"],
        version=int(item["version"]["N"]),
        value=int(item["value"]["N"]),
        previous_value=int(item["previous_value"]["N"]),
        by=int(item["by"]["N"]),
        operation=cast("Operation", item["operation"]["S"]),
        actor=item["actor"]["S"],
        request_id=item["request_id"]["S"],
        created_at=item["created_at"]["S"],
        counter_created_at=item["counter_created_at"]["S"],
    )


def _item(entry: Entry) -> "dict[str, AttributeValueTypeDef]":
    return {
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
        clock.pause(attempt, math.inf)
    return [_key(request["PutRequest"]["Item"]) for request in left]


def _key(item: "Mapping[str, AttributeValueTypeDef]") -> tuple[str, str]:
    return item["counter_id"]["S"], item["version"]["N"]
