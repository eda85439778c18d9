"""Random records of CounterTable's stream, and the history and trend that they must result in."""

import json
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from tests.component.simulation import BEGINNING
from tests.past import Past
from tests.stack import Item, StreamRecord

# Actions that change a counter. A fold is an increment that counts several events from a queue.
INCREMENT, SET, FOLD = "increment", "set", "fold"
# An action that updates only a sequence number. It does not change the counter.
UPDATE = "update"
# Tally never makes these writes, so RecordHistory must treat their stream records as malformed. A
# misfold is a fold (one write that counts several events) with wrong numbers.
EDIT, JUMP, REMOVE, MISFOLD = "edit", "jump", "remove", "misfold"

# Wrong numbers for a misfold.
WRONG: list[dict[str, Any]] = [
    {"increase": {"N": "6000"}},
    {"decrease": {"N": "6000"}},
    {"increase": {"N": "-9"}, "decrease": {"N": "-9"}},
    {"increase": {"S": "x"}},
    {"events": {"N": "0"}},
    {"events": {"S": "2"}},
    {"sender": {"S": ""}},
]


@dataclass(frozen=True)
class Step:
    """A write to one of the counters.

    Attributes:
        counter: the number of the counter.
        action: the kind of write.
        number: for a set or an edit, the new value; for an increment or a fold, the amount to add.
        pause: the time since the previous step, in seconds.
        delay: the time from the beginning of the request to the write, in seconds. Because delays
            differ, a change can have an earlier time than the change before it.
        decrease: the minimum for the sum of a fold's subtractions. The sum of the fold's additions
            minus the sum of its subtractions is `number`.
        sender: the sender of a fold's events.
        old: whether the fold stores no sums, as in an older version of Tally.
    """

    counter: int
    action: str
    number: int
    pause: float
    delay: float
    decrease: int
    sender: str
    old: bool


STEPS = st.lists(
    st.builds(
        Step,
        counter=st.integers(0, 2),
        action=st.sampled_from(
            [INCREMENT] * 9 + [SET] * 4 + [FOLD] * 6 + [UPDATE] * 3 + [EDIT, JUMP, REMOVE, MISFOLD]
        ),
        number=st.one_of(st.integers(-5, 5), st.sampled_from([2**52, -(2**52)])).filter(bool),
        pause=st.sampled_from([0, 0, 0, 0.001, 1, 7, 20, 60, 900, 3599.999]),
        delay=st.sampled_from([0, 0, 0, 0.001, 5, 19]),
        decrease=st.integers(0, 9),
        sender=st.sampled_from(["", "", "AROAEXAMPLE:checkout"]),
        old=st.sampled_from([False, False, False, True]),
    ),
    min_size=8,
    max_size=40,
)


@dataclass
class Stream:
    """The records of one shard of the stream.

    Attributes:
        records: all records: the valid ones, the malformed ones, and updates of sequence numbers.
    """

    records: list[StreamRecord] = field(default_factory=list)
    valid: list[StreamRecord] = field(default_factory=list)
    malformed: list[StreamRecord] = field(default_factory=list)
    folds: int = 0  # folds that have both an increase and a decrease
    updates: int = 0  # updates of sequence numbers


def stream_of(steps: Iterable[Step]) -> Stream:
    stream = Stream()
    pasts = [Past(f"counter-{number}") for number in range(3)]
    removed: set[int] = set()
    now = BEGINNING
    for step in steps:
        now += step.pause
        past = pasts[step.counter]
        if step.counter in removed or (not past.item and step.action in {EDIT, REMOVE, UPDATE}):
            continue
        if step.action == UPDATE:
            record = deepcopy(past.update_sequence_number())
            stream.updates += 1
        elif step.action in {INCREMENT, SET, FOLD}:
            value = int(past.item["value"]["N"]) if past.item else 0
            # Keep the value within the range of integers.
            by = step.number - value if step.action == SET else step.number
            by = by if abs(value + by) < 2**53 else -by
            if step.action == FOLD:
                record = add_fold(past, step, now, by)
                change = record["dynamodb"]["NewImage"]["change"]["M"]
                stream.folds += sums(change, by)[1] > 0 < sums(change, by)[0]
            else:
                record = deepcopy(past.change(now - step.delay, by, step.action))
            stream.valid.append(record)
        else:
            record = change_by_hand(past, step)
            stream.malformed.append(record)
        if step.action == REMOVE:
            removed.add(step.counter)
        record["dynamodb"]["SequenceNumber"] = f"{len(stream.records):021}"
        stream.records.append(record)
    return stream


def add_fold(past: Past, step: Step, now: float, by: int) -> StreamRecord:
    """Add a fold (a change that counts events from a queue), and return its stream record."""
    decrease = step.decrease + max(-by, 0)
    events = 1 + step.decrease
    time = now - step.delay
    if step.old:
        attributes: Item = {"events": {"N": str(events)}}
        return deepcopy(past.change(time, by, INCREMENT, **attributes))
    return deepcopy(past.fold(time, by + decrease, decrease, events, step.sender))


def change_by_hand(past: Past, step: Step) -> StreamRecord:
    """Write the counter's item in a way that Tally never does. Return the stream record."""
    if step.action == MISFOLD:
        # Change the value towards 0, so that it stays within the range of integers.
        up = not past.item or int(past.item["value"]["N"]) < 0
        record = past.fold(BEGINNING, step.decrease + 4 + up, step.decrease + 5 - up)
        record["dynamodb"]["NewImage"]["change"]["M"].update(WRONG[step.number % len(WRONG)])
        return deepcopy(record)
    if not past.item:
        past.change(BEGINNING, step.number)
        old: Item = {}
    else:
        old = past.item
    images: dict[str, Any] = {"OldImage": old} if old else {}
    if step.action == EDIT:
        same = old["value"]["N"] == str(step.number)  # an equal value changes nothing
        past.item = {**old, "value": {"N": str(step.number + same)}}
    elif step.action == JUMP:
        version = int(past.item["version"]["N"]) + abs(step.number % 7) + 2
        past.item = {**past.item, "version": {"N": str(version)}}
    if step.action != REMOVE:
        images["NewImage"] = past.item
    names = {EDIT: "MODIFY", REMOVE: "REMOVE", JUMP: "MODIFY" if old else "INSERT"}
    keys = {"counter_id": {"S": past.counter_id}}
    return {"eventName": names[step.action], "dynamodb": deepcopy({"Keys": keys, **images})}


# --- The expected history and trend --------------------------------------------------------------


def sums(change: Item, by: int) -> tuple[int, int]:
    """Return the increase and the decrease of a change: the sums of additions and subtractions.

    If the change does not store these sums, compute the sums from `by`.
    """
    if "increase" in change:
        return int(change["increase"]["N"]), int(change["decrease"]["N"])
    return max(by, 0), max(-by, 0)


def expected_history(records: Iterable[StreamRecord]) -> list[Item]:
    items = []
    for record in records:
        new = record["dynamodb"]["NewImage"]
        old = record["dynamodb"].get("OldImage", {"value": {"N": "0"}})
        change = new["change"]["M"]
        by = int(new["value"]["N"]) - int(old["value"]["N"])
        attributes: Item = {}
        if "events" in change:
            increase, decrease = sums(change, by)
            attributes = {
                "events": change["events"],
                "increase": {"N": str(increase)},
                "decrease": {"N": str(decrease)},
            }
        if "sender" in change:
            attributes["sender"] = change["sender"]
        items.append(
            {
                "counter_id": new["counter_id"],
                "version": new["version"],
                "value": new["value"],
                "previous_value": old["value"],
                "by": {"N": str(by)},
                "operation": change["operation"],
                "actor": change["actor"],
                "request_id": change["request_id"],
                "created_at": change["at"],
                "counter_created_at": new["created_at"],
                **attributes,
            }
        )
    return items


def expected_trend(history: Iterable[Item]) -> list[Item]:
    hours: dict[tuple[str, str], list[Item]] = {}
    for item in history:
        hour = item["created_at"]["S"][:13] + ":00:00.000Z"
        hours.setdefault((item["counter_id"]["S"], hour), []).append(item)
    items = []
    for (counter_id, hour), changes in hours.items():
        pairs = [sums(item, int(item["by"]["N"])) for item in changes]
        versions = [int(item["version"]["N"]) for item in changes]
        numbers = {
            "changes": len(changes),
            "increase": sum(increase for increase, _ in pairs),
            "decrease": sum(decrease for _, decrease in pairs),
            "first_version": min(versions),
            "last_version": max(versions),
            "close": int(changes[versions.index(max(versions))]["value"]["N"]),
        }
        key: Item = {"counter_id": {"S": counter_id}, "hour": {"S": hour}}
        items.append(key | {name: {"N": str(number)} for name, number in numbers.items()})
    return items


def canonical(items: Iterable[Any]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)
