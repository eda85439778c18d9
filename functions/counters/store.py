"""CounterTable: reads counters, and builds and sends the writes that change them.

Each item is a counter, with these attributes:
- `value`, `version`, `created_at` and `updated_at`;
- `change`: a description of the last change. record_history reads it from the table's stream, and
  writes it to the history;
- `catalog`: the partition key of the index of counter names, the same in each item;
- `sequence_numbers`: which queue messages the counter includes (see `folding`).

This module sends each write once. A write to a counter is not idempotent, so the module `attempt`
decides whether to send the write again.
"""

import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from counters import clock
from counters.clients import (
    answered,
    cancellation_reasons,
    dynamodb,
    get_item,
    get_items,
    must_answer,
)
from counters.model import Change, Condition, Counter, Increment, Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]

_CATALOG: "AttributeValueTypeDef" = {"S": "counters"}
_NAMES_INDEX = "CounterNames"
_SCAN_SIZE = 1000  # counters


class StoredCounter(NamedTuple):
    """A counter, as it is stored.

    Attributes:
        counter: the counter.
        request_id: the id of the attempt that made the last change. None if the counter was never
            written.
    """

    counter: Counter
    request_id: str | None


class RefusedError(Exception):
    """The condition of a write does not hold."""

    def __init__(self, item: "Item", position: int = 0) -> None:
        """Describe a refused write.

        Args:
            item: the stored item that the write did not change; empty if there is none.
            position: the position of the write in its transaction, starting at 0.
        """
        super().__init__()
        self.item = item
        self.position = position


def get(counter_id: str, until: float) -> Counter:
    """Return a counter, with a strongly consistent read.

    Args:
        counter_id: the counter.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    return read(counter_id, until).counter


def read(counter_id: str, until: float) -> StoredCounter:
    """Return a counter and the id of its last change's attempt, with a strongly consistent read.

    Args:
        counter_id: the counter.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    item = get_item(os.environ["COUNTER_TABLE"], {"counter_id": {"S": counter_id}}, until)
    return _stored_counter(counter_id, item)


def read_all(counter_ids: "Sequence[str]", until: float) -> dict[str, StoredCounter]:
    """Return at most 100 counters by name, with strongly consistent reads.

    Args:
        counter_ids: the counters, without duplicates.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    keys = [{"counter_id": {"S": counter_id}} for counter_id in counter_ids]
    items = get_items(os.environ["COUNTER_TABLE"], keys, until)
    found = {item["counter_id"]["S"]: item for item in items}
    return {name: _stored_counter(name, found.get(name, {})) for name in counter_ids}


def get_all(counter_ids: "Sequence[str]", until: float) -> list[Counter]:
    """Return at most 100 counters in the order of their names in `counter_ids`.

    The read is strongly consistent. The arguments are as for `read_all`.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    if not counter_ids:
        return []  # DynamoDB refuses a request without keys
    with must_answer():
        return [stored.counter for stored in read_all(counter_ids, until).values()]


def increment(requested: Increment, change: Change, extra_set: str = "") -> dict[str, Any]:
    """Return an UpdateItem request that adds to a counter, if the result is within the bounds.

    Args:
        requested: the counter, the number to add, and the bounds.
        change: this attempt.
        extra_set: more assignments for the SET clause, as text that begins with a comma. Empty for
            none.
    """
    counter_id, by, bounds = requested.counter_id, requested.by, requested.bounds
    update = _update(counter_id, "increment", change, f"{extra_set} ADD #value :by, #version :one")
    update["ExpressionAttributeValues"] |= {
        ":by": _n(by),
        # The result is within `bounds` exactly if the current value is between `low` and `high`.
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
    """Return an UpdateItem request that sets a counter, if the condition holds.

    Args:
        counter_id: the counter.
        value: the counter's new value.
        condition: the versions that the counter may have before the change; None for any version.
        change: this attempt.
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
    """Send an UpdateItem request, without retries, and return the changed counter.

    Raises:
        RefusedError: if the condition does not hold.
        BotoCoreError: if there was no reply. `clients.may_be_applied` says whether the change may
            have been applied.
        ClientError: if the reply is any other error. `clients.may_be_applied` says whether the
            change may have been applied.
    """
    reply = write({**update, "ReturnValues": "ALL_NEW"})
    return counter(update["Key"]["counter_id"]["S"], reply["Attributes"])


def write(update: dict[str, Any]) -> dict[str, Any]:
    """Send an UpdateItem request once and return the reply.

    Raises:
        RefusedError: if the condition does not hold.
        BotoCoreError: as for `send`.
        ClientError: as for `send`.
    """
    try:
        return cast("dict[str, Any]", dynamodb().update_item(**update))
    except dynamodb().exceptions.ConditionalCheckFailedException as error:
        raise RefusedError(cast("dict[str, Any]", error.response).get("Item", {})) from error


def transact(updates: "Sequence[dict[str, Any]]", token: str) -> None:
    """Send UpdateItem requests once, as one transaction. The reply does not contain the items.

    Args:
        updates: the requests, each for a different item.
        token: the id of the transaction, at most 36 characters. If several transactions with the
            same token are sent within ten minutes, DynamoDB applies only one of them, even if it
            returns an error for a transaction and completes the transaction later.
            https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html

    Raises:
        RefusedError: if the condition of a request does not hold. Nothing was written.
        BotoCoreError: as for `send`.
        ClientError: as for `send`.
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


def list_names(
    prefixes: "Iterable[str]", after: str, limit: int, until: float
) -> tuple[list[str], bool]:
    """Return a page of counter names, in the order of their UTF-8 bytes.

    Each prefix takes one read. A new counter may be missing for a moment, because DynamoDB updates
    the index of names shortly after the table.

    Args:
        prefixes: return only names with one of these prefixes; see `Rights.prefixes`.
        after: return only names after this name; empty for the first page.
        limit: the maximum number of names.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The names, and whether there is another page.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    found: list[str] = []
    for prefix in prefixes:
        names, has_more = _names(prefix, after, limit - len(found), until)
        found += names
        if has_more:
            return found, True
    return found, False


def _names(prefix: str, after: str, limit: int, until: float) -> tuple[list[str], bool]:
    """Return a page of the names that begin with one prefix; see `list_names`."""
    condition = "#catalog = :catalog"
    names = {"#catalog": "catalog"}
    values: dict[str, AttributeValueTypeDef] = {":catalog": _CATALOG}
    if prefix or after:
        # A key condition can compare the sort key only once. So combine `prefix` and `after` into
        # one range from `first` to `last`:
        # - The range begins above `after`. Of all characters in names, "-" is the lowest. So the
        #   lowest name above `after` is `after` plus "-".
        # - The range ends with the prefix. "~" is higher than all characters in names. So all names
        #   with the prefix are lower than the prefix plus "~".
        first = max(prefix, f"{after}-" if after else "")
        last = f"{prefix}~"
        if first > last:
            return [], False
        condition += " AND #counter_id BETWEEN :first AND :last"
        names["#counter_id"] = "counter_id"
        values |= {":first": {"S": first}, ":last": {"S": last}}
    with must_answer():
        reply = answered(
            until,
            lambda: dynamodb().query(
                TableName=os.environ["COUNTER_TABLE"],
                IndexName=_NAMES_INDEX,
                KeyConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                Limit=limit + 1,  # the extra name shows whether there is another page
            ),
        )
    found = [item["counter_id"]["S"] for item in reply["Items"]]
    return found[:limit], len(found) > limit or "LastEvaluatedKey" in reply


def changed_since(
    updated_at: str, segment: int, segments: int, after: str, until: float
) -> tuple[list[str], str | None]:
    """Return the names of counters that changed at or after a time, from a part of a segment.

    Args:
        updated_at: the time (RFC 3339). Counters with a malformed `updated_at` are included.
        segment: the number of the segment, starting at 0.
        segments: the number of segments.
        after: the position or a counter that the previous call returned; empty for the first call.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The names in the order of the scan, and the position where to continue; None at the end.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    scan: dict[str, Any] = {
        "TableName": os.environ["COUNTER_TABLE"],
        "Segment": segment,
        "TotalSegments": segments,
        # Skip only what is known to be older. If `updated_at` is no string, comparisons are false.
        "FilterExpression": "NOT (updated_at >= :first AND updated_at < :updated_at)",
        "ProjectionExpression": "counter_id",
        "ExpressionAttributeValues": {":first": {"S": "1970"}, ":updated_at": {"S": updated_at}},
        "Limit": _SCAN_SIZE,
    }
    if after:
        scan["ExclusiveStartKey"] = {"counter_id": {"S": after}}
    with must_answer():
        reply = answered(until, lambda: dynamodb().scan(**scan))
    names = [item["counter_id"]["S"] for item in reply["Items"]]
    return names, reply.get("LastEvaluatedKey", {}).get("counter_id", {}).get("S")


def counter(counter_id: str, item: "Item") -> Counter:
    """Return the counter in an item. An empty item is a counter that was never written."""
    if not item:
        return Counter(counter_id)
    return Counter(
        counter_id,
        int(item["value"]["N"]),
        int(item["version"]["N"]),
        item["created_at"]["S"],
        item["updated_at"]["S"],
    )


def _stored_counter(counter_id: str, item: "Item") -> StoredCounter:
    request_id = item["change"]["M"]["request_id"]["S"] if item else None
    return StoredCounter(counter(counter_id, item), request_id)


def _update(
    counter_id: str, operation: Operation, change: Change, expression: str
) -> dict[str, Any]:
    """Return an UpdateItem request with the attributes that every change writes.

    Args:
        counter_id: the counter.
        operation: the kind of change.
        change: this attempt.
        expression: the end of the UpdateExpression. It continues the SET clause.
    """
    at: AttributeValueTypeDef = {"S": clock.timestamp(change.began)}
    description: dict[str, AttributeValueTypeDef] = {
        "operation": {"S": operation},
        "actor": {"S": change.actor},
        "request_id": {"S": change.request_id},
        "at": at,
    }
    if change.fold is not None:
        description["events"] = _n(change.fold.events)
        description["increase"] = _n(change.fold.increase)
        description["decrease"] = _n(change.fold.decrease)
        if change.fold.sender is not None:
            description["sender"] = {"S": change.fold.sender}
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
            ":at": at,
            ":change": {"M": description},
        },
        # If the condition fails, the reply has the counter's item. That saves a read.
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _n(value: int) -> "AttributeValueTypeDef":
    return {"N": str(value)}
