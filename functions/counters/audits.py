"""AuditTable: how far each counter was found good, and how far the nightly audit has come.

An item is JSON under a key: a counter's name, or SWEEP for the nightly audit.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from counters import trend
from counters.clients import answered, dynamodb, reading
from counters.model import Entry, Sums

SWEEP = "*"  # no counter's name


@dataclass(slots=True)
class Progress:
    """How far a counter is known to be good.

    That is up to the entry of `version`, which left `value` (None: it could not be read) and was
    made at `created_at` by `request_id`. The trend is compared up to `compared`, in seconds since
    the epoch. `hours` are the sums of what is after that. An audit at `seen_at` (RFC 3339) saw the
    counter at `seen_version`, which the history did not have yet.
    """

    version: int = 0
    value: int | None = 0
    created_at: str | None = None
    request_id: str | None = None  # None: not known
    compared: float = 0
    hours: dict[float, Sums] = field(default_factory=dict)
    seen_version: int = 0
    seen_at: str = ""

    def add(self, entry: Entry) -> None:
        """Go on to the next entry, which is good."""
        self.version, self.value, self.created_at = entry.version, entry.value, entry.created_at
        self.request_id = entry.request_id
        hour = trend.hour_of(entry.time)
        if hour >= self.compared:
            self.hours.setdefault(hour, Sums()).add(entry)

    def skip(self, hour: float) -> None:
        """Leave the trend up to an hour, and of it, uncompared."""
        self.compared = max(self.compared, hour + trend.HOUR)
        self.hours = {each: sums for each, sums in self.hours.items() if each >= self.compared}

    def to_json(self) -> str:
        """Return the progress as JSON."""
        return json.dumps(asdict(self))


def from_json(saved: str | None) -> Progress:
    """Return the progress that was saved; that of an audit from the beginning if none was.

    Raises:
        KeyError, TypeError, ValueError: Tally did not write it.
    """
    state = parsed(saved)
    if not state:
        return Progress()
    hours = {float(hour): Sums(**sums) for hour, sums in state.pop("hours").items()}
    return Progress(**state, hours=hours)


def parsed(saved: str | None) -> dict[str, Any]:
    """Return what was saved; an empty dictionary if nothing was."""
    state: dict[str, Any] = json.loads(saved) if saved else {}
    return state


def load(key: str, until: float) -> str | None:
    """Return the JSON saved under a key, which is a counter or SWEEP; None if there is none."""
    with reading():
        reply = answered(
            until,
            lambda: dynamodb().get_item(
                TableName=os.environ["AUDIT_TABLE"],
                Key={"counter_id": {"S": key}},
                ConsistentRead=True,
            ),
        )
    return reply.get("Item", {}).get("state", {}).get("S")


def save(key: str, state: str, before: str | None, until: float) -> bool:
    """Save JSON under a key, unless another audit has saved something there.

    Args:
        key: a counter or SWEEP.
        state: the JSON.
        before: what `load` returned.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        Whether it is saved.
    """
    put: dict[str, Any] = {
        "TableName": os.environ["AUDIT_TABLE"],
        "Item": {"counter_id": {"S": key}, "state": {"S": state}},
        "ConditionExpression": "attribute_not_exists(#state)",
        "ExpressionAttributeNames": {"#state": "state"},
    }
    if before is not None:
        put["ConditionExpression"] = "#state = :before"
        put["ExpressionAttributeValues"] = {":before": {"S": before}}
    try:
        with reading():
            answered(until, partial(dynamodb().put_item, **put))
    except dynamodb().exceptions.ConditionalCheckFailedException:
        # It is there if only the reply to an earlier attempt was lost.
        return load(key, until) == state
    return True
