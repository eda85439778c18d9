"""Whatever happens on the way, history and trend become exactly what the stream says."""

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
MOVE = "move"  # of a sequence number: no change
EDIT, JUMP, REMOVE, MISFOLD = "edit", "jump", "remove", "misfold"  # senseless

# What a fold that does not add up says instead of the truth.
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
    """What becomes of one of the counters, and when: `pause` and `early` are in seconds.

    Time goes on by the pause, and the request began early: so times may go back. What it folds
    took so much away beside what it added. `old` is whether an older version of Tally wrote it.
    """

    counter: int
    kind: str
    number: int
    pause: float
    early: float
    taken: int
    sender: str
    old: bool


STEPS = st.lists(
    st.builds(
        Step,
        counter=st.integers(0, 2),
        kind=st.sampled_from(
            [INCREMENT] * 9 + [SET] * 4 + [FOLD] * 6 + [MOVE] * 3 + [EDIT, JUMP, REMOVE, MISFOLD]
        ),
        number=st.one_of(st.integers(-5, 5), st.sampled_from([2**52, -(2**52)])).filter(bool),
        pause=st.sampled_from([0, 0, 0, 0.001, 1, 7, 20, 60, 900, 3599.999]),
        early=st.sampled_from([0, 0, 0, 0.001, 5, 19]),
        taken=st.integers(0, 9),
        sender=st.sampled_from(["", "", "AROAEXAMPLE:checkout"]),
        old=st.sampled_from([False, False, False, True]),
    ),
    min_size=8,
    max_size=40,
)


@dataclass
class Stream:
    """The records of one shard, and which of them make an entry of the history and which none."""

    records: list[StreamRecord] = field(default_factory=list)
    good: list[StreamRecord] = field(default_factory=list)
    senseless: list[StreamRecord] = field(default_factory=list)
    folds: int = 0  # of which both sums are above 0
    moves: int = 0


def stream_of(steps: Iterable[Step]) -> Stream:
    stream = Stream()
    pasts = [Past(f"counter-{number}") for number in range(3)]
    removed: set[int] = set()
    now = BEGINNING
    for step in steps:
        now += step.pause
        past = pasts[step.counter]
        if step.counter in removed or (not past.item and step.kind in {EDIT, REMOVE, MOVE}):
            continue
        if step.kind == MOVE:
            record = deepcopy(past.update_sequence_number())
            stream.moves += 1
        elif step.kind in {INCREMENT, SET, FOLD}:
            value = int(past.item["value"]["N"]) if past.item else 0
            # Past the edge of the integers no change goes.
            by = step.number - value if step.kind == SET else step.number
            by = by if abs(value + by) < 2**53 else -by
            if step.kind == FOLD:
                record = fold(past, step, now, by)
                change = record["dynamodb"]["NewImage"]["change"]["M"]
                stream.folds += sums(change, by)[1] > 0 < sums(change, by)[0]
            else:
                record = deepcopy(past.change(now - step.early, by, step.kind))
            stream.good.append(record)
        else:
            record = by_hand(past, step)
            stream.senseless.append(record)
        if step.kind == REMOVE:
            removed.add(step.counter)
        record["dynamodb"]["SequenceNumber"] = f"{len(stream.records):021}"
        stream.records.append(record)
    return stream


def fold(past: Past, step: Step, now: float, by: int) -> StreamRecord:
    """Change the counter by events of the queue."""
    taken = step.taken + max(-by, 0)
    if step.old:
        more: Item = {"events": {"N": str(1 + step.taken)}}
        return deepcopy(past.change(now - step.early, by, INCREMENT, **more))
    made = past.fold(now - step.early, by + taken, taken, 1 + step.taken, step.sender)
    return deepcopy(made)


def by_hand(past: Past, step: Step) -> StreamRecord:
    """Change the item as somebody does who goes around the service."""
    if step.kind == MISFOLD:
        # Towards 0, so that the value stays in the range of integers.
        up = not past.item or int(past.item["value"]["N"]) < 0
        record = past.fold(BEGINNING, step.taken + 4 + up, step.taken + 5 - up)
        record["dynamodb"]["NewImage"]["change"]["M"].update(WRONG[step.number % len(WRONG)])
        return deepcopy(record)
    if not past.item:
        past.change(BEGINNING, step.number)
        old: Item = {}
    else:
        old = past.item
    images: dict[str, Any] = {"OldImage": old} if old else {}
    if step.kind == EDIT:
        same = old["value"]["N"] == str(step.number)  # that would be no change
        past.item = {**old, "value": {"N": str(step.number + same)}}
    elif step.kind == JUMP:
        version = int(past.item["version"]["N"]) + abs(step.number % 7) + 2
        past.item = {**past.item, "version": {"N": str(version)}}
    if step.kind != REMOVE:
        images["NewImage"] = past.item
    names = {EDIT: "MODIFY", REMOVE: "REMOVE", JUMP: "MODIFY" if old else "INSERT"}
    keys = {"counter_id": {"S": past.counter_id}}
    return {"eventName": names[step.kind], "dynamodb": deepcopy({"Keys": keys, **images})}


# --- What is to become of it ---------------------------------------------------------------------


def sums(change: Item, by: int) -> tuple[int, int]:
    """Return what a change added and what it took; both follow from `by` if it does not say."""
    if "increase" in change:
        return int(change["increase"]["N"]), int(change["decrease"]["N"])
    return max(by, 0), max(-by, 0)


def expected_history(good: Iterable[StreamRecord]) -> list[Item]:
    items = []
    for record in good:
        new = record["dynamodb"]["NewImage"]
        old = record["dynamodb"].get("OldImage", {"value": {"N": "0"}})
        change = new["change"]["M"]
        by = int(new["value"]["N"]) - int(old["value"]["N"])
        more: Item = {}
        if "events" in change:
            increase, decrease = sums(change, by)
            more = {
                "events": change["events"],
                "increase": {"N": str(increase)},
                "decrease": {"N": str(decrease)},
            }
        if "sender" in change:
            more["sender"] = change["sender"]
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
                **more,
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
        given = [sums(item, int(item["by"]["N"])) for item in changes]
        versions = [int(item["version"]["N"]) for item in changes]
        numbers = {
            "changes": len(changes),
            "increase": sum(increase for increase, _ in given),
            "decrease": sum(decrease for _, decrease in given),
            "first_version": min(versions),
            "last_version": max(versions),
            "close": int(changes[versions.index(max(versions))]["value"]["N"]),
        }
        key: Item = {"counter_id": {"S": counter_id}, "hour": {"S": hour}}
        items.append(key | {name: {"N": str(number)} for name, number in numbers.items()})
    return items


def canonical(items: Iterable[Any]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


# --- Its deliveries ------------------------------------------------------------------------------

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
DEATHS = "before", "behind"  # a request
LASTING = 1000  # requests: more than there is time for
NEARLY_ALL = aws_template.functions()["RecordHistory"].timeout - 5  # seconds of an invocation


@dataclass(frozen=True)
class Trouble:
    """From the request number `at` of a delivery on, so many requests go wrong.

    `which` is the death, or a number for one of the faults of whatever operation is asked for.
    """

    at: int
    which: str | int
    requests: int


@dataclass(frozen=True)
class Delivery:
    """A batch: it begins so many records before the first that is not done.

    So many of its last are in it once more.
    """

    back: int
    length: int
    again: int
    troubles: list[Trouble]


TROUBLE = st.builds(
    Trouble,
    at=st.sampled_from([0, 0, 1, 1, 1, 2, 2, 3, 4, 6]),
    which=st.one_of(st.integers(0, 7), st.sampled_from(DEATHS)),
    requests=st.sampled_from([1, 2, LASTING, LASTING]),
)
DELIVERIES = st.lists(
    st.builds(
        Delivery,
        back=st.sampled_from([0, 0, 0, 0, 1, 3, 8, 40]),
        length=st.sampled_from([1, 2, 3, 5, 8, 13, 30]),
        again=st.sampled_from([0, 0, 0, 0, 1, 5]),
        troubles=st.lists(TROUBLE, max_size=2),
    ),
    min_size=3,
    max_size=10,
)


class Road:
    """Carries requests to moto, and meets with the troubles of the delivery under way."""

    def __init__(self) -> None:
        self.troubles: list[Trouble] = []
        self.requests = 0
        self.parking: Callable[[StreamRecord], None] = lambda _record: None
        self.met: Counter[str] = Counter()

    def carry(self, request: AWSPreparedRequest) -> AWSResponse:
        number = self.requests
        self.requests += 1
        target = request.headers["X-Amz-Target"]
        operation = (target if isinstance(target, str) else target.decode()).rpartition(".")[2]
        if operation == "SendMessage":
            assert isinstance(request.body, bytes)
            self.parking(json.loads(json.loads(request.body)["MessageBody"]))
        for trouble in self.troubles:
            if not 0 <= number - trouble.at < trouble.requests:
                continue
            if trouble.requests == LASTING and number == trouble.at:
                clock.sleep(NEARLY_ALL)  # as hundreds of attempts do
            if isinstance(trouble.which, int):
                faults = FAULTS[operation]
                self.met[operation] += 1
                return faults[trouble.which % len(faults)](request)
            self.met[f"death {trouble.which} a request"] += 1
            if trouble.which == "behind":
                delivered(request)
            raise Killed
        return delivered(request)


@dataclass
class World:
    """The stack, what its functions' requests go through, and what was done to it so far."""

    stack: Stack
    road: Road
    counts: Counter[str] = field(default_factory=Counter)

    def deliver(self, stream: Stream, deliveries: Iterable[Delivery]) -> None:
        """Deliver the stream as Lambda does, at last to its end and without troubles."""
        done = 0
        rest = itertools.repeat(Delivery(0, 100, 0, []))
        for delivery in itertools.chain(deliveries, rest):
            start = max(0, done - delivery.back)
            batch = stream.records[start : start + delivery.length]
            if not batch:
                # At the end of the stream.
                if delivery.length == 100:
                    return
                continue
            self.counts["deliveries"] += 1
            self.road.troubles, self.road.requests = delivery.troubles, 0
            self.road.parking = partial(self.complete_before, stream)
            again = batch[-delivery.again :] if delivery.again else []
            try:
                reached = min(self.stack.record(batch + again), len(batch))
            except Killed:
                done = start
                continue
            finally:
                self.road.troubles = []
            self.counts["failures reported"] += reached < len(batch)
            self.counts["from the reported"] += bool(0 < reached < len(batch))
            done = start + reached

    def complete_before(self, stream: Stream, parked: StreamRecord) -> None:
        """See that all that is before a record is recorded when it goes to the queue."""
        number = parked["dynamodb"]["SequenceNumber"]
        before = [each for each in stream.good if each["dynamodb"]["SequenceNumber"] < number]
        history = expected_history(before)
        stored = canonical(self.stack.items("HistoryTable"))
        assert set(canonical(history)) <= set(stored)
        folded = {
            (item["counter_id"]["S"], item["hour"]["S"]): int(item["last_version"]["N"])
            for item in self.stack.items("TrendTable")
        }
        for item in expected_trend(history):
            last = int(item["last_version"]["N"])
            assert folded[item["counter_id"]["S"], item["hour"]["S"]] >= last

    def parked(self) -> set[str]:
        """Return the records in the dead-letter queue, and leave none there."""
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
    road = Road()
    wire.through = road.carry
    with silence():
        yield World(stack, road)


def test_history_and_trend_hold_exactly_what_the_stream_says(world: World) -> None:
    @examples(full=1500, part=20)
    @given(steps=STEPS, deliveries=DELIVERIES)
    def run(steps: list[Step], deliveries: list[Delivery]) -> None:
        clear(world.stack, "HistoryTable", "TrendTable")
        world.parked()
        stream = stream_of(steps)
        world.counts["cases"] += 1
        world.counts["changes"] += len(stream.good)
        world.counts["senseless"] += len(stream.senseless)
        world.counts["folds of both signs"] += stream.folds
        world.counts["moves"] += stream.moves

        world.deliver(stream, deliveries)

        history = expected_history(stream.good)
        assert canonical(world.stack.items("HistoryTable")) == canonical(history)
        assert canonical(world.stack.items("TrendTable")) == canonical(expected_trend(history))
        assert world.parked() == set(canonical(stream.senseless))

    # In a thread of its own the stack begins anew. On top of pytest's, CPython 3.11 gave a piece
    # of it back and took it again at nearly every call in moto: twice the time.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()

    counts, met = world.counts, world.road.met
    deaths = sum(count for what, count in met.items() if "death" in what)
    print(f"{counts['cases']} cases with {counts['changes']} changes and", end=" ")
    print(f"{counts['senseless']} senseless records in {counts['deliveries']} deliveries:", end=" ")
    print(f"{met.total() - deaths} faults, {deaths} deaths;", dict(counts), dict(met))
    size = cases(full=1500, part=20)
    assert counts["cases"] >= size
    assert min(deaths, counts["senseless"]) > size / 4
    assert min(counts["folds of both signs"], counts["moves"]) >= size
    assert min(counts["from the reported"], *(met[name] for name in FAULTS)) > size / 30
