"""The history and the trend match the stream, although requests fail and functions are killed."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from hypothesis import given, seed
from hypothesis import strategies as st
from tests import aws_template
from tests.component.output import silence
from tests.component.random_stream import (
    STEPS,
    Step,
    Stream,
    canonical,
    expected_history,
    expected_trend,
    stream_of,
)
from tests.component.simulation import Killed
from tests.contents import clear
from tests.past import DEAD_LETTERS
from tests.sizes import cases, examples
from tests.stack import Stack, StreamRecord
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
KILLS = "before", "after"  # kill the function before or after moto handles a request
LASTING = 1000  # an invocation has no time for so many requests
NEAR_TIMEOUT = aws_template.functions()["RecordHistory"].timeout - 5  # seconds


@dataclass(frozen=True)
class Trouble:
    """Consecutive requests that fail during a delivery.

    Attributes:
        first: the number of the first request that fails.
        fault: one of KILLS, or a number that selects one of the FAULTS of the request's operation.
        requests: the number of requests that fail.
    """

    first: int
    fault: str | int
    requests: int


@dataclass(frozen=True)
class Delivery:
    """A batch of stream records.

    Attributes:
        back: how many records at the start of the batch are already recorded.
        length: the number of records, without the repeated records.
        repeated: how many of its last records the batch has twice.
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
    """Carries requests to moto. Lets those requests fail that the current delivery selects."""

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
                clock.sleep(NEAR_TIMEOUT)  # leaves time for a few attempts instead of hundreds
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
    """The stack, the network that carries its requests, and counts for the statistics."""

    stack: Stack
    network: Network
    counts: Counter[str] = field(default_factory=Counter)

    def deliver(self, stream: Stream, deliveries: Iterable[Delivery]) -> None:
        """Deliver the records of the stream in batches, as Lambda does.

        Each delivery gives the size of one batch. It also says which of the function's requests to
        AWS must fail while the function processes this batch. After the last delivery, the
        remaining records are delivered without faults.
        """
        done = 0
        rest = itertools.repeat(Delivery(0, 100, 0, []))
        for delivery in itertools.chain(deliveries, rest):
            start = max(0, done - delivery.back)
            batch = stream.records[start : start + delivery.length]
            if not batch:
                # All records are delivered.
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
        """Check that all changes before a record are recorded at the moment when it is parked."""
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
        """Remove all records from the dead-letter queue, and return them."""
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
    # Without a fixed seed, every edit of `run` would change the random examples.
    @seed(4)
    @examples(full=1500, part=12)
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

    # Run the test in a new thread, because a new thread has an empty call stack. pytest's call
    # stack is deep. There, CPython 3.11 frees and allocates stack memory in nearly every call of
    # moto, and the test takes twice as long.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()

    counts, faults = world.counts, world.network.fault_counts
    kills = sum(count for name, count in faults.items() if "kill" in name)
    print(f"{counts['cases']} cases with {counts['changes']} changes and", end=" ")
    print(f"{counts['malformed']} malformed records in {counts['deliveries']} deliveries:", end=" ")
    print(f"{faults.total() - kills} faults, {kills} kills;", dict(counts), dict(faults))
    size = cases(full=1500, part=12)
    assert counts["cases"] >= size
    assert min(kills, counts["malformed"]) > size / 4
    assert min(counts["folds with both sums"], counts["updates"]) >= size
    assert min(counts["partial failures"], *(faults[name] for name in FAULTS)) > size / 30
