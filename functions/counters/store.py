"""The counters in DynamoDB: the only writer of CounterTable.

An item is a counter: `value`, `version`, `created_at`, `updated_at`, and `change`, what its last
change was, there so that the stream carries it to the history. `catalog` is the same for all: it
puts the counter into the index of names.
"""

import os
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, history
from counters.clients import (
    answered_500,
    dynamodb,
    dynamodb_once,
    not_applied,
    reading,
    reply_lost,
)
from counters.history import UndecidedError
from counters.model import (
    BoundExceededError,
    Bounds,
    Change,
    Counter,
    Operation,
    OutcomeUnknownError,
    ThrottledError,
    VersionMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]

_CATALOG: "AttributeValueTypeDef" = {"S": "counters"}
_NAMES_INDEX = "CounterNames"
_SCAN_SIZE = 1000  # counters


class _RefusedError(Exception):
    """The condition of a change does not hold."""

    def __init__(self, standing: Counter) -> None:
        """Take where the counter stands."""
        super().__init__()
        self.standing = standing


def get(counter_id: str) -> Counter:
    """Return where the counter stands now (a strongly consistent read).

    Raises:
        ThrottledError: the database did not answer.
    """
    with reading():
        reply = dynamodb().get_item(
            TableName=os.environ["COUNTER_TABLE"],
            Key={"counter_id": {"S": counter_id}},
            ConsistentRead=True,
        )
    return _counter(counter_id, reply.get("Item", {}))


def increment(counter_id: str, by: int, bounds: Bounds, change: Change) -> Counter:
    """Add `by` to the counter, in one write, and return it as that write left it.

    Raises:
        BoundExceededError: the value would leave the bounds; nothing was written.
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost, and what became of the change cannot be told.
    """
    update = _update(counter_id, "increment", change, "ADD #value :by, #version :one")
    update["ExpressionAttributeValues"] |= {
        ":by": _n(by),
        # The sum is within the bounds exactly if the value is within these.
        ":low": _n(bounds.low - by),
        ":high": _n(bounds.high - by),
    }
    update["ConditionExpression"] = "#value BETWEEN :low AND :high"
    if bounds.hold(by):  # a counter that is not there stands at 0
        update["ConditionExpression"] += " OR attribute_not_exists(#value)"
    try:
        return _apply(counter_id, update, change)
    except _RefusedError as refused:
        raise BoundExceededError(bounds, refused.standing) from refused


def set_value(counter_id: str, value: int, expected: int | None, change: Change) -> Counter:
    """Set the counter to `value`, in one write, and return it as that write left it.

    Args:
        counter_id: the counter.
        value: its new value.
        expected: the version that it must have (0: it must not be there); None if any will do.
        change: who sets it.

    Raises:
        VersionMismatchError: it has another version; nothing was written.
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost, and what became of the change cannot be told.
    """
    update = _update(counter_id, "set", change, ", #value = :value ADD #version :one")
    update["ExpressionAttributeValues"] |= {":value": _n(value)}
    if expected == 0:
        update["ConditionExpression"] = "attribute_not_exists(#version)"
    elif expected is not None:
        update["ExpressionAttributeValues"] |= {":expected": _n(expected)}
        update["ConditionExpression"] = "#version = :expected"
    try:
        return _apply(counter_id, update, change)
    except _RefusedError as refused:
        raise VersionMismatchError(expected or 0, refused.standing) from refused


def find(
    counter_id: str, request_id: str, at: str, *, until: float, under_way: bool = True
) -> Counter | None:
    """Find out what became of the attempt `request_id` to change the counter.

    Args:
        counter_id: the counter.
        request_id: of the attempt.
        at: when it began (RFC 3339).
        until: when no read may begin any more, in seconds since the epoch.
        under_way: whether the change may be made even now, if it is within the apply window.

    Returns:
        The counter as that change left it; None if the change was not made and never will be.

    Raises:
        UndecidedError: that cannot be told yet, or the time is up.
    """
    began = clock.seconds(at)
    # Before the read: what the read does not show can only have been made after it.
    over = not under_way or clock.now() > began + clock.APPLY_WINDOW
    reply = history.answered(
        until,
        lambda: dynamodb_once().get_item(
            TableName=os.environ["COUNTER_TABLE"],
            Key={"counter_id": {"S": counter_id}},
            ConsistentRead=True,
        ),
    )
    item = reply.get("Item", {})
    standing = _counter(counter_id, item)
    if item and item["change"]["M"]["request_id"]["S"] == request_id:
        return standing
    found, complete = None, standing.version == 0
    # Changes are applied within the window behind their time: one so old was the last before.
    if item and clock.seconds(item["updated_at"]["S"]) + clock.APPLY_WINDOW < began:
        complete = True
    if not complete:
        found, complete = history.find(counter_id, request_id, began, standing.version, until)
    if found:
        return found
    if complete and over:
        return None
    raise UndecidedError


def list_names(prefix: str, after: str, limit: int) -> tuple[list[str], bool]:
    """Return the first `limit` names that begin with `prefix` and come after `after`, in order.

    Names are ordered by their UTF-8 bytes. A counter that was just made may be missing for a
    moment: the index follows the table.

    Returns:
        The names, and whether there are more.

    Raises:
        ThrottledError: the database did not answer.
    """
    condition = "#catalog = :catalog"
    names = {"#catalog": "catalog"}
    values: dict[str, AttributeValueTypeDef] = {":catalog": _CATALOG}
    if prefix or after:
        # A key condition takes one comparison of the sort key, so both become a range. The least
        # name behind `after` is `after` and the least character of a name, "-"; "~" is above all.
        first = max(prefix, f"{after}-" if after else "")
        last = f"{prefix}~"
        if first > last:
            return [], False
        condition += " AND #counter_id BETWEEN :first AND :last"
        names["#counter_id"] = "counter_id"
        values |= {":first": {"S": first}, ":last": {"S": last}}
    with reading():
        reply = dynamodb().query(
            TableName=os.environ["COUNTER_TABLE"],
            IndexName=_NAMES_INDEX,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            Limit=limit + 1,  # the one too many tells whether there are more
        )
    found = [item["counter_id"]["S"] for item in reply["Items"]]
    return found[:limit], len(found) > limit or "LastEvaluatedKey" in reply


def changed_since(updated_at: str, after: str) -> tuple[list[str], str | None]:
    """Return the names of counters that have changed since a time, some at once.

    Args:
        updated_at: that time (RFC 3339).
        after: how far the last call came; empty for the first.

    Returns:
        The names, in no order, and how far this call came; None if it came to the end.

    Raises:
        ThrottledError: the database did not answer.
    """
    scan: dict[str, Any] = {"ExclusiveStartKey": {"counter_id": {"S": after}}} if after else {}
    with reading():
        reply = dynamodb().scan(
            TableName=os.environ["COUNTER_TABLE"],
            FilterExpression="#updated_at >= :updated_at",
            ProjectionExpression="#counter_id",
            ExpressionAttributeNames={"#counter_id": "counter_id", "#updated_at": "updated_at"},
            ExpressionAttributeValues={":updated_at": {"S": updated_at}},
            Limit=_SCAN_SIZE,
            **scan,
        )
    reached = reply.get("LastEvaluatedKey")
    names = [item["counter_id"]["S"] for item in reply["Items"]]
    return names, reached["counter_id"]["S"] if reached else None


def _counter(counter_id: str, item: "Item") -> Counter:
    """Return the counter that an item of CounterTable holds; an empty item is one never written."""
    if not item:
        return Counter(counter_id)
    return Counter(
        counter_id,
        int(item["value"]["N"]),
        int(item["version"]["N"]),
        item["created_at"]["S"],
        item["updated_at"]["S"],
    )


def _update(
    counter_id: str, operation: Operation, change: Change, expression: str
) -> dict[str, Any]:
    """Return the UpdateItem of a change: what every change writes, then `expression`."""
    return {
        "TableName": os.environ["COUNTER_TABLE"],
        "Key": {"counter_id": {"S": counter_id}},
        "UpdateExpression": (
            "SET #catalog = :catalog, #created_at = if_not_exists(#created_at, :at),"
            f" #updated_at = :at, #change = :change {expression}"
        ),
        "ExpressionAttributeNames": {
            "#catalog": "catalog",
            "#change": "change",
            "#created_at": "created_at",
            "#updated_at": "updated_at",
            "#value": "value",
            "#version": "version",
        },
        "ExpressionAttributeValues": {
            ":catalog": _CATALOG,
            ":one": _n(1),
            ":at": {"S": change.at},
            ":change": {
                "M": {
                    "operation": {"S": operation},
                    "actor": {"S": change.actor},
                    "request_id": {"S": change.request_id},
                    "at": {"S": change.at},
                }
            },
        },
        "ReturnValues": "ALL_NEW",
        # The refusal carries the item: where the counter stands needs no read of its own.
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _apply(counter_id: str, update: dict[str, Any], change: Change) -> Counter:
    """Make the change once, whatever replies are lost, and return the counter as it left it.

    Only an attempt that certainly changed nothing, and never will, is followed by another.

    Raises:
        _RefusedError: its condition does not hold.
        ThrottledError: no attempt came through, and nothing was written.
        OutcomeUnknownError: what became of an attempt cannot be told in time.
    """
    detail = "the database takes no more at the moment: nothing was applied"
    if clock.now() >= change.until:
        raise ThrottledError(detail)
    attempt = 0
    while True:
        try:
            reply = dynamodb_once().update_item(**update)
        except dynamodb_once().exceptions.ConditionalCheckFailedException as error:
            item = cast("dict[str, Any]", error.response).get("Item", {})
            raise _RefusedError(_counter(counter_id, item)) from error
        except (BotoCoreError, ClientError) as error:
            if reply_lost(error):
                counter = _read_back(counter_id, change, under_way=not answered_500(error))
                if counter:
                    return counter
            elif not not_applied(error):
                raise
            if not clock.pause(attempt, change.until):
                raise ThrottledError(detail) from error
            attempt += 1
        else:
            return _counter(counter_id, reply["Attributes"])


def _read_back(counter_id: str, change: Change, *, under_way: bool) -> Counter | None:
    """Return what the attempt whose reply was lost made of the counter; None if it made nothing.

    Raises:
        OutcomeUnknownError: that cannot be told in time.
    """
    attempt = 0
    while True:
        try:
            return find(
                counter_id,
                change.request_id,
                change.at,
                until=change.until,
                under_way=under_way,
            )
        except UndecidedError as error:
            if not clock.pause(attempt, change.until):
                detail = (
                    "the reply of the database was lost, and whether the change was applied cannot"
                    " be told; repeat it with an Idempotency-Key"
                )
                raise OutcomeUnknownError(detail) from error
            attempt += 1


def _n(value: int) -> "AttributeValueTypeDef":
    return {"N": str(value)}
