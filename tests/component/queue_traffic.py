"""Helpers for random tests of IncrementQueue: messages with known results, and faulty requests."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.output import silence
from tests.component.simulation import BEGINNING, dies, dies_after
from tests.fifo_queue import FifoQueue, Message, Parked, as_parked, parked
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

# The sequence numbers in a test begin a little below this number. So the first sequence numbers
# have 20 digits, and the later ones have 21.
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
        choose_fault: takes the operation of a request, and returns the name of the fault that the
            request meets. An empty string means no fault.
        faults_met: how many requests met a fault, by operation and fault.
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


@contextmanager
def faulty_network(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyNetwork]:
    """Let the functions' AWS clients send their requests through a faulty network."""
    network = FaultyNetwork()
    wire.through = network.carry
    # The clock advances only in pauses. The fixture `wire` makes them the same in each run.
    now = BEGINNING

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(clock, "sleep", sleep)
    with silence():
        yield network


def run_in_new_thread(run: Callable[[], None]) -> None:
    # A new thread has an empty call stack. pytest's call stack is deep. On a deep call stack,
    # CPython 3.11 allocates and frees stack memory in nearly every call that moto makes, so a test
    # would take twice as long.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


# --- Messages and their expected results ---------------------------------------------------------


MALFORMED = ["", "null", "{}", '{"counter_id": "counter-1", "by": 0}', '{"detail-type": "Count"}']


@dataclass
class Traffic:
    """A queue, and the results that its messages must have.


    Attributes:
        sums: the expected value of each counter.
        increases: the expected sum of each counter's additions.
        decreases: the expected sum of each counter's subtractions, as a positive number.
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
    """Return the messages of each group, in order. This ignores the order of different groups."""
    groups: dict[str, list[Parked]] = defaultdict(list)
    for message in messages:
        groups[message.group].append(message)
    return groups


def number(item: Any, name: str) -> int:  # noqa: ANN401  an item of any table
    """Return an integer attribute of an item."""
    return int(item[name]["N"])


def is_change(record: StreamRecord) -> bool:
    """Return whether a stream record is a change of a counter, which has a new version.

    All other records only update a sequence number.
    """
    images = record["dynamodb"]
    return (
        "OldImage" not in images or images["OldImage"]["version"] != images["NewImage"]["version"]
    )


def whole_stream(stack: Stack) -> list[StreamRecord]:
    """Return all records of CounterTable's stream. moto returns a thousand records at a time."""
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
    # moto creates an item in two steps, and writes a stream record for each step. Leave out the
    # record of the first step. Its image has only the key.
    return [each for each in records if each["dynamodb"]["NewImage"] != each["dynamodb"]["Keys"]]


def check_all_stores_agree(stack: Stack, traffic: Traffic) -> int:
    """Check that all tables and the dead-letter queue match the expected results.

    Returns:
        The number of changes in the stream.
    """
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
