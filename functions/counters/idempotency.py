"""Once a key: a receipt of what is being done under an Idempotency-Key, in ReceiptTable.

A receipt is put before the change and carries the id of the attempt, which is the change's
`request_id` as well. Whoever comes with the same key finds it, and then the counter and its history
tell what became of the attempt: the change is there, or it was not made and never will be, or that
cannot be told yet. Nothing is guessed. The first try costs two writes and no read.
"""

import hashlib
import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, store
from counters.clients import UndecidedError, answered, dynamodb_once, unanswered
from counters.model import (
    BoundExceededError,
    Change,
    Counter,
    InProgressError,
    KeyReusedError,
    ThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a repeat waits for the outcome of the first request before it says so, in seconds.
_PATIENCE = 3.0

# What a change that is throttled leaves of its time, in seconds: then its receipt is deleted.
_TO_DISCARD = 0.5


class Intent(NamedTuple):
    """What a caller wants done once: `body` decides whether a repeat is the same request.

    `target` is what the key is for: a counter's name, or what cannot be one. `counter_ids` is what
    is changed.
    """

    key: str
    actor: str
    target: str
    counter_ids: tuple[str, ...]
    body: str

    def receipt_id(self) -> str:
        """Return the key of the receipt: of caller, target and idempotency key."""
        return _digest(json.dumps([self.actor, self.target, self.key]))


class _Receipt(NamedTuple):
    attempt: str
    started_at: str
    fingerprint: str
    outcome: tuple[Counter, ...]  # none, as long as it is not there


def once(
    intent: Intent, change: Change, apply: "Callable[[Change], tuple[Counter, ...]]"
) -> tuple[tuple[Counter, ...], bool]:
    """Apply a change once for all requests with the same intent.

    Args:
        intent: what is to be done once.
        change: this request's attempt at it.
        apply: makes the change; raises BoundExceededError or ThrottledError only if nothing was
            written, and never will be.

    Returns:
        The counters as the change left them, and whether an earlier request had made it.

    Raises:
        KeyReusedError: the key was used with another body.
        InProgressError: what becomes of an earlier request cannot be told yet.
        CounterError: as `apply`; a BoundExceededError or ThrottledError frees the key again.
    """
    patience = min(change.until, clock.now() + _PATIENCE)
    looks = 0
    while True:
        receipt = _open(intent, change)
        if receipt is None:
            return _make(intent, change, apply), False
        if receipt.fingerprint != _digest(intent.body):
            detail = "Idempotency-Key: it was used with another body"
            raise KeyReusedError(detail)
        if receipt.outcome:
            return receipt.outcome, True
        try:
            counters = store.find(
                intent.counter_ids,
                receipt.attempt,
                receipt.started_at,
                until=change.until,
            )
        except UndecidedError as error:
            if not clock.pause(looks, patience):
                raise InProgressError(_time_left(receipt)) from error
            looks += 1
            continue
        if counters:
            _settle(intent, receipt, counters, change.until)
            return counters, True
        # Its window is over: this attempt begins now, with a window of its own.
        change = change._replace(at=clock.timestamp(clock.now()))
        if _take_over(intent, receipt, change):
            return _make(intent, change, apply), False


def _open(intent: Intent, change: Change) -> _Receipt | None:
    """Put the receipt of this attempt; return the one that is there already, if there is one.

    Raises:
        ThrottledError: the database does not take it; the change was not begun.
    """
    # Expired is as good as gone: TTL deletes late.
    condition = "attribute_not_exists(#receipt_id) OR #expires_at <= :now"
    receipt = _put(intent, change, condition, {":now": _seconds(clock.now())})
    # The put whose reply was lost is refused by what it had put.
    return None if receipt and receipt.attempt == change.request_id else receipt


def _take_over(intent: Intent, receipt: _Receipt, change: Change) -> bool:
    """Put the receipt of this attempt in place of one whose change was never made.

    Returns:
        Whether it is there; if not, somebody else was faster.

    Raises:
        ThrottledError: the database does not take it; the change was not begun.
    """
    # The attempt is the one that was looked for: another might have made its change meanwhile.
    condition = "#attempt = :attempt"
    there = _put(intent, change, condition, {":attempt": {"S": receipt.attempt}})
    return there is None or there.attempt == change.request_id


def _put(intent: Intent, change: Change, condition: str, values: dict[str, Any]) -> _Receipt | None:
    """Put the receipt of this attempt if the condition holds; else return the one that is there.

    A put is repeated even after a lost reply: it does no harm twice.
    """
    names = {
        "#receipt_id": "receipt_id",
        "#expires_at": "expires_at",
        "#attempt": "attempt",
    }
    expires_at = clock.seconds(change.at) + 3600 * int(os.environ["RECEIPT_HOURS"])
    try:
        answered(
            change.until,
            lambda: dynamodb_once().put_item(
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
    except dynamodb_once().exceptions.ConditionalCheckFailedException as error:
        return _receipt(cast("dict[str, Any]", error.response)["Item"])
    except UndecidedError as error:
        detail = "the database takes no more at the moment: nothing was applied"
        raise ThrottledError(detail) from error
    return None


def _make(
    intent: Intent, change: Change, apply: "Callable[[Change], tuple[Counter, ...]]"
) -> tuple[Counter, ...]:
    """Make the change; what was refused takes its receipt with it."""
    try:
        return apply(change._replace(until=change.until - _TO_DISCARD))
    except (BoundExceededError, ThrottledError):
        _discard(intent, change)
        raise


def _discard(intent: Intent, change: Change) -> None:
    """Delete the receipt of this attempt. If that fails, the next request waits the window out."""
    if clock.now() >= change.until:
        return
    try:
        dynamodb_once().delete_item(
            TableName=os.environ["RECEIPT_TABLE"],
            Key={"receipt_id": {"S": intent.receipt_id()}},
            ConditionExpression="#attempt = :attempt",
            ExpressionAttributeNames={"#attempt": "attempt"},
            ExpressionAttributeValues={":attempt": {"S": change.request_id}},
        )
    except (BotoCoreError, ClientError) as error:
        _ignore(error)


def _settle(intent: Intent, receipt: _Receipt, counters: tuple[Counter, ...], until: float) -> None:
    """Write the outcome into the receipt. If that fails, the next request looks it up again."""
    if clock.now() >= until:
        return
    try:
        dynamodb_once().update_item(
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
    """Let pass what a best effort may meet: no answer, or a receipt that is another's by now."""
    refused = isinstance(error, dynamodb_once().exceptions.ConditionalCheckFailedException)
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
    """Return in how many seconds, at least 1, the window of the receipt's attempt is over."""
    end = clock.seconds(receipt.started_at) + clock.APPLY_WINDOW
    return max(1, math.ceil(end - clock.now()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _seconds(time: float) -> dict[str, str]:
    return {"N": str(int(time))}
