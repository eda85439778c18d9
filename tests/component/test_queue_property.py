"""Tally counts or parks each message of IncrementQueue once, although requests fail at random.

To park a message is to move it to the dead-letter queue.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from tests.component.queue_traffic import (
    DEATHS,
    FAULTS,
    FIRST_OF_21_DIGITS,
    MALFORMED,
    FaultyNetwork,
    Traffic,
    check_all_stores_agree,
    faulty_network,
    run_in_new_thread,
)
from tests.component.simulation import Killed
from tests.fifo_queue import MAX_BATCH, STEP, FifoQueue, Message, deliver
from tests.sizes import cases
from tests.stack import Stack
from tests.wire import Wire

GROUPS = [f"group-{number}" for number in range(cases(full=20, part=12))]
COUNTERS = [f"counter-{number}" for number in range(cases(full=50, part=12))]

# The number of counters that can get messages from all groups. Each other counter gets messages
# from at most eight groups, because a counter's item has room for the numbers of eight groups.
SHARED_COUNTERS = 2


@pytest.fixture
def network(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyNetwork]:
    with faulty_network(wire, monkeypatch) as network:
        yield network


def random_traffic(rng: random.Random, size: int) -> Traffic:
    """Return random messages.

    Consecutive messages of a group often change the same counter.
    """
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
    """Return a function that chooses what happens to a request: success, a fault, or a death.

    A death kills the function that sent the request. Now and then, all requests of one operation
    fail.
    """
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
    """Delivers the messages of a queue, as Lambda does, until the queue is empty."""

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
                # Deliver an old batch again, or the first messages of an old batch.
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
        """Deliver a batch.

        Returns:
            The messages that the function reports as failed. None if the function was killed.
        """
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
    size = cases(full=20_000, part=250)
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
    rng, kills = random.Random(50), cases(full=50, part=20)
    traffic = Traffic(FifoQueue())
    queue = traffic.queue
    position = 0
    plan = (0, "")  # the request at which to kill the function, and the way to kill it

    def choose_fault(_operation: str) -> str:
        nonlocal position
        position += 1
        return plan[1] if position == plan[0] else ""

    def run() -> None:
        nonlocal position, plan
        # The counter's item has no room for the numbers of twelve groups.
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
