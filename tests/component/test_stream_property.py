"""History and trend match the stream after any faults, kills and redeliveries."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from hypothesis import given
from hypothesis import strategies as st
from tests import aws_template
from tests.component.output import silence
from tests.component.simulation import BEGINNING, Killed
from tests.contents import clear
from tests.past import Past
from tests.sizes import cases, examples
from tests.stack import Item, Stack, StreamRecord
from tests.wire import (
    Fault,
    Wire,
    delivered,
    denied,
    internal_error,
    processed,
    reply_lost,
    throttled,
)

from counters import clock

DEAD_LETTERS = "HistoryDeadLetterQueue"

# --- The stream ----------------------------------------------------------------------------------

INCREMENT, SET, FOLD = "increment", "set", "fold"
UPDATE = "update"  # only a sequence number is updated: not a change of the counter
EDIT, JUMP, REMOVE, MISFOLD = "edit", "jump", "remove", "misfold"  # make malformed records

# Malformed attributes of a fold.
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
        number: the new value of a set or an edit; for an increment or a fold, the difference.
        pause: the time since the step before, in seconds.
        delay: how long before the write its request began, in seconds. So times can go back.
        decrease: the least amount that a fold subtracts. It adds `number` more than it subtracts.
        sender: the sender of a fold's events.
        old: whether an older version of Tally wrote the fold.
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
    """The records of one shard: valid ones, malformed ones and updates of sequence numbers."""

    records: list[StreamRecord] = field(default_factory=list)
    valid: list[StreamRecord] = field(default_factory=list)
    malformed: list[StreamRecord] = field(default_factory=list)
    folds: int = 0  # with an increase and a decrease
    updates: int = 0


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
            # Stay within the range of integers.
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
    """Add a change that counts events from a queue."""
    decrease = step.decrease + max(-by, 0)
    events = 1 + step.decrease
    time = now - step.delay
    if step.old:
        attributes: Item = {"events": {"N": str(events)}}
        return deepcopy(past.change(time, by, INCREMENT, **attributes))
    return deepcopy(past.fold(time, by + decrease, decrease, events, step.sender))


def change_by_hand(past: Past, step: Step) -> StreamRecord:
    """Change the counter's item in a way that Tally never does."""
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
        same = old["value"]["N"] == str(step.number)  # an equal value would not be a change
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
    """Return the increase and the decrease of a change. By default they follow from `by`."""
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


# --- Deliveries ----------------------------------------------------------------------------------

FAULTS: dict[str, list[Fault]] = {
    "BatchWriteItem": [
        throttled,
        reply_lost,
        internal_error,
        denied,
        processed(0),
        processed(1),
        processed(2),
        processed(7),
    ],
    "BatchGetItem": [throttled, reply_lost, internal_error, denied],
    "UpdateItem": [throttled, reply_lost, internal_error, denied],
    "SendMessage": [denied, reply_lost],
}
KILLS = "before", "after"  # a request
LASTING = 1000  # requests: more than an invocation has time for
NEAR_TIMEOUT = aws_template.functions()["RecordHistory"].timeout - 5  # seconds


@dataclass(frozen=True)
class Trouble:
    """Consecutive requests of a delivery that fail.

    Attributes:
        first: the number of the first request that fails.
        fault: one of KILLS, or the number of a fault in FAULTS for the operation of the request.
        requests: the number of requests that fail.
    """

    first: int
    fault: str | int
    requests: int


@dataclass(frozen=True)
class Delivery:
    """A batch of stream records.

    Attributes:
        back: the number of records at the beginning that are already done.
        length: the number of records.
        repeated: the number of records that the batch repeats at its end.
        troubles: the requests that fail.
    """

    back: int
    length: int
    repeated: int
    troubles: list[Trouble]


TROUBLE = st.builds(
    Trouble,
    first=st.sampled_from([0, 0, 1, 1, 1, 2, 2, 3, 4, 6]),
    fault=st.one_of(st.integers(0, 7), st.sampled_from(KILLS)),
    requests=st.sampled_from([1, 2, LASTING, LASTING]),
)
DELIVERIES = st.lists(
    st.builds(
        Delivery,
        back=st.sampled_from([0, 0, 0, 0, 1, 3, 8, 40]),
        length=st.sampled_from([1, 2, 3, 5, 8, 13, 30]),
        repeated=st.sampled_from([0, 0, 0, 0, 1, 5]),
        troubles=st.lists(TROUBLE, max_size=2),
    ),
    min_size=3,
    max_size=10,
)


class Network:
    """Carries requests to moto, and lets some fail according to the current delivery."""

    def __init__(self) -> None:
        self.troubles: list[Trouble] = []
        self.requests = 0
        self.on_park: Callable[[StreamRecord], None] = lambda _record: None
        self.fault_counts: Counter[str] = Counter()

    def carry(self, request: AWSPreparedRequest) -> AWSResponse:
        number = self.requests
        self.requests += 1
        target = request.headers["X-Amz-Target"]
        operation = (target if isinstance(target, str) else target.decode()).rpartition(".")[2]
        if operation == "SendMessage":
            assert isinstance(request.body, bytes)
            self.on_park(json.loads(json.loads(request.body)["MessageBody"]))
        for trouble in self.troubles:
            if not 0 <= number - trouble.first < trouble.requests:
                continue
            if trouble.requests == LASTING and number == trouble.first:
                clock.sleep(NEAR_TIMEOUT)  # skips hundreds of attempts
            if isinstance(trouble.fault, int):
                faults = FAULTS[operation]
                self.fault_counts[operation] += 1
                return faults[trouble.fault % len(faults)](request)
            self.fault_counts[f"kill {trouble.fault} a request"] += 1
            if trouble.fault == "after":
                delivered(request)
            raise Killed
        return delivered(request)


@dataclass
class World:
    """The stack, the network of its functions, and counts of what happened so far."""

    stack: Stack
    network: Network
    counts: Counter[str] = field(default_factory=Counter)

    def deliver(self, stream: Stream, deliveries: Iterable[Delivery]) -> None:
        """Deliver the stream as Lambda does. After these deliveries, finish it without faults."""
        done = 0
        rest = itertools.repeat(Delivery(0, 100, 0, []))
        for delivery in itertools.chain(deliveries, rest):
            start = max(0, done - delivery.back)
            batch = stream.records[start : start + delivery.length]
            if not batch:
                # This is the end of the stream.
                if delivery.length == 100:
                    return
                continue
            self.counts["deliveries"] += 1
            self.network.troubles, self.network.requests = delivery.troubles, 0
            self.network.on_park = partial(self.check_complete_before, stream)
            repeated = batch[-delivery.repeated :] if delivery.repeated else []
            try:
                reached = min(self.stack.record(batch + repeated), len(batch))
            except Killed:
                done = start
                continue
            finally:
                self.network.troubles = []
            self.counts["failures reported"] += reached < len(batch)
            self.counts["partial failures"] += bool(0 < reached < len(batch))
            done = start + reached

    def check_complete_before(self, stream: Stream, parked: StreamRecord) -> None:
        """Check that all changes before a record are recorded when the record is parked."""
        number = parked["dynamodb"]["SequenceNumber"]
        before = [each for each in stream.valid if each["dynamodb"]["SequenceNumber"] < number]
        history = expected_history(before)
        stored = canonical(self.stack.items("HistoryTable"))
        assert set(canonical(history)) <= set(stored)
        last_versions = {
            (item["counter_id"]["S"], item["hour"]["S"]): int(item["last_version"]["N"])
            for item in self.stack.items("TrendTable")
        }
        for item in expected_trend(history):
            last = int(item["last_version"]["N"])
            assert last_versions[item["counter_id"]["S"], item["hour"]["S"]] >= last

    def take_parked(self) -> set[str]:
        """Return the records in the dead-letter queue, and delete them."""
        url = self.stack.refs[DEAD_LETTERS]
        records = set()
        while messages := self.stack.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                records.add(canonical([json.loads(message["Body"])])[0])
                self.stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return records


@pytest.fixture
def world(stack: Stack, wire: Wire) -> Iterator[World]:
    network = Network()
    wire.through = network.carry
    with silence():
        yield World(stack, network)


def test_history_and_trend_match_the_stream_after_any_faults(world: World) -> None:
    @examples(full=1500, part=20)
    @given(steps=STEPS, deliveries=DELIVERIES)
    def run(steps: list[Step], deliveries: list[Delivery]) -> None:
        clear(world.stack, "HistoryTable", "TrendTable")
        world.take_parked()
        stream = stream_of(steps)
        world.counts["cases"] += 1
        world.counts["changes"] += len(stream.valid)
        world.counts["malformed"] += len(stream.malformed)
        world.counts["folds with both sums"] += stream.folds
        world.counts["updates"] += stream.updates

        world.deliver(stream, deliveries)

        history = expected_history(stream.valid)
        assert canonical(world.stack.items("HistoryTable")) == canonical(history)
        assert canonical(world.stack.items("TrendTable")) == canonical(expected_trend(history))
        assert world.take_parked() == set(canonical(stream.malformed))

    # Run in a new thread, which has an empty call stack. On top of pytest's frames, CPython 3.11
    # frees and allocates stack memory at nearly every call in moto, which doubles the time.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()

    counts, faults = world.counts, world.network.fault_counts
    kills = sum(count for name, count in faults.items() if "kill" in name)
    print(f"{counts['cases']} cases with {counts['changes']} changes and", end=" ")
    print(f"{counts['malformed']} malformed records in {counts['deliveries']} deliveries:", end=" ")
    print(f"{faults.total() - kills} faults, {kills} kills;", dict(counts), dict(faults))
    size = cases(full=1500, part=20)
    assert counts["cases"] >= size
    assert min(kills, counts["malformed"]) > size / 4
    assert min(counts["folds with both sums"], counts["updates"]) >= size
    assert min(counts["partial failures"], *(faults[name] for name in FAULTS)) > size / 30
