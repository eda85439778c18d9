"""Each message of IncrementQueue is counted once or parked once, whatever faults requests meet."""

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
# Sequence numbers begin just below this one, so that some have 20 digits and some 21.
FIRST_OF_21_DIGITS = 10**20

# --- Faults --------------------------------------------------------------------------------------

DEATHS: dict[str, Fault] = {"killed before": dies, "killed after": dies_after}
LOST: dict[str, Fault] = {
    "reply lost": reply_lost,
    "connection lost": connection_lost,
    "500 but applied": internal_error,
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
        "conflict on the counter": canceled("None", "TransactionConflict"),
    },
    "SendMessage": {**LOST, **REFUSED, "denied": denied},
}


class FaultyNetwork:
    """The network between the function and moto.

    Attributes:
        choose_fault: returns the name of the fault that a request meets; an empty string for none.
        faults_met: how often each operation met each fault.
    """

    def __init__(self) -> None:
        self.choose_fault: Callable[[str], str] = lambda _operation: ""
        self.faults_met: Counter[tuple[str, str]] = Counter()

    def carry(self, request: AWSPreparedRequest) -> AWSResponse:
        target = request.headers["X-Amz-Target"]
        operation = (target if isinstance(target, str) else target.decode()).rpartition(".")[2]
        name = self.choose_fault(operation) if operation in FAULTS else ""
        if not name:
            return delivered(request)
        self.faults_met[operation, name] += 1
        return (FAULTS[operation] | DEATHS)[name](request)

    def deaths(self) -> int:
        return sum(count for (_, name), count in self.faults_met.items() if name in DEATHS)

    def faults(self) -> int:
        return self.faults_met.total() - self.deaths()


@pytest.fixture
def network(stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyNetwork]:  # noqa: ARG001
    network = FaultyNetwork()
    wire.through = network.carry
    # Time passes only in pauses, which are the same in each run.
    now = BEGINNING

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(clock, "sleep", sleep)
    state = random.getstate()
    random.seed(1)
    with silence():
        yield network
    random.setstate(state)


def run_in_new_thread(run: Callable[[], None]) -> None:
    # A new thread has an empty call stack. On top of pytest's deep one, CPython 3.11 freed and
    # allocated a piece of the stack in nearly every call of moto, which doubled the time.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


# --- Messages and their expected results ---------------------------------------------------------

MALFORMED = ["", "null", "{}", '{"counter_id": "counter-1", "by": 0}', '{"detail-type": "Count"}']


@dataclass
class Traffic:
    """A queue, and the expected results of its messages.

    Attributes:
        sums: the expected value of each counter.
        events: the number of messages to count.
        malformed: the messages to park.
    """

    queue: FifoQueue
    sums: Counter[str] = field(default_factory=Counter)
    increases: Counter[str] = field(default_factory=Counter)
    decreases: Counter[str] = field(default_factory=Counter)
    events: int = 0
    malformed: list[Message] = field(default_factory=list)

    def send(self, group: str, counter_id: str, by: int, source: str = "") -> None:
        fields: dict[str, object] = {"counter_id": counter_id, "by": by}
        if source:
            fields = {"detail-type": "Count", "source": source, "detail": fields}
        self.queue.send(json.dumps(fields), group)
        self.sums[counter_id] += by
        self.increases[counter_id] += max(by, 0)
        self.decreases[counter_id] += max(-by, 0)
        self.events += 1

    def send_malformed(self, group: str, body: str) -> None:
        self.malformed.append(self.queue.send(body, group))


def by_group(messages: Sequence[Parked]) -> dict[str, list[Parked]]:
    """Return the messages of each group, in order. Groups have no order among each other."""
    groups: dict[str, list[Parked]] = defaultdict(list)
    for message in messages:
        groups[message.group].append(message)
    return groups


def number(item: Any, name: str) -> int:  # noqa: ANN401  an item of any table
    return int(item[name]["N"])


def is_change(record: StreamRecord) -> bool:
    """Return whether the record is a change of the counter, not only of its sequence numbers."""
    images = record["dynamodb"]
    return (
        "OldImage" not in images or images["OldImage"]["version"] != images["NewImage"]["version"]
    )


def whole_stream(stack: Stack) -> list[StreamRecord]:
    """Return all records of CounterTable's stream. moto returns a thousand at a time."""
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
    # moto creates an item in two steps. Leave out the record of the first, which has only the key.
    return [each for each in records if each["dynamodb"]["NewImage"] != each["dynamodb"]["Keys"]]


def check_all_stores_agree(stack: Stack, traffic: Traffic) -> int:
    """Check counters, dead-letter queue, stream, history and trend. Return how many changes."""
    counters = {item["counter_id"]["S"]: item for item in stack.items("CounterTable")}
    values = {name: number(item, "value") for name, item in counters.items()}
    assert values == dict(traffic.sums)
    assert by_group(parked(stack)) == by_group([as_parked(each) for each in traffic.malformed])

    records = whole_stream(stack)
    changes = [record for record in records if is_change(record)]
    events = [number(change["dynamodb"]["NewImage"]["change"]["M"], "events") for change in changes]
    assert sum(events) == traffic.events
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
    assert sum(recorded) == traffic.events
    for name, entries in histories.items():
        sums = [sum(number(entry, each) for entry in entries) for each in ("increase", "decrease")]
        assert sums == [traffic.increases[name], traffic.decreases[name]]
        hours = [item for item in stack.items("TrendTable") if item["counter_id"]["S"] == name]
        assert sums == [
            sum(number(item, each) for item in hours) for each in ("increase", "decrease")
        ]
    return len(changes)


# --- Random traffic and faults -------------------------------------------------------------------

GROUPS = [f"group-{number}" for number in range(cases(full=20, part=12))]
COUNTERS = [f"counter-{number}" for number in range(cases(full=50, part=12))]
# The first counters get messages of all groups. The others get messages of one to eight groups,
# whose numbers fit into their items.
SHARED_COUNTERS = 2


def random_traffic(rng: random.Random, size: int) -> Traffic:
    """Return random messages. A group changes one counter for a while and then another."""
    traffic = Traffic(FifoQueue(first=FIRST_OF_21_DIGITS - STEP * (size // 2)))
    counters_of_group: dict[str, list[str]] = dict.fromkeys(GROUPS, COUNTERS[:SHARED_COUNTERS] * 8)
    last_counter = {}
    for position, counter_id in enumerate(COUNTERS[SHARED_COUNTERS:]):
        for group in rng.sample(GROUPS, 1 + position % 8):
            counters_of_group[group] = [*counters_of_group[group], counter_id]
            last_counter[group] = counter_id
        traffic.send(group, counter_id, 1)
    while len(traffic.queue.sent) < size:
        group = rng.choice(GROUPS)
        if rng.random() < 0.04:
            traffic.send_malformed(group, rng.choice(MALFORMED))
            continue
        if rng.random() < 0.1:
            last_counter[group] = rng.choice(counters_of_group[group])
        by = rng.choice([1, 1, 1, 2, 5, -1, -3, 2**35, -(2**36)])
        traffic.send(group, last_counter[group], by, rng.choice(["", "", "shop", "stock"]))
    return traffic


def random_faults(rng: random.Random) -> Callable[[str], str]:
    """Return a function that chooses random faults and deaths, and sometimes an outage."""
    failing = {}
    if rng.random() < 0.04:
        operation = rng.choice([*FAULTS])
        failing[operation] = rng.choice([*FAULTS[operation]])

    def choose_fault(operation: str) -> str:
        roll = rng.random()
        if roll < 0.02:
            return rng.choice([*DEATHS])
        if roll < 0.12:
            return rng.choice([*FAULTS[operation]])
        return failing.get(operation, "")

    return choose_fault


def random_batch(rng: random.Random, queue: FifoQueue) -> list[Message]:
    lengths: dict[str, int] = {}
    remaining = MAX_BATCH
    for group in rng.sample([*queue.waiting], min(len(queue.waiting), rng.choice([1, 1, 2]))):
        lengths[group] = min(remaining, rng.choice([1, 4, 7, 10, 10]))
        remaining -= lengths[group]
    return queue.batch(lengths)


@dataclass
class Poller:
    """Delivers the messages of a queue, as Lambda's poller does, until all are deleted."""

    stack: Stack
    network: FaultyNetwork
    queue: FifoQueue
    rng: random.Random
    received: Counter[Message] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    batches: list[list[Message]] = field(default_factory=list)

    def run(self) -> None:
        while self.queue.waiting:
            self.counts["deliveries"] += 1
            if self.batches and self.rng.random() < 0.12:
                # A late invocation with an old batch, or with its first messages.
                self.counts["late"] += 1
                old = self.rng.choice(self.batches[-50:])
                self._deliver(old[: self.rng.randint(1, len(old))])
                continue
            batch = random_batch(self.rng, self.queue)
            self.batches.append(batch)
            failed = self._deliver(batch)
            if failed is None:
                continue
            roll = self.rng.random()
            if roll < 0.15:
                self.counts["deletions lost"] += 1
                continue
            if roll < 0.3:
                self.counts["deleted in part"] += 1
                kept = self.rng.sample(batch, self.rng.randint(1, len(batch)))
                failed = [*failed, *kept]
            self.queue.delete(batch, failed)

    def _deliver(self, batch: list[Message]) -> list[Message] | None:
        """Deliver a batch. Return the failed messages; None if the function is killed."""
        self.received.update(batch)
        self.network.choose_fault = random_faults(self.rng)
        try:
            failed = deliver(self.stack, *batch)
        except Killed:
            return None
        finally:
            self.network.choose_fault = lambda _operation: ""
        self.counts["with failures"] += bool(failed)
        return failed


def test_each_message_is_counted_once_or_parked_once_despite_random_faults(
    stack: Stack, network: FaultyNetwork
) -> None:
    size = cases(full=20_000, part=400)
    rng = random.Random(20)
    traffic = random_traffic(rng, size)
    poller = Poller(stack, network, traffic.queue, rng)
    counts = poller.counts

    def run() -> None:
        poller.run()
        counts["writes"] = check_all_stores_agree(stack, traffic)

    run_in_new_thread(run)

    redelivered = sum(count > 1 for count in poller.received.values()) / size
    print(f"{size} messages, {len(traffic.malformed)} of them malformed, in", end=" ")
    print(f"{counts['deliveries']} deliveries, {redelivered:.0%} of them more than once;", end=" ")
    print(f"{network.faults()} faults, {network.deaths()} deaths;", end=" ")
    print(f"{counts['writes']} writes, {traffic.events / counts['writes']:.2f} events per write;")
    print(dict(counts), {" ".join(key): count for key, count in network.faults_met.items()})
    assert len(poller.received) == size
    assert traffic.sums.keys() == {*COUNTERS}
    assert redelivered >= 0.25
    assert len(traffic.malformed) > size / 40
    assert network.deaths() > size / 200
    assert network.faults() > size / 20
    assert {operation for operation, _ in network.faults_met} == {*FAULTS}
    assert min(counts[each] for each in ("with failures", "late", "deletions lost")) > size / 300


def test_a_function_that_is_killed_repeatedly_counts_each_message_once(
    stack: Stack, network: FaultyNetwork
) -> None:
    rng, kills = random.Random(50), cases(full=50, part=25)
    traffic = Traffic(FifoQueue())
    queue = traffic.queue
    position = 0
    plan = (0, "")  # the request of a delivery that kills the function, and the kind of death

    def choose_fault(_operation: str) -> str:
        nonlocal position
        position += 1
        return plan[1] if position == plan[0] else ""

    def run() -> None:
        nonlocal position, plan
        # These are more groups than the item of the first counter can hold numbers for.
        for group in GROUPS[:12]:
            traffic.send(group, "one", 1)
        network.choose_fault = choose_fault
        while network.deaths() < kills or queue.waiting:
            for _ in range(3 if network.deaths() < kills else 0):
                group = rng.choice(GROUPS[:12])
                if rng.random() < 0.2:
                    traffic.send_malformed(group, rng.choice(MALFORMED))
                else:
                    name = rng.choice(["one", "two"])
                    traffic.send(group, name, rng.randint(1, 1000))
            position = 0
            plan = (
                rng.randint(1, 4),
                rng.choice([*DEATHS]) if network.deaths() < kills else "",
            )
            batch = random_batch(rng, queue)
            try:
                failed = deliver(stack, *batch)
            except Killed:
                continue
            assert failed == []
            queue.delete(batch, failed)
        check_all_stores_agree(stack, traffic)

    run_in_new_thread(run)

    print(f"{len(queue.sent)} messages;", dict(network.faults_met))
    assert network.faults_met.keys() == {
        (operation, death) for operation in FAULTS for death in DEATHS
    }
    assert network.faults_met.total() == kills


# --- Small cases that are checked message by message ---------------------------------------------


@dataclass(frozen=True)
class Send:
    group: int
    counter: int
    by: int  # 0 makes the message malformed


@dataclass(frozen=True)
class Set:
    """Set a counter, often so close to a limit that it has little room."""

    counter: int
    value: int


@dataclass(frozen=True)
class Deliver:
    """Deliver new messages or an old batch.

    Attributes:
        lengths: how many messages of each group. Of an old batch, their sum is delivered.
        old: which earlier batch, counted from the last one; None for new messages.
        kept: how many messages of the batch are not deleted afterwards.
        faults: the faults that the requests meet, as indices.
    """

    lengths: tuple[int, ...]
    old: int | None
    kept: int
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


class Case:
    """Runs a list of steps, and checks each change of a counter against the messages sent."""

    def __init__(
        self, stack: Stack, network: FaultyNetwork, counts: Counter[str], *, crowded: bool
    ) -> None:
        self.stack = stack
        self.network = network
        self.counts = counts
        self.crowded = crowded
        self.queue = FifoQueue(first=FIRST_OF_21_DIGITS - 5 * STEP)
        self.sends: dict[Message, Send] = {}
        self.batches: list[list[Message]] = []

    def run(self, steps: Sequence[Send | Set | Deliver]) -> None:
        if self.crowded:
            # Then the first counter has as many groups as its item can hold numbers for.
            others = [self._send(f"other-{each}", Send(0, 0, 1)) for each in range(8)]
            self._deliver(others)
        for step in steps:
            if isinstance(step, Send):
                self._send(f"group-{step.group}", step)
            elif isinstance(step, Set):
                self._set(step.counter, step.value)
            else:
                self._deliver_step(step)
        while self.queue.waiting:
            group = next(iter(self.queue.waiting))
            assert self._deliver(self.queue.batch({group: MAX_BATCH})) == []
        parked_messages = parked(self.stack)
        parked_ids = [each.deduplication_id for each in parked_messages]
        refused = {each.deduplication_id for each in parked_messages if "no room" in each.reason}
        assert len(set(parked_ids)) == len(parked_ids)
        malformed = {each.message_id for each in self.queue.sent if self.sends[each].by == 0}
        assert {*parked_ids} == malformed | refused
        assert not malformed & refused
        sent = [as_parked(each) for each in self.queue.sent if each.message_id in parked_ids]
        assert {*parked_messages} == {*sent}  # unchanged, in their groups
        self.counts["messages without room"] += len(refused)
        self._check_changes(refused)

    def _send(self, group: str, send: Send) -> Message:
        fields = {"counter_id": f"counter-{send.counter}", "by": send.by}
        message = self.queue.send(json.dumps(fields), group)
        self.sends[message] = send
        return message

    def _set(self, counter: int, value: int) -> None:
        reply = self.stack.request("PUT", f"/counters/counter-{counter}", body={"value": value})
        assert reply.status == 200

    def _deliver_step(self, step: Deliver) -> None:
        if step.old is None:
            lengths = {f"group-{group}": length for group, length in enumerate(step.lengths)}
            batch = self.queue.batch(lengths)
        else:
            batch = self.batches[-1 - step.old] if step.old < len(self.batches) else []
            batch = batch[: max(1, sum(step.lengths))]
        if batch:
            faults = [*LOST, *REFUSED]
            planned = [faults[each % len(faults)] for each in step.faults]
            self.network.choose_fault = lambda operation: (
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

    def _check_changes(self, refused: Collection[str]) -> None:
        """Check that the changes count all messages except the refused, in order in each group."""
        remaining: dict[tuple[str, str], list[Message]] = defaultdict(list)
        for message in self.queue.sent:
            if self.sends[message].by and message.message_id not in refused:
                remaining[f"counter-{self.sends[message].counter}", message.group].append(message)
        by_id = {message.message_id: message for message in self.queue.sent}
        for change in whole_stream(self.stack):
            new, old = change["dynamodb"]["NewImage"], change["dynamodb"].get("OldImage")
            change_attribute = new["change"]["M"]
            if "events" not in change_attribute or not is_change(change):
                continue  # a `set`, or only the number of a refused message
            last_message = by_id[change_attribute["request_id"]["S"]]
            uncounted = remaining[new["counter_id"]["S"], last_message.group]
            folded_messages = [uncounted.pop(0) for _ in range(number(change_attribute, "events"))]
            assert folded_messages[-1] == last_message
            by = number(new, "value") - (number(old, "value") if old else 0)
            amounts = [self.sends[message].by for message in folded_messages]
            assert by == sum(amounts)
            assert number(change_attribute, "increase") == sum(each for each in amounts if each > 0)
            assert number(change_attribute, "decrease") == -sum(
                each for each in amounts if each < 0
            )
            assert abs(number(new, "value")) <= MAX
        assert not any(remaining.values())


def test_every_change_of_a_counter_matches_the_messages_that_it_counts(
    stack: Stack, network: FaultyNetwork
) -> None:
    counts: Counter[str] = Counter()

    @examples(full=300, part=8)
    @given(steps=STEPS, crowded=st.booleans())
    def run(steps: list[Send | Set | Deliver], *, crowded: bool) -> None:
        clear(stack, "CounterTable", "ReceiptTable")  # moto copies them in each transaction
        parked(stack)
        counts["cases"] += 1
        Case(stack, network, counts, crowded=crowded).run(steps)

    run_in_new_thread(run)

    print(dict(counts), {" ".join(key): count for key, count in network.faults_met.items()})
    assert counts["cases"] >= cases(full=300, part=8)
    assert min(counts["messages kept"], counts["messages without room"]) > counts["cases"] / 4
    assert network.faults() > counts["cases"] / 4
