"""The counters in DynamoDB: the only writer of CounterTable.

An item is a counter: `value`, `version`, `created_at`, `updated_at`, and `change`, what its last
change was, there so that the stream carries it to the history. `catalog` is the same for all: it
puts the counter into the index of names.
"""

import os
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from counters.clients import dynamodb, dynamodb_once, not_applied, reading, reply_lost
from counters.model import (
    MAX_INTEGER,
    MIN_INTEGER,
    BoundExceededError,
    Change,
    Counter,
    Operation,
    OutcomeUnknownError,
    ThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_CATALOG: "AttributeValueTypeDef" = {"S": "counters"}
_NAMES_INDEX = "CounterNames"


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
    return counter_of(counter_id, reply.get("Item", {}))


def increment(counter_id: str, by: int, change: Change) -> Counter:
    """Add `by` to the counter, in one write, and return where it stands after that.

    Raises:
        BoundExceededError: the value would leave the range of integers; nothing was written.
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost.
    """
    # The sum stays in range exactly if the value is on this side of a limit. One limit is enough:
    # the value is in range, and `by` moves it one way. A counter that is not there stands at 0,
    # and `by` alone is in range.
    within = "#value <= :limit" if by > 0 else "#value >= :limit"
    limit = MAX_INTEGER - by if by > 0 else MIN_INTEGER - by
    update = _update(counter_id, "increment", change, "ADD #value :by, #version :one")
    update["ConditionExpression"] = f"attribute_not_exists(#value) OR {within}"
    update["ExpressionAttributeValues"] |= {":by": _n(by), ":limit": _n(limit)}
    return _apply(counter_id, update)


def set_value(counter_id: str, value: int, change: Change) -> Counter:
    """Set the counter to `value`, in one write, and return where it stands after that.

    Raises:
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost.
    """
    update = _update(counter_id, "set", change, ", #value = :value ADD #version :one")
    update["ExpressionAttributeValues"] |= {":value": _n(value)}
    return _apply(counter_id, update)


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


def counter_of(counter_id: str, item: "Mapping[str, AttributeValueTypeDef]") -> Counter:
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
    }


def _apply(counter_id: str, update: dict[str, Any]) -> Counter:
    try:
        reply = dynamodb_once().update_item(
            # The refusal carries the item: where the counter stands needs no read of its own.
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **update,
        )
    except dynamodb_once().exceptions.ConditionalCheckFailedException as error:
        standing = counter_of(counter_id, cast("dict[str, Any]", error.response).get("Item", {}))
        detail = f"by: the result would not be from {MIN_INTEGER} to {MAX_INTEGER}"
        raise BoundExceededError(detail, standing.value) from error
    except (BotoCoreError, ClientError) as error:
        if not_applied(error):
            detail = "the database is throttling: nothing was applied"
            raise ThrottledError(detail) from error
        if reply_lost(error):
            detail = "the reply of the database was lost"
            raise OutcomeUnknownError(detail) from error
        raise
    return counter_of(counter_id, reply["Attributes"])


def _n(value: int) -> "AttributeValueTypeDef":
    return {"N": str(value)}
