"""IngestIncrements: counters that get messages from more than eight message groups.

For each message group, Tally stores the sequence number of the last message that a counter
includes. The counter's item has room for the numbers of eight groups. The number of each further
group has an item of its own in ReceiptTable.
"""

from itertools import repeat

import pytest
from tests.component.increments import (
    GROUPS_IN_ITEM,
    MAX,
    REFUSED,
    event_count,
    every_sign,
    message_body,
    send,
    set_near_limit,
    stored_item,
    value_and_version,
)
from tests.component.simulation import Killed, dies, dies_after
from tests.fifo_queue import FifoQueue, Message, as_parked, deliver, parked
from tests.stack import Item, Stack
from tests.times import DAY
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
    """Add 1 to `orders` from each of eight groups.

    After that, the item of `orders` has no room for the number of a ninth group.
    """
    batch = [queue.send(message_body(), f"group-{number}") for number in range(GROUPS_IN_ITEM)]
    assert deliver(stack, *batch) == []
    return batch


def read_own_items(stack: Stack) -> list[Item]:
    return stack.items("ReceiptTable")


@pytest.mark.usefixtures("crowded")
def test_the_number_of_a_ninth_group_is_in_an_item_of_its_own(
    stack: Stack, queue: FifoQueue
) -> None:
    before = stored_item(stack)["sequence_numbers"]
    assert read_own_items(stack) == []

    assert deliver(stack, *send(queue, 2, 4)) == []
    assert value_and_version(stack) == (14, 9)
    assert stored_item(stack)["sequence_numbers"] == before
    assert len(before["M"]) == GROUPS_IN_ITEM
    (own_item,) = read_own_items(stack)
    # SQS can deliver a message again for at most 14 days. So the item must exist for at least 14
    # days.
    assert 14.9 * DAY < int(own_item["expires_at"]["N"]) - clock.now() <= 15 * DAY


def test_each_fold_of_a_ninth_group_extends_the_expiry_of_its_item(
    stack: Stack, queue: FifoQueue, crowded: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(stack, *send(queue, 2))
    (before,) = read_own_items(stack)
    later = clock.now() + DAY
    monkeypatch.setattr(clock, "now", lambda: later)

    deliver(stack, *send(queue, 4))
    deliver(stack, *crowded)
    (after,) = read_own_items(stack)
    assert after["receipt_id"] == before["receipt_id"]
    assert int(after["expires_at"]["N"]) - int(before["expires_at"]["N"]) >= DAY - 1
    assert value_and_version(stack) == (14, 10)


@pytest.mark.usefixtures("crowded")
def test_redelivered_messages_of_further_groups_change_nothing(
    stack: Stack, queue: FifoQueue
) -> None:
    batch = send(queue, 2, 4)
    further = [queue.send(message_body(by=8), f"further-{number}") for number in range(5)]
    assert deliver(stack, *batch, *further) == []
    assert value_and_version(stack) == (54, 14)
    before = stack.contents()

    for again in (batch, batch[1:], batch[:1], further, [*further, *batch]):
        assert deliver(stack, *again) == []
    assert stack.contents() == before

    assert deliver(stack, *batch, *send(queue, 16)) == []
    assert value_and_version(stack) == (70, 15)
    assert [event_count(change) for change in stack.changes()][8:] == [2, 1, 1, 1, 1, 1, 1]


@pytest.mark.usefixtures("crowded")
def test_sequence_numbers_of_further_groups_are_independent(stack: Stack, queue: FifoQueue) -> None:
    early, late = send(queue, 2, group="early"), send(queue, 4, group="late")

    assert deliver(stack, *late) == deliver(stack, *early) == []
    assert value_and_version(stack) == (14, 10)
    assert deliver(stack, *early) == deliver(stack, *late) == []
    assert value_and_version(stack) == (14, 10)


def test_the_numbers_of_the_first_groups_stay_in_the_counters_item(
    stack: Stack, queue: FifoQueue, crowded: list[Message]
) -> None:
    deliver(stack, *send(queue, 2))
    own_items = read_own_items(stack)

    assert deliver(stack, *crowded) == []
    assert value_and_version(stack) == (10, 9)
    assert deliver(stack, *[queue.send(message_body(by=4), each.group) for each in crowded]) == []
    assert value_and_version(stack) == (42, 17)
    assert read_own_items(stack) == own_items


@pytest.mark.usefixtures("crowded")
def test_a_group_has_a_separate_number_for_each_counter(stack: Stack, queue: FifoQueue) -> None:
    for number in range(GROUPS_IN_ITEM):
        deliver(stack, queue.send(message_body("stock"), f"group-{number}"))
    first, second = queue.send(message_body("stock", by=2)), queue.send(message_body(by=4))

    assert deliver(stack, second) == []
    assert deliver(stack, first, second) == []
    assert value_and_version(stack, "stock") == (10, 9)
    assert value_and_version(stack) == (12, 9)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("known_group", [False, True], ids=["a new group", "a known group"])
def test_a_transaction_that_is_retried_after_a_fault_is_applied_once(
    stack: Stack, queue: FifoQueue, wire: Wire, *, known_group: bool
) -> None:
    cancellations = [
        canceled("TransactionConflict", "None"),
        canceled("None", "TransactionConflict"),
        canceled("None", "ThrottlingError"),
        canceled("ProvisionedThroughputExceeded", "TransactionConflict"),
    ]
    for number, fault in enumerate([*LOST, *REFUSED, *cancellations]):
        group = f"further-{number}"
        if known_group:
            deliver(stack, *send(queue, 16, group=group))
        before = value_and_version(stack)
        batch = send(queue, 2, 4, group=group)
        wire.fail("TransactWriteItems", [fault] * 2)

        assert deliver(stack, *batch) == [], number
        assert value_and_version(stack) == (before[0] + 6, before[1] + 1)
        wire.fail("TransactWriteItems", [])
        assert deliver(stack, *batch) == []
        assert value_and_version(stack) == (before[0] + 6, before[1] + 1)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("death", [dies, dies_after])
def test_messages_are_counted_once_if_the_function_is_killed_in_a_transaction(
    stack: Stack, queue: FifoQueue, wire: Wire, death: Fault
) -> None:
    batch = send(queue, 2, 4)
    wire.fail("TransactWriteItems", [death])
    with pytest.raises(Killed):
        deliver(stack, *batch)

    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (14, 9)


@pytest.mark.usefixtures("crowded")
def test_messages_are_reported_while_their_transactions_are_refused(
    stack: Stack, queue: FifoQueue, wire: Wire
) -> None:
    batch = send(queue, 2, 4)
    (other,) = send(queue, 16, group="group-0")
    conflicts = canceled("None", "TransactionConflict")
    for fault in (denied, throttled, conflicts, canceled("AccessDenied")):
        wire.fail("TransactWriteItems", repeat(fault))

        assert deliver(stack, *batch, other) == batch
        assert value_and_version(stack) == (24, 9)

    wire.fail("TransactWriteItems", [])
    assert deliver(stack, *batch) == []
    assert value_and_version(stack) == (30, 10)


@pytest.mark.usefixtures("crowded")
@every_sign
def test_a_message_of_a_further_group_without_room_is_parked(
    stack: Stack, queue: FifoQueue, sign: int
) -> None:
    set_near_limit(stack, sign, 10)
    batch = send(queue, sign * 3, sign * 8, sign * 2)

    for _ in range(2):
        assert deliver(stack, *batch) == []
        assert value_and_version(stack) == (sign * (MAX - 5), 11)
    assert parked(stack) == [as_parked(batch[1])]
