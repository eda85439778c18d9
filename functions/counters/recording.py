"""From the stream of CounterTable to history and trend: each stream record becomes an entry."""

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, history, model, trend
from counters.clients import sqs
from counters.model import CounterError, Entry, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

# A longer one is none of ours, and could make an entry that is too large for a table.
_LONGEST_TEXT = 4096  # characters

_REDRIVE_SECONDS = 900  # the longest that a function runs

logger = Logger(service="tally")


@dataclass(slots=True)
class Progress:
    """What came of a batch: `done` of its records, from the first on, are recorded or parked."""

    done: int = 0
    recorded: int = 0
    parked: int = 0
    newest: str = ""  # when the last change that was recorded began (RFC 3339), if one was


def record(records: "Sequence[dict[str, Any]]") -> Progress:
    """Bring each stream record into history and trend; the same one again changes nothing.

    A record that makes no sense goes, whole, to the dead-letter queue, and so does one whose place
    in the history another change has: somebody has set the counter back by hand. That is done when
    all that is before it is recorded and nothing behind it is. So an outage does not park it every
    time, and the history of whatever is in the queue is complete before it.

    Args:
        records: of the stream of CounterTable, with both images, in the stream's order.

    Returns:
        How far it came: to the end, if nothing failed.
    """
    progress = Progress()
    while progress.done < len(records):
        entries = _entries(records[progress.done :])
        free = history.free(entries)
        if free is None:
            break
        end = progress.done + free
        _record(entries[:free], progress)
        if progress.done < end:
            break
        if end < len(records):
            if not _park(records[end]):
                break
            progress.done += 1
            progress.parked += 1
    return progress


def redrive(until: float) -> tuple[int, int]:
    """Bring the parked records into history and trend, those that can be understood by now.

    A record that is in already changes nothing.

    Args:
        until: when no record may be begun any more, in seconds since the epoch.

    Returns:
        How many are in and out of the queue, and how many were looked at and stay in it.
    """
    redriven, left = 0, []
    while clock.now() < until:
        reply = sqs().receive_message(
            QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"],
            MaxNumberOfMessages=10,
            VisibilityTimeout=_REDRIVE_SECONDS,  # none comes twice
            WaitTimeSeconds=1,  # without a wait, SQS asks only some of its servers
        )
        if not reply.get("Messages"):
            break
        for message in reply["Messages"]:
            handle = message["ReceiptHandle"]
            if clock.now() < until and _redrive(message["Body"], until) and _delete(handle):
                redriven += 1
            else:
                left.append(handle)
    for handle in left:
        _show(handle)
    return redriven, len(left)


def _record(entries: "Sequence[Entry]", progress: Progress) -> None:
    """Write the entries and fold them, as far as it goes."""
    written = history.write(entries)
    done = trend.fold(entries[:written])
    progress.done += done
    progress.recorded += done
    progress.newest = max([progress.newest, *(entry.created_at for entry in entries[:done])])


def _redrive(body: str, until: float) -> bool:
    """Bring a parked record in; return whether it is."""
    try:
        entry = _entry(json.loads(body))
    except Exception:
        logger.exception("a parked record makes no sense")
        return False
    extra = {"counter_id": entry.counter_id, "version": entry.version}
    try:
        if history.add(entry):
            trend.rebuild(entry, until)
            logger.info("redrove a record", extra=extra)
            return True
    except (BotoCoreError, ClientError, CounterError):
        logger.exception("a parked record cannot be brought in", extra=extra)
    else:
        logger.error("another change has the place of a parked record", extra=extra)
    return False


def _delete(handle: str) -> bool:
    """Delete a message that was received from the dead-letter queue; return whether it is gone."""
    try:
        sqs().delete_message(
            QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"], ReceiptHandle=handle
        )
    except (BotoCoreError, ClientError):
        logger.exception("the dead-letter queue does not let a record go; it will come again")
        return False
    return True


def _show(handle: str) -> None:
    """Let a message that was received be seen again now, and not only when its time is up."""
    try:
        sqs().change_message_visibility(
            QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"],
            ReceiptHandle=handle,
            VisibilityTimeout=0,
        )
    except (BotoCoreError, ClientError):
        logger.exception("a parked record will be seen again later only")


def _entries(records: "Sequence[dict[str, Any]]") -> list[Entry]:
    """Return the entries that the records make, up to the first that makes none."""
    entries: list[Entry] = []
    for stream_record in records:
        try:
            entries.append(_entry(stream_record))
        except Exception:  # noqa: BLE001  whatever is wrong with it, the stream goes on
            break
    return entries


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
        events=_events(change["events"]) if "events" in change else None,
    )


def _text(attribute: dict[str, Any]) -> str:
    text: str = attribute["S"]
    if not 0 < len(text) <= _LONGEST_TEXT:
        detail = "a text that is none of ours"
        raise ValueError(detail)
    return text


def _events(attribute: dict[str, Any]) -> int:
    events = model.integer("events", int(attribute["N"]))
    if events < 1:
        detail = "a change of no event"
        raise ValueError(detail)
    return events


def _timestamp(attribute: dict[str, Any]) -> str:
    text: str = attribute["S"]
    model.time("at", text)
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
