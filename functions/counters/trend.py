"""A counter's changes added up by the hour in DynamoDB: one item of TrendTable a counter and hour.

An item remembers the last version that is folded into it, and folding is conditional on it: so no
delivery of the stream counts twice. A change belongs to the hour in which its request began.
"""

import os
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, history, timeline
from counters.clients import UndecidedError, answered, dynamodb, reading
from counters.errors import NotFoundError, ThrottledError
from counters.model import SECONDS, Bucket, Entry, Period, Sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from counters.model import Interval

    Item = Mapping[str, AttributeValueTypeDef]

HOUR = SECONDS["hour"]

_REBUILD_ATTEMPTS = 5
_NAMES = {
    f"#{name}": name
    for name in ("changes", "increase", "decrease", "first_version", "last_version", "close")
}

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
        runs.setdefault((entry.counter_id, hour_of(entry.created_at)), []).append((position, entry))
    for (counter_id, hour), run in runs.items():
        if not _fold(counter_id, hour, [entry for _, entry in run], until):
            return run[0][0]
    return len(entries)


def buckets(counter_id: str, interval: "Interval", period: Period, until: float) -> list[Bucket]:
    """Return the changes of a period, added up by interval, oldest first.

    Args:
        counter_id: the counter.
        interval: what a bucket spans; minutes come from the history, the others from TrendTable.
        period: from the beginning of a bucket to the end of one.
        until: when no read may begin any more, in seconds since the epoch.

    Raises:
        NotFoundError: the history of the minutes has expired.
        ThrottledError: the database did not answer, or not in time.
    """
    step = SECONDS[interval]
    found: dict[float, Sums] = {}
    parts: Iterable[tuple[float, Sums]]
    if interval == "minute":
        closed, parts = _minutes(counter_id, period, until)
    else:
        closed = _before(counter_id, period.start, until)
        parts = hours(counter_id, period, until)
    for start, sums in parts:
        found.setdefault(start // step * step, Sums()).merge(sums)
    given = []
    start = period.start
    while start < period.end:
        sums = found.get(start, Sums())
        # Of two changes at the turn of a bucket the later version may be in the earlier one.
        closed = max(closed, (sums.last_version or 0, sums.close))
        given.append(
            Bucket(
                clock.timestamp(start),
                sums.changes,
                sums.increase,
                sums.decrease,
                sums.first_version,
                sums.last_version,
                closed[1],
            )
        )
        start += step
    return given


def hours(
    counter_id: str, period: Period, until: float, *, consistent: bool = False
) -> "Iterator[tuple[float, Sums]]":
    """Yield the hours that begin in the period, in seconds since the epoch, and their sums.

    Hours without a change are left out.

    Raises:
        ThrottledError: the database did not answer by `until`, in seconds since the epoch.
    """
    last = period.end - HOUR
    query: dict[str, Any] = {
        "KeyConditionExpression": "#counter_id = :counter_id AND #hour BETWEEN :first AND :last",
        "ExpressionAttributeValues": {
            ":counter_id": {"S": counter_id},
            ":first": {"S": clock.timestamp(period.start)},
            ":last": {"S": clock.timestamp(last)},
        },
        "ConsistentRead": consistent,
    }
    while True:
        reply = _query(query, until)
        for item in reply["Items"]:
            yield clock.seconds(item["hour"]["S"]), _sums(item)
        if "LastEvaluatedKey" not in reply:
            return
        query["ExclusiveStartKey"] = reply["LastEvaluatedKey"]


def rebuild(entry: Entry, until: float) -> None:
    """Add up an hour again from the history, because an entry came late, after younger ones.

    Args:
        entry: the entry, which is in the history.
        until: when no read may begin any more, in seconds since the epoch.

    Raises:
        NotFoundError: the history of that hour has expired.
        ThrottledError: the hour is being added to all the time, or the database did not answer.
    """
    hour = hour_of(entry.created_at)
    if history.expired(clock.timestamp(hour - clock.APPLY_WINDOW)):
        detail = "the history of that hour has expired"
        raise NotFoundError(detail)
    key: Item = {
        "counter_id": {"S": entry.counter_id},
        "hour": {"S": clock.timestamp(hour)},
    }
    for attempt in range(_REBUILD_ATTEMPTS):
        with reading():
            item = answered(
                until,
                lambda: dynamodb().get_item(
                    TableName=os.environ["TREND_TABLE"], Key=key, ConsistentRead=True
                ),
            ).get("Item")
        stored = _sums(item) if item else Sums()
        # What is above the last folded version will be folded, or is being so.
        last = max(stored.last_version or 0, entry.version)
        sums = Sums()
        period = Period(hour, hour + HOUR)
        for each in timeline.whole_span(entry.counter_id, period, until):
            if each.version <= last and hour_of(each.created_at) == hour:
                sums.add(each)
        if sums == stored or _replace(key, stored, sums, until):
            return
        clock.pause(attempt, until)
    detail = "the hour is being added to all the time"
    raise ThrottledError(detail)


def hour_of(created_at: str) -> float:
    """Return the beginning of the hour of a time (RFC 3339), in seconds since the epoch."""
    return clock.seconds(created_at) // HOUR * HOUR


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
            Key={"counter_id": {"S": counter_id}, "hour": {"S": clock.timestamp(hour)}},
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


def _replace(key: "Item", stored: Sums, sums: Sums, until: float) -> bool:
    """Replace the stored sums; return False if they have changed in the meantime.

    Raises:
        ThrottledError: the database did not answer in time.
    """
    put: dict[str, Any] = {
        "TableName": os.environ["TREND_TABLE"],
        "Item": {**key, **{name.removeprefix(":"): n for name, n in _values(sums).items()}},
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


def _minutes(
    counter_id: str, period: Period, until: float
) -> "tuple[tuple[int, int], list[tuple[float, Sums]]]":
    """Return what was before the period, as `_before`, and the sums of its minutes."""
    if history.expired(clock.timestamp(period.start)):
        # `interval` is named because it is given: only minutes lead here.
        detail = "interval: the minutes of that time have expired; hours and days are still there"
        raise NotFoundError(detail)
    minutes: dict[float, Sums] = {}
    before: tuple[int, int] | None = None
    for entry in timeline.span(counter_id, period, until):
        before = before or (entry.version - 1, entry.previous_value)
        time = clock.seconds(entry.created_at)
        if time < period.start:
            before = max(before, (entry.version, entry.value))
        elif time < period.end:
            minutes.setdefault(time // 60 * 60, Sums()).add(entry)
    # Without any entry, take the value before this hour from the trend. The hour itself may include
    # later changes.
    hour = period.start // HOUR * HOUR
    return before or _before(counter_id, hour, until), list(minutes.items())


def _before(counter_id: str, time: float, until: float) -> tuple[int, int]:
    """Return the last version of the hours before `time`, and its value; 0 and 0 if none is."""
    reply = _query(
        {
            "KeyConditionExpression": "#counter_id = :counter_id AND #hour < :hour",
            "ExpressionAttributeValues": {
                ":counter_id": {"S": counter_id},
                ":hour": {"S": clock.timestamp(time)},
            },
            "ScanIndexForward": False,
            "Limit": 2,  # the last version may be in the hour before the last
        },
        until,
    )
    sums = [_sums(item) for item in reply["Items"]]
    return max(((each.last_version or 0, each.close) for each in sums), default=(0, 0))


def _query(query: dict[str, Any], until: float) -> Any:  # noqa: ANN401
    """Return the reply to a Query of TrendTable."""
    with reading():
        return answered(
            until,
            partial(
                dynamodb().query,
                TableName=os.environ["TREND_TABLE"],
                ExpressionAttributeNames={"#counter_id": "counter_id", "#hour": "hour"},
                **query,
            ),
        )


def _values(sums: Sums) -> "dict[str, AttributeValueTypeDef]":
    return {f":{name}": {"N": str(getattr(sums, name))} for name in _NAMES.values()}


def _sums(item: "Item") -> Sums:
    return Sums(**{name: int(item[name]["N"]) for name in _NAMES.values()})
