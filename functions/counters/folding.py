"""Folds queue messages: adds many events to a counter in one write, each of them once.

For each message group, a counter remembers the highest sequence number that it has dealt with. SQS
delivers a group in order, so every event up to that number is dealt with, and none after it. Each
write raises the number and is conditional on it. So a write can be repeated, and an event may be
delivered again, alone or with others.

An event that the counter has no room for is refused: the counter remembers its number with REFUSED
behind it until the message is in the dead-letter queue. From then on the event cannot be counted,
even if there is room again when the message is redelivered.

A counter's item holds the numbers of its first groups in the map `sequence_numbers`. The number of
any other group is in an item of ReceiptTable.
"""

import os
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from counters import clock, store
from counters.clients import answered, reading
from counters.model import Bounds, Change, Fold, Increment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from counters.model import Event
    from counters.store import Item

# A refused number sorts after that number, and before the next one.
REFUSED = "?"

# Eight groups keep a counter's item under 1 KB, which is one write unit.
_MOST_GROUPS = 8

# A queue keeps a message for at most 14 days, so none is delivered again after that.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
_GROUP_SECONDS = 15 * 24 * 60 * 60

# Where the number of a message group is: in the map of the counter's item, there but without a map
# yet, or in an item of its own.
_Place = Literal["inside", "first", "apart"]


def fold(counter_id: str, group: str, events: "Sequence[Event]", until: float) -> int:
    """Add the events that the counter does not include yet, in one write.

    Args:
        counter_id: the counter.
        group: the key of the events' message group, which identifies the queue too.
        events: events of that counter and group, in order. All earlier ones are dealt with.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        How many of the events, from the first on, are dealt with. If not all, `refuse` the next.

    Raises:
        ThrottledError: if DynamoDB did not answer in time. The call can be repeated.
    """
    start, end = 0, len(events)
    place: _Place = "inside"  # a guess, which only a failed condition can correct
    while start < end:
        rest = events[start:end]
        try:
            with reading():
                answered(until, partial(_add, counter_id, group, rest, place))
        except store.RefusedError as refused:
            last = _last_number(refused.item, group)
            for position, event in enumerate(rest):
                if event.sequence_number + REFUSED == last:
                    return start + position
            dealt_with = sum(event.sequence_number <= last for event in rest)
            belongs = _place(refused.item, group)
            if dealt_with:
                start += dealt_with
            elif belongs != place:
                place = belongs
            else:
                value = store.counter(counter_id, refused.item).value
                end = start + _fitting(value, rest)
        else:
            return end
    return start


def refuse(
    counter_id: str, group: str, event: "Event", park: "Callable[[], bool]", until: float
) -> bool:
    """Park an event that the counter has no room for, so that it is never counted.

    The counter remembers first that the event is refused, and last that it is parked. Wherever that
    is interrupted, the next delivery of the message continues it.

    Args:
        counter_id: the counter.
        group: the key of the event's message group.
        event: the event. All earlier ones of its group are dealt with.
        park: sends the message to the dead-letter queue; returns whether it is there.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        Whether the event is dealt with. If not, the message is to be delivered again.

    Raises:
        ThrottledError: if DynamoDB did not answer in time. The call can be repeated.
    """
    number = event.sequence_number
    refused_number = number + REFUSED
    place: _Place = "inside"
    while True:
        try:
            with reading():
                answered(
                    until, partial(_remember, counter_id, group, place, number, refused_number)
                )
        except store.RefusedError as refused:
            last = _last_number(refused.item, group)
            if last == refused_number:
                break
            if last >= number:
                return True
            belongs = _place(refused.item, group)
            if belongs == place:
                return False  # somebody has deleted the counter, so now there is room
            place = belongs
        else:
            break
    if not park():
        return False
    with suppress(store.RefusedError), reading():  # another delivery of the message has done it
        answered(until, partial(_forget_refusal, counter_id, group, place, number))
    return True


def _add(counter_id: str, group: str, events: "Sequence[Event]", place: _Place) -> None:
    """Add the events and remember the last, on condition that the counter includes none of them.

    Raises:
        store.RefusedError: it does, or the number is elsewhere, or the counter would leave the
            range of integers.
    """
    additions = [event.by for event in events if event.by > 0]
    subtractions = [-event.by for event in events if event.by < 0]
    senders = [event.sender for event in events if event.sender is not None]
    folded = Fold(len(events), sum(additions), sum(subtractions), _listed(senders) or None)
    change = Change(
        _listed([event.actor for event in events]),
        events[-1].event_id,
        clock.timestamp(clock.now()),
        clock.now(),
        folded,
    )
    asked = Increment(counter_id, folded.increase - folded.decrease, Bounds())
    first, last = events[0].sequence_number, events[-1].sequence_number
    if place == "apart":
        updates = [_number_apart(counter_id, group, first, last), store.increment(asked, change)]
        store.transact(updates, str(uuid.uuid4()))
        return
    setting, condition, names, values = _number_inside(group, place, first, last)
    update = store.increment(asked, change, f", {setting}")
    update["ConditionExpression"] = f"({update['ConditionExpression']}) AND {condition}"
    update["ExpressionAttributeNames"] |= names
    update["ExpressionAttributeValues"] |= values
    store.write(update)


def _remember(counter_id: str, group: str, place: _Place, newer_than: str, number: str) -> None:
    """Remember a number of a group, if the one there is below `newer_than`.

    Raises:
        store.RefusedError: it is not, or it is elsewhere, or the counter does not exist.
    """
    if place == "apart":
        store.write(_number_apart(counter_id, group, newer_than, number))
        return
    setting, condition, names, values = _number_inside(group, place, newer_than, number)
    store.write(
        {
            "TableName": os.environ["COUNTER_TABLE"],
            "Key": {"counter_id": {"S": counter_id}},
            "UpdateExpression": f"SET {setting}",
            "ConditionExpression": f"attribute_exists(#version) AND {condition}",
            "ExpressionAttributeNames": {**names, "#version": "version"},
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    )


def _forget_refusal(counter_id: str, group: str, place: _Place, number: str) -> None:
    """Remember a refused number as one that is dealt with.

    Raises:
        store.RefusedError: it is not there as a refused one.
    """
    values: dict[str, AttributeValueTypeDef]
    values = {":number": {"S": number}, ":refused": {"S": number + REFUSED}}
    if place == "apart":
        table, key, path = os.environ["RECEIPT_TABLE"], _key_apart(counter_id, group), "#number"
        names = {"#number": "sequence_number"}
    else:
        table, key = os.environ["COUNTER_TABLE"], {"counter_id": {"S": counter_id}}
        path = "#numbers.#group"
        names = {"#numbers": "sequence_numbers", "#group": group}
    store.write(
        {
            "TableName": table,
            "Key": key,
            "UpdateExpression": f"SET {path} = :number",
            "ConditionExpression": f"{path} = :refused",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
    )


def _number_inside(
    group: str, place: _Place, newer_than: str, number: str
) -> "tuple[str, str, dict[str, str], dict[str, AttributeValueTypeDef]]":
    """Return the parts of an UpdateItem that remembers a number in the counter's item.

    Returns:
        What is set, on which condition, and the names and values of both.
    """
    names = {"#numbers": "sequence_numbers"}
    values: dict[str, AttributeValueTypeDef]
    if place == "first":
        values = {":numbers": {"M": {group: {"S": number}}}}
        return "#numbers = :numbers", "attribute_not_exists(#numbers)", names, values
    condition = (
        "attribute_exists(#numbers) AND (#numbers.#group < :newer_than OR"
        " attribute_not_exists(#numbers.#group) AND size(#numbers) < :most)"
    )
    values = {
        ":newer_than": {"S": newer_than},
        ":number": {"S": number},
        ":most": {"N": str(_MOST_GROUPS)},
    }
    return "#numbers.#group = :number", condition, {**names, "#group": group}, values


def _number_apart(counter_id: str, group: str, newer_than: str, number: str) -> dict[str, Any]:
    """Return the UpdateItem that remembers a number in an item of ReceiptTable."""
    return {
        "TableName": os.environ["RECEIPT_TABLE"],
        "Key": _key_apart(counter_id, group),
        "UpdateExpression": "SET #number = :number, #expires_at = :expires_at",
        "ConditionExpression": "attribute_not_exists(#number) OR #number < :newer_than",
        "ExpressionAttributeNames": {"#number": "sequence_number", "#expires_at": "expires_at"},
        "ExpressionAttributeValues": {
            ":newer_than": {"S": newer_than},
            ":number": {"S": number},
            ":expires_at": {"N": str(int(clock.now()) + _GROUP_SECONDS)},
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _key_apart(counter_id: str, group: str) -> dict[str, Any]:
    return {"receipt_id": {"S": f"{group}:{counter_id}"}}


def _last_number(item: "Item", group: str) -> str:
    """Return the number that an item holds for a group; an empty one, below all others, if none."""
    if "sequence_number" in item:  # an item of ReceiptTable
        return item["sequence_number"]["S"]
    numbers = item.get("sequence_numbers", {}).get("M", {})
    return numbers[group]["S"] if group in numbers else ""


def _place(item: "Item", group: str) -> _Place:
    """Return where the number of a group belongs, by the item of the counter."""
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


def _listed(names: "Sequence[str]") -> str:
    """Return each name once, separated by commas."""
    return ", ".join(dict.fromkeys(names))
