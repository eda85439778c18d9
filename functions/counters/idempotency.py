"""Idempotency keys: a request with a key leaves a receipt, so that a repeat is not applied again.

An attempt is the work of one invocation to make one change. The first request with a key does two
writes and no reads:
1. It stores a receipt in ReceiptTable, with the id of its attempt.
2. It makes the change. The id of the attempt is stored with the change.

A repeat of the request finds the receipt. The receipt has the id of the earlier attempt. The
repeat looks for this id in the counters and in their history. There are three cases:
- The earlier attempt made the change: the repeat returns the result of the change.
- The earlier attempt did not make the change and never will: the repeat replaces the receipt and
  makes the change itself.
- It is not known yet whether the earlier attempt makes the change: the repeat looks for the id for
  some more seconds, and then raises InProgressError.
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

# How long a repeat searches for the outcome of an earlier request, in seconds. The parameter
# StreamBatchingSeconds must be shorter.
PATIENCE = 3.0

# The retries of a throttled change stop this many seconds before `Change.until`. That leaves time
# to delete the receipt.
_TO_DISCARD = 0.5

Outcome = tuple[Counter | ChangedCounter, ...]


class Intent(NamedTuple):
    """A request to change counters.

    Attributes:
        key: the idempotency key; None if the request has none.
        target: a counter's name, or the path of the route that changes several counters. A caller
            can use the same key once for each target.
        counter_ids: the counters to change.
        body: the content of the request. A repeat must have the same body.
    """

    key: str | None
    target: str
    counter_ids: tuple[str, ...]
    body: str

    def receipt_id(self, actor: str) -> str:
        """Return the id of the receipt: a hash of caller, target and idempotency key."""
        return _digest(json.dumps([actor, self.target, self.key]))

    def fingerprint(self) -> str:
        """Return a hash of the body."""
        return _digest(self.body)


def once(
    intent: Intent, change: Change, apply: "Callable[[Change], Outcome]"
) -> tuple[Outcome, bool]:
    """Apply a change, unless an earlier request with the same key has applied it.

    If the request has no key, the change is always applied.

    Args:
        intent: the request.
        change: the attempt of this request.
        apply: a function that makes the change. It raises BoundExceededError or ThrottledError only
            if the change was not written and never will be.

    Returns:
        The counters as the change left them, and whether an earlier request made the change.

    Raises:
        KeyReusedError: if an earlier request had this key and a different body.
        InProgressError: if it is not known yet whether an earlier request with this key made its
            change.
        OutcomeUnknownError: if DynamoDB did not accept the receipt, or if `apply` raises this.
        CounterError: if `apply` raises it. After BoundExceededError or ThrottledError, a later
            request can use the key again.
    """
    if intent.key is None:
        return apply(change), False
    return _once(intent, change, apply)


def _once(
    intent: Intent, change: Change, apply: "Callable[[Change], Outcome]"
) -> tuple[Outcome, bool]:
    """Do what `once` does, for a request with a key."""
    receipt_id, fingerprint = intent.receipt_id(change.actor), intent.fingerprint()
    patience = min(change.until, change.began + PATIENCE)
    checks = 0
    search: Search | None = None
    while True:
        receipt = receipts.put(receipt_id, fingerprint, change)
        if receipt is None:
            return _make(receipt_id, change, apply), False
        if receipt.outcome:
            return receipt.outcome, True
        if search is None or search.request_id != receipt.attempt:
            search = Search(intent.counter_ids, receipt.attempt, receipt.began)
        try:
            counters = search.check(change.until)
        except UndecidedError as error:
            if clock.pause(checks, patience):
                checks += 1
                continue
            if search.made:
                return search.counters(), True
            raise InProgressError(receipt.seconds_left()) from error
        if counters:
            receipts.settle(receipt_id, receipt, counters, change.until)
            return counters, True
        # The earlier attempt can no longer make its change. So this request makes the change, and
        # its attempt begins now.
        change = change._replace(began=clock.now())
        if receipts.take_over(receipt_id, fingerprint, change, receipt):
            return _make(receipt_id, change, apply), False


def _make(receipt_id: str, change: Change, apply: "Callable[[Change], Outcome]") -> Outcome:
    """Make the change. If the change certainly was not made, delete the receipt."""
    try:
        return apply(change._replace(until=change.until - _TO_DISCARD))
    except (BoundExceededError, ThrottledError):
        receipts.discard(receipt_id, change)
        raise


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
