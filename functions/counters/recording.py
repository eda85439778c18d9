"""Consumes CounterTable's stream: writes each change to the history and adds it to the trend."""

import json
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, history, listing, rules, trend
from counters.clients import UndecidedError, answered, reading, sqs
from counters.errors import CounterError, NotFoundError, ThrottledError
from counters.model import Entry, Fold, Operation, Period, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Ten sources of 256 characters, each written as three, fit in. Tally writes no longer text, and one
# could make an entry that is too large for a table.
_LONGEST_TEXT = 16_384  # characters

_REDRIVE_SECONDS = 900  # the longest that a function runs
_FINISH_SECONDS = 20  # for the requests about what has been begun
_REBUILD_ATTEMPTS = 5

logger = Logger(service="tally")


@dataclass(slots=True)
class Progress:
    """What came of a batch: `done` of its records, from the first on, are recorded or parked."""

    done: int = 0
    recorded: int = 0
    parked: int = 0
    newest: str = ""  # when the last change that was recorded began (RFC 3339), if one was


def record(records: "Sequence[dict[str, Any]]", until: float) -> Progress:
    """Write the changes of stream records into history and trend. Repeating it changes nothing.

    Two kinds of record go to the dead-letter queue, unchanged: malformed ones, and ones whose
    version the history already holds for a different change (someone reset the counter by hand).
    A record is moved there only after everything before it is recorded and before anything after it
    is. So everything before a queued record is recorded or queued too.

    Args:
        records: of the stream of CounterTable, with both images, in the stream's order.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        How far it came: to the end, if nothing failed.
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
    """Write the parked records into history and trend, as far as they are understood by now.

    A record that is recorded already changes nothing.

    Args:
        until: latest time to begin with a record, in seconds since the epoch.

    Returns:
        How many records are recorded and gone from the queue, and how many were looked at and stay.

    Raises:
        ThrottledError: the queue did not answer in time.
    """
    redriven, left = 0, []
    finish = until + _FINISH_SECONDS
    while clock.now() < until:
        with reading():
            messages = answered(finish, _receive)
        if not messages:
            break
        for message in messages:
            handle = message["ReceiptHandle"]
            recorded = clock.now() < until and _redrive(message["Body"], until)
            if recorded and _let_go(partial(_delete, handle), finish):
                redriven += 1
            else:
                left.append(handle)
    for handle in left:
        _let_go(partial(_make_visible, handle), finish)
    return redriven, len(left)


def _is_change(stream_record: dict[str, Any]) -> bool:
    """Return False if only `sequence_numbers` changed, as for a refused event."""
    match stream_record.get("dynamodb"):
        case {"OldImage": dict() as old, "NewImage": dict() as new}:
            names = {*old, *new} - {"sequence_numbers"}
            return any(old.get(name) != new.get(name) for name in names)
    return True


def _record(entries: "Sequence[Entry]", progress: Progress, until: float) -> None:
    """Write entries to the history and add them to the trend, as far as that is possible."""
    written = history.write(entries, until)
    done = trend.fold(entries[:written], until)
    progress.done += done
    progress.recorded += done
    progress.newest = max([progress.newest, *(entry.created_at for entry in entries[:done])])


def _redrive(body: str, until: float) -> bool:
    """Bring a parked record in; return whether it is."""
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
    except (BotoCoreError, ClientError, CounterError, UndecidedError):
        logger.exception("Could not redrive a record", extra=extra)
    else:
        logger.error("The history holds another change of that version", extra=extra)
    return False


def _rebuild_hour(entry: Entry, until: float) -> None:
    """Add up an hour again from the history, because an entry came late, after younger ones.

    Args:
        entry: the entry, which is in the history.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: the history of that hour has expired.
        ThrottledError: the hour is being added to all the time, or the database did not answer.
    """
    hour = trend.hour_of(entry.time)
    if history.expired(clock.timestamp(hour - clock.APPLY_WINDOW)):
        detail = "the history of that hour has expired"
        raise NotFoundError(detail)
    for attempt in range(_REBUILD_ATTEMPTS):
        stored = trend.read(entry.counter_id, hour, until)
        # What is above the last folded version will be folded, or is being so.
        last = max(stored.last_version or 0, entry.version)
        sums = Sums()
        period = Period(hour, hour + trend.HOUR)
        for each in listing.whole_span(entry.counter_id, period, until):
            if each.version <= last and trend.hour_of(each.time) == hour:
                sums.add(each)
        if sums == stored or trend.replace(entry.counter_id, hour, stored, sums, until):
            return
        clock.pause(attempt, until)
    detail = "the hour is being added to all the time"
    raise ThrottledError(detail)


def _receive() -> "Sequence[Any]":
    reply = sqs().receive_message(
        QueueUrl=os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"],
        MaxNumberOfMessages=10,
        VisibilityTimeout=_REDRIVE_SECONDS,  # so none is received twice
        WaitTimeSeconds=1,  # without a wait, SQS asks only some of its servers
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


def _let_go(request: "Callable[[], None]", until: float) -> bool:
    """Send a request about a received message; return whether it was answered."""
    try:
        answered(until, request)
    except (BotoCoreError, ClientError, UndecidedError):
        logger.exception("Could not delete or show a parked record; it will be seen again later")
        return False
    return True


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
    value = rules.integer("value", int(new["value"]["N"]))
    previous_value = rules.integer("value", int(old["value"]["N"]))
    change = new["change"]["M"]
    created_at = _timestamp(change["at"])
    if change["operation"]["S"] not in get_args(Operation):
        detail = "there is no such operation"
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
    """Return what a change folds; None if it comes from no queue.

    Raises:
        Exception: of whatever kind: it does not add up to `by`.
    """
    if "events" not in change:
        return None
    sender = _text(change["sender"]) if "sender" in change else None
    # A change that an older version of Tally wrote has the difference only.
    increase = int(change["increase"]["N"]) if "increase" in change else max(by, 0)
    decrease = int(change["decrease"]["N"]) if "decrease" in change else max(-by, 0)
    fold = Fold(rules.integer("events", int(change["events"]["N"])), increase, decrease, sender)
    if fold.events < 1 or min(increase, decrease) < 0 or increase - decrease != by:
        detail = "the events do not add up to the change"
        raise ValueError(detail)
    return fold


def _text(attribute: dict[str, Any]) -> str:
    text: str = attribute["S"]
    if not 0 < len(text) <= _LONGEST_TEXT:
        detail = "a text that is none of ours"
        raise ValueError(detail)
    return text


def _timestamp(attribute: dict[str, Any]) -> str:
    text: str = attribute["S"]
    rules.time("at", text)
    clock.seconds(text)
    return text


def _park(stream_record: dict[str, Any], until: float) -> bool:
    """Send a record to the dead-letter queue; return whether it is there."""
    logger.error("Parked a stream record", extra={"event_id": stream_record.get("eventID")})
    message = json.dumps(stream_record)
    url = os.environ["HISTORY_DEAD_LETTER_QUEUE_URL"]
    try:
        answered(until, lambda: sqs().send_message(QueueUrl=url, MessageBody=message))
    except (BotoCoreError, ClientError, UndecidedError):
        logger.exception("Could not send a record to the dead-letter queue")
        return False
    return True
