"""The counters in DynamoDB: CounterTable, its items, and each write to it, sent once.

An item is a counter: `value`, `version`, `created_at`, `updated_at`, and `change`, a description of
its last change, which the stream carries to the history. `catalog` is the same for all counters: it
puts them into the index of names. `sequence_numbers` is described in `folding`.
"""

import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from counters.clients import answered, cancellation_reasons, dynamodb, get_items, reading
from counters.model import Change, Condition, Counter, Increment, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]

_CATALOG: "AttributeValueTypeDef" = {"S": "counters"}
_NAMES_INDEX = "CounterNames"
_SCAN_SIZE = 1000  # counters


class Standing(NamedTuple):
    """A counter as it is, and the `request_id` of its last change; None if it was never written."""

    counter: Counter
    request_id: str | None


class RefusedError(Exception):
    """The condition of a write does not hold."""

    def __init__(self, item: "Item", position: int = 0) -> None:
        """Take the item, empty if there is none, and the position of the write."""
        super().__init__()
        self.item = item
        self.position = position


def get(counter_id: str, until: float) -> Counter:
    """Return the counter as it is now (a strongly consistent read).

    Args:
        counter_id: the counter.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        ThrottledError: the database did not answer in time.
    """
    return read(counter_id, until).counter


def read(counter_id: str, until: float) -> Standing:
    """Return the counter as it is now, and its last change, as `get` does.

    Raises:
        ThrottledError: the database did not answer in time.
    """
    with reading():
        reply = answered(
            until,
            lambda: dynamodb().get_item(
                TableName=os.environ["COUNTER_TABLE"],
                Key={"counter_id": {"S": counter_id}},
                ConsistentRead=True,
            ),
        )
    return _standing(counter_id, reply.get("Item", {}))


def read_all(counter_ids: "Sequence[str]", until: float) -> dict[str, Standing]:
    """Return at most 100 counters as they are now, by name (strongly consistent reads).

    Raises:
        UndecidedError: the database did not answer in time.
    """
    keys = [{"counter_id": {"S": counter_id}} for counter_id in counter_ids]
    items = get_items(os.environ["COUNTER_TABLE"], keys, until)
    found = {item["counter_id"]["S"]: item for item in items}
    return {name: _standing(name, found.get(name, {})) for name in counter_ids}


def increment(asked: Increment, change: Change, more: str = "") -> dict[str, Any]:
    """Return the UpdateItem that adds to a counter if the result is within the bounds.

    It also sets what `more` says, which begins with a comma.
    """
    counter_id, by, bounds = asked.counter_id, asked.by, asked.bounds
    update = _update(counter_id, "increment", change, f"{more} ADD #value :by, #version :one")
    update["ExpressionAttributeValues"] |= {
        ":by": _n(by),
        # The sum is within the bounds exactly if the value is within these.
        ":low": _n(bounds.low - by),
        ":high": _n(bounds.high - by),
    }
    update["ConditionExpression"] = "#value BETWEEN :low AND :high"
    if bounds.hold(by):  # a counter that does not exist has value 0
        update["ConditionExpression"] += " OR attribute_not_exists(#value)"
    return update


def set_value(
    counter_id: str, value: int, condition: Condition | None, change: Change
) -> dict[str, Any]:
    """Return the UpdateItem that sets a counter, if the condition holds.

    Args:
        counter_id: the counter.
        value: its new value.
        condition: what the counter must be like; None to set it in any case.
        change: who sets it.
    """
    update = _update(counter_id, "set", change, ", #value = :value ADD #version :one")
    update["ExpressionAttributeValues"] |= {":value": _n(value)}
    if condition is not None:
        versions = condition.versions
        expected = {f":expected{each}": _n(each) for each in versions or () if each}
        alternatives = []
        if versions is None:
            alternatives.append("attribute_exists(#version)")
        elif 0 in versions:
            alternatives.append("attribute_not_exists(#version)")
        if expected:
            alternatives.append(f"#version IN ({', '.join(expected)})")
        update["ExpressionAttributeValues"] |= expected
        update["ConditionExpression"] = " OR ".join(alternatives)
    return update


def send(update: dict[str, Any]) -> Counter:
    """Send the UpdateItem of a change, once, and return the counter as it left it.

    Raises:
        RefusedError: its condition does not hold.
        BotoCoreError: as botocore raises it; `clients` tells what that means for the change.
        ClientError: likewise.
    """
    reply = write({**update, "ReturnValues": "ALL_NEW"})
    return counter(update["Key"]["counter_id"]["S"], reply["Attributes"])


def write(update: dict[str, Any]) -> dict[str, Any]:
    """Send an UpdateItem, once, and return the reply.

    Raises:
        RefusedError: its condition does not hold.
        BotoCoreError: as for `send`.
        ClientError: likewise.
    """
    try:
        return cast("dict[str, Any]", dynamodb().update_item(**update))
    except dynamodb().exceptions.ConditionalCheckFailedException as error:
        raise RefusedError(cast("dict[str, Any]", error.response).get("Item", {})) from error


def transact(updates: "Sequence[dict[str, Any]]", token: str) -> None:
    """Send UpdateItems, once, as one transaction. The reply does not say what they made.

    DynamoDB applies a transaction with the same token, of up to 36 characters, only once in ten
    minutes, even if it completes an earlier one after an error.
    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html

    Raises:
        RefusedError: the condition of one does not hold.
        BotoCoreError: as for `send`.
        ClientError: likewise.
    """
    try:
        dynamodb().transact_write_items(
            TransactItems=[{"Update": cast("Any", update)} for update in updates],
            ClientRequestToken=token,
        )
    except dynamodb().exceptions.TransactionCanceledException as error:
        for position, reason in enumerate(cancellation_reasons(error)):
            if reason["Code"] == "ConditionalCheckFailed":
                raise RefusedError(reason.get("Item", {}), position) from error
        raise


def list_names(prefix: str, after: str, limit: int, until: float) -> tuple[list[str], bool]:
    """Return the first `limit` names that begin with `prefix` and come after `after`, in order.

    Names are ordered by their UTF-8 bytes. The index follows the table, so a new counter may be
    missing for a moment.

    Args:
        prefix: what the names begin with; empty for all.
        after: the name to continue after; empty for the first page.
        limit: the most names to return.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The names, and whether there are more.

    Raises:
        ThrottledError: the database did not answer in time.
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
        reply = answered(
            until,
            lambda: dynamodb().query(
                TableName=os.environ["COUNTER_TABLE"],
                IndexName=_NAMES_INDEX,
                KeyConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                Limit=limit + 1,  # one more shows whether there are more
            ),
        )
    found = [item["counter_id"]["S"] for item in reply["Items"]]
    return found[:limit], len(found) > limit or "LastEvaluatedKey" in reply


def changed_since(updated_at: str, after: str, until: float) -> tuple[list[str], str | None]:
    """Return the names of counters that have changed since a time, some at once.

    Args:
        updated_at: that time (RFC 3339).
        after: how far the last call came; empty for the first.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The names, in no order, and how far this call came; None if it came to the end.

    Raises:
        ThrottledError: the database did not answer in time.
    """
    scan: dict[str, Any] = {"ExclusiveStartKey": {"counter_id": {"S": after}}} if after else {}
    with reading():
        reply = answered(
            until,
            lambda: dynamodb().scan(
                TableName=os.environ["COUNTER_TABLE"],
                FilterExpression="#updated_at >= :updated_at",
                ProjectionExpression="#counter_id",
                ExpressionAttributeNames={"#counter_id": "counter_id", "#updated_at": "updated_at"},
                ExpressionAttributeValues={":updated_at": {"S": updated_at}},
                Limit=_SCAN_SIZE,
                **scan,
            ),
        )
    reached = reply.get("LastEvaluatedKey")
    names = [item["counter_id"]["S"] for item in reply["Items"]]
    return names, reached["counter_id"]["S"] if reached else None


def counter(counter_id: str, item: "Item") -> Counter:
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


def _standing(counter_id: str, item: "Item") -> Standing:
    request_id = item["change"]["M"]["request_id"]["S"] if item else None
    return Standing(counter(counter_id, item), request_id)


def _update(
    counter_id: str, operation: Operation, change: Change, expression: str
) -> dict[str, Any]:
    """Return the UpdateItem of a change: what every change writes, then `expression`."""
    made: dict[str, AttributeValueTypeDef] = {
        "operation": {"S": operation},
        "actor": {"S": change.actor},
        "request_id": {"S": change.request_id},
        "at": {"S": change.at},
    }
    if change.fold is not None:
        made["events"] = _n(change.fold.events)
        made["increase"] = _n(change.fold.increase)
        made["decrease"] = _n(change.fold.decrease)
        if change.fold.sender is not None:
            made["sender"] = {"S": change.fold.sender}
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
            ":change": {"M": made},
        },
        # A refusal carries the item, which saves a read.
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _n(value: int) -> "AttributeValueTypeDef":
    return {"N": str(value)}
