"""Idempotency keys: a request under a key leaves a receipt, so that a repeat is not applied again.

The receipt is put into ReceiptTable before the change and has the id of the attempt, which is the
change's `request_id` too. A repeat finds it. The counters and their history then show what became
of the attempt: the change was made, or it was not made and never will be, or neither is known yet.
Nothing is guessed. The first request costs two writes and no read.
"""

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

from counters import clock, receipts
from counters.attempt import Search
from counters.clients import UndecidedError
from counters.errors import BoundExceededError, InProgressError, ThrottledError
from counters.model import Change, ChangedCounter, Counter

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a repeat looks for the outcome of the first request, in seconds.
_PATIENCE = 3.0

# The time that a throttled change leaves for deleting its receipt, in seconds.
_TO_DISCARD = 0.5

Outcome = tuple[Counter | ChangedCounter, ...]


class Intent(NamedTuple):
    """What a caller wants done once.

    `target` is what the key is for: a counter's name, or a text that cannot be one. `counter_ids`
    are the counters to change. Requests are the same if their `body` is.
    """

    key: str
    actor: str
    target: str
    counter_ids: tuple[str, ...]
    body: str

    def receipt_id(self) -> str:
        """Return the key of the receipt: a hash of caller, target and idempotency key."""
        return _digest(json.dumps([self.actor, self.target, self.key]))

    def fingerprint(self) -> str:
        """Return a hash of the body."""
        return _digest(self.body)


def once(
    intent: Intent, change: Change, apply: "Callable[[Change], Outcome]"
) -> tuple[Outcome, bool]:
    """Apply a change once for all requests with the same intent.

    Args:
        intent: what is to be done once.
        change: this request's attempt at it.
        apply: makes the change; raises BoundExceededError or ThrottledError only if nothing was
            written and never will be.

    Returns:
        The counters as the change left them, and whether an earlier request had made it.

    Raises:
        KeyReusedError: the key was used with another body.
        InProgressError: an earlier request with this key is unresolved.
        OutcomeUnknownError: the receipt was not accepted, so this request did nothing. Or, as by
            `apply`, a reply was lost.
        CounterError: as by `apply`; a BoundExceededError or ThrottledError frees the key again.
    """
    receipt_id, fingerprint = intent.receipt_id(), intent.fingerprint()
    patience = min(change.until, clock.now() + _PATIENCE)
    looks = 0
    search: Search | None = None
    while True:
        receipt = receipts.put(receipt_id, fingerprint, change)
        if receipt is None:
            return _make(receipt_id, change, apply), False
        if receipt.outcome:
            return receipt.outcome, True
        if search is None or search.request_id != receipt.attempt:
            search = Search(intent.counter_ids, receipt.attempt, receipt.started_at)
        try:
            counters = search.look(change.until)
        except UndecidedError as error:
            if clock.pause(looks, patience):
                looks += 1
                continue
            if search.made:
                return search.counters(), True
            raise InProgressError(receipt.seconds_left()) from error
        if counters:
            receipts.settle(receipt_id, receipt, counters, change.until)
            return counters, True
        # The window of that attempt is over. This attempt begins now, with a window of its own.
        change = change._replace(at=clock.timestamp(clock.now()))
        if receipts.take_over(receipt_id, fingerprint, change, receipt):
            return _make(receipt_id, change, apply), False


def _make(receipt_id: str, change: Change, apply: "Callable[[Change], Outcome]") -> Outcome:
    """Make the change. Delete the receipt if it was refused or not accepted."""
    try:
        return apply(change._replace(until=change.until - _TO_DISCARD))
    except (BoundExceededError, ThrottledError):
        receipts.discard(receipt_id, change)
        raise


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
