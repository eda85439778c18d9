"""`POST /increments` with several counters, while requests to DynamoDB fail at random."""

import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.component.ledger import Entry, Ledger
from tests.component.scene import Invocation
from tests.component.storm import COUNTERS, Storm
from tests.sizes import cases
from tests.wire import (
    Fault,
    canceled,
    conflict,
    delivered,
    dies,
    dies_after,
)

NAMES = COUNTERS[:6]
TRANSFERS = cases(full=1000, part=25)


@dataclass
class Transfer:
    """A request to increment several counters, and the replies to it.

    The caller repeats a request with a key until `done` is true.
    """

    key: str | None
    increments: list[Entry]
    replies: list[Invocation] = field(default_factory=list)

    def final_replies(self) -> list[Invocation]:
        """Return the replies that tell whether the increments were made."""
        return [
            reply
            for reply in self.replies
            if reply.status == 200 or reply.problem == "bound-exceeded"
        ]

    def done(self) -> bool:
        """Return whether the caller need not send the request again."""
        return bool(self.final_replies() if self.key else self.replies)


def random_increments(source: random.Random) -> list[Entry]:
    """Return increments of 2 to 4 counters. Their amounts add up to 0. Some have bounds."""
    amounts = [source.choice([-1, 1]) * source.randint(1, 20) for _ in range(source.randint(1, 3))]
    if sum(amounts):
        amounts.append(-sum(amounts))
    elif len(amounts) == 1:
        amounts = [1, -1]
    increments = [
        {"counter_id": counter, "by": by}
        for counter, by in zip(source.sample(NAMES, len(amounts)), amounts, strict=True)
    ]
    if source.random() < 0.3:
        source.choice(increments)["min"] = source.choice([-30, 0, 10**12])
    return increments


class TransactionStorm(Storm):
    """A Storm with fewer faults. It also kills functions.

    A Storm lets requests fail at random. An invocation that reads many counters sends many
    requests. If half of the requests failed, no invocation would finish.
    """

    def _choose_fault(self, operation: str) -> Fault:
        if self.source.random() < 0.6:
            self.fault_counts[operation]["delivered"] += 1
            return delivered
        fault = super()._choose_fault(operation)
        roll = self.source.random()
        if roll < 0.06:
            return dies if roll < 0.03 else dies_after
        if fault is conflict and operation == "TransactWriteItems":
            return canceled("TransactionConflict")
        return fault


@pytest.mark.usefixtures("look_once")
def test_each_request_is_applied_entirely_or_not_at_all_and_its_answers_are_true(
    ledger: Ledger,
) -> None:
    storm = TransactionStorm(ledger, seed=20261126)
    source = storm.source
    transfers = [
        Transfer(f"key{number}" if source.random() < 0.7 else None, random_increments(source))
        for number in range(TRANSFERS)
    ]
    to_come = iter(transfers)
    current = list(itertools.islice(to_come, 8))

    def send_one() -> None:
        if not current:
            return
        transfer = current.pop(source.randrange(len(current)))
        transfer.replies.append(ledger.add_all(transfer.increments, transfer.key))
        ledger.advance(source.uniform(0, 3))
        # Now and then, a caller repeats a request although it knows the outcome.
        if not transfer.done() or (transfer.key and source.random() < 0.1):
            current.append(transfer)
        elif following := next(to_come, None):
            current.append(following)

    storm.interruption = send_one
    while current:
        send_one()
    storm.settle()

    attempts: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for counter, history in storm.histories().items():
        for entry in history:
            changes = attempts[entry["request_id"]]
            assert counter not in changes, "the change was made twice"
            changes[counter] = entry
    answers: Counter[str] = Counter()
    for transfer in transfers:
        ids = [reply.context.aws_request_id for reply in transfer.replies]
        applied = [attempts.pop(each) for each in ids if each in attempts]
        assert_true(transfer, applied)
        answers.update(
            f"{summary(reply)} {'applied' if applied else 'not applied'}"
            for reply in transfer.replies
        )
    print(f"{len(transfers)} transfers, {answers.total()} requests: {dict(answers)} (0: killed)")
    for operation, met in sorted(storm.fault_counts.items()):
        print(f"{operation}: {met.total()} requests, {dict(met)}")

    assert not attempts  # every recorded change belongs to a request
    assert sum(ledger.values(*NAMES)) == 0
    assert {
        "200 applied",
        "200 from the history applied",
        "200 replayed applied",
        "409 bound-exceeded not applied",
        "0 applied",
        "0 not applied",
    } <= set(answers)


def summary(reply: Invocation) -> str:
    """Return the status of a reply, and where the function found the outcome."""
    if reply.status != 200:
        return f"{reply.status} {reply.problem}".strip()
    if reply.replayed:
        return "200 replayed"
    return "200 from the history" if "Query" in reply.operations() else "200"


def assert_matches(reply: Invocation, expected: list[dict[str, Any]]) -> None:
    """Compare an answer with the expected counters.

    If the value of a counter is null in the answer, compare only the counter's other fields.
    """
    for answered, recorded in zip(json.loads(reply.text), expected, strict=True):
        if answered["value"] is None:
            assert answered == {**recorded, "value": None, "version": None}
        else:
            assert answered == recorded


def assert_true(transfer: Transfer, applied: list[dict[str, dict[str, Any]]]) -> None:
    """Check that a transfer was applied once or not at all, and that all answers are true.

    A transfer that was applied must have changed all of its counters.

    Args:
        transfer: the transfer.
        applied: for each invocation that applied the transfer, the history entry of each counter.
    """
    assert transfer.replies
    assert len(applied) <= 1
    amounts = {each["counter_id"]: each["by"] for each in transfer.increments}
    for entries_of in applied:
        assert {counter: entry["by"] for counter, entry in entries_of.items()} == amounts
    final = transfer.final_replies()
    if transfer.key:
        assert final
    # A request that is refused frees its key, so a later repeat can be applied. The requests of a
    # transfer are sent one after the other.
    applied_id = next(iter(applied[0].values()))["request_id"] if applied else None
    is_applied = False
    for reply in transfer.replies:
        is_applied = is_applied or reply.context.aws_request_id == applied_id
        if reply in final:
            assert is_applied == (reply.status == 200)
        if reply.status == 200:
            assert_matches(reply, counters_after(transfer, applied[0]))
        elif reply.problem == "throttled" and not transfer.key:
            assert not applied
        else:
            assert reply.status in {0, 409, 503}


def counters_after(
    transfer: Transfer, entries_of: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the counters of a transfer as they were after the changes in these history entries."""
    return [
        {
            "counter_id": each["counter_id"],
            "value": entry["value"],
            "version": entry["version"],
            "created_at": entry["counter_created_at"],
            "updated_at": entry["created_at"],
        }
        for each in transfer.increments
        for entry in [entries_of[each["counter_id"]]]
    ]
