"""Consumes CounterTable's stream: writes each change to the history and adds it to the trend.

To record a change is to do both. Lambda may deliver a stream record several times: recording the
same change again has no effect. A stream record that cannot be recorded is parked: sent to the
dead-letter queue, unchanged. Later, `redrive` tries again to record the parked records.
"""

import json
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from counters import clock, history, listing, rules, trend
from counters.clients import UndecidedError, answered, must_answer, sqs
from counters.errors import CounterError, NotFoundError, ThrottledError
from counters.model import Entry, Fold, Operation, Period, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The longest text that Tally writes into a change is a list of ten event sources of 256 characters
# each. Escaping can triple the length of the list. So a longer text than this is not from Tally. It
# could make an entry too large for DynamoDB.
_LONGEST_TEXT = 16_384  # characters

_REDRIVE_SECONDS = 900  # the longest time that a Lambda function can run
_FINISH_SECONDS = 20  # extra time after `until`, to finish the messages that were received before
_REBUILD_ATTEMPTS = 5

logger = Logger(service="tally")


@dataclass(slots=True)
class Progress:
    """The result of a batch.

    Attributes:
        done: the number of records before the first record that Lambda must deliver again.
        recorded: the number of recorded changes.
        parked: the number of parked records.
        newest: the latest `created_at` of the recorded changes (RFC 3339); empty if there are none.
    """

    done: int = 0
    recorded: int = 0
    parked: int = 0
    newest: str = ""


def record(records: "Sequence[dict[str, Any]]", until: float) -> Progress:
    """Write the changes of stream records to the history and add them to the trend.

    Two kinds of record are parked:
    - malformed records;
    - records whose version the history already has for a different change, because someone reset
      the counter by hand.

    A record is parked only after all earlier records are recorded or parked. All later records wait
    until this record is parked. So of the changes before a parked record, the history lacks only
    those in other parked records.

    Args:
        records: records of CounterTable's stream, in order. Each has the counter's item before the
            change (old image) and after it (new image).
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        The result of the batch. If no request failed, `done` is the number of all records.
    """
    progress = Progress()
    positions = [number for number, each in enumerate(records) if _is_change(each)]
    changes = [records[position] for position in positions]
    while progress.done < len(changes):
        entries = _entries(changes[progress.done :])
        free = history.free(entries, until)
        if free is None:
            break
        end = progress.done + free
        _record(entries[:free], progress, until)
        if progress.done < end:
            break
        if end < len(changes):
            if not _park(changes[end], until):
                break
            progress.done += 1
            progress.parked += 1
    progress.done = [*positions, len(records)][progress.done]
    return progress


def redrive(until: float) -> tuple[int, int]:
    """Try to record each parked record. If this succeeds, delete it from the dead-letter queue.

    Recording the same record again has no effect.

    Args:
        until: latest time to begin with a record, in seconds since the epoch.

    Returns:
        The number of records that were recorded and deleted, and the number of records that were
        received but stay in the queue.

    Raises:
        ThrottledError: if SQS did not answer in time.
    """
    redriven, left = 0, []
    finish = until + _FINISH_SECONDS
    while clock.now() < until:
        with must_answer():
            messages = answered(finish, _receive)
        if not messages:
            break
        for message in messages:
            handle = message["ReceiptHandle"]
            recorded = clock.now() < until and _redrive(message["Body"], until)
            if recorded and _succeeds(partial(_delete, handle), finish):
                redriven += 1
            else:
                left.append(handle)
    for handle in left:
        _succeeds(partial(_make_visible, handle), finish)
    return redriven, len(left)


def _is_change(stream_record: dict[str, Any]) -> bool:
    """Return whether a stream record has a change for the history.

    It has no such change if only the attribute `sequence_numbers` differs between the old and the
    new item. `folding` writes only this attribute when it refuses an event.
    """
    match stream_record.get("dynamodb"):
        case {"OldImage": dict() as old, "NewImage": dict() as new}:
            names = {*old, *new} - {"sequence_numbers"}
            return any(old.get(name) != new.get(name) for name in names)
    return True


def _record(entries: "Sequence[Entry]", progress: Progress, until: float) -> None:
    """Write entries to the history, add them to the trend, and update `progress`."""
    written = history.write(entries, until)
    done = trend.fold(entries[:written], until)
    progress.done += done
    progress.recorded += done
    progress.newest = max([progress.newest, *(entry.created_at for entry in entries[:done])])


def _redrive(body: str, until: float) -> bool:
    """Try to record a parked record. Return whether it is recorded now."""
    try:
        entry = _entry(json.loads(body))
    except Exception:
        logger.exception("A parked record is malformed")
        return False
    extra = {"counter_id": entry.counter_id, "version": entry.version}
    try:
        if history.add(entry, until):
            _rebuild_hour(entry, until)
            logger.info("Redrove a record", extra=extra)
            return True
    except (ClientError, CounterError, UndecidedError):
        logger.exception("Could not redrive a record", extra=extra)
    else:
        logger.error("The history holds a different change of that version", extra=extra)
    return False


def _rebuild_hour(entry: Entry, until: float) -> None:
    """Compute the sums of an entry's hour again from the history, and store them in the trend.

    `trend.fold` cannot add a redriven entry. It adds only versions that are higher than all
    versions in the sums. But when an entry is redriven, the sums may already include higher
    versions.

    Args:
        entry: the entry, which is in the history.
        until: latest time to start a request, in seconds since the epoch.

    Raises:
        NotFoundError: if the history of that hour has expired.
        ThrottledError: if the sums changed during each of five tries, or if DynamoDB did not answer
            in time.
    """
    hour = trend.hour_of(entry.time)
    if history.expired(clock.timestamp(hour - clock.APPLY_WINDOW)):
        detail = "The history of that hour has expired."
        raise NotFoundError(detail)
    for attempt in range(_REBUILD_ATTEMPTS):
        stored = trend.read(entry.counter_id, hour, until)
        # Leave out versions above `last`, because record_history will add them to the trend.
        last = max(stored.last_version or 0, entry.version)
        sums = Sums()
        period = Period(hour, hour + trend.HOUR)
        for each in listing.whole_span(entry.counter_id, period, until):
            if each.version <= last and trend.hour_of(each.time) == hour:
                sums.add(each)
        if sums == stored or trend.replace(entry.counter_id, hour, stored, sums, until):
            return
        clock.pause(attempt, until)
    detail = "The sums of that hour keep changing."
    raise ThrottledError(detail)


def _receive() -> "Sequence[Any]":
    reply = sqs().receive_message(
        QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"],
        MaxNumberOfMessages=10,
        VisibilityTimeout=_REDRIVE_SECONDS,  # so that this run receives each message only once
        WaitTimeSeconds=1,  # without a wait time, SQS asks only some of its servers
    )
    return reply.get("Messages", [])


def _delete(handle: str) -> None:
    sqs().delete_message(QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"], ReceiptHandle=handle)


def _make_visible(handle: str) -> None:
    """Make a received message visible again at once."""
    sqs().change_message_visibility(
        QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"],
        ReceiptHandle=handle,
        VisibilityTimeout=0,
    )


def _succeeds(request: "Callable[[], None]", until: float) -> bool:
    """Send a request about a received message. Return whether the request succeeded."""
    try:
        answered(until, request)
    except (ClientError, UndecidedError):
        logger.exception("Could not update a parked record. SQS makes it visible again later.")
        return False
    return True


def _entries(records: "Sequence[dict[str, Any]]") -> list[Entry]:
    """Return the entries of the records before the first malformed record."""
    entries: list[Entry] = []
    for stream_record in records:
        try:
            entries.append(_entry(stream_record))
        except Exception:  # noqa: BLE001  a malformed record must not stop the stream
            break
    return entries


def _entry(stream_record: dict[str, Any]) -> Entry:
    """Return the history entry for a stream record.

    Raises:
        Exception: if the record is malformed. The exception can be of any type.
    """
    new = stream_record["dynamodb"]["NewImage"]
    old = stream_record["dynamodb"].get("OldImage", {"value": {"N": "0"}, "version": {"N": "0"}})
    version = int(new["version"]["N"])
    if version != int(old["version"]["N"]) + 1:
        detail = "The version did not increase by one."
        raise ValueError(detail)
    value = rules.integer("value", int(new["value"]["N"]))
    previous_value = rules.integer("value", int(old["value"]["N"]))
    change = new["change"]["M"]
    created_at = _timestamp(change["at"])
    if change["operation"]["S"] not in get_args(Operation):
        detail = "The operation is unknown."
        raise ValueError(detail)
    by = value - previous_value
    fold = _fold(change, by)
    return Entry(
        counter_id=_text(new["counter_id"]),
        version=version,
        value=value,
        previous_value=previous_value,
        by=by,
        operation=change["operation"]["S"],
        actor=_text(change["actor"]),
        request_id=_text(change["request_id"]),
        created_at=created_at,
        counter_created_at=_timestamp(new["created_at"]),
        increase=fold.increase if fold else max(by, 0),
        decrease=fold.decrease if fold else max(-by, 0),
        time=clock.seconds(created_at),
        events=fold.events if fold else None,
        sender=fold.sender if fold else None,
    )


def _fold(change: dict[str, Any], by: int) -> Fold | None:
    """Return the sums of the events that a change counts; None if the change counts no events.

    Args:
        change: the attribute `change` of the counter's item.
        by: what the change added to the counter.

    Raises:
        Exception: if the sums are malformed or do not add up to `by`. The exception can be of any
            type.
    """
    if "events" not in change:
        return None
    sender = _text(change["sender"]) if "sender" in change else None
    # Older versions of Tally did not store `increase` and `decrease`. If they are missing, compute
    # them from the difference.
    increase = int(change["increase"]["N"]) if "increase" in change else max(by, 0)
    decrease = int(change["decrease"]["N"]) if "decrease" in change else max(-by, 0)
    fold = Fold(rules.integer("events", int(change["events"]["N"])), increase, decrease, sender)
    if fold.events < 1 or min(increase, decrease) < 0 or increase - decrease != by:
        detail = "The events do not add up to the change."
        raise ValueError(detail)
    return fold


def _text(attribute: dict[str, Any]) -> str:
    text: str = attribute["S"]
    if not 0 < len(text) <= _LONGEST_TEXT:
        detail = f"A text is empty or longer than {_LONGEST_TEXT} characters."
        raise ValueError(detail)
    return text


def _timestamp(attribute: dict[str, Any]) -> str:
    text: str = attribute["S"]
    rules.time("at", text)
    clock.seconds(text)
    return text


def _park(stream_record: dict[str, Any], until: float) -> bool:
    """Send a record to the dead-letter queue. Return whether SQS accepted it."""
    logger.warning("Parked a stream record", extra={"event_id": stream_record.get("eventID")})
    message = json.dumps(stream_record)
    url = os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"]
    try:
        answered(until, lambda: sqs().send_message(QueueUrl=url, MessageBody=message))
    except (ClientError, UndecidedError):
        logger.exception("Could not send a record to the dead-letter queue")
        return False
    return True
