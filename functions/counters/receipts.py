"""ReceiptTable: reads and writes receipts. A receipt says which attempt uses an idempotency key.

An attempt is the work of one invocation to make one change (see `attempt`). A receipt is an item
with these attributes:
- `attempt`: the id of the attempt that makes the change;
- `started_at`: when that attempt began;
- `fingerprint`: a hash of the request's body;
- `outcome`: the counters as the change left them. Only a repeat of the request writes this
  attribute;
- `expires_at`: when DynamoDB deletes the item.

The table also has items of another kind, with the sequence numbers of message groups (see
`folding`).
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
    """A receipt, as it is stored.

    Attributes:
        attempt: the id of the attempt that makes the change.
        began: when the attempt began, in seconds since the epoch.
        fingerprint: a hash of the request's body.
        outcome: the counters as the change left them. Empty until a repeat of the request has found
            them.
    """

    attempt: str
    began: float
    fingerprint: str
    outcome: tuple[Counter, ...]

    def seconds_left(self) -> int:
        """Return in how many seconds the attempt's apply window (see `clock`) ends; at least 1."""
        return max(1, math.ceil(self.began + clock.APPLY_WINDOW - clock.now()))


def put(receipt_id: str, fingerprint: str, change: "Change") -> Receipt | None:
    """Store the receipt of an attempt, unless the idempotency key already has a receipt.

    Args:
        receipt_id: the id of the receipt: a hash of caller, target and idempotency key.
        fingerprint: a hash of the request's body.
        change: the attempt.

    Returns:
        None if the receipt of this attempt is stored. If not, the existing receipt.

    Raises:
        KeyReusedError: if the existing receipt is for a request with a different body.
        OutcomeUnknownError: if DynamoDB did not accept the receipt in time. This attempt changed
            nothing, but an earlier attempt with the same idempotency key may have made the change.
    """
    # DynamoDB deletes expired items late, so treat an expired receipt as absent.
    condition = "attribute_not_exists(#receipt_id) OR #expires_at <= :now"
    while True:
        now = {":now": _seconds(change.began)}
        done, existing = _put(receipt_id, fingerprint, change, condition, now)
        if done:
            return None
        if existing and existing.fingerprint != fingerprint:
            detail = "Idempotency-Key: was already used with a different body"
            raise KeyReusedError(detail)
        if existing:
            return existing


def take_over(receipt_id: str, fingerprint: str, change: "Change", abandoned: Receipt) -> bool:
    """Replace the receipt of an attempt that did not make its change and never will.

    Args:
        receipt_id: the id of the receipt.
        fingerprint: a hash of the request's body.
        change: the new attempt.
        abandoned: the receipt to replace.

    Returns:
        Whether the receipt is replaced. False if another request replaced or deleted it first.

    Raises:
        OutcomeUnknownError: as for `put`.
    """
    # Another attempt may have replaced the receipt in the meantime, and made the change. So replace
    # the receipt only if it is still the abandoned one.
    attempt = {":attempt": {"S": abandoned.attempt}}
    done, _ = _put(receipt_id, fingerprint, change, "#attempt = :attempt", attempt)
    return done


def discard(receipt_id: str, change: "Change") -> None:
    """Delete the receipt of an attempt that changed nothing, so that its idempotency key is free.

    If the deletion fails, each repeat of the request gets InProgressError until the apply window of
    this attempt is over.
    """
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
    """Write the outcome into a receipt.

    If the write fails, the next repeat of the request searches for the outcome again.

    Args:
        receipt_id: the id of the receipt.
        receipt: the receipt, as it was read.
        counters: the counters as the change left them.
        until: latest time to start the request, in seconds since the epoch.
    """
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
    """Store the receipt of an attempt, if the condition holds.

    Returns:
        Two values:
        - whether the receipt of this attempt is stored;
        - the existing receipt. None if the condition holds, or if there is no existing receipt.

    Raises:
        OutcomeUnknownError: as for `put`.
    """
    names = {name: name[1:] for name in ("#receipt_id", "#expires_at", "#attempt")}
    try:
        answered(
            change.until,
            lambda: dynamodb().put_item(
                TableName=os.environ["RECEIPT_TABLE"],
                Item=_item(receipt_id, fingerprint, change),
                ConditionExpression=condition,
                ExpressionAttributeNames={n: a for n, a in names.items() if n in condition},
                ExpressionAttributeValues=values,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            ),
        )
    except dynamodb().exceptions.ConditionalCheckFailedException as error:
        item = cast("dict[str, Any]", error.response).get("Item")
        existing = _receipt(item) if item else None
        # If the reply to a put is lost, the put is repeated. The repeat finds the receipt that the
        # first put has stored.
        return existing is not None and existing.attempt == change.request_id, existing
    except UndecidedError as error:
        # Do not raise ThrottledError: it says that nothing was applied. But an earlier request with
        # this key may have made the change.
        detail = (
            "DynamoDB did not answer in time. This request changed nothing, but an earlier one with"
            " the same key may have. Retry with the same key."
        )
        raise OutcomeUnknownError(detail) from error
    return True, None


def _item(receipt_id: str, fingerprint: str, change: "Change") -> dict[str, Any]:
    # The clock of another function may be ahead of this function's clock. Because of the extra
    # seconds, the receipt is valid for its full lifetime by the other clock, too.
    lifetime = 3600 * int(os.environ["RECEIPT_HOURS"]) + clock.CLOCK_DIFFERENCE
    return {
        "receipt_id": {"S": receipt_id},
        "attempt": {"S": change.request_id},
        "started_at": {"S": clock.timestamp(change.began)},
        "fingerprint": {"S": fingerprint},
        "expires_at": _seconds(math.ceil(change.began + lifetime)),
    }


def _ignore(error: BotoCoreError | ClientError) -> None:
    """Ignore an expected error of a request. Raise any other error.

    Two errors are expected: DynamoDB did not answer, or the receipt now belongs to another attempt.
    """
    refused = isinstance(error, dynamodb().exceptions.ConditionalCheckFailedException)
    if not (refused or unanswered(error)):
        raise error


def _receipt(item: dict[str, Any]) -> Receipt:
    outcome = json.loads(item["outcome"]["S"]) if "outcome" in item else []
    return Receipt(
        item["attempt"]["S"],
        clock.seconds(item["started_at"]["S"]),
        item["fingerprint"]["S"],
        tuple(Counter(**each) for each in outcome),
    )


def _seconds(time: float) -> dict[str, str]:
    return {"N": str(int(time))}
