"""Idempotency keys: a request under a key leaves a receipt, so that a repeat is not applied again.

The receipt is put into ReceiptTable before the change and has the id of the attempt, which is the
change's `request_id` too. A repeat finds it. The counters and their history then show what became
of the attempt: the change was made, or it was not made and never will be, or neither is known yet.
Nothing is guessed. The first request costs two writes and no read.
"""

import hashlib
import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from botocore.exceptions import BotoCoreError, ClientError

from counters import clock
from counters.attempt import Search
from counters.clients import UndecidedError, answered, dynamodb, unanswered
from counters.errors import (
    BoundExceededError,
    InProgressError,
    KeyReusedError,
    OutcomeUnknownError,
    ThrottledError,
)
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


class _Receipt(NamedTuple):
    attempt: str
    started_at: str
    fingerprint: str
    outcome: tuple[Counter, ...]  # empty until a repeat has found it


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
    patience = min(change.until, clock.now() + _PATIENCE)
    looks = 0
    search: Search | None = None
    while True:
        receipt = _open(intent, change)
        if receipt is None:
            return _make(intent, change, apply), False
        _check(receipt, intent)
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
            raise InProgressError(_time_left(receipt)) from error
        if counters:
            _settle(intent, receipt, counters, change.until)
            return counters, True
        # The window of that attempt is over. This attempt begins now, with a window of its own.
        change = change._replace(at=clock.timestamp(clock.now()))
        if _take_over(intent, receipt, change):
            return _make(intent, change, apply), False


def _check(receipt: _Receipt, intent: Intent) -> None:
    """Let pass a receipt of the same request.

    Raises:
        KeyReusedError: it is of a request with another body.
    """
    if receipt.fingerprint != _digest(intent.body):
        detail = "Idempotency-Key: it was used with another body."
        raise KeyReusedError(detail)


def _open(intent: Intent, change: Change) -> _Receipt | None:
    """Put the receipt of this attempt; return the one that is there already, if there is one.

    Raises:
        OutcomeUnknownError: the database did not accept it in time; the change was not begun.
    """
    # TTL deletes late, so treat an expired receipt as absent.
    condition = "attribute_not_exists(#receipt_id) OR #expires_at <= :now"
    while True:
        put, there = _put(intent, change, condition, {":now": _seconds(clock.now())})
        if put:
            return None
        if there:
            return there


def _take_over(intent: Intent, receipt: _Receipt, change: Change) -> bool:
    """Replace the receipt of an attempt that never made its change by the one of this attempt.

    Returns:
        False if another request has replaced or deleted it first.

    Raises:
        OutcomeUnknownError: the database did not accept it in time; the change was not begun.
    """
    # Replace only the receipt whose attempt we looked for. Another request may have taken over and
    # made the change.
    put, _ = _put(intent, change, "#attempt = :attempt", {":attempt": {"S": receipt.attempt}})
    return put


def _put(
    intent: Intent, change: Change, condition: str, values: dict[str, Any]
) -> tuple[bool, _Receipt | None]:
    """Put the receipt of this attempt if the condition holds. Putting it twice is safe.

    Returns:
        Whether it is there, and otherwise the receipt that is there, if there is one.

    Raises:
        OutcomeUnknownError: the database did not accept it in time; the change was not begun.
    """
    names = {
        "#receipt_id": "receipt_id",
        "#expires_at": "expires_at",
        "#attempt": "attempt",
    }
    # It must not be expired by the clock of another function before its hours are over.
    lifetime = 3600 * int(os.environ["RECEIPT_HOURS"]) + clock.CLOCK_DIFFERENCE
    expires_at = clock.seconds(change.at) + lifetime
    try:
        answered(
            change.until,
            lambda: dynamodb().put_item(
                TableName=os.environ["RECEIPT_TABLE"],
                Item={
                    "receipt_id": {"S": intent.receipt_id()},
                    "attempt": {"S": change.request_id},
                    "started_at": {"S": change.at},
                    "fingerprint": {"S": _digest(intent.body)},
                    "expires_at": _seconds(math.ceil(expires_at)),
                },
                ConditionExpression=condition,
                ExpressionAttributeNames={n: a for n, a in names.items() if n in condition},
                ExpressionAttributeValues=values,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            ),
        )
    except dynamodb().exceptions.ConditionalCheckFailedException as error:
        item = cast("dict[str, Any]", error.response).get("Item")
        there = _receipt(item) if item else None
        # A put whose reply was lost is refused by what it has put itself.
        return there is not None and there.attempt == change.request_id, there
    except UndecidedError as error:
        # Nothing is known of earlier requests with this key, so this is no "not applied".
        detail = (
            "DynamoDB did not answer in time. This request changed nothing, but an earlier one with"
            " the same key may have. Repeat it with that key."
        )
        raise OutcomeUnknownError(detail) from error
    return True, None


def _make(intent: Intent, change: Change, apply: "Callable[[Change], Outcome]") -> Outcome:
    """Make the change. Delete the receipt if it was refused or not accepted."""
    try:
        return apply(change._replace(until=change.until - _TO_DISCARD))
    except (BoundExceededError, ThrottledError):
        _discard(intent, change)
        raise


def _discard(intent: Intent, change: Change) -> None:
    """Delete the receipt of this attempt. If that fails, repeats wait until its window is over."""
    if clock.now() >= change.until:
        return
    try:
        dynamodb().delete_item(
            TableName=os.environ["RECEIPT_TABLE"],
            Key={"receipt_id": {"S": intent.receipt_id()}},
            ConditionExpression="#attempt = :attempt",
            ExpressionAttributeNames={"#attempt": "attempt"},
            ExpressionAttributeValues={":attempt": {"S": change.request_id}},
        )
    except (BotoCoreError, ClientError) as error:
        _ignore(error)


def _settle(intent: Intent, receipt: _Receipt, counters: tuple[Counter, ...], until: float) -> None:
    """Write the outcome into the receipt. If that fails, the next repeat looks for it again."""
    if clock.now() >= until:
        return
    try:
        dynamodb().update_item(
            TableName=os.environ["RECEIPT_TABLE"],
            Key={"receipt_id": {"S": intent.receipt_id()}},
            UpdateExpression="SET #outcome = :outcome",
            ConditionExpression="#attempt = :attempt",
            ExpressionAttributeNames={"#attempt": "attempt", "#outcome": "outcome"},
            ExpressionAttributeValues={
                ":attempt": {"S": receipt.attempt},
                ":outcome": {"S": json.dumps([each._asdict() for each in counters])},
            },
        )
    except (BotoCoreError, ClientError) as error:
        _ignore(error)


def _ignore(error: BotoCoreError | ClientError) -> None:
    """Ignore an error that a best effort may meet: no answer, or another attempt's receipt."""
    refused = isinstance(error, dynamodb().exceptions.ConditionalCheckFailedException)
    if not (refused or unanswered(error)):
        raise error


def _receipt(item: dict[str, Any]) -> _Receipt:
    outcome = json.loads(item["outcome"]["S"]) if "outcome" in item else []
    return _Receipt(
        item["attempt"]["S"],
        item["started_at"]["S"],
        item["fingerprint"]["S"],
        tuple(Counter(**each) for each in outcome),
    )


def _time_left(receipt: _Receipt) -> int:
    """Return after how many seconds, at least 1, the window of the receipt's attempt is over."""
    end = clock.seconds(receipt.started_at) + clock.APPLY_WINDOW
    return max(1, math.ceil(end - clock.now()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _seconds(time: float) -> dict[str, str]:
    return {"N": str(int(time))}
