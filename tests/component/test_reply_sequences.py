"""Whatever sequence of replies a change gets from the database, its answer is true.

A case is a sequence of replies to the attempts at one change. After the last one the function is
killed. A reply that leaves the outcome open ends a sequence, because the code makes no further
attempt after it. All other sequences are tried up to a length.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.ledger import Ledger, entries
from tests.component.scene import Invocation
from tests.sizes import cases
from tests.wire import (
    Fault,
    answered,
    canceled,
    conflict,
    delivered,
    dies,
    in_progress,
    internal_error,
    refused_internally,
    reply_lost,
    throttled,
)

from counters import clock, idempotency

MOST = cases(full=5, part=2)  # replies
SOON, LATE = 0.6, 12.0  # seconds after which a change is made; the function ends in between


@dataclass
class Attempts:
    """Replies to the attempts at a change. After the last one the function is killed."""

    ledger: Ledger
    kinds: dict[str, Fault]
    sequence: list[str]
    asked: int = 0
    wants_more: bool = field(default=False)

    def faults(self) -> Iterator[Fault]:
        for kind in self.sequence:
            self.asked += 1
            yield self.kinds[kind]
        self.wants_more = True
        yield dies


def kinds_of(ledger: Ledger, operation: str) -> dict[str, Fault]:
    """Return the possible replies to an operation."""

    def failed_and_applied_later(request: AWSPreparedRequest, seconds: float) -> AWSResponse:
        ledger.hold_up(request, seconds)
        return answered(
            request,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            {"__type": "InternalServerError", "message": "as the test has it"},
        )

    transaction = operation == "TransactWriteItems"
    return {
        "applied": delivered,
        "applied, reply lost": reply_lost,
        "lost, applied soon": partial(ledger.held_up, seconds=SOON),
        "lost, applied late": partial(ledger.held_up, seconds=LATE),
        "500, not applied": refused_internally,
        "500, applied": internal_error,
        "500, applied soon": partial(failed_and_applied_later, seconds=SOON),
        "500, applied late": partial(failed_and_applied_later, seconds=LATE),
        "in progress": in_progress,
        "conflict": canceled("TransactionConflict") if transaction else conflict,
        "throttled": throttled,
    }


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("repeats", ["without a key", "at once", "after the window"])
@pytest.mark.parametrize("operation", ["UpdateItem", "TransactWriteItems"])
def test_the_answer_to_a_change_is_true_whatever_replies_it_gets(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, operation: str, repeats: str
) -> None:
    # With the longest pauses, a function looks for a lost change half as often.
    monkeypatch.setattr(random, "uniform", lambda _shortest, longest: longest)
    kinds = kinds_of(ledger, operation)
    to_try: list[list[str]] = [[]]
    tried, stood_for = 0, 0
    while to_try:
        sequence = to_try.pop()
        attempts = Attempts(ledger, kinds, sequence)
        try:
            try_one(ledger, attempts, operation, f"n{tried}", repeats)
        except AssertionError as error:
            error.add_note(f"after {sequence}")
            raise
        ledger.empty()
        tried += 1
        if attempts.wants_more and len(sequence) < MOST:
            to_try += [[*sequence, kind] for kind in kinds]
            stood_for += 1
        else:
            # No longer sequence that begins with this one can occur.
            stood_for += sum(len(kinds) ** more for more in range(MOST - len(sequence) + 1))

    print(f"{operation}, {repeats}: {tried} cases, which stand for {stood_for} sequences")
    assert stood_for == sum(len(kinds) ** length for length in range(MOST + 1))


def try_one(ledger: Ledger, attempts: Attempts, operation: str, name: str, repeats: str) -> None:
    """Make a change with a sequence of replies, repeat it, and check all answers."""
    key = None if repeats == "without a key" else name

    def send() -> Invocation:
        if operation == "UpdateItem":
            return ledger.add(name, 1, key)
        return ledger.add_all(entries(**{name: 1, f"{name}-too": 1}), key)

    ledger.plan_each(operation, attempts.faults())
    answers = [send()]
    ledger.plan(operation)
    assert attempts.asked == len(attempts.sequence) or answers[0].answer
    check(ledger, name, key, answers, operation)
    if repeats == "at once":
        ledger.record()
        answers.append(send())
        check(ledger, name, key, answers, operation)
    ledger.advance(clock.APPLY_WINDOW + 1)
    ledger.record()
    check(ledger, name, key, answers, operation)
    if key:
        answers.append(send())
        check(ledger, name, key, answers, operation)
        assert answers[-1].status == 200
        assert ledger.value(name) == 1


def has_receipt(ledger: Ledger, key: str, operation: str) -> bool:
    """Return whether there is a receipt for a key. Its counter has the same name."""
    target = key if operation == "UpdateItem" else "/increments"
    receipt_id = idempotency.Intent(key, target, (), "").receipt_id("somebody")
    return ledger.stack.item("ReceiptTable", receipt_id) is not None


def check(
    ledger: Ledger, name: str, key: str | None, answers: list[Invocation], operation: str
) -> None:
    """Check that the change was made at most once and that the last answer is true."""
    value = ledger.value(name)
    to_come = ledger.under_way()
    assert value + to_come <= 1
    last = answers[-1]
    if last.status == 200:
        assert (value, to_come) == (1, 0)
    elif last.problem == "throttled":
        assert (value, to_come) == (0, 0)
    else:
        assert last.problem in {"outcome-unknown", "in-progress", ""}  # "": killed
    if key and (value or to_come):
        assert has_receipt(ledger, key, operation)
    good = {answer.text for answer in answers if answer.status == 200}
    assert len(good) <= 1
