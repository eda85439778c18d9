"""IngestIncrements counts each message once, even if it is killed or if deliveries overlap."""

import json
import os
import random
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from tests.e2e.dynamodb_proxy import Reply
from tests.e2e.fault_proxy import serving
from tests.e2e.function_pids import function_pids, needs_proc
from tests.e2e.producer import Producer
from tests.e2e.service import REQUEST_SECONDS, Caller, client, extra_variables, physical_name
from tests.fifo_queue import MAX_BATCH, FifoQueue, Message
from tests.sizes import cases

from deployment import Stack
from emulator_process import Emulator

FUNCTION = "IngestIncrements"
KILLS = cases(50, part=3)
REDELIVERY_SECONDS = 3  # enough for a new process of the function to start
GROUPS = 3
BATCHES = cases(60, part=5)  # per group
REDELIVERERS = 2


@pytest.fixture
def producer(stack: Stack, caller: Caller) -> Producer:
    return Producer(stack, caller)


class Killer:
    """A fault that kills all processes of a function, in turn before and after a write.

    At that time, the processes may be handling batches of several message groups. The kill
    interrupts all of these batches.
    """

    def __init__(self, emulator: Emulator, function: str) -> None:
        self._emulator = emulator
        self._function = function
        self._chance = random.Random(1)
        self._requests_before_kill = 0  # counts down to the next kill
        self._lock = threading.Lock()
        self.kills = Counter[str]()

    def __call__(self, forward: Callable[[], Reply]) -> Reply | None:
        with self._lock:
            if not self._requests_before_kill and self.kills.total() < KILLS:
                self._requests_before_kill = self._chance.randrange(6)
                if self.kills.total() % 2:
                    forward()
                    self._kill("after a write")
                else:
                    self._kill("before a write")
                return None
            self._requests_before_kill = max(0, self._requests_before_kill - 1)
        return forward()

    def _kill(self, when: str) -> None:
        found = function_pids(self._emulator, self._function)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills[when] += bool(found)  # none is found if an earlier kill ended the sender


@contextmanager
def fast_redelivery(producer: Producer) -> Iterator[None]:
    """Let SQS redeliver a failed batch after a few seconds. The template's delay is a minute."""
    seconds = producer.set_visibility_timeout(REDELIVERY_SECONDS)
    try:
        yield
    finally:
        producer.set_visibility_timeout(seconds)


@needs_proc
def test_every_message_is_counted_once_when_the_consumer_is_killed(
    stack: Stack, emulator: Emulator, producer: Producer
) -> None:
    chance = random.Random(2)
    names = [f"killed-{uuid.uuid4()}" for _ in range(3)]
    groups = [f"{name}:{number}" for name in names for number in range(3)]
    expected = Counter[str]()
    messages = 10 * (KILLS + 2)
    killer = Killer(emulator, physical_name(stack, FUNCTION))

    with (
        serving(stack.endpoint_url) as (proxy, url),
        extra_variables(stack, FUNCTION, AWS_ENDPOINT_URL_DYNAMODB=url),
        fast_redelivery(producer),
        proxy.failing(stack.outputs["CounterTable"], killer),
    ):
        for _ in range(messages // 10):
            group = chance.choice(groups)
            bodies = [
                {"counter_id": chance.choice(names), "by": chance.randint(-9, 9) or 10}
                for _ in range(10)
            ]
            for body in bodies:
                expected[str(body["counter_id"])] += int(str(body["by"]))
            producer.send(group, *bodies)
        producer.wait_until_done(seconds=20 * KILLS + 120)

    print(f"{messages} messages, {killer.kills.total()} kills: {dict(killer.kills)}")
    assert killer.kills == {"before a write": (KILLS + 1) // 2, "after a write": KILLS // 2}
    for name in names:
        assert producer.value(name, expected[name]) == expected[name]
    assert sum(count_events(producer, name) for name in names) == messages


def count_events(producer: Producer, name: str) -> int:
    """Return the number of messages that the changes in a counter's history count."""
    return sum(entry.get("events", 0) for entry in producer.entries(name))


class Deliveries:
    """Delivers messages of several message groups. All messages change the same counter.

    The messages of each group are delivered in order, as SQS does it.
    """

    def __init__(self, stack: Stack, counter: str) -> None:
        self._lambda = client(stack, "lambda")
        self._name = physical_name(stack, FUNCTION)
        self._counter = counter
        # Each group has its own queue, so that the sequence numbers are the same in all groups.
        self.queues = [FifoQueue(stack.outputs["IncrementQueueArn"]) for _ in range(GROUPS)]
        self.total = 0
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(GROUPS + REDELIVERERS, timeout=REQUEST_SECONDS)

    def message(self, group: int, chance: random.Random) -> Message:
        by = chance.randint(-5, 9) or 10
        body = json.dumps({"counter_id": self._counter, "by": by})
        with self._lock:
            self.total += by
            return self.queues[group].send(body, f"{self._counter}:{group}")

    def warm_up(self) -> None:
        """Start a process of the function for each concurrent delivery."""
        self.deliver([])
        self._barrier.wait()

    def deliver(self, batch: list[Message]) -> list[str]:
        """Deliver a batch. Return the ids of the messages that failed."""
        payload = json.dumps({"Records": [message.record() for message in batch]})
        reply = self._lambda.invoke(FunctionName=self._name, Payload=payload)
        answer = json.load(reply["Payload"])
        assert "FunctionError" not in reply, answer
        return [each["itemIdentifier"] for each in answer["batchItemFailures"]]

    def deliver_all(self, group: int) -> int:
        """Deliver the messages of a group in order.

        Repeat each batch until all of its messages are counted.

        Returns:
            The number of deliveries.
        """
        chance, deliveries = random.Random(group), 0
        self.warm_up()
        for _ in range(BATCHES):
            batch = [self.message(group, chance) for _ in range(chance.randint(1, MAX_BATCH))]
            while batch:
                failed = set(self.deliver(batch))
                batch = [message for message in batch if message.message_id in failed]
                deliveries += 1
        return deliveries

    def redeliver(self, number: int, stopped: threading.Event) -> int:
        """Deliver random batches again, until `stopped` is set.

        A batch has successive messages of one group. All messages before these have been counted.
        At the same time, `deliver_all` may be delivering messages of the batch for the first time.

        Returns:
            The number of deliveries.
        """
        chance, deliveries = random.Random(-number - 1), 0
        self.warm_up()
        while not stopped.is_set():
            with self._lock:
                sent = list(self.queues[chance.randrange(GROUPS)].sent)
            if len(sent) > MAX_BATCH:
                # All messages of the group except the last ten have been counted.
                start = chance.randrange(len(sent) - MAX_BATCH + 1)
                self.deliver(sent[start : start + chance.randint(1, MAX_BATCH)])
                deliveries += 1
        return deliveries


def test_overlapping_deliveries_and_concurrent_requests_are_counted_once(
    stack: Stack, caller: Caller, producer: Producer
) -> None:
    name = f"at-once-{uuid.uuid4()}"
    deliveries = Deliveries(stack, name)
    stopped = threading.Event()

    def count() -> int:
        answers = 0
        while not stopped.is_set():
            assert caller.post(f"/counters/{name}", by=2).status == 200
            answers += 1
        return answers

    with ThreadPoolExecutor(GROUPS + REDELIVERERS + 1) as pool:
        groups = [pool.submit(deliveries.deliver_all, group) for group in range(GROUPS)]
        redelivering = [
            pool.submit(deliveries.redeliver, number, stopped) for number in range(REDELIVERERS)
        ]
        counting = pool.submit(count)
        try:
            ordered = sum(group.result(REQUEST_SECONDS) for group in groups)
        finally:
            stopped.set()
        redeliveries, increments = sum(each.result() for each in redelivering), counting.result()

    messages = sum(len(queue.sent) for queue in deliveries.queues)
    print(
        f"{messages} messages in {ordered} deliveries, {redeliveries} redeliveries at the"
        f" same time, {increments} increments over HTTP"
    )
    expected = deliveries.total + 2 * increments
    assert producer.value(name, expected) == expected
    assert count_events(producer, name) == messages
    assert redeliveries >= 0.2 * ordered
