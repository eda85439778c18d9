"""TrendTable: a counter's changes added up by the hour, one item for each counter and hour.

An item remembers the last version that is folded into it, and folding is conditional on it: so no
delivery of the stream counts twice. A change belongs to the hour in which its request began.
"""

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock
from counters.clients import UndecidedError, answered, dynamodb, reading
from counters.model import SECONDS, Entry, Period, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]

HOUR = SECONDS["hour"]

_NAMES = {
    f"#{name}": name
    for name in ("changes", "increase", "decrease", "first_version", "last_version", "close")
}

_KEY_NAMES = {"#counter_id": "counter_id", "#hour": "hour"}

logger = Logger(service="tally")


def fold(entries: "Sequence[Entry]", until: float) -> int:
    """Add the changes to the sums of their hours, each once however often it comes.

    Args:
        entries: they are in the history; those of one counter are in the order of the stream.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        How many of them, from the first on, are folded: all, if nothing failed.
    """
    runs: dict[tuple[str, float], list[tuple[int, Entry]]] = {}
    for position, entry in enumerate(entries):
        runs.setdefault((entry.counter_id, hour_of(entry.time)), []).append((position, entry))
    for (counter_id, hour), run in runs.items():
        if not _fold(counter_id, hour, [entry for _, entry in run], until):
            return run[0][0]
    return len(entries)


def read(counter_id: str, hour: float, until: float) -> Sums:
    """Return the sums of an hour (a strongly consistent read); empty ones if it has none.

    Raises:
        ThrottledError: if DynamoDB did not answer by `until`, in seconds since the epoch.
    """
    with reading():
        reply = answered(
            until,
            lambda: dynamodb().get_item(
                TableName=os.environ["TREND_TABLE"],
                Key=_key(counter_id, hour),
                ConsistentRead=True,
            ),
        )
    return _sums(reply["Item"]) if "Item" in reply else Sums()


def hours(
    counter_id: str, period: Period, until: float, *, consistent: bool = False
) -> "Iterator[tuple[float, Sums]]":
    """Yield the hours that begin in the period, in seconds since the epoch, and their sums.

    Hours without a change are left out.

    Raises:
        ThrottledError: if DynamoDB did not answer by `until`, in seconds since the epoch.
    """
    query: dict[str, Any] = {
        "TableName": os.environ["TREND_TABLE"],
        "KeyConditionExpression": "#counter_id = :counter_id AND #hour BETWEEN :first AND :last",
        "ExpressionAttributeNames": _KEY_NAMES,
        "ExpressionAttributeValues": {
            ":counter_id": {"S": counter_id},
            ":first": {"S": clock.timestamp(period.start)},
            ":last": {"S": clock.timestamp(period.end - HOUR)},
        },
        "ConsistentRead": consistent,
    }
    while True:
        with reading():
            reply = answered(until, partial(dynamodb().query, **query))
        for item in reply["Items"]:
            yield clock.seconds(item["hour"]["S"]), _sums(item)
        if "LastEvaluatedKey" not in reply:
            return
        query["ExclusiveStartKey"] = reply["LastEvaluatedKey"]


def before(counter_id: str, hour: float, until: float) -> tuple[int, int]:
    """Return the last version of the hours before `hour`, and its value; 0 and 0 if there is none.

    Raises:
        ThrottledError: if DynamoDB did not answer by `until`, in seconds since the epoch.
    """
    with reading():
        # Times can go back, so the last version may be in the hour before the last.
        items = _nearest(counter_id, "<", hour, until, limit=2)
    sums = [_sums(item) for item in items]
    return max(((each.last_version or 0, each.close) for each in sums), default=(0, 0))


def last_version(counter_id: str, until: float) -> int:
    """Return the highest version that the trend includes; 0 if none.

    A change is added to the trend when everything before it is recorded or parked. So whatever is
    missing below it will not come.

    Raises:
        UndecidedError: if DynamoDB did not answer by `until`, in seconds since the epoch.
    """
    last = 0
    # Times can go back, so the last version may be in the hour before the last.
    for item in _nearest(counter_id, "<", clock.now() + HOUR, until, limit=2):
        with suppress(KeyError, ValueError):  # an item that Tally did not write
            last = max(last, int(item["last_version"]["N"]))
    return last


def around(counter_id: str, time: float, until: float) -> "Iterator[int]":
    """Yield the last version before the hour of a time, and the first after it.

    The trend keeps what has expired in the history, may be behind it, and is read eventually
    consistently.

    Raises:
        UndecidedError: if DynamoDB did not answer by `until`, in seconds since the epoch.
    """
    # No change is older than 1970, and there is no timestamp for the year 0.
    hour = max(0, hour_of(time))
    for comparison, version in (("<", "last_version"), (">", "first_version")):
        for item in _nearest(counter_id, comparison, hour, until):
            with suppress(KeyError, ValueError):  # an item that Tally did not write
                yield int(item[version]["N"])


def replace(counter_id: str, hour: float, stored: Sums, sums: Sums, until: float) -> bool:
    """Replace the stored sums of an hour; return False if they have changed in the meantime.

    Raises:
        ThrottledError: if DynamoDB did not answer by `until`, in seconds since the epoch.
    """
    values = {name.removeprefix(":"): value for name, value in _values(sums).items()}
    put: dict[str, Any] = {
        "TableName": os.environ["TREND_TABLE"],
        "Item": {**_key(counter_id, hour), **values},
        "ConditionExpression": "attribute_not_exists(#changes)",
        "ExpressionAttributeNames": {"#changes": "changes"},
    }
    if stored.changes:
        put["ConditionExpression"] = "#changes = :changes AND #last_version = :last_version"
        put["ExpressionAttributeNames"]["#last_version"] = "last_version"
        put["ExpressionAttributeValues"] = {
            ":changes": {"N": str(stored.changes)},
            ":last_version": {"N": str(stored.last_version)},
        }
    try:
        with reading():
            answered(until, partial(dynamodb().put_item, **put))
    except dynamodb().exceptions.ConditionalCheckFailedException:
        return False
    return True


def hour_of(time: float) -> float:
    """Return the beginning of the hour of a time, both in seconds since the epoch."""
    return time // HOUR * HOUR


def _fold(counter_id: str, hour: float, entries: "Sequence[Entry]", until: float) -> bool:
    """Add entries of one hour to its sums; return whether they are in."""
    folded = 0
    while True:
        sums = Sums()
        for entry in entries:
            # Each once, though it may be there again behind others.
            if entry.version > (sums.last_version or folded):
                sums.add(entry)
        if not sums.changes:
            return True
        update = partial(
            dynamodb().update_item,
            TableName=os.environ["TREND_TABLE"],
            Key=_key(counter_id, hour),
            UpdateExpression=(
                "SET #first_version = if_not_exists(#first_version, :first_version),"
                " #last_version = :last_version, #close = :close"
                " ADD #changes :changes, #increase :increase, #decrease :decrease"
            ),
            # Only if all of them are newer than what is included.
            ConditionExpression=(
                "attribute_not_exists(#last_version) OR #last_version < :first_version"
            ),
            ExpressionAttributeNames=_NAMES,
            ExpressionAttributeValues=_values(sums),
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        try:
            answered(until, update)
        except dynamodb().exceptions.ConditionalCheckFailedException as error:
            item = cast("dict[str, Any]", error.response)["Item"]
            folded = int(item["last_version"]["N"])
        except (BotoCoreError, ClientError, UndecidedError):
            logger.exception("Could not write to TrendTable")
            return False
        else:
            return True


def _nearest(
    counter_id: str, comparison: str, hour: float, until: float, limit: int = 1
) -> "Sequence[Any]":
    """Return the items of the hours nearest to `hour`, of those that compare so with it.

    Raises:
        UndecidedError: if DynamoDB did not answer by `until`, in seconds since the epoch.
    """
    query: dict[str, Any] = {
        "TableName": os.environ["TREND_TABLE"],
        "KeyConditionExpression": f"#counter_id = :counter_id AND #hour {comparison} :hour",
        "ExpressionAttributeNames": _KEY_NAMES,
        "ExpressionAttributeValues": {
            ":counter_id": {"S": counter_id},
            ":hour": {"S": clock.timestamp(hour)},
        },
        "ScanIndexForward": comparison == ">",
        "Limit": limit,
    }
    return answered(until, partial(dynamodb().query, **query))["Items"]


def _key(counter_id: str, hour: float) -> "Item":
    return {"counter_id": {"S": counter_id}, "hour": {"S": clock.timestamp(hour)}}


def _values(sums: Sums) -> "dict[str, AttributeValueTypeDef]":
    return {f":{name}": {"N": str(getattr(sums, name))} for name in _NAMES.values()}


def _sums(item: "Item") -> Sums:
    return Sums(**{name: int(item[name]["N"]) for name in _NAMES.values()})
