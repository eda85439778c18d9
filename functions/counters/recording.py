"""From the stream of CounterTable to the history: each stream record becomes an entry."""

import json
import os
from typing import TYPE_CHECKING, Any, get_args

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, history, model
from counters.clients import sqs
from counters.model import Entry, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

# A longer one is none of ours, and could make an entry that is too large for a table.
_LONGEST_TEXT = 2048  # characters

logger = Logger(service="tally")


def record(records: "Sequence[dict[str, Any]]") -> int:
    """Write an entry for each stream record; the same one again changes nothing.

    A record that makes no sense goes, whole, to the dead-letter queue, when all that is before it
    is recorded and nothing behind it is. So an outage does not park it every time, and the history
    of whatever is in the queue is complete before it.

    Args:
        records: of the stream of CounterTable, with both images, in the stream's order.

    Returns:
        How many of them, from the first on, are done: all, if nothing failed.
    """
    start = 0
    entries: list[Entry] = []
    for position, stream_record in enumerate(records):
        try:
            entries.append(_entry(stream_record))
        except Exception:  # noqa: BLE001  whatever is wrong with it, the stream goes on
            done = start + _record(entries)
            if done < position or not _park(stream_record):
                return done
            start, entries = position + 1, []
    return start + _record(entries)


def _record(entries: "Sequence[Entry]") -> int:
    """Write the entries; return how many of them, from the first on, are written."""
    return history.write(entries)


def _entry(stream_record: dict[str, Any]) -> Entry:
    """Return the entry that a stream record makes.

    Raises:
        Exception: of whatever kind: it is not the record of a change of ours.
    """
    new = stream_record["dynamodb"]["NewImage"]
    old = stream_record["dynamodb"].get("OldImage", {"value": {"N": "0"}, "version": {"N": "0"}})
    version = int(new["version"]["N"])
    if version != int(old["version"]["N"]) + 1:
        detail = "the version did not go up by one"
        raise ValueError(detail)
    value = model.integer("value", int(new["value"]["N"]))
    previous_value = model.integer("value", int(old["value"]["N"]))
    change = new["change"]["M"]
    if change["operation"]["S"] not in get_args(Operation):
        detail = "there is no such operation"
        raise ValueError(detail)
    return Entry(
        counter_id=_text(new["counter_id"]),
        version=version,
        value=value,
        previous_value=previous_value,
        by=value - previous_value,
        operation=change["operation"]["S"],
        actor=_text(change["actor"]),
        request_id=_text(change["request_id"]),
        created_at=_timestamp(change["at"]),
        counter_created_at=_timestamp(new["created_at"]),
    )


def _text(attribute: dict[str, Any]) -> str:
    text: str = attribute["S"]
    if not 0 < len(text) <= _LONGEST_TEXT:
        detail = "a text that is none of ours"
        raise ValueError(detail)
    return text


def _timestamp(attribute: dict[str, Any]) -> str:
    text: str = attribute["S"]
    clock.seconds(text)
    return text


def _park(stream_record: dict[str, Any]) -> bool:
    """Send the record to the dead-letter queue; return whether it is there."""
    logger.error("parked a stream record", extra={"event_id": stream_record.get("eventID")})
    try:
        sqs().send_message(
            QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"],
            MessageBody=json.dumps(stream_record),
        )
    except (BotoCoreError, ClientError):
        logger.exception("the dead-letter queue does not take the record")
        return False
    return True
