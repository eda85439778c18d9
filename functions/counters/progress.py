"""AuditTable: reads and writes the progress of audits.

Each item has a key and a text in JSON. There are two kinds of item:
- The key is a counter's name. The JSON says how far audits have verified the counter (`Progress`).
- The key is NIGHTLY. The JSON says when the last clean nightly audit began (`nightly_audit`).
"""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from counters import clock, rules, trend
from counters.clients import answered, dynamodb, get_item, must_answer
from counters.model import Entry, Sums

NIGHTLY = "*"  # not a valid counter name


@dataclass(slots=True)
class Progress:
    """How far audits have verified a counter.

    An attempt is the work of one invocation to make one change. Each change makes one version of a
    counter. The trend is the sums of a counter's changes in each hour (see `trend`).

    Attributes:
        version: the last verified version.
        value: the counter's value at `version`; None if the entry of `version` is malformed.
        created_at: when the attempt that made `version` began (RFC 3339); None if unknown.
        request_id: the id of the attempt that made `version`; None if unknown.
        compared: all hours of the trend before this time are verified. The time is in seconds since
            the epoch.
        hours: for each hour from `compared` on, the sums of the verified entries in that hour. The
            key is the beginning of the hour, in seconds since the epoch.
        seen_version: the version that the counter had when an audit read the counter. After some
            time, the stream can no longer add this version to the history (see
            `history.is_settled`). If the history lacks the version at that time, an audit reports
            the version as missing.
        seen_at: when an audit read `seen_version` from the counter (RFC 3339).
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
        """Include the next entry. The audit has already checked the entry."""
        self.version, self.value, self.created_at = entry.version, entry.value, entry.created_at
        self.request_id = entry.request_id
        hour = trend.hour_of(entry.time)
        if hour >= self.compared:
            self.hours.setdefault(hour, Sums()).add(entry)

    def skip(self, hour: float) -> None:
        """Exclude an hour and all hours before it from the comparison with the trend.

        Args:
            hour: when the hour begins, in seconds since the epoch.
        """
        self.compared = max(self.compared, hour + trend.HOUR)
        self.hours = {each: sums for each, sums in self.hours.items() if each >= self.compared}

    def copy(self) -> "Progress":
        """Return a copy that shares nothing with this progress."""
        hours = {hour: replace(sums) for hour, sums in self.hours.items()}
        return replace(self, hours=hours)

    def to_json(self) -> str:
        """Return the progress as JSON."""
        return json.dumps(asdict(self))


def from_json(saved: str | None) -> Progress:
    """Parse the saved progress of a counter.

    In two cases, the progress is at version 0:
    - Nothing was saved.
    - `seen_at` is in the future. The clock was wrong, so `compared` may be in the future, too.

    Raises:
        AttributeError: if the JSON is malformed.
        InvalidRequestError: if the version is malformed.
        KeyError: if the JSON is malformed.
        RecursionError: if the JSON is malformed.
        TypeError: if the JSON is malformed.
        ValueError: if the JSON is malformed.
    """
    state = parsed(saved)
    if not state:
        return Progress()
    hours = {float(hour): Sums(**sums) for hour, sums in state.pop("hours").items()}
    progress = Progress(**state, hours=hours)
    rules.integer("version", progress.version)
    if progress.seen_at > clock.timestamp(clock.now() + clock.CLOCK_DIFFERENCE):
        return Progress()
    return progress


def parsed(saved: str | None) -> dict[str, Any]:
    """Return the content of the saved JSON; an empty dictionary if nothing was saved.

    Raises:
        RecursionError: if the JSON is nested too deeply.
        ValueError: if the text is not a JSON object.
    """
    state = json.loads(saved) if saved else {}
    if not isinstance(state, dict):
        detail = "the saved progress is not a JSON object"
        raise ValueError(detail)  # noqa: TRY004  malformed JSON raises a ValueError, too
    return state


def load(key: str, until: float) -> str | None:
    """Return the JSON that is saved under a key; None if nothing was saved.

    Args:
        key: a counter's name or NIGHTLY.
        until: latest time to start a request, in seconds since the epoch.

    Raises:
        ThrottledError: if DynamoDB did not answer in time.
    """
    item = get_item(os.environ["AUDIT_TABLE"], {"counter_id": {"S": key}}, until)
    return item.get("state", {}).get("S")


def save(key: str, state: str, before: str | None, until: float) -> bool:
    """Save JSON under a key, unless another audit changed that item after `load` read it.

    Args:
        key: a counter's name or NIGHTLY.
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
        with must_answer():
            answered(until, partial(dynamodb().put_item, **put))
    except dynamodb().exceptions.ConditionalCheckFailedException:
        # The condition also fails if an earlier try of this request saved the new JSON, but its
        # reply was lost.
        return load(key, until) == state
    return True
