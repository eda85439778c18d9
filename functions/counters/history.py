"""The recorded changes in DynamoDB: one item of HistoryTable a counter and version.

Versions grow with time, so a time is found by bisection over the key: over the changes of one hour,
as TrendTable tells where those are. They do so within limits: `created_at` is when a request began,
and requests that overlap may be applied in another order, by clocks that differ. But a change is
applied at most the apply window behind its time. So below an entry all is older than it or at most
that much younger, and above it all is younger than it or at most that much older.
"""

import itertools
import math
import os
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock
from counters.clients import UndecidedError, answered, dynamodb, dynamodb_once, reading
from counters.model import (
    MAX_INTEGER,
    SECONDS,
    Counter,
    CounterError,
    Entry,
    NotFoundError,
    Operation,
    Period,
    ThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from counters.model import Order

# The most that one BatchWriteItem takes.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
_BATCH_SIZE = 25
_BATCH_ATTEMPTS = 5

# The most that one BatchGetItem takes.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html
_GET_SIZE = 100

# So many entries are still read at once: that is one unit or two, and to bisect them is five.
_FEW = 25

_HOUR = SECONDS["hour"]
_DAY = SECONDS["day"]

logger = Logger(service="tally")


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

    The number of reads grows with the logarithm of how many changes have been made since then.

    Raises:
        UndecidedError: the time is up.
    """
    start = since - clock.APPLY_WINDOW
    return _search(counter_id, start, 1, last_version, until, _backwards(last_version))


def page(  # noqa: PLR0913, PLR0917  what a caller can ask for
    counter_id: str,
    order: "Order",
    after: int | None,
    limit: int,
    period: Period,
    until: float,
) -> tuple[list[Entry], bool]:
    """Return at most `limit` entries of the counter by version, from behind `after` in that order.

    Without a period that is one read. With one there are some more before it, however long the
    history is.

    Returns:
        The entries, those of the period only, and whether there are more.

    Raises:
        ThrottledError: the database did not answer.
    """
    first, last = 1, MAX_INTEGER
    if after is not None:
        first, last = (after + 1, last) if order == "asc" else (first, after - 1)
    found: list[Entry] = []
    with _in_time():
        if order == "asc" and period.start > -math.inf:
            start = period.start - clock.APPLY_WINDOW
            first = _boundary(counter_id, start, first, last, until)
        if order == "desc" and period.end < math.inf:
            end = period.end + clock.APPLY_WINDOW
            last = min(last, _boundary(counter_id, end, first, last, until))
        for entry in _walk(counter_id, order, first, last, limit + 1, until):
            time = _time(entry)
            if order == "asc" and time >= period.end + clock.APPLY_WINDOW:
                break
            if order == "desc" and time < period.start - clock.APPLY_WINDOW:
                break
            if period.holds(time):
                found.append(entry)
            if len(found) > limit:
                return found[:limit], True
    return found, False


def at_version(standing: Counter, version: int, until: float) -> Counter:
    """Return the counter as it was at a version.

    Args:
        standing: the counter as it is.
        version: a version of it; at 0 it was not written yet.
        until: when no read may begin any more, in seconds since the epoch.

    Raises:
        NotFoundError: it never had that version, or its history has expired.
        ThrottledError: the history does not have it yet, or the database did not answer.
    """
    if version == 0:
        return Counter(standing.counter_id)
    if version == standing.version:
        return standing
    if version > standing.version:
        detail = f"version: the counter has version {standing.version}"
        raise NotFoundError(detail)
    with _in_time():
        entries = _between(standing.counter_id, 1, version, until, limit=1, newest_first=True)
    if entries and entries[0].version == version:
        return _counter(entries[0])
    raise _missing(standing, entries)


def at_time(standing: Counter, time: float, until: float) -> Counter:
    """Return the counter as it was at a time: at the last version that is not younger.

    Args:
        standing: the counter as it is.
        time: in seconds since the epoch.
        until: when no read may begin any more, in seconds since the epoch.

    Raises:
        NotFoundError: the history of that time has expired.
        ThrottledError: the history does not have that time yet, or the database did not answer.
    """
    if standing.updated_at is None or clock.seconds(standing.updated_at) <= time:
        return standing
    counter_id, last = standing.counter_id, standing.version - 1
    if standing.created_at and time + clock.APPLY_WINDOW < clock.seconds(standing.created_at):
        return Counter(counter_id)
    with _in_time():
        # From the first that is younger for certain, down; all of them must be there.
        expected = min(last, _boundary(counter_id, time + clock.APPLY_WINDOW, 1, last, until))
        limit = 100
        while expected:
            entries = _between(counter_id, 1, expected, until, limit=limit, newest_first=True)
            limit = 1000  # so many changes within the window are a busy counter's
            for position, entry in enumerate(entries):
                if entry.version != expected:
                    raise _missing(standing, entries[position:])
                if _time(entry) <= time:
                    return _counter(entry)
                expected -= 1
            if not entries:
                raise _missing(standing, [])
    return Counter(counter_id)


def span(
    counter_id: str, period: Period, until: float, *, consistent: bool = False
) -> "Iterator[Entry]":
    """Yield the entries of a period by version, and at both ends some that are outside of it.

    If there is an entry before the period, one is the first; if there is one behind, one is the
    last. So, unless there is no history at all, the value before the period can be told.

    Raises:
        ThrottledError: the database did not answer, or not in time.
    """
    with _in_time():
        start = period.start - clock.APPLY_WINDOW
        first = max(1, _boundary(counter_id, start, 1, MAX_INTEGER, until) - 1)
        for entry in _walk(
            counter_id, "asc", first, MAX_INTEGER, 1000, until, consistent=consistent
        ):
            yield entry
            if _time(entry) >= period.end + clock.APPLY_WINDOW:
                return


def pages(counter_id: str, after: int) -> "Iterator[list[tuple[str, Entry | None]]]":
    """Yield every entry behind a version, as many at a time as the database gives.

    Args:
        counter_id: the counter.
        after: a version; 0 for all there is, even what the service would not have written.

    Yields:
        Of each its version, as it is stored, and the entry; None for what is none of the service's.

    Raises:
        ThrottledError: the database did not answer.
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
        with reading():
            reply = dynamodb().query(
                TableName=os.environ["HISTORY_TABLE"], ConsistentRead=True, **query
            )
        yield [(item["version"]["N"], _readable(item)) for item in reply["Items"]]
        if "LastEvaluatedKey" not in reply:
            return
        query["ExclusiveStartKey"] = reply["LastEvaluatedKey"]


def _readable(item: "Mapping[str, AttributeValueTypeDef]") -> Entry | None:
    """Return the entry that an item is; None if it is none."""
    try:
        entry = _entry(item)
        clock.seconds(entry.created_at)
        clock.seconds(entry.counter_created_at)
    except (KeyError, TypeError, ValueError):
        return None
    return entry


def _missing(standing: Counter, below: "Sequence[Entry]") -> CounterError:
    """Return the error of an entry that is not there; `below` begins with the one before it."""
    earliest = below[0].created_at if below else standing.created_at
    if earliest and expired(earliest):
        return NotFoundError("the history of that time has expired")
    return ThrottledError("the history does not have that change yet")


def expired(created_at: str) -> bool:
    """Return whether what was made then (RFC 3339), and so what is older, need not be there."""
    days = int(os.environ["HISTORY_DAYS"])
    return days > 0 and clock.seconds(created_at) + days * _DAY <= clock.now()


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


def free(entries: "Sequence[Entry]") -> int | None:
    """Return how many of the entries, from the first on, have a place that no other change has.

    Returns:
        All, if they are new or there already; None if the table does not answer.
    """
    there: dict[tuple[str, str], str] = {}
    places = [(entry.counter_id, str(entry.version)) for entry in entries]
    keys = [
        {"counter_id": {"S": counter_id}, "version": {"N": version}}
        for counter_id, version in set(places)
    ]
    for start in range(0, len(keys), _GET_SIZE):
        items = _get(keys[start : start + _GET_SIZE])
        if items is None:
            return None
        for item in items:
            # What is none of the service's has a place, too.
            there[_key(item)] = item.get("request_id", {}).get("S", "")
    for position, (place, entry) in enumerate(zip(places, entries, strict=True)):
        if there.get(place, entry.request_id) != entry.request_id:
            return position
    return len(entries)


def add(entry: Entry) -> bool:
    """Write an entry, unless another change has its place; return whether it is there."""
    try:
        dynamodb().put_item(
            TableName=os.environ["HISTORY_TABLE"],
            Item=_item(entry),
            ConditionExpression="attribute_not_exists(#version) OR #request_id = :request_id",
            ExpressionAttributeNames={"#version": "version", "#request_id": "request_id"},
            ExpressionAttributeValues={":request_id": {"S": entry.request_id}},
        )
    except dynamodb().exceptions.ConditionalCheckFailedException:
        return False
    return True


def _boundary(counter_id: str, time: float, first: int, last: int, until: float) -> int:
    """Return what `_search` finds, however long the history is: TrendTable tells the hour.

    Raises:
        UndecidedError: the time is up.
    """
    return _search(counter_id, time, first, last, until, _around(counter_id, time, until))


def _search(  # noqa: PLR0913, PLR0917  what to find, and until when
    counter_id: str, time: float, first: int, last: int, until: float, guesses: "Iterable[int]"
) -> int:
    """Return a version, from `first` on, where the entries begin that are not older than `time`.

    The one before it is older, or there is none. Mostly it is `first` itself, or among the newest,
    which is one read or two. Else the versions `guesses` are looked at, and what they leave is
    bisected. They make it shorter if they are near, and the entries alone decide: so they may be
    wrong, and entries may be missing.

    Raises:
        UndecidedError: the time is up.
    """
    older, rest = first - 1, first
    if first > 1:  # a page goes on, and mostly in the midst of its period
        for entry in _between(counter_id, first, last, until, limit=1):
            if _time(entry) >= time:
                return first
            older = entry.version
    for entry in _between(counter_id, older + 1, last, until, limit=_FEW, newest_first=True):
        if _time(entry) < time:
            return entry.version + 1
        rest = entry.version
    # Whatever is left to guess, the history may begin behind `time`: the rest has expired.
    probes = itertools.chain(guesses, [first])
    while rest - older > _FEW:
        within = (version for version in probes if older < version < rest)
        middle = next(within, (older + rest) // 2)
        entries = _between(counter_id, middle, rest - 1, until, limit=1)
        if entries and _time(entries[0]) < time:
            older = entries[0].version
        else:
            rest = middle
    for entry in _between(counter_id, older + 1, rest - 1, until, limit=_FEW, newest_first=True):
        if _time(entry) < time:
            return entry.version + 1
    return older + 1


def _backwards(last: int) -> "Iterator[int]":
    """Yield versions before `last`, each twice as far from it as the one before."""
    distance = 2 * _FEW
    while distance < last:
        yield last - distance
        distance *= 2


def _around(counter_id: str, time: float, until: float) -> "Iterator[int]":
    """Yield the last version before the hour of a time, and the first behind it, by TrendTable.

    That keeps what has expired, may be behind the history, and is not read consistently.

    Raises:
        UndecidedError: it is past `until`.
    """
    # Nothing is counted before 1970, and the year 0 could not be written.
    hour = clock.timestamp(max(0, time // _HOUR * _HOUR))
    for comparison, version in (("<", "last_version"), (">", "first_version")):
        query: dict[str, Any] = {
            "TableName": os.environ["TREND_TABLE"],
            "KeyConditionExpression": f"#counter_id = :counter_id AND #hour {comparison} :hour",
            "ExpressionAttributeNames": {"#counter_id": "counter_id", "#hour": "hour"},
            "ExpressionAttributeValues": {":counter_id": {"S": counter_id}, ":hour": {"S": hour}},
            "ScanIndexForward": comparison == ">",
            "Limit": 1,
        }
        reply = answered(until, partial(dynamodb_once().query, **query))
        for item in reply["Items"]:
            with suppress(KeyError, ValueError):  # of an item that is none of the service's
                yield int(item[version]["N"])


def _walk(  # noqa: PLR0913, PLR0917  what to read, and until when
    counter_id: str,
    order: "Order",
    first: int,
    last: int,
    limit: int,
    until: float,
    *,
    consistent: bool = False,
) -> "Iterator[Entry]":
    """Yield the entries from the version `first` to `last`, reading `limit` at a time.

    Raises:
        ThrottledError: the database did not answer.
        UndecidedError: it is past `until`.
    """
    while first <= last:
        if clock.now() > until:
            raise UndecidedError
        with reading():
            reply = dynamodb().query(
                **_range(counter_id, first, last),
                ScanIndexForward=order == "asc",
                Limit=limit,
                ConsistentRead=consistent,
            )
        yield from map(_entry, reply["Items"])
        if "LastEvaluatedKey" not in reply:
            return
        reached = int(reply["LastEvaluatedKey"]["version"]["N"])
        first, last = (reached + 1, last) if order == "asc" else (first, reached - 1)


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
    if first > last:
        return []
    reply = answered(
        until,
        lambda: dynamodb_once().query(
            **_range(counter_id, first, last),
            ConsistentRead=True,
            ScanIndexForward=not newest_first,
            Limit=limit,
        ),
    )
    return [_entry(item) for item in reply["Items"]]


def _range(counter_id: str, first: int, last: int) -> dict[str, Any]:
    """Return what a Query for the versions from `first` to `last` asks."""
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


@contextmanager
def _in_time() -> "Iterator[None]":
    """Wrap reads that the caller may ask for again.

    Raises:
        ThrottledError: the time was up before all were answered.
    """
    try:
        yield
    except UndecidedError as error:
        detail = "the database does not answer in time"
        raise ThrottledError(detail) from error


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
        events=int(item["events"]["N"]) if "events" in item else None,
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
    if days := int(os.environ["HISTORY_DAYS"]):
        expires_at = math.ceil(clock.seconds(entry.created_at)) + days * _DAY
        item["expires_at"] = {"N": str(expires_at)}
    return item


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


def _get(keys: "Sequence[Any]") -> "Sequence[Mapping[str, AttributeValueTypeDef]] | None":
    """Return the keys and request ids of those items that are there; None if that is not to be had.

    The read is strongly consistent.
    """
    table = os.environ["HISTORY_TABLE"]
    items: list[Mapping[str, AttributeValueTypeDef]] = []
    names = {"#counter_id": "counter_id", "#version": "version", "#request_id": "request_id"}
    for attempt in range(_BATCH_ATTEMPTS):
        try:
            reply = dynamodb().batch_get_item(
                RequestItems={
                    table: {
                        "Keys": keys,
                        "ConsistentRead": True,
                        "ProjectionExpression": ", ".join(names),
                        "ExpressionAttributeNames": names,
                    }
                }
            )
        except (BotoCoreError, ClientError):
            logger.exception("HistoryTable does not answer")
            break
        items += reply["Responses"][table]
        left = reply["UnprocessedKeys"].get(table)
        if not left:
            return items
        keys = left["Keys"]
        clock.pause(attempt, math.inf)
    return None


def _key(item: "Mapping[str, AttributeValueTypeDef]") -> tuple[str, str]:
    return item["counter_id"]["S"], item["version"]["N"]
