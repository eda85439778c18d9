"""The answer to a change is true after every possible sequence of replies from DynamoDB.

In each test case, a function makes one change, and its write requests get a sequence of replies. If
the function sends one more write request, it is killed. The tests try all sequences of up to
MAX_REPLIES replies. In `make test`, some tests try only single replies.

A function does not send a change again after a reply that leaves the outcome unknown. So longer
sequences with such a reply need no test cases of their own.
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
from tests.sizes import FULL, cases
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

MAX_REPLIES = cases(full=5, part=2)
# The repeats for which `make test` tries sequences of MAX_REPLIES replies. For the others, it tries
# each single reply.
LONG = {"without a key", "at once", "after the window"} if FULL else {"at once"}
# The delays of a delayed change, in seconds. SOON ends before the function answers, LATE ends after
# it.
SOON, LATE = 0.6, 12.0


@dataclass
class Replies:
    """The replies to the write requests for one change.

    Attributes:
        sequence: the names of the replies.
        used: the number of replies that the function got so far.
        exhausted: whether the function sent another write request after the last reply. This
            request kills the function.
    """

    ledger: Ledger
    faults_by_name: dict[str, Fault]
    sequence: list[str]
    used: int = 0
    exhausted: bool = field(default=False)

    def faults(self) -> Iterator[Fault]:
        for name in self.sequence:
            self.used += 1
            yield self.faults_by_name[name]
        self.exhausted = True
        yield dies


def replies_to(ledger: Ledger, operation: str) -> dict[str, Fault]:
    """Return the possible replies to a write request, by name."""

    def failed_and_applied_later(request: AWSPreparedRequest, seconds: float) -> AWSResponse:
        ledger.apply_later(request, seconds)
        return answered(
            request,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            {"__type": "InternalServerError", "message": "set by the test"},
        )

    transaction = operation == "TransactWriteItems"
    return {
        "applied": delivered,
        "applied, reply lost": reply_lost,
        "lost, applied soon": partial(ledger.lost_and_applied_later, seconds=SOON),
        "lost, applied late": partial(ledger.lost_and_applied_later, seconds=LATE),
        "500, not applied": refused_internally,
        "500, applied": internal_error,
        "500, applied soon": partial(failed_and_applied_later, seconds=SOON),
        "500, applied late": partial(failed_and_applied_later, seconds=LATE),
        "in progress": in_progress,
        "conflict": canceled("TransactionConflict") if transaction else conflict,
        "throttled": throttled,
    }


@pytest.mark.usefixtures("look_once")
@pytest.mark.parametrize("repeats", ["without a key", "at once", "after the window"])
@pytest.mark.parametrize("operation", ["UpdateItem", "TransactWriteItems"])
def test_the_answer_is_true_for_every_sequence_of_replies(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, operation: str, repeats: str
) -> None:
    # Make each pause as long as possible, so that a function searches for a lost change less often.
    monkeypatch.setattr(random, "uniform", lambda _shortest, longest: longest)
    faults_by_name = replies_to(ledger, operation)
    max_replies = MAX_REPLIES if repeats in LONG else 1
    to_try: list[list[str]] = [[]]
    tried, covered = 0, 0
    while to_try:
        sequence = to_try.pop()
        replies = Replies(ledger, faults_by_name, sequence)
        try:
            try_one(ledger, replies, operation, f"n{tried}", repeats)
        except AssertionError as error:
            error.add_note(f"after {sequence}")
            raise
        ledger.empty()
        tried += 1
        if replies.exhausted and len(sequence) < max_replies:
            to_try += [[*sequence, name] for name in faults_by_name]
            covered += 1
        else:
            # The function sends no further write request, or the sequence has the maximum length.
            # So this case also covers all longer sequences that begin with these replies.
            covered += sum(
                len(faults_by_name) ** more for more in range(max_replies - len(sequence) + 1)
            )

    print(f"{operation}, {repeats}: {tried} cases cover {covered} sequences")
    assert covered == sum(len(faults_by_name) ** length for length in range(max_replies + 1))


def try_one(ledger: Ledger, replies: Replies, operation: str, name: str, repeats: str) -> None:
    """Make a change that gets these replies, repeat the change, and check all answers."""
    key = None if repeats == "without a key" else name

    def send() -> Invocation:
        if operation == "UpdateItem":
            return ledger.add(name, 1, key)
        return ledger.add_all(entries(**{name: 1, f"{name}-too": 1}), key)

    ledger.plan_each(operation, replies.faults())
    answers = [send()]
    ledger.plan(operation)
    assert replies.used == len(replies.sequence) or answers[0].answer
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
    """Return whether Tally has stored a receipt for a key.

    A receipt is the item in which Tally remembers a request with a key. In these tests, the key is
    the name of the counter that the request changes.
    """
    target = key if operation == "UpdateItem" else "/increments"
    receipt_id = idempotency.Intent(key, target, (), "").receipt_id("somebody")
    return ledger.stack.item("ReceiptTable", receipt_id) is not None


def check(
    ledger: Ledger, name: str, key: str | None, answers: list[Invocation], operation: str
) -> None:
    """Check that the change was made at most once, and that the last answer is true."""
    value = ledger.value(name)
    delayed = ledger.delayed_requests()
    assert value + delayed <= 1
    last = answers[-1]
    if last.status == 200:
        assert (value, delayed) == (1, 0)
    elif last.problem == "throttled":
        assert (value, delayed) == (0, 0)
    else:
        assert last.problem in {"outcome-unknown", "in-progress", ""}  # "": the function was killed
    if key and (value or delayed):
        assert has_receipt(ledger, key, operation)
    texts = {answer.text for answer in answers if answer.status == 200}
    assert len(texts) <= 1
