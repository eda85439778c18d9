"""Whatever happens on the way, each message of the queue is counted once, or parked once."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from hypothesis import given
from hypothesis import strategies as st
from tests.component.output import silence
from tests.component.simulation import BEGINNING, Killed, dies, dies_after
from tests.contents import clear
from tests.fifo_queue import MAX_BATCH, STEP, FifoQueue, Message, Parked, as_parked, deliver, parked
from tests.sizes import cases, examples
from tests.stack import REGION, Item, Stack, StreamRecord
from tests.wire import (
    Fault,
    Wire,
    canceled,
    conflict,
    connection_lost,
    delivered,
    denied,
    internal_error,
    refused_internally,
    reply_lost,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock

MAX = 2**53 - 1
# Half of the messages have numbers of 20 digits, the others of 21.
TURN = 10**20

# --- The road ------------------------------------------------------------------------------------


DEATHS: dict[str, Fault] = {"dies before": dies, "dies behind": dies_after}
LOST: dict[str, Fault] = {
    "reply lost": reply_lost,
    "connection lost": connection_lost,
    "500 and applied": internal_error,
}
REFUSED: dict[str, Fault] = {
    "throttled": throttled,
    "request lost": request_lost,
    "500": refused_internally,
    "unreachable": unreachable,
}
FAULTS: dict[str, dict[str, Fault]] = {
    "UpdateItem": {**LOST, **REFUSED, "denied": denied, "conflict": conflict},
    "TransactWriteItems": {
        **LOST,
        **REFUSED,
        "denied": denied,
        "conflict": canceled("TransactionConflict", "None"),
        "conflict of the other": canceled("None", "TransactionConflict"),
    },
    "SendMessage": {**LOST, **REFUSED, "denied": denied},
}


class Road:
    """Carries requests to moto; `chance` says what each meets: the name of a fault, or nothing."""

    def __init__(self) -> None:
        self.chance: Callable[[str], str] = lambda _operation: ""
        self.met: Counter[tuple[str, str]] = Counter()

    def carry(self, request: AWSPreparedRequest) -> AWSResponse:
        target = request.headers["X-Amz-Target"]
        operation = (target if isinstance(target, str) else target.decode()).rpartition(".")[2]
        name = self.chance(operation) if operation in FAULTS else ""
        if not name:
            return delivered(request)
        self.met[operation, name] += 1
        return (FAULTS[operation] | DEATHS)[name](request)

    def deaths(self) -> int:
        return sum(count for (_, name), count in self.met.items() if name in DEATHS)

    def faults(self) -> int:
        return self.met.total() - self.deaths()


@pytest.fixture
def road(stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:  # noqa: ARG001
    road = Road()
    wire.through = road.carry
    # Only waiting takes time, and the pauses are the same in each run.
    now = BEGINNING

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(clock, "sleep", sleep)
    state = random.getstate()
    random.seed(1)
    with silence():
        yield road
    random.setstate(state)


def in_its_own_thread(run: Callable[[], None]) -> None:
    # There the stack begins anew. On top of pytest's, CPython 3.11 gave a piece of it back and took
    # it again at nearly every call in moto: twice the time.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


# --- What is sent, and what is to become of it ---------------------------------------------------

SENSELESS = ["", "null", "{}", '{"counter_id": "counter-1", "by": 0}', '{"detail-type": "Count"}']


@dataclass
class Traffic:
    """A queue, and what its messages are to come to."""

    queue: FifoQueue
    sums: Counter[str] = field(default_factory=Counter)
    increases: Counter[str] = field(default_factory=Counter)
    decreases: Counter[str] = field(default_factory=Counter)
    counting: int = 0
    senseless: list[Message] = field(default_factory=list)

    def send(self, group: str, counter_id: str, by: int, source: str = "") -> None:
        fields: dict[str, object] = {"counter_id": counter_id, "by": by}
        if source:
            fields = {"detail-type": "Count", "source": source, "detail": fields}
        self.queue.send(json.dumps(fields), group)
        self.sums[counter_id] += by
        self.increases[counter_id] += max(by, 0)
        self.decreases[counter_id] += max(-by, 0)
        self.counting += 1

    def send_senseless(self, group: str, body: str) -> None:
        self.senseless.append(self.queue.send(body, group))


def by_group(messages: Sequence[Parked]) -> dict[str, list[Parked]]:
    """Return the messages of each group, in their order: that of different groups is open."""
    groups: dict[str, list[Parked]] = defaultdict(list)
    for message in messages:
        groups[message.group].append(message)
    return groups


def number(item: Any, name: str) -> int:  # noqa: ANN401  an item of whatever table
    return int(item[name]["N"])


def is_change(record: StreamRecord) -> bool:
    """Return whether a counter has changed, and not only what it remembers of a refused message."""
    images = record["dynamodb"]
    return (
        "OldImage" not in images or images["OldImage"]["version"] != images["NewImage"]["version"]
    )


def whole_stream(stack: Stack) -> list[StreamRecord]:
    """Return all changes of CounterTable, of which moto hands out a thousand at a time."""
    streams = boto3.client("dynamodbstreams", REGION)
    (stream,) = streams.list_streams(TableName=stack.refs["CounterTable"])["Streams"]
    described = streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]
    records: list[Any] = []
    position = streams.get_shard_iterator(
        StreamArn=stream["StreamArn"],
        ShardId=described["Shards"][0]["ShardId"],
        ShardIteratorType="TRIM_HORIZON",
    )["ShardIterator"]
    while (reply := streams.get_records(ShardIterator=position))["Records"]:
        records += reply["Records"]
        position = reply["NextShardIterator"]
    # moto makes an item in two steps, and its stream has the first as well: only the key.
    return [each for each in records if each["dynamodb"]["NewImage"] != each["dynamodb"]["Keys"]]


def prove(stack: Stack, traffic: Traffic) -> int:
    """See that counters, dead-letter queue, stream and history say the same; return the writes."""
    counters = {item["counter_id"]["S"]: item for item in stack.items("CounterTable")}
    values = {name: number(item, "value") for name, item in counters.items()}
    assert values == dict(traffic.sums)
    assert by_group(parked(stack)) == by_group([as_parked(each) for each in traffic.senseless])

    records = whole_stream(stack)
    changes = [record for record in records if is_change(record)]
    events = [number(change["dynamodb"]["NewImage"]["change"]["M"], "events") for change in changes]
    assert sum(events) == traffic.counting
    for start in range(0, len(records), 500):
        batch = records[start : start + 500]
        assert stack.record(batch) == len(batch)

    histories: dict[str, list[Item]] = defaultdict(list)
    for entry in stack.items("HistoryTable"):
        histories[entry["counter_id"]["S"]].append(entry)
    assert histories.keys() == counters.keys()
    for name, entries in histories.items():
        entries.sort(key=lambda entry: number(entry, "version"))
        versions = [number(entry, "version") for entry in entries]
        assert versions == list(range(1, number(counters[name], "version") + 1))
        assert number(entries[0], "previous_value") == 0
        for entry, following in pairwise(entries):
            assert number(following, "previous_value") == number(entry, "value")
        for entry in entries:
            by = number(entry, "by")
            assert number(entry, "previous_value") + by == number(entry, "value")
            assert number(entry, "increase") - number(entry, "decrease") == by
        assert number(entries[-1], "value") == values[name]
    recorded = [number(entry, "events") for entries in histories.values() for entry in entries]
    assert sum(recorded) == traffic.counting
    for name, entries in histories.items():
        sums = [sum(number(entry, each) for entry in entries) for each in ("increase", "decrease")]
        assert sums == [traffic.increases[name], traffic.decreases[name]]
        hours = [item for item in stack.items("TrendTable") if item["counter_id"]["S"] == name]
        assert sums == [
            sum(number(item, each) for item in hours) for each in ("increase", "decrease")
        ]
    return len(changes)


# --- At random -----------------------------------------------------------------------------------

GROUPS = [f"group-{number}" for number in range(cases(full=20, part=12))]
COUNTERS = [f"counter-{number}" for number in range(cases(full=50, part=12))]
HOT = 2  # counters of all groups; the others have one to eight, whose numbers are in their items


def random_traffic(chance: random.Random, size: int) -> Traffic:
    """Return messages of which each group mostly counts the same for a while, then another."""
    traffic = Traffic(FifoQueue(first=TURN - STEP * (size // 2)))
    known: dict[str, list[str]] = dict.fromkeys(GROUPS, COUNTERS[:HOT] * 8)
    last = {}
    for position, counter_id in enumerate(COUNTERS[HOT:]):
        for group in chance.sample(GROUPS, 1 + position % 8):
            known[group] = [*known[group], counter_id]
            last[group] = counter_id
        traffic.send(group, counter_id, 1)
    while len(traffic.queue.sent) < size:
        group = chance.choice(GROUPS)
        if chance.random() < 0.04:
            traffic.send_senseless(group, chance.choice(SENSELESS))
            continue
        if chance.random() < 0.1:
            last[group] = chance.choice(known[group])
        by = chance.choice([1, 1, 1, 2, 5, -1, -3, 2**35, -(2**36)])
        traffic.send(group, last[group], by, chance.choice(["", "", "shop", "stock"]))
    return traffic


def troubles(chance: random.Random) -> Callable[[str], str]:
    """Return what the requests of a delivery meet: here and there a fault, a death, an outage."""
    outage = {}
    if chance.random() < 0.04:
        operation = chance.choice([*FAULTS])
        outage[operation] = chance.choice([*FAULTS[operation]])

    def meet(operation: str) -> str:
        luck = chance.random()
        if luck < 0.02:
            return chance.choice([*DEATHS])
        if luck < 0.12:
            return chance.choice([*FAULTS[operation]])
        return outage.get(operation, "")

    return meet


def random_batch(chance: random.Random, queue: FifoQueue) -> list[Message]:
    lengths: dict[str, int] = {}
    left = MAX_BATCH
    for group in chance.sample([*queue.waiting], min(len(queue.waiting), chance.choice([1, 1, 2]))):
        lengths[group] = min(left, chance.choice([1, 4, 7, 10, 10]))
        left -= lengths[group]
    return queue.batch(lengths)


@dataclass
class Mapping:
    """Hands the messages of a queue to the function, until none is left."""

    stack: Stack
    road: Road
    queue: FifoQueue
    chance: random.Random
    received: Counter[Message] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    before: list[list[Message]] = field(default_factory=list)

    def run(self) -> None:
        while self.queue.waiting:
            self.counts["deliveries"] += 1
            if self.before and self.chance.random() < 0.12:
                # An invocation that was long given up; what it was given may have been less.
                self.counts["late"] += 1
                old = self.chance.choice(self.before[-50:])
                self._deliver(old[: self.chance.randint(1, len(old))])
                continue
            batch = random_batch(self.chance, self.queue)
            self.before.append(batch)
            failed = self._deliver(batch)
            if failed is None:
                continue
            luck = self.chance.random()
            if luck < 0.15:
                self.counts["acknowledgements lost"] += 1
                continue
            if luck < 0.3:
                self.counts["acknowledged in part"] += 1
                kept = self.chance.sample(batch, self.chance.randint(1, len(batch)))
                failed = [*failed, *kept]
            self.queue.delete(batch, failed)

    def _deliver(self, batch: list[Message]) -> list[Message] | None:
        """Deliver a batch; return what fails, None if the function dies."""
        self.received.update(batch)
        self.road.chance = troubles(self.chance)
        try:
            failed = deliver(self.stack, *batch)
        except Killed:
            return None
        finally:
            self.road.chance = lambda _operation: ""
        self.counts["with failures"] += bool(failed)
        return failed


def test_each_of_many_messages_is_counted_once_or_parked_once(stack: Stack, road: Road) -> None:
    size = cases(full=20_000, part=400)
    chance = random.Random(20)
    traffic = random_traffic(chance, size)
    mapping = Mapping(stack, road, traffic.queue, chance)
    counts = mapping.counts

    def run() -> None:
        mapping.run()
        counts["writes"] = prove(stack, traffic)

    in_its_own_thread(run)

    again = sum(count > 1 for count in mapping.received.values()) / size
    print(f"{size} messages, {len(traffic.senseless)} of them senseless, in", end=" ")
    print(f"{counts['deliveries']} deliveries, {again:.0%} of them more than once;", end=" ")
    print(f"{road.faults()} faults, {road.deaths()} deaths;", end=" ")
    print(f"{counts['writes']} writes, {traffic.counting / counts['writes']:.2f} events a write;")
    print(dict(counts), {" ".join(what): count for what, count in road.met.items()})
    assert len(mapping.received) == size
    assert traffic.sums.keys() == {*COUNTERS}
    assert again >= 0.25
    assert len(traffic.senseless) > size / 40
    assert road.deaths() > size / 200
    assert road.faults() > size / 20
    assert {operation for operation, _ in road.met} == {*FAULTS}
    assert (
        min(counts[each] for each in ("with failures", "late", "acknowledgements lost"))
        > size / 300
    )


def test_a_function_that_is_killed_many_times_counts_each_message_once(
    stack: Stack, road: Road
) -> None:
    chance, kills = random.Random(50), cases(full=50, part=25)
    traffic = Traffic(FifoQueue())
    queue = traffic.queue
    position = 0
    plan = (0, "")  # which request of a delivery kills it, and how

    def meet(_operation: str) -> str:
        nonlocal position
        position += 1
        return plan[1] if position == plan[0] else ""

    def run() -> None:
        nonlocal position, plan
        # Of the first counter an item has no place for the numbers of so many groups.
        for group in GROUPS[:12]:
            traffic.send(group, "one", 1)
        road.chance = meet
        while road.deaths() < kills or queue.waiting:
            for _ in range(3 if road.deaths() < kills else 0):
                group = chance.choice(GROUPS[:12])
                if chance.random() < 0.2:
                    traffic.send_senseless(group, chance.choice(SENSELESS))
                else:
                    name = chance.choice(["one", "two"])
                    traffic.send(group, name, chance.randint(1, 1000))
            position = 0
            plan = chance.randint(1, 4), chance.choice([*DEATHS]) if road.deaths() < kills else ""
            batch = random_batch(chance, queue)
            try:
                failed = deliver(stack, *batch)
            except Killed:
                continue
            assert failed == []
            queue.delete(batch, failed)
        prove(stack, traffic)

    in_its_own_thread(run)

    print(f"{len(queue.sent)} messages;", dict(road.met))
    assert road.met.keys() == {(operation, death) for operation in FAULTS for death in DEATHS}
    assert road.met.total() == kills


# --- Small cases against a model -----------------------------------------------------------------


@dataclass(frozen=True)
class Send:
    group: int
    counter: int
    by: int  # 0 is senseless


@dataclass(frozen=True)
class Set:
    """Somebody sets a counter, so near to an end of the integers that there is no room for much."""

    counter: int
    value: int


@dataclass(frozen=True)
class Deliver:
    """So many messages of each group, or so many of a batch that was delivered before."""

    lengths: tuple[int, ...]
    old: int | None  # counted from the last
    kept: int  # of the batch, so many are not deleted
    faults: tuple[int, ...]


AMOUNTS = st.one_of(
    st.integers(-3, 9), st.sampled_from([MAX, -MAX, MAX - 1, 2**52, -(2**52), 2**52 - 1])
)
SENDS = st.builds(Send, st.integers(0, 2), st.integers(0, 2), AMOUNTS)
SETS = st.builds(Set, st.integers(0, 2), st.sampled_from([0, MAX - 5, 5 - MAX, MAX, -MAX, 2**52]))
DELIVERIES = st.builds(
    Deliver,
    lengths=st.tuples(*[st.integers(0, 3)] * 3),
    old=st.sampled_from([None, None, None, 0, 1, 2]),
    kept=st.sampled_from([0, 0, 1, 2, 9]),
    faults=st.lists(st.integers(0, 6), max_size=2).map(tuple),
)
STEPS = st.lists(
    st.one_of(SENDS, SENDS, SENDS, SENDS, DELIVERIES, DELIVERIES, SETS), min_size=8, max_size=20
)


class Model:
    """What becomes of each message: the changes of the counters tell it, one by one."""

    def __init__(self, stack: Stack, road: Road, counts: Counter[str], *, crowded: bool) -> None:
        self.stack = stack
        self.road = road
        self.counts = counts
        self.crowded = crowded
        self.queue = FifoQueue(first=TURN - 5 * STEP)
        self.asked: dict[Message, Send] = {}
        self.batches: list[list[Message]] = []

    def run(self, steps: Sequence[Send | Set | Deliver]) -> None:
        if self.crowded:
            # The first counter knows as many groups as its item has a place for.
            others = [self._send(f"other-{each}", Send(0, 0, 1)) for each in range(8)]
            self._deliver(others)
        for step in steps:
            if isinstance(step, Send):
                self._send(f"group-{step.group}", step)
            elif isinstance(step, Set):
                self._set(step.counter, step.value)
            else:
                self._step(step)
        while self.queue.waiting:
            group = next(iter(self.queue.waiting))
            assert self._deliver(self.queue.batch({group: MAX_BATCH})) == []
        found = parked(self.stack)
        ids = [each.deduplication_id for each in found]
        refused = {each.deduplication_id for each in found if "no room" in each.reason}
        assert len(set(ids)) == len(ids)
        senseless = {each.message_id for each in self.queue.sent if self.asked[each].by == 0}
        assert {*ids} == senseless | refused
        assert not senseless & refused
        sent = [as_parked(each) for each in self.queue.sent if each.message_id in ids]
        assert {*found} == {*sent}  # each whole and in its group
        self.counts["messages without room"] += len(refused)
        self._prove(refused)

    def _send(self, group: str, asked: Send) -> Message:
        fields = {"counter_id": f"counter-{asked.counter}", "by": asked.by}
        message = self.queue.send(json.dumps(fields), group)
        self.asked[message] = asked
        return message

    def _set(self, counter: int, value: int) -> None:
        reply = self.stack.request("PUT", f"/counters/counter-{counter}", body={"value": value})
        assert reply.status == 200

    def _step(self, step: Deliver) -> None:
        if step.old is None:
            lengths = {f"group-{group}": length for group, length in enumerate(step.lengths)}
            batch = self.queue.batch(lengths)
        else:
            batch = self.batches[-1 - step.old] if step.old < len(self.batches) else []
            batch = batch[: max(1, sum(step.lengths))]
        if batch:
            faults = [*LOST, *REFUSED]
            planned = [faults[each % len(faults)] for each in step.faults]
            self.road.chance = lambda operation: (
                planned.pop() if planned and operation != "SendMessage" else ""
            )
            self._deliver(batch, kept=step.kept, late=step.old is not None)

    def _deliver(self, batch: list[Message], *, kept: int = 0, late: bool = False) -> list[Message]:
        failed = deliver(self.stack, *batch)
        self.counts["deliveries"] += 1
        if not late:
            self.counts["messages kept"] += min(kept, len(batch))
            self.queue.delete(batch, [*failed, *batch[:kept]])
            self.batches.append(batch)
        return failed

    def _prove(self, refused: Collection[str]) -> None:
        """See that the changes are all messages but the refused, in order by counter and group."""
        left: dict[tuple[str, str], list[Message]] = defaultdict(list)
        for message in self.queue.sent:
            if self.asked[message].by and message.message_id not in refused:
                left[f"counter-{self.asked[message].counter}", message.group].append(message)
        by_id = {message.message_id: message for message in self.queue.sent}
        for change in whole_stream(self.stack):
            new, old = change["dynamodb"]["NewImage"], change["dynamodb"].get("OldImage")
            made = new["change"]["M"]
            if "events" not in made or not is_change(change):
                continue  # it was set, or a message was refused
            last = by_id[made["request_id"]["S"]]
            those = left[new["counter_id"]["S"], last.group]
            folded = [those.pop(0) for _ in range(number(made, "events"))]
            assert folded[-1] == last
            by = number(new, "value") - (number(old, "value") if old else 0)
            amounts = [self.asked[message].by for message in folded]
            assert by == sum(amounts)
            assert number(made, "increase") == sum(each for each in amounts if each > 0)
            assert number(made, "decrease") == -sum(each for each in amounts if each < 0)
            assert abs(number(new, "value")) <= MAX
        assert not any(left.values())


def test_small_cases_agree_with_a_model(stack: Stack, road: Road) -> None:
    counts: Counter[str] = Counter()

    @examples(full=300, part=8)
    @given(steps=STEPS, crowded=st.booleans())
    def run(steps: list[Send | Set | Deliver], *, crowded: bool) -> None:
        clear(stack, "CounterTable", "ReceiptTable")  # moto copies them for every transaction
        parked(stack)
        counts["cases"] += 1
        Model(stack, road, counts, crowded=crowded).run(steps)

    in_its_own_thread(run)

    print(dict(counts), {" ".join(what): count for what, count in road.met.items()})
    assert counts["cases"] >= cases(full=300, part=8)
    assert min(counts["messages kept"], counts["messages without room"]) > counts["cases"] / 4
    assert road.faults() > counts["cases"] / 4
