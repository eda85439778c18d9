"""Changes of many counters while requests to the database meet faults at random."""

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
WISHES = cases(full=1000, part=25)


@dataclass
class Wish:
    """What a caller wants of some counters; with a key it is repeated until its end is told."""

    key: str | None
    increments: list[Entry]
    tries: list[Invocation] = field(default_factory=list)

    def told(self) -> list[Invocation]:
        """Return the tries that were told what has become of it."""
        return [
            reply
            for reply in self.tries
            if reply.status == 200 or reply.problem == "bound-exceeded"
        ]

    def over(self) -> bool:
        """Return whether there is nothing more to ask."""
        return bool(self.told() if self.key else self.tries)


def some_increments(source: random.Random) -> list[Entry]:
    """Return increments that move something between 2 to 4 counters, some within bounds."""
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


class Squall(Storm):
    """A milder storm, of transactions, in which functions die as well.

    To look up many counters takes many requests: if half of them fail, there is no end to it.
    """

    def _chance(self, operation: str) -> Fault:
        if self.source.random() < 0.6:
            self.fault_counts[operation]["delivered"] += 1
            return delivered
        fault = super()._chance(operation)
        chance = self.source.random()
        if chance < 0.06:
            return dies if chance < 0.03 else dies_after
        if fault is conflict and operation == "TransactWriteItems":
            return canceled("TransactionConflict")
        return fault


@pytest.mark.usefixtures("impatient")
def test_each_request_is_applied_entirely_or_not_at_all_and_its_answers_are_true(
    ledger: Ledger,
) -> None:
    storm = Squall(ledger, seed=20261126)
    source = storm.source
    wishes = [
        Wish(f"key{number}" if source.random() < 0.7 else None, some_increments(source))
        for number in range(WISHES)
    ]
    to_come = iter(wishes)
    current = list(itertools.islice(to_come, 8))

    def try_one() -> None:
        if not current:
            return
        wish = current.pop(source.randrange(len(current)))
        wish.tries.append(ledger.add_all(wish.increments, wish.key))
        ledger.advance(source.uniform(0, 3))
        # Some ask again although they have their answer.
        if not wish.over() or (wish.key and source.random() < 0.1):
            current.append(wish)
        elif following := next(to_come, None):
            current.append(following)

    storm.interruption = try_one
    while current:
        try_one()
    storm.settle()

    attempts: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for counter, history in storm.histories().items():
        for entry in history:
            made = attempts[entry["request_id"]]
            assert counter not in made, "applied twice"
            made[counter] = entry
    answers: Counter[str] = Counter()
    for wish in wishes:
        ids = [reply.context.aws_request_id for reply in wish.tries]
        applied = [attempts.pop(each) for each in ids if each in attempts]
        assert_same(wish, applied)
        answers.update(
            f"{kind(reply)} {'applied' if applied else 'not applied'}" for reply in wish.tries
        )
    print(f"{len(wishes)} wishes, {answers.total()} requests: {dict(answers)} (0: killed)")
    for operation, met in sorted(storm.fault_counts.items()):
        print(f"{operation}: {met.total()} requests, {dict(met)}")

    assert not attempts  # nobody else's
    assert sum(ledger.values(*NAMES)) == 0
    assert {
        "200 applied",
        "200 from the history applied",
        "200 replayed applied",
        "409 bound-exceeded not applied",
        "0 applied",
        "0 not applied",
    } <= set(answers)


def kind(reply: Invocation) -> str:
    """Return in short what was answered, and how that was found out."""
    if reply.status != 200:
        return f"{reply.status} {reply.problem}".strip()
    if reply.replayed:
        return "200 replayed"
    return "200 from the history" if "Query" in reply.operations() else "200"


def assert_left(reply: Invocation, expected: list[dict[str, Any]]) -> None:
    """Compare an answer with what the history says: it may not have known some counters yet."""
    for told, each in zip(json.loads(reply.text), expected, strict=True):
        if told["value"] is None:
            assert told == {**each, "value": None, "version": None}
        else:
            assert told == each


def assert_same(wish: Wish, made: list[dict[str, dict[str, Any]]]) -> None:
    """Compare what was answered with what was made: at most once, and then of all counters."""
    assert wish.tries
    assert len(made) <= 1
    asked = {each["counter_id"]: each["by"] for each in wish.increments}
    for entries_of in made:
        assert {counter: entry["by"] for counter, entry in entries_of.items()} == asked
    told = wish.told()
    if wish.key:
        assert told
    # One after the other, and a refusal frees the key: a later try may make what was refused.
    maker = next(iter(made[0].values()))["request_id"] if made else None
    is_made = False
    for reply in wish.tries:
        is_made = is_made or reply.context.aws_request_id == maker
        if reply in told:
            assert is_made == (reply.status == 200)
        if reply.status == 200:
            assert_left(reply, as_left(wish, made[0]))
        elif reply.problem == "throttled" and not wish.key:
            assert not made
        else:
            assert reply.status in {0, 409, 503}


def as_left(wish: Wish, entries_of: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the counters as the changes in the history left them."""
    return [
        {
            "counter_id": each["counter_id"],
            "value": entry["value"],
            "version": entry["version"],
            "created_at": entry["counter_created_at"],
            "updated_at": entry["created_at"],
        }
        for each in wish.increments
        for entry in [entries_of[each["counter_id"]]]
    ]
