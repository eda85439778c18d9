"""ReceiptTable: what is being done, or was done, under an idempotency key.

A receipt has the id of the attempt that is to make the change (`attempt`), when that attempt began
(`started_at`), and a hash of the request's body (`fingerprint`). When a repeat has found out what
the attempt did, the receipt has that too (`outcome`). Items expire by TTL.
"""

import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from botocore.exceptions import BotoCoreError, ClientError

from counters import clock
from counters.clients import UndecidedError, answered, dynamodb, unanswered
from counters.errors import KeyReusedError, OutcomeUnknownError
from counters.model import Counter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from counters.model import Change


class Receipt(NamedTuple):
    """What is known of the request that used a key first."""

    attempt: str
    started_at: str
    fingerprint: str
    outcome: tuple[Counter, ...]  # empty until a repeat has found it

    def seconds_left(self) -> int:
        """Return after how many seconds, at least 1, the attempt's apply window is over."""
        end = clock.seconds(self.started_at) + clock.APPLY_WINDOW
        return max(1, math.ceil(end - clock.now()))


def put(receipt_id: str, fingerprint: str, change: "Change") -> Receipt | None:
    """Put the receipt of an attempt, unless there is one.

    Args:
        receipt_id: the key of the receipt.
        fingerprint: a hash of the request's body.
        change: the attempt.

    Returns:
        None if the receipt of this attempt is there; otherwise the one that was there before.

    Raises:
        KeyReusedError: the one that was there before is of a request with another body.
        OutcomeUnknownError: the database did not accept it in time; the change was not begun.
    """
    # TTL deletes late, so treat an expired receipt as absent.
    condition = "attribute_not_exists(#receipt_id) OR #expires_at <= :now"
    while True:
        now = {":now": _seconds(clock.now())}
        done, there = _put(receipt_id, fingerprint, change, condition, now)
        if done:
            return None
        if there and there.fingerprint != fingerprint:
            detail = "Idempotency-Key: it was used with another body."
            raise KeyReusedError(detail)
        if there:
            return there


def take_over(receipt_id: str, fingerprint: str, change: "Change", abandoned: Receipt) -> bool:
    """Replace the receipt of an attempt that never made its change by the one of this attempt.

    Returns:
        False if another request has replaced or deleted it first.

    Raises:
        OutcomeUnknownError: the database did not accept it in time; the change was not begun.
    """
    # Replace only the receipt whose attempt we looked for. Another request may have taken over and
    # made the change.
    attempt = {":attempt": {"S": abandoned.attempt}}
    done, _ = _put(receipt_id, fingerprint, change, "#attempt = :attempt", attempt)
    return done


def discard(receipt_id: str, change: "Change") -> None:
    """Delete the receipt of an attempt. If that fails, repeats wait until its window is over."""
    if clock.now() >= change.until:
        return
    try:
        dynamodb().delete_item(
            TableName=os.environ["RECEIPT_TABLE"],
            Key={"receipt_id": {"S": receipt_id}},
            ConditionExpression="#attempt = :attempt",
            ExpressionAttributeNames={"#attempt": "attempt"},
            ExpressionAttributeValues={":attempt": {"S": change.request_id}},
        )
    except (BotoCoreError, ClientError) as error:
        _ignore(error)


def settle(receipt_id: str, receipt: Receipt, counters: "Sequence[Counter]", until: float) -> None:
    """Write the outcome into a receipt. If that fails, the next repeat looks for it again."""
    if clock.now() >= until:
        return
    try:
        dynamodb().update_item(
            TableName=os.environ["RECEIPT_TABLE"],
            Key={"receipt_id": {"S": receipt_id}},
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


def _put(
    receipt_id: str, fingerprint: str, change: "Change", condition: str, values: dict[str, Any]
) -> tuple[bool, Receipt | None]:
    """Put the receipt of an attempt if the condition holds. Putting it twice is safe.

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
                    "receipt_id": {"S": receipt_id},
                    "attempt": {"S": change.request_id},
                    "started_at": {"S": change.at},
                    "fingerprint": {"S": fingerprint},
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


def _ignore(error: BotoCoreError | ClientError) -> None:
    """Ignore an error that a best effort may meet: no answer, or another attempt's receipt."""
    refused = isinstance(error, dynamodb().exceptions.ConditionalCheckFailedException)
    if not (refused or unanswered(error)):
        raise error


def _receipt(item: dict[str, Any]) -> Receipt:
    outcome = json.loads(item["outcome"]["S"]) if "outcome" in item else []
    return Receipt(
        item["attempt"]["S"],
        item["started_at"]["S"],
        item["fingerprint"]["S"],
        tuple(Counter(**each) for each in outcome),
    )


def _seconds(time: float) -> dict[str, str]:
    return {"N": str(int(time))}
