"""AuditTable: reads and writes the progress of audits.

Each item holds JSON under a key:
- A counter's name: up to which version the counter is verified (`Progress`).
- SWEEP: the position of the nightly sweep, which audits all counters that changed.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from counters import trend
from counters.clients import answered, dynamodb, get_item, reading
from counters.model import Entry, Sums

SWEEP = "*"  # not a valid counter name


@dataclass(slots=True)
class Progress:
    """How far a counter is verified.

    Attributes:
        version: the last verified version.
        value: the value after that version; None if its entry is malformed.
        created_at: when the attempt that made that version began (RFC 3339); None if unknown.
        request_id: the id of that attempt; None if unknown.
        compared: the trend is verified up to this time, in seconds since the epoch.
        hours: the sums of the entries after that time, by the start of their hour.
        seen_version: the counter's version at `seen_at`. If the history still lacks it when the
            stream can no longer add it, the version is missing.
        seen_at: when an audit read the counter (RFC 3339).
    """

    version: int = 0
    value: int | None = 0
    created_at: str | None = None
    request_id: str | None = None
    compared: float = 0
    hours: dict[float, Sums] = field(default_factory=dict)
    seen_version: int = 0
    seen_at: str = ""

    def add(self, entry: Entry) -> None:
        """Advance to the next entry, which has been checked."""
        self.version, self.value, self.created_at = entry.version, entry.value, entry.created_at
        self.request_id = entry.request_id
        hour = trend.hour_of(entry.time)
        if hour >= self.compared:
            self.hours.setdefault(hour, Sums()).add(entry)

    def skip(self, hour: float) -> None:
        """Do not compare the trend of an hour and of all hours before it.

        Args:
            hour: when the hour begins, in seconds since the epoch.
        """
        self.compared = max(self.compared, hour + trend.HOUR)
        self.hours = {each: sums for each, sums in self.hours.items() if each >= self.compared}

    def to_json(self) -> str:
        """Return the progress as JSON."""
        return json.dumps(asdict(self))


def from_json(saved: str | None) -> Progress:
    """Return the saved progress of a counter; a new one, at version 0, if none was saved.

    Raises:
        KeyError: if the JSON is malformed.
        TypeError: if the JSON is malformed.
        ValueError: if the JSON is malformed.
    """
    state = parsed(saved)
    if not state:
        return Progress()
    hours = {float(hour): Sums(**sums) for hour, sums in state.pop("hours").items()}
    return Progress(**state, hours=hours)


def parsed(saved: str | None) -> dict[str, Any]:
    """Return the content of the saved JSON; an empty dictionary if nothing was saved."""
    state: dict[str, Any] = json.loads(saved) if saved else {}
    return state


def load(key: str, until: float) -> str | None:
    """Return the JSON under a key; None if there is none.

    Args:
        key: a counter's name or SWEEP.
        until: latest time to start a request, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    item = get_item(os.environ["AUDIT_TABLE"], {"counter_id": {"S": key}}, until)
    return item.get("state", {}).get("S")


def save(key: str, state: str, before: str | None, until: float) -> bool:
    """Save JSON under a key, unless another audit has saved something since it was loaded.

    Args:
        key: a counter's name or SWEEP.
        state: the new JSON.
        before: the JSON that `load` returned.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        Whether the new JSON is saved.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
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
        # If the reply to an earlier attempt was lost, the new JSON is there already.
        return load(key, until) == state
    return True
