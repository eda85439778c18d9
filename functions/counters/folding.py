"""Folding: adds several queue messages, called events here, to a counter in one write.

How an event is counted only once: SQS delivers the events of a message group in order, with rising
sequence numbers. An event is done if it was counted, or if it was refused and parked (sent to the
dead-letter queue). For each group, Tally stores with a counter the sequence number of the last
event that is done. All earlier events of the group for this counter are done, and no later event
is. Each write raises the stored number. The write has a condition: the stored number must be lower
than the numbers of the added events. So an event that SQS delivers again is never added twice, and
a write can be repeated.

How an event is refused: a counter has no room for an event if the result would be outside the
integer range. Before such an event is parked, its sequence number is stored with the suffix
REFUSED. From this time on, the event is never counted, even if SQS delivers the event again and the
counter has room. After the event is parked, the suffix is removed.

The number of a group is stored in one of three places (`_Place`):
- "in_map": in the map `sequence_numbers` of the counter's item. The map has the numbers of up to
  eight groups.
- "new_map": in the same map, but the counter's item does not have the map yet.
- "own_item": in an item of ReceiptTable, which has only this number. If the map already has the
  numbers of eight groups, the number of each further group is stored in such an item.
"""

import os
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from counters import clock, store
from counters.clients import answered, must_answer
from counters.model import Bounds, Change, Fold, Increment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from counters.model import Event
    from counters.store import Item

# A sequence number with this suffix sorts after the number without it, and before the next number.
REFUSED = "?"

# With at most eight groups, a counter's item stays under 1 KB, so a write to it takes only one
# write unit.
_MOST_GROUPS = 8

# How long the number of a group is kept in ReceiptTable, in seconds. SQS keeps a message for at
# most 14 days. So when the number is deleted, SQS can no longer deliver the message that had it.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
_GROUP_SECONDS = 15 * 24 * 60 * 60

_Place = Literal["in_map", "new_map", "own_item"]


def fold(counter_id: str, group: str, events: "Sequence[Event]", until: float) -> int:
    """Add the events that the counter does not include yet, in one write.

    Args:
        counter_id: the counter.
        group: the key of the events' message group. Groups of different queues have different keys.
        events: events of this counter and group, in order. All earlier events of this counter and
            group must be done.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        The number of events before the first event that is not done. If all events are done, the
        number of all events. If not, the counter has no room for the first event that is not done:
        call `refuse` for this event.

    Raises:
        ThrottledError: if DynamoDB did not answer in time. The call can be repeated.
    """
    start, end = 0, len(events)
    # "in_map" is the usual place. If the number is in another place, DynamoDB refuses the write,
    # and its reply has the counter's item.
    place: _Place = "in_map"
    while start < end:
        rest = events[start:end]
        try:
            with must_answer():
                answered(until, partial(_add, counter_id, group, rest, place))
        except store.RefusedError as refused:
            last = _last_number(refused.item, group)
            for position, event in enumerate(rest):
                if event.sequence_number + REFUSED == last:
                    return start + position
            done = sum(event.sequence_number <= last for event in rest)
            right_place = _place(refused.item, group)
            if done:
                start += done
            elif right_place != place:
                place = right_place
            else:
                value = store.counter(counter_id, refused.item).value
                end = start + _fitting(value, rest)
        else:
            return end
    return start


def refuse(
    counter_id: str, group: str, event: "Event", park: "Callable[[], bool]", until: float
) -> bool:
    """Refuse an event that the counter has no room for, and park it.

    There are three steps: store that the event is refused, park it, store that it is done. If a
    step fails, SQS delivers the event again, and the next call of this function continues.

    Args:
        counter_id: the counter.
        group: the key of the event's message group.
        event: the event. All earlier events of its counter and group must be done.
        park: a function that sends the event to the dead-letter queue. It returns whether SQS
            accepted the event.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        Whether the event is done. If it is not done, SQS must deliver it again.

    Raises:
        ThrottledError: if DynamoDB did not answer in time. The call can be repeated.
    """
    number = event.sequence_number
    refused_number = number + REFUSED
    place: _Place = "in_map"
    while True:
        try:
            with must_answer():
                answered(until, partial(_store, counter_id, group, place, number, refused_number))
        except store.RefusedError as refused:
            last = _last_number(refused.item, group)
            if last == refused_number:
                break
            if last >= number:
                return True
            right_place = _place(refused.item, group)
            if right_place == place:
                return False  # someone has deleted the counter, so it has room now
            place = right_place
        else:
            break
    if not park():
        return False
    # This write is refused if another invocation has already stored that the event is done.
    with suppress(store.RefusedError), must_answer():
        answered(until, partial(_remove_suffix, counter_id, group, place, number))
    return True


def _add(counter_id: str, group: str, events: "Sequence[Event]", place: _Place) -> None:
    """Add the events and store the sequence number of the last event, in one write.

    Raises:
        store.RefusedError: in three cases:
            - The counter already includes one of the events.
            - The group's number is stored in another place than `place`.
            - The result would be outside the integer range.
    """
    additions = [event.by for event in events if event.by > 0]
    subtractions = [-event.by for event in events if event.by < 0]
    senders = [event.sender for event in events if event.sender is not None]
    folded = Fold(len(events), sum(additions), sum(subtractions), _listed(senders) or None)
    now = clock.now()
    change = Change(
        _listed([event.actor for event in events]),
        events[-1].event_id,
        now,
        now,  # `until` is not used: the change is sent at once, and only once
        folded,
    )
    increment = Increment(counter_id, folded.increase - folded.decrease, Bounds())
    first, last = events[0].sequence_number, events[-1].sequence_number
    if place == "own_item":
        update = store.increment(increment, change)
        store.transact([_own_item(counter_id, group, first, last), update], str(uuid.uuid4()))
        return
    assignment, condition, names, values = _in_counter(group, place, first, last)
    update = store.increment(increment, change, f", {assignment}")
    update["ConditionExpression"] = f"({update['ConditionExpression']}) AND {condition}"
    update["ExpressionAttributeNames"] |= names
    update["ExpressionAttributeValues"] |= values
    store.write(update)


def _store(counter_id: str, group: str, place: _Place, limit: str, number: str) -> None:
    """Store a new number for a group, if the stored number is below `limit`.

    Raises:
        store.RefusedError: if the stored number is not below `limit`, if the group's number is
            stored in another place than `place`, or if the counter does not exist.
    """
    if place == "own_item":
        store.write(_own_item(counter_id, group, limit, number))
        return
    assignment, condition, names, values = _in_counter(group, place, limit, number)
    store.write(
        {
            "TableName": os.environ["COUNTER_TABLE"],
            "Key": {"counter_id": {"S": counter_id}},
            "UpdateExpression": f"SET {assignment}",
            "ConditionExpression": f"attribute_exists(#version) AND {condition}",
            "ExpressionAttributeNames": {**names, "#version": "version"},
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    )


def _remove_suffix(counter_id: str, group: str, place: _Place, number: str) -> None:
    """Store that a refused event is done: remove the suffix from its sequence number.

    Raises:
        store.RefusedError: if the stored number is not `number` with the suffix.
    """
    values: dict[str, AttributeValueTypeDef]
    values = {":number": {"S": number}, ":refused": {"S": number + REFUSED}}
    if place == "own_item":
        table, key, path = os.environ["RECEIPT_TABLE"], _own_key(counter_id, group), "#number"
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


def _in_counter(
    group: str, place: _Place, limit: str, number: str
) -> "tuple[str, str, dict[str, str], dict[str, AttributeValueTypeDef]]":
    """Return the parts of an UpdateItem request that stores a number in the counter's item.

    Returns:
        The assignment for the SET clause, the condition, and the names and the values that the
        assignment and the condition use.
    """
    names = {"#numbers": "sequence_numbers"}
    values: dict[str, AttributeValueTypeDef]
    if place == "new_map":
        values = {":numbers": {"M": {group: {"S": number}}}}
        return "#numbers = :numbers", "attribute_not_exists(#numbers)", names, values
    condition = (
        "attribute_exists(#numbers) AND (#numbers.#group < :limit OR"
        " attribute_not_exists(#numbers.#group) AND size(#numbers) < :most)"
    )
    values = {
        ":limit": {"S": limit},
        ":number": {"S": number},
        ":most": {"N": str(_MOST_GROUPS)},
    }
    return "#numbers.#group = :number", condition, {**names, "#group": group}, values


def _own_item(counter_id: str, group: str, limit: str, number: str) -> dict[str, Any]:
    """Return an UpdateItem request that stores the number of a group in an item of ReceiptTable."""
    return {
        "TableName": os.environ["RECEIPT_TABLE"],
        "Key": _own_key(counter_id, group),
        "UpdateExpression": "SET #number = :number, #expires_at = :expires_at",
        "ConditionExpression": "attribute_not_exists(#number) OR #number < :limit",
        "ExpressionAttributeNames": {"#number": "sequence_number", "#expires_at": "expires_at"},
        "ExpressionAttributeValues": {
            ":limit": {"S": limit},
            ":number": {"S": number},
            ":expires_at": {"N": str(int(clock.now()) + _GROUP_SECONDS)},
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _own_key(counter_id: str, group: str) -> dict[str, Any]:
    return {"receipt_id": {"S": f"{group}:{counter_id}"}}


def _last_number(item: "Item", group: str) -> str:
    """Return the number that an item has for a group. If it has none, return an empty string.

    The empty string sorts before every number.
    """
    if "sequence_number" in item:  # an item of ReceiptTable
        return item["sequence_number"]["S"]
    numbers = item.get("sequence_numbers", {}).get("M", {})
    return numbers[group]["S"] if group in numbers else ""


def _place(item: "Item", group: str) -> _Place:
    """Return where the number of a group must be stored, according to the counter's item."""
    if "sequence_numbers" not in item:
        return "new_map"
    numbers = item["sequence_numbers"]["M"]
    return "in_map" if group in numbers or len(numbers) < _MOST_GROUPS else "own_item"


def _fitting(value: int, events: "Sequence[Event]") -> int:
    """Return how many of the first events the counter has room for.

    These events are added in one write, so the counter needs room only for their sum.

    Args:
        value: the counter's value.
        events: the events, in order.
    """
    fitting = 0
    for count, event in enumerate(events, 1):
        value += event.by
        if Bounds().hold(value):
            fitting = count
    return fitting


def _listed(names: "Sequence[str]") -> str:
    """Return the names without repetitions, separated by commas."""
    return ", ".join(dict.fromkeys(names))
