"""The counters in DynamoDB: the only writer of CounterTable.

An item is a counter: `value`, `version`, `created_at`, `updated_at`, and `change`, what its last
change was, there so that the stream carries it to the history. `catalog` is the same for all: it
puts the counter into the index of names. `sequence_numbers` has the highest sequence number that is
in the counter, of each message group that has counted it.
"""

import os
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, history
from counters.clients import (
    UndecidedError,
    answered,
    answered_500,
    cancellation_reasons,
    dynamodb,
    dynamodb_once,
    not_applied,
    reading,
    reply_lost,
)
from counters.model import (
    BoundExceededError,
    Bounds,
    Change,
    Counter,
    Event,
    Increment,
    Operation,
    OutcomeUnknownError,
    ThrottledError,
    VersionMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]

_CATALOG: "AttributeValueTypeDef" = {"S": "counters"}
_NAMES_INDEX = "CounterNames"
_SCAN_SIZE = 1000  # counters

# With so many, an item is still below the kilobyte that one write unit pays for.
_MOST_GROUPS = 8

# No queue keeps a message for longer than 14 days, so none comes again after that.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
_GROUP_SECONDS = 15 * 24 * 60 * 60

_LOST = (
    "the reply of the database was lost, and whether the change was applied cannot be told; repeat"
    " it with an Idempotency-Key"
)
_MADE = (
    "the increments were applied, but what they made of the counters cannot be told yet; do not"
    " repeat them without an Idempotency-Key"
)

# Where a counter's number of a message group is: in its item, in its item but the first one there,
# or in an item apart.
_Place = Literal["inside", "first", "apart"]


class _RefusedError(Exception):
    """The condition of a write does not hold."""

    def __init__(self, item: "Item", position: int = 0) -> None:
        """Take the item, empty if it is not there, and the position of the write."""
        super().__init__()
        self.item = item
        self.position = position


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


def increment(asked: Increment, change: Change) -> Counter:
    """Add to a counter, in one write, and return it as that write left it.

    Raises:
        BoundExceededError: the value would leave the bounds; nothing was written.
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost, and what became of the change cannot be told.
    """
    update = partial(_update_item, _increment(asked, change))
    try:
        (counter,) = _apply([asked.counter_id], update, change)
    except _RefusedError as refused:
        standing = _counter(asked.counter_id, refused.item)
        raise BoundExceededError(asked.bounds, standing) from refused
    return counter


def increment_all(asked: "Sequence[Increment]", change: Change) -> tuple[Counter, ...]:
    """Add to each of some different counters, at most 100, or to none, in one transaction.

    Returns:
        The counters in that order, each as the transaction left it.

    Raises:
        BoundExceededError: a value would leave its bounds; nothing was written.
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost, and what became of the change cannot be told; or it
            was made, and what it made of the counters cannot be told yet.
    """
    counter_ids = [each.counter_id for each in asked]
    updates = [_increment(each, change) for each in asked]
    try:
        counters = _apply(counter_ids, partial(_transact, updates, change.request_id), change)
    except _RefusedError as refused:
        each = asked[refused.position]
        field = f"increments[{refused.position}].by"
        standing = _counter(each.counter_id, refused.item)
        raise BoundExceededError(each.bounds, standing, field) from refused
    return counters or _left_by(change, counter_ids)


def fold(counter_id: str, group: str, events: "Sequence[Event]", until: float) -> int:
    """Add up the events that are not in the counter yet, and add the sum to it in one write.

    The write is conditional on the highest sequence number that is in, which it raises to the last
    of its own: so it can be repeated, and events may come again, alone or with others.

    Args:
        counter_id: the counter.
        group: the key of their message group, which is the queue's as well.
        events: of that counter and group, in order; all that were before them are in, or will
            never come.
        until: when no request may begin any more, in seconds since the epoch.

    Returns:
        How many of the events, from the first on, are in. If not all, then the next would take the
        counter out of the range of integers.

    Raises:
        ThrottledError: the database did not answer; the same again does no harm.
    """
    start, end = 0, len(events)
    place: _Place = "inside"  # which only the refusal tells, or denies
    while start < end:
        rest = events[start:end]
        try:
            answered(until, partial(_fold, counter_id, group, rest, place, until))
        except _RefusedError as refused:
            last = _last_number(refused.item, group)
            new = [event for event in rest if event.sequence_number > last]
            if len(new) < len(rest):
                start = end - len(new)
            elif (belongs := _place(refused.item, group)) != place:
                place = belongs
            else:
                end = start + _fitting(_counter(counter_id, refused.item).value, rest)
        except UndecidedError as error:
            detail = "the database does not answer"
            raise ThrottledError(detail) from error
        else:
            return end
    return start


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
        (counter,) = _apply([counter_id], partial(_update_item, update), change)
    except _RefusedError as refused:
        standing = _counter(counter_id, refused.item)
        raise VersionMismatchError(expected or 0, standing) from refused
    return counter


def find(
    counter_ids: "Sequence[str]", request_id: str, at: str, *, until: float, under_way: bool = True
) -> tuple[Counter, ...] | None:
    """Find out what became of the attempt `request_id` to change the counters.

    They change together, so that the first settles whether they did.

    Args:
        counter_ids: the counters.
        request_id: of the attempt.
        at: when it began (RFC 3339).
        until: when no read may begin any more, in seconds since the epoch.
        under_way: whether the change may be made even now, if it is within the apply window.

    Returns:
        The counters as that change left them; None if it was not made and never will be.

    Raises:
        UndecidedError: that cannot be told yet, or the time is up.
    """
    found: list[Counter] = []
    for counter_id in counter_ids:
        counter = _find(counter_id, request_id, at, until=until, under_way=under_way)
        if counter:
            found.append(counter)
        elif found:
            raise UndecidedError  # it was made, so it will be there
        else:
            return None
    return tuple(found)


def _find(
    counter_id: str, request_id: str, at: str, *, until: float, under_way: bool
) -> Counter | None:
    """Find out what became of the attempt to change one counter, as `find` does."""
    began = clock.seconds(at)
    # Before the read: what the read does not show can only have been made after it.
    over = not under_way or clock.now() > began + clock.APPLY_WINDOW
    reply = answered(
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
    made: dict[str, AttributeValueTypeDef] = {
        "operation": {"S": operation},
        "actor": {"S": change.actor},
        "request_id": {"S": change.request_id},
        "at": {"S": change.at},
    }
    if change.events is not None:
        made["events"] = _n(change.events)
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
        # The refusal carries the item: where the counter stands needs no read of its own.
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _increment(asked: Increment, change: Change, more: str = "") -> dict[str, Any]:
    """Return the UpdateItem that adds to a counter, on condition of the bounds, and sets `more`."""
    counter_id, by, bounds = asked.counter_id, asked.by, asked.bounds
    update = _update(counter_id, "increment", change, f"{more} ADD #value :by, #version :one")
    update["ExpressionAttributeValues"] |= {
        ":by": _n(by),
        # The sum is within the bounds exactly if the value is within these.
        ":low": _n(bounds.low - by),
        ":high": _n(bounds.high - by),
    }
    update["ConditionExpression"] = "#value BETWEEN :low AND :high"
    if bounds.hold(by):  # a counter that is not there stands at 0
        update["ConditionExpression"] += " OR attribute_not_exists(#value)"
    return update


def _fold(
    counter_id: str, group: str, events: "Sequence[Event]", place: _Place, until: float
) -> None:
    """Add the sum of the events, and remember the last, on condition that all are newer.

    Raises:
        _RefusedError: they are not, or the number is elsewhere, or the counter would leave the
            range of integers.
    """
    change = Change(
        ", ".join(dict.fromkeys(event.actor for event in events)),
        events[-1].event_id,
        clock.timestamp(clock.now()),
        until,
        len(events),
    )
    asked = Increment(counter_id, sum(event.by for event in events), Bounds())
    last: AttributeValueTypeDef = {"S": events[-1].sequence_number}
    if place == "apart":
        updates = [_remember(counter_id, group, events), _increment(asked, change)]
        _transact(updates, str(uuid.uuid4()))
        return
    values: dict[str, AttributeValueTypeDef]
    names = {"#numbers": "sequence_numbers"}
    if place == "first":
        update = _increment(asked, change, ", #numbers = :numbers")
        newer = "attribute_not_exists(#numbers)"
        values = {":numbers": {"M": {group: last}}}
    else:
        update = _increment(asked, change, ", #numbers.#group = :last")
        newer = (
            "attribute_exists(#numbers) AND (#numbers.#group < :first OR"
            " attribute_not_exists(#numbers.#group) AND size(#numbers) < :most)"
        )
        names["#group"] = group
        first: AttributeValueTypeDef = {"S": events[0].sequence_number}
        values = {":first": first, ":last": last, ":most": _n(_MOST_GROUPS)}
    update["ConditionExpression"] = f"({update['ConditionExpression']}) AND {newer}"
    update["ExpressionAttributeNames"] |= names
    update["ExpressionAttributeValues"] |= values
    _update_item(update)


def _remember(counter_id: str, group: str, events: "Sequence[Event]") -> dict[str, Any]:
    """Return the UpdateItem that remembers the last of the events apart from the counter."""
    expires_at = int(clock.now()) + _GROUP_SECONDS
    return {
        "TableName": os.environ["RECEIPT_TABLE"],
        "Key": {"receipt_id": {"S": f"{group}:{counter_id}"}},
        "UpdateExpression": "SET #number = :last, #expires_at = :expires_at",
        "ConditionExpression": "attribute_not_exists(#number) OR #number < :first",
        "ExpressionAttributeNames": {"#number": "sequence_number", "#expires_at": "expires_at"},
        "ExpressionAttributeValues": {
            ":first": {"S": events[0].sequence_number},
            ":last": {"S": events[-1].sequence_number},
            ":expires_at": _n(expires_at),
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _last_number(item: "Item", group: str) -> str:
    """Return the number that an item has for a group; if it has none, what is below all others."""
    if "sequence_number" in item:  # it is the one apart
        return item["sequence_number"]["S"]
    numbers = item.get("sequence_numbers", {}).get("M", {})
    return numbers[group]["S"] if group in numbers else ""


def _place(item: "Item", group: str) -> _Place:
    """Return where the number of a group is, or belongs, of the counter that an item holds."""
    if "sequence_numbers" not in item:
        return "first"
    numbers = item["sequence_numbers"]["M"]
    return "inside" if group in numbers or len(numbers) < _MOST_GROUPS else "apart"


def _fitting(value: int, events: "Sequence[Event]") -> int:
    """Return how many of the events, from the first on, the counter has room for."""
    fitting = 0
    for count, event in enumerate(events, 1):
        value += event.by
        if Bounds().hold(value):
            fitting = count
    return fitting


def _update_item(update: dict[str, Any]) -> tuple[Counter, ...]:
    """Send an UpdateItem once, and return the counter as it left it.

    Raises:
        _RefusedError: its condition does not hold.
    """
    try:
        reply = dynamodb_once().update_item(**update, ReturnValues="ALL_NEW")
    except dynamodb_once().exceptions.ConditionalCheckFailedException as error:
        raise _RefusedError(cast("dict[str, Any]", error.response).get("Item", {})) from error
    return (_counter(update["Key"]["counter_id"]["S"], reply["Attributes"]),)


def _transact(updates: "Sequence[dict[str, Any]]", token: str) -> tuple[Counter, ...]:
    """Send some UpdateItems once, as one transaction; it does not tell what they made.

    The same again, under the same token of up to 36 characters, is not applied again for ten
    minutes, even if DynamoDB finishes behind an error what it had begun.
    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html

    Raises:
        _RefusedError: the condition of one does not hold.
    """
    try:
        dynamodb_once().transact_write_items(
            TransactItems=[{"Update": cast("Any", update)} for update in updates],
            ClientRequestToken=token,
        )
    except dynamodb_once().exceptions.TransactionCanceledException as error:
        for position, reason in enumerate(cancellation_reasons(error)):
            if reason["Code"] == "ConditionalCheckFailed":
                raise _RefusedError(reason.get("Item", {}), position) from error
        raise
    return ()


def _apply(
    counter_ids: "Sequence[str]", send: "Callable[[], tuple[Counter, ...]]", change: Change
) -> tuple[Counter, ...]:
    """Make the change once, whatever replies are lost.

    Only an attempt that certainly changed nothing, and never will, is followed by another.

    Args:
        counter_ids: what is changed, all together.
        send: attempts the change.
        change: who makes it.

    Returns:
        What `send` does, or the counters as the change left them.

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
            return send()
        except (BotoCoreError, ClientError) as error:
            if reply_lost(error):
                under_way = not answered_500(error)
                counters = _read_back(counter_ids, change, _LOST, under_way=under_way)
                if counters:
                    return counters
            elif not not_applied(error):
                raise
            if not clock.pause(attempt, change.until):
                raise ThrottledError(detail) from error
            attempt += 1


def _left_by(change: Change, counter_ids: "Sequence[str]") -> tuple[Counter, ...]:
    """Return the counters as a change left them that was made of them all.

    Raises:
        OutcomeUnknownError: that cannot be told in time.
    """
    table = os.environ["COUNTER_TABLE"]
    keys: list[Any] = [{"counter_id": {"S": counter_id}} for counter_id in counter_ids]
    try:
        reply = answered(
            change.until,
            lambda: dynamodb_once().batch_get_item(
                RequestItems={table: {"Keys": keys, "ConsistentRead": True}}
            ),
        )
    except UndecidedError as error:
        raise OutcomeUnknownError(_MADE) from error
    left = {
        item["counter_id"]["S"]: _counter(item["counter_id"]["S"], item)
        for item in reply["Responses"][table]
        if item["change"]["M"]["request_id"]["S"] == change.request_id
    }
    # What others have changed since, the history has, or will have in a moment.
    others = [counter_id for counter_id in counter_ids if counter_id not in left]
    found = _read_back(others, change, _MADE, under_way=True)
    if found is None:
        raise OutcomeUnknownError(_MADE)  # somebody has taken it out of the history
    left |= {counter.counter_id: counter for counter in found}
    return tuple(left[counter_id] for counter_id in counter_ids)


def _read_back(
    counter_ids: "Sequence[str]", change: Change, detail: str, *, under_way: bool
) -> tuple[Counter, ...] | None:
    """Return what the attempt at a change made of the counters; None if it made nothing.

    Raises:
        OutcomeUnknownError: that cannot be told in time, with `detail`.
    """
    attempt = 0
    while True:
        try:
            return find(
                counter_ids,
                change.request_id,
                change.at,
                until=change.until,
                under_way=under_way,
            )
        except UndecidedError as error:
            if not clock.pause(attempt, change.until):
                raise OutcomeUnknownError(detail) from error
            attempt += 1


def _n(value: int) -> "AttributeValueTypeDef":
    return {"N": str(value)}
