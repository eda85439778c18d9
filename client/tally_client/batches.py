"""Batches: sums that a buffer sends together, under a key that belongs to their content."""

from __future__ import annotations

import datetime as dt
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tally_client import building, retrying
from tally_client.errors import Refused, Unauthorized
from tally_client.exchange import ClientClosed
from tally_client.sums import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tally_client.exchange import Service
    from tally_client.model import Increment

# The service remembers a key for at least 24 hours (parameter ReceiptHours, docs/deploying.md). The
# client stops an hour earlier: clocks differ, and the last request takes time.
KEY_LIFE = 23 * 60 * 60.0  # seconds

_LONGEST_PAUSE = 300.0  # seconds; between two attempts
_LONGEST_AFTER = 60.0  # seconds; a Retry-After that is longer counts as this


@dataclass(slots=True, eq=False)
class Batch:
    """Increments that are sent in one request, all or none.

    To send a batch by hand, call `increment_all(batch.increments, key=batch.key)`. That is safe
    unless the batch is expired.

    Attributes:
        increments: what to add.
        key: the idempotency key. It stays with these increments.
        order: batches are numbered as they are made; the halves of a batch keep its number.
        reason: why the last attempt did not succeed, as text for people; empty if there was none.
        attempts: how often the batch was sent since the last `flush`.
        due: when to send the batch next (monotonic clock, seconds).
        made: when the batch was made (monotonic clock, seconds).
        first_sent: when the batch was first sent by an attempt that may have been applied (seconds
            since the epoch). None if the batch certainly was not applied.
        reported: whether a problem with this batch was reported.
    """

    increments: tuple[Increment, ...]
    key: str
    order: int
    reason: str = ""
    attempts: int = 0
    due: float = 0.0
    made: float = field(default_factory=time.monotonic)
    first_sent: float | None = None
    reported: bool = False
    _first_sent_monotonic: float = 0.0

    @property
    def expired(self) -> bool:
        """Whether the service may have forgotten the key, so that a repeat could count twice."""
        if self.first_sent is None:
            return False
        # The system clock can be set, and the monotonic clock can stand still during sleep.
        age = max(
            time.time() - self.first_sent,
            time.monotonic() - self._first_sent_monotonic,
        )
        return age >= KEY_LIFE

    def mark_sent(self) -> None:
        """Note that an attempt begins that may be applied."""
        self.first_sent, self._first_sent_monotonic = time.time(), time.monotonic()

    def to_json(self) -> str:
        """Return the batch as JSON, to keep it elsewhere."""
        sent = self.first_sent and dt.datetime.fromtimestamp(self.first_sent, dt.UTC).isoformat()
        increments = [{"counter_id": each.counter_id, "by": each.by} for each in self.increments]
        return json.dumps({"key": self.key, "first_sent": sent, "increments": increments})


def pack(increments: Sequence[Increment], order: int) -> Batch:
    """Return a batch with a new key."""
    return Batch(tuple(increments), building.new_key(), order)


def attempt(service: Service, batch: Batch, until: float) -> list[Batch] | Refusal:
    """Send a batch once.

    Args:
        service: where to send the batch.
        batch: the batch.
        until: latest time to wait for the answer (monotonic clock, seconds).

    Returns:
        What remains to be sent:

        - If the batch was applied: nothing.
        - If it certainly was not applied, because the service refused it: two halves with new keys,
          or the refusal if there is only one increment.
        - Otherwise: the batch itself, with a later `due`.
    """
    if batch.expired:
        batch.reason = "It may have been applied, and its key has expired. Compare the history."
        batch.due = float("inf")
        batch.reported = False  # report it again
        return [batch]
    request = building.increment_all(batch.increments, batch.key)
    parse = building.changed_counters_of(batch.increments)
    certain = batch.first_sent is None  # no earlier attempt may have been applied
    batch.attempts += 1
    if certain:
        # An exception, such as KeyboardInterrupt, leaves this mark.
        batch.mark_sent()
    try:
        result = retrying.attempt(service, request, parse, until)
    except ClientClosed:
        if certain:
            batch.first_sent = None
        raise
    if isinstance(result, retrying.Again):
        if certain and not result.may_be_applied:
            batch.first_sent = None
        return later(batch, result.reason, result.after)
    if not isinstance(result, Refused):
        return []
    if not certain and not retrying.settles(service, request, result):
        # This attempt was refused, but an earlier one may have been applied.
        return later(batch, str(result))
    batch.first_sent = None
    if isinstance(result, Unauthorized):
        return later(batch, str(result))
    return _without_refused(batch, result)


def later(batch: Batch, reason: str, after: float = 0.0) -> list[Batch]:
    """Send a batch again after a pause. The pauses become longer with each attempt.

    Args:
        batch: the batch.
        reason: why the attempt did not succeed.
        after: in how many seconds the service wants the next attempt.

    Returns:
        The batch, as the only item of a list.
    """
    pause = retrying.backoff(batch.attempts, _LONGEST_PAUSE)
    batch.reason = reason
    batch.due = time.monotonic() + min(after, _LONGEST_AFTER) + pause
    return [batch]


def restart(batch: Batch) -> None:
    """Send a batch at once, and begin with short pauses again."""
    batch.attempts = 0
    if not batch.expired:
        batch.due = min(batch.due, time.monotonic())


def _without_refused(batch: Batch, error: Refused) -> list[Batch] | Refusal:
    """Split a batch that the service refused as a whole, to find out which counter is the reason.

    The text of the error names the counter, but it is a text for people (docs/api.md).
    """
    if len(batch.increments) == 1:
        return Refusal(batch.increments[0], error)
    middle = len(batch.increments) // 2
    halves = batch.increments[:middle], batch.increments[middle:]
    return [pack(half, batch.order) for half in halves]
