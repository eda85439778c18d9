"""TrendTable: the sums of a counter's changes, one item for each counter and hour.

A change belongs to the hour of its `created_at`. Each item stores the highest version that the item
includes. A write adds only changes with higher versions to the item, and raises the stored version.
So a change that the stream delivers again is not added twice.
"""

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from counters import clock
from counters.clients import UndecidedError, answered, dynamodb, get_item, must_answer
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
    """Add changes to the sums of their hours. Adding a change again has no effect.

    If someone made the item of an hour malformed by hand, the item stays as it is. Its malformed
    sums must not keep later changes out of the history. The nightly audit reports such an item.

    Args:
        entries: the changes, in the order of the stream. The history must already contain them.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        The number of changes before the first change that must be added again. If there is no
        such change, the number of all changes.
    """
    runs: dict[tuple[str, float], list[tuple[int, Entry]]] = {}
    for position, entry in enumerate(entries):
        runs.setdefault((entry.counter_id, hour_of(entry.time)), []).append((position, entry))
    for (counter_id, hour), run in runs.items():
        if not _fold(counter_id, hour, [entry for _, entry in run], until):
            return run[0][0]
    return len(entries)


def read(counter_id: str, hour: float, until: float) -> Sums:
    """Return the sums of an hour, with a strongly consistent read.

    Args:
        counter_id: the counter.
        hour: when the hour begins, in seconds since the epoch.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The sums. If the hour has no changes, all sums are zero.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    item = get_item(os.environ["TREND_TABLE"], _key(counter_id, hour), until)
    return _sums(item) if item else Sums()


def hours(
    counter_id: str, period: Period, until: float, *, consistent: bool = False
) -> "Iterator[tuple[float, Sums]]":
    """Yield the sums of each hour that begins in a period, oldest hour first.

    Hours without changes are left out.

    Args:
        counter_id: the counter.
        period: the period.
        until: latest time to start a read, in seconds since the epoch.
        consistent: whether the reads are strongly consistent.

    Yields:
        The beginning of the hour, in seconds since the epoch, and the sums of the hour.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
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
        with must_answer():
            reply = answered(until, partial(dynamodb().query, **query))
        for item in reply["Items"]:
            yield clock.seconds(item["hour"]["S"]), _sums(item)
        if "LastEvaluatedKey" not in reply:
            return
        query["ExclusiveStartKey"] = reply["LastEvaluatedKey"]


def before(counter_id: str, hour: float, until: float) -> tuple[int, int]:
    """Return the highest version in all hours before `hour`, and the value at that version.

    Args:
        counter_id: the counter.
        hour: when the hour begins, in seconds since the epoch.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The version and the value; 0 and 0 if there are no changes before `hour`.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    with must_answer():
        # A higher version can have an earlier time (see `timeline`). So the highest version is in
        # one of the last two hours that have changes.
        items = _nearest(counter_id, "<", hour, until, limit=2)
    sums = [_sums(item) for item in items]
    return max(((each.last_version or 0, each.close) for each in sums), default=(0, 0))


def last_version(counter_id: str, until: float) -> int:
    """Return the highest version that the trend includes; 0 if it includes none.

    record_history adds a change to the trend only after all lower versions are in the history or in
    the dead-letter queue. So record_history will add no version below the returned version to the
    history.

    Raises:
        UndecidedError: if DynamoDB did not answer by `until`, in seconds since the epoch.
    """
    last = 0
    # A higher version can have an earlier time (see `timeline`). So the highest version is in one
    # of the last two hours that have changes.
    for item in _nearest(counter_id, "<", clock.now() + HOUR, until, limit=2):
        with suppress(KeyError, ValueError):  # a malformed item
            last = max(last, int(item["last_version"]["N"]))
    return last


def around(counter_id: str, time: float, until: float) -> "Iterator[int]":
    """Yield two versions near a time: the last before the hour of the time, and the first after it.

    If there is no change before that hour, the first of the two versions is left out. If there is
    no change after that hour, the second is left out.

    The versions are only hints. They may have expired from the history. The history may also have
    versions that the trend does not include yet.

    Args:
        counter_id: the counter.
        time: the time, in seconds since the epoch.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    # No change is from before 1970. Times long before 1970 cannot be formatted.
    hour = max(0, hour_of(time))
    for comparison, version in (("<", "last_version"), (">", "first_version")):
        for item in _nearest(counter_id, comparison, hour, until):
            with suppress(KeyError, ValueError):  # a malformed item
                yield int(item[version]["N"])


def replace(counter_id: str, hour: float, stored: Sums, sums: Sums, until: float) -> bool:
    """Replace the stored sums of an hour, unless they have changed since they were read.

    Args:
        counter_id: the counter.
        hour: when the hour begins, in seconds since the epoch.
        stored: the stored sums, as they were read.
        sums: the new sums.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        Whether the sums were replaced.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
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
        with must_answer():
            answered(until, partial(dynamodb().put_item, **put))
    except dynamodb().exceptions.ConditionalCheckFailedException:
        return False
    return True


def hour_of(time: float) -> float:
    """Return when the hour of a time begins. Both times are in seconds since the epoch."""
    return time // HOUR * HOUR


def _fold(counter_id: str, hour: float, entries: "Sequence[Entry]", until: float) -> bool:
    """Add changes to the sums of their hour. Return whether nothing is left to do."""
    included = 0  # the item already includes all given changes up to this version
    while True:
        sums = Sums()
        for entry in entries:
            # The stream may deliver a change again after later changes. Such a change has no higher
            # version than the sums, so skip it.
            if entry.version > (sums.last_version or included):
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
            # Add the changes only if they all have higher versions than the item includes.
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
            last_version = item["last_version"].get("N", "")
            if not last_version.isdecimal():
                logger.exception("An item of TrendTable is malformed", extra={"item": item})
                return True
            included = int(last_version)
        except (ClientError, UndecidedError) as error:
            logger.exception("Could not write to TrendTable")
            return _is_invalid(error)
        else:
            return True


def _is_invalid(error: Exception) -> bool:
    """Return whether DynamoDB refused to add to an attribute that is not a number."""
    return isinstance(error, ClientError) and (
        error.response["Error"]["Code"] == "ValidationException"
    )


def _nearest(
    counter_id: str, comparison: str, hour: float, until: float, limit: int = 1
) -> "Sequence[Any]":
    """Return the items of the hours nearest to `hour`, either before `hour` or after `hour`.

    Args:
        counter_id: the counter.
        comparison: `<` for the hours before, `>` for the hours after.
        hour: when the hour begins, in seconds since the epoch.
        until: latest time to start the read, in seconds since the epoch.
        limit: the maximum number of items.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
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
