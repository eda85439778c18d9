"""From IncrementQueue to the counters: the events of a batch are folded, a write for many of them.

A message is `{"counter_id": "…", "by": 1}`, or an event of EventBridge that has that as its detail.

SQS delivers at least once, and the messages of a group in order: none before those in front of it
are deleted. So the highest sequence number of a group that is in a counter tells which of that
group's messages are in it: that one and all before it. What makes no sense goes to the dead-letter
queue, before anything behind it is applied. What cannot be applied now is reported as failed, with
all that is behind it in its group, and comes again.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
"""

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, model, store
from counters.clients import sqs
from counters.model import CounterError, Event, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Sequence numbers have 128 bits; with as many digits each, the greater sorts behind.
_SEQUENCE_DIGITS = 39

_LONGEST_SOURCE = 256  # characters; the most that EventBridge takes

logger = Logger(service="tally")


@dataclass(slots=True)
class Progress:
    """What came of a batch: so many messages are in the counters, or in the dead-letter queue.

    `failed` has the ids of the others, which are to come again.
    """

    counted: int = 0
    parked: int = 0
    failed: list[str] = field(default_factory=list)


def ingest(records: "Sequence[dict[str, Any]]", until: float) -> Progress:
    """Count the messages of a batch, each once, however often it comes.

    Args:
        records: of a FIFO queue, as Lambda hands them on.
        until: when no request may begin any more, in seconds since the epoch.
    """
    progress = Progress()
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for record in sorted(records, key=_sequence_number):
        groups.setdefault(_group(record), {})[_sequence_number(record)] = record
    for group, numbered in groups.items():
        batch = list(numbered.values())
        done = _ingest(group, batch, until, progress)
        progress.failed += [record["messageId"] for record in batch[done:]]
    return progress


def _ingest(group: str, batch: "Sequence[dict[str, Any]]", until: float, progress: Progress) -> int:
    """Count the messages of one group; return how many, from the first on, are out of the way."""
    done = 0
    while done < len(batch):
        events, why = _events(batch[done:])
        counted = _count(group, events, until)
        done += counted
        progress.counted += counted
        if counted < len(events):
            break
        if done < len(batch):
            if not _park(batch[done], why, until):
                break
            done += 1
            progress.parked += 1
    return done


def _count(group: str, events: "Sequence[Event]", until: float) -> int:
    """Add the events to their counters; return how many of them, from the first on, are in."""
    positions: dict[str, list[int]] = {}
    for position, event in enumerate(events):
        positions.setdefault(event.counter_id, []).append(position)
    end = len(events)
    for counter_id, those in positions.items():
        wanted = [position for position in those if position < end]
        if not wanted:
            continue
        try:
            count = store.fold(counter_id, group, [events[each] for each in wanted], until)
        except (BotoCoreError, ClientError, CounterError):
            logger.exception("CounterTable does not take events", extra={"counter_id": counter_id})
            end = wanted[0]
        else:
            if count < len(wanted):
                detail = "the counter has no room: it would leave the range of integers"
                logger.error(detail, extra={"counter_id": counter_id})
                end = wanted[count]
    return end


def _events(batch: "Sequence[dict[str, Any]]") -> tuple[list[Event], str]:
    """Return the events of the messages up to the first senseless one, and why that is."""
    events: list[Event] = []
    for record in batch:
        try:
            events.append(_event(record))
        except InvalidRequestError as error:
            return events, str(error)
    return events, ""


def _event(record: dict[str, Any]) -> Event:
    """Return the event of a message.

    Raises:
        InvalidRequestError: it makes no sense.
    """
    actor = record["attributes"]["SenderId"]
    fields = model.json_object("body", record["body"])
    if "detail-type" in fields:
        # Of an event of EventBridge the source is known, and the sender is EventBridge.
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
        if fields["detail-type"] != "Count":
            model.invalid("detail-type", "must be Count")
        actor = _source(fields.get("source"))
        fields = model.fields("detail", fields.get("detail"))
    model.only(["counter_id", "by"], fields)
    asked = model.increment(model.counter_id(fields.get("counter_id")), fields)
    return Event(record["messageId"], _sequence_number(record), asked.counter_id, asked.by, actor)


def _source(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_SOURCE:
        model.invalid("source", f"must be a text of 1 to {_LONGEST_SOURCE} characters")
    if not value.isprintable():
        model.invalid("source", "must be printable")
    return value


def _sequence_number(record: dict[str, Any]) -> str:
    number: str = record["attributes"]["SequenceNumber"]
    return number.zfill(_SEQUENCE_DIGITS)


def _group(record: dict[str, Any]) -> str:
    """Return the key of a message's group, which is its queue's too: another queue counts anew."""
    group = f"{record['eventSourceARN']} {record['attributes']['MessageGroupId']}"
    return hashlib.sha256(group.encode()).hexdigest()[:24]


def _park(record: dict[str, Any], why: str, until: float) -> bool:
    """Send the message to the dead-letter queue; return whether it is there."""
    if clock.now() >= until:
        return False
    extra = {"message_id": record["messageId"], "sender": record["attributes"]["SenderId"]}
    logger.error("parked a message: %s", why, extra=extra)
    try:
        sqs().send_message(
            QueueUrl=os.environ["INCREMENT_DEAD_LETTER_QUEUE_URL"],
            MessageBody=record["body"],
            MessageGroupId=record["attributes"]["MessageGroupId"],
            MessageDeduplicationId=record["messageId"],  # parked twice, it is there once
        )
    except (BotoCoreError, ClientError):
        logger.exception("the dead-letter queue does not take the message")
        return False
    return True
