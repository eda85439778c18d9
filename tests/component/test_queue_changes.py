"""Each change of a counter counts the next messages of a message group, and skips no message."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.component.queue_traffic import (
    FIRST_OF_21_DIGITS,
    LOST,
    MAX,
    REFUSED,
    FaultyNetwork,
    faulty_network,
    is_change,
    number,
    run_in_new_thread,
    whole_stream,
)
from tests.contents import clear
from tests.fifo_queue import MAX_BATCH, STEP, FifoQueue, Message, as_parked, deliver, parked
from tests.sizes import cases, examples
from tests.stack import Stack
from tests.wire import Wire


@pytest.fixture
def network(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyNetwork]:
    with faulty_network(wire, monkeypatch) as network:
        yield network


@dataclass(frozen=True)
class Send:
    group: int
    counter: int
    by: int  # a message with 0 is malformed


@dataclass(frozen=True)
class Set:
    """Set a counter, often to a value that is close to the limit for integers."""

    counter: int
    value: int


@dataclass(frozen=True)
class Deliver:
    """Deliver a batch of new messages, or deliver an earlier batch again.

    Attributes:
        lengths: for new messages, the number of messages from each group. For an earlier batch, the
            sum of these numbers is the number of messages to deliver again.
        old: which earlier batch to deliver: 0 is the last batch, 1 the batch before it, and so on.
            None for new messages.
        kept: the number of messages that stay in the queue although they were delivered.
        faults: the numbers of the faults to apply to requests.
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
    """Runs a list of steps. Checks that each change of a counter counts the right messages."""

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
            # Store the numbers of eight groups in the first counter's item. It has no room for
            # more.
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
        assert {*parked_messages} == {*sent}  # parking changes neither the message nor its group
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
        """Check that the changes count the messages of each group in order.

        They must count each valid message, except the messages in `refused`. A counter refuses a
        message for which it has no room.
        """
        remaining: dict[tuple[str, str], list[Message]] = defaultdict(list)
        for message in self.queue.sent:
            if self.sends[message].by and message.message_id not in refused:
                remaining[f"counter-{self.sends[message].counter}", message.group].append(message)
        by_id = {message.message_id: message for message in self.queue.sent}
        for change in whole_stream(self.stack):
            new, old = change["dynamodb"]["NewImage"], change["dynamodb"].get("OldImage")
            change_attribute = new["change"]["M"]
            if "events" not in change_attribute or not is_change(change):
                continue  # a `set`, or an update that stores only a refused message's number
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
