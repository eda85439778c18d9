"""IncrementQueue: counters with more message groups than their item has room for."""

from itertools import repeat

import pytest
from tests.component.increments import (
    DAY,
    MAX,
    MOST_GROUPS,
    REFUSED,
    counting,
    events_of,
    every_sign,
    near_the_end,
    send,
    standing,
    stored,
)
from tests.component.simulation import Killed, dies, dies_after
from tests.fifo_queue import FifoQueue, Message, as_parked, deliver, parked
from tests.stack import Item, Stack
from tests.wire import (
    LOST,
    Fault,
    Wire,
    canceled,
    denied,
    throttled,
)

from counters import clock

pytestmark = pytest.mark.usefixtures("silent")


@pytest.fixture
def crowded(stack: Stack, queue: FifoQueue) -> list[Message]:
    """Let so many groups have counted `orders`, by 1 each, that its item has no place for more."""
    batch = [queue.send(counting(), f"group-{number}") for number in range(MOST_GROUPS)]
    assert deliver(stack, *batch) == []
    return batch


def receipts(stack: Stack) -> list[Item]:
    return stack.items("ReceiptTable")


@pytest.mark.usefixtures("crowded")
def test_the_number_of_a_ninth_group_is_kept_in_an_item_of_its_own(
    stack: Stack, queue: FifoQueue
) -> None:
    before = stored(stack)["sequence_numbers"]
    assert receipts(stack) == []

    assert deliver(stack, *send(queue, 2, 4)) == []
    assert standing(stack) == (14, 9)
    assert stored(stack)["sequence_numbers"] == before
    assert len(before["M"]) == MOST_GROUPS
    (receipt,) = receipts(stack)
    # No queue keeps a message for more than 14 days.
    assert 14.9 * DAY < int(receipt["expires_at"]["N"]) - clock.now() <= 15 * DAY


def test_each_fold_prolongs_the_life_of_that_item(
    stack: Stack, queue: FifoQueue, crowded: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(stack, *send(queue, 2))
    (before,) = receipts(stack)
    later = clock.now() + DAY
    monkeypatch.setattr(clock, "now", lambda: later)

    deliver(stack, *send(queue, 4))
    deliver(stack, *crowded)
    (after,) = receipts(stack)
    assert after["receipt_id"] == before["receipt_id"]
    assert int(after["expires_at"]["N"]) - int(before["expires_at"]["N"]) >= DAY - 1
    assert standing(stack) == (14, 10)


@pytest.mark.usefixtures("crowded")
def test_messages_of_further_groups_that_are_delivered_again_change_nothing(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 2, 4)
    more = [queue.send(counting(by=8), f"further-{number}") for number in range(5)]
    assert deliver(stack, *batch, *more) == []
    assert standing(stack) == (54, 14)
    before = stack.contents()

    for again in (batch, batch[1:], batch[:1], more, [*more, *batch]):
        assert deliver(stack, *again) == []
    assert stack.contents() == before

    assert deliver(stack, *batch, *send(queue, 16)) == []
    assert standing(stack) == (70, 15)
    assert [events_of(change) for change in stack.changes()][8:] == [2, 1, 1, 1, 1, 1, 1]


@pytest.mark.usefixtures("crowded")
def test_sequence_numbers_of_further_groups_are_independent(stack: Stack, queue: FifoQueue) -> None:
    early, late = send(queue, 2, group="early"), send(queue, 4, group="late")

    assert deliver(stack, *late) == deliver(stack, *early) == []
    assert standing(stack) == (14, 10)
    assert deliver(stack, *early) == deliver(stack, *late) == []
    assert standing(stack) == (14, 10)


def test_the_first_groups_keep_their_place_in_the_counters_item(
    stack: Stack, queue: FifoQueue, crowded: list[Message]
) -> None:
    deliver(stack, *send(queue, 2))
    apart = receipts(stack)

    assert deliver(stack, *crowded) == []
    assert standing(stack) == (10, 9)
    assert deliver(stack, *[queue.send(counting(by=4), each.group) for each in crowded]) == []
    assert standing(stack) == (42, 17)
    assert receipts(stack) == apart


@pytest.mark.usefixtures("crowded")
def test_a_group_has_a_number_of_its_own_for_each_counter(stack: Stack, queue: FifoQueue) -> None:
    for number in range(MOST_GROUPS):
        deliver(stack, queue.send(counting("stock"), f"group-{number}"))
    first, second = queue.send(counting("stock", by=2)), queue.send(counting(by=4))

    assert deliver(stack, second) == []
    assert deliver(stack, first, second) == []
    assert standing(stack, "stock") == (10, 9)
    assert standing(stack) == (12, 9)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("known", [False, True], ids=["a new group", "a known group"])
def test_a_transaction_that_is_repeated_after_a_fault_is_applied_once(
    stack: Stack, queue: FifoQueue, wire: Wire, *, known: bool
) -> None:
    cancellations = [
        canceled("TransactionConflict", "None"),
        canceled("None", "TransactionConflict"),
        canceled("None", "ThrottlingError"),
        canceled("ProvisionedThroughputExceeded", "TransactionConflict"),
    ]
    for number, fault in enumerate([*LOST, *REFUSED, *cancellations]):
        group = f"further-{number}"
        if known:
            deliver(stack, *send(queue, 16, group=group))
        before = standing(stack)
        batch = send(queue, 2, 4, group=group)
        wire.fail("TransactWriteItems", [fault] * 2)

        assert deliver(stack, *batch) == [], number
        assert standing(stack) == (before[0] + 6, before[1] + 1)
        wire.fail("TransactWriteItems", [])
        assert deliver(stack, *batch) == []
        assert standing(stack) == (before[0] + 6, before[1] + 1)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("death", [dies, dies_after])
def test_a_function_that_is_killed_in_a_transaction_counts_once(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault
) -> None:
    batch = send(queue, 2, 4)
    wire.fail("TransactWriteItems", [death])
    with pytest.raises(Killed):
        deliver(stack, *batch)

    assert deliver(stack, *batch) == []
    assert standing(stack) == (14, 9)


@pytest.mark.usefixtures("crowded")
def test_while_transactions_are_refused_their_messages_are_reported(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    batch = send(queue, 2, 4)
    (other,) = send(queue, 16, group="group-0")
    conflicts = canceled("None", "TransactionConflict")
    for fault in (denied, throttled, conflicts, canceled("AccessDenied")):
        wire.fail("TransactWriteItems", repeat(fault))

        assert deliver(stack, *batch, other) == batch
        assert standing(stack) == (24, 9)

    wire.fail("TransactWriteItems", [])
    assert deliver(stack, *batch) == []
    assert standing(stack) == (30, 10)


@pytest.mark.usefixtures("crowded")
@every_sign
def test_a_message_of_a_further_group_that_would_leave_the_range_is_parked(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    near_the_end(stack, sign, 10)
    batch = send(queue, sign * 3, sign * 8, sign * 2)

    for _ in range(2):
        assert deliver(stack, *batch) == []
        assert standing(stack) == (sign * (MAX - 5), 11)
    assert parked(stack) == [as_parked(batch[1])]
