"""From IncrementQueue to the counters.

A message is `{"counter_id": "…", "by": 1}`, or an EventBridge event with that as its detail.

SQS delivers at least once. It delivers the messages of a group in order: none before those in front
of it are deleted. `folding` relies on that to count each message once. A message that cannot be
counted goes to the dead-letter queue at once, with the reason, and those behind it go on. What
cannot be written now is reported as failed, with all that is behind it in its group, and is
delivered again.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, folding, rules
from counters.clients import UndecidedError, answered, sqs
from counters.errors import CounterError, InvalidRequestError
from counters.model import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

# Sequence numbers have 128 bits. With as many digits each, the greater sorts after the other.
_SEQUENCE_DIGITS = 39

_LONGEST_SOURCE = 256  # characters; the most that EventBridge takes

# A group may spend its share of the time, but at least this, in seconds: so a group whose requests
# fail leaves time for the others of the batch.
_LEAST_SHARE = 2.0

_NO_ROOM = "The counter has no room: it would leave the range of integers."

logger = Logger(service="tally")

Record = dict[str, Any]


@dataclass(slots=True)
class Progress:
    """What became of a batch: how many messages were counted, and how many parked.

    `failed` has the ids of the others, which are to be delivered again.
    """

    counted: int = 0
    parked: int = 0
    failed: list[str] = field(default_factory=list)


def ingest(records: "Sequence[Record]", until: float) -> Progress:
    """Count the messages of a batch, each once, however often it is delivered.

    Args:
        records: messages of a FIFO queue, as Lambda delivers them.
        until: latest time to start a request, in seconds since the epoch.
    """
    progress = Progress()
    groups: dict[str, dict[str, Record]] = {}
    for record in sorted(records, key=_sequence_number):
        groups.setdefault(_group(record), {})[_sequence_number(record)] = record
    for position, (group, numbered) in enumerate(groups.items()):
        batch = list(numbered.values())
        share = max(_LEAST_SHARE, (until - clock.now()) / (len(groups) - position))
        done = _ingest(group, batch, min(until, clock.now() + share), progress)
        progress.failed += [record["messageId"] for record in batch[done:]]
    return progress


def _ingest(group: str, batch: "Sequence[Record]", until: float, progress: Progress) -> int:
    """Count the messages of one group; return how many, from the first on, are dealt with."""
    done = 0
    while done < len(batch):
        events, why = _events(batch[done:])
        count = _count(group, events, batch[done:], until, progress)
        done += count
        if count < len(events):
            break
        if done < len(batch):
            if not _park(batch[done], why, until):
                break
            done += 1
            progress.parked += 1
    return done


def _count(
    group: str,
    events: "Sequence[Event]",
    batch: "Sequence[Record]",
    until: float,
    progress: Progress,
) -> int:
    """Count the events of as many records.

    Returns:
        How many of them, from the first on, are dealt with. Later ones may be counted too. Counting
        them again has no effect.
    """
    positions: dict[str, list[int]] = {}
    for position, event in enumerate(events):
        positions.setdefault(event.counter_id, []).append(position)
    end = len(events)
    parked: list[int] = []
    for counter_id, those in positions.items():
        wanted = [position for position in those if position < end]
        try:
            while wanted:
                dealt_with = folding.fold(
                    counter_id, group, [events[each] for each in wanted], until
                )
                del wanted[:dealt_with]
                if wanted:
                    park = partial(_park, batch[wanted[0]], _NO_ROOM, until)
                    if not folding.refuse(counter_id, group, events[wanted[0]], park, until):
                        break
                    parked.append(wanted.pop(0))
        except (BotoCoreError, ClientError, CounterError):
            logger.exception("Could not write events", extra={"counter_id": counter_id})
        if wanted:
            end = wanted[0]
    progress.parked += len(parked)
    progress.counted += end - sum(position < end for position in parked)
    return end


def _events(batch: "Sequence[Record]") -> tuple[list[Event], str]:
    """Return the events of the messages before the first malformed one, and why it is that."""
    events: list[Event] = []
    for record in batch:
        try:
            events.append(_event(record))
        except InvalidRequestError as error:
            return events, str(error)
    return events, ""


def _event(record: Record) -> Event:
    """Return the event of a message.

    Raises:
        InvalidRequestError: the message is malformed.
    """
    sender, forwarded = _sender(record)
    actor, claimed_by = f"sqs:{_name(sender)}", None
    fields = rules.json_object("body", record["body"])
    if forwarded and "detail-type" not in fields:
        rules.invalid("detail-type", "EventQueue takes events only")
    if "detail-type" in fields:
        # Anyone who may send to the queue can write an event, so its source is only a claim.
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
        if fields["detail-type"] != "Count":
            rules.invalid("detail-type", "must be Count")
        if "replay-name" in fields:
            rules.invalid("replay-name", "a replayed event may have been counted before")
        actor, claimed_by = f"event:{_name(_source(fields.get('source')))}", _name(sender)
        fields = rules.fields("detail", fields.get("detail"))
    rules.only(["counter_id", "by"], fields)
    asked = rules.increment(rules.counter_id(fields.get("counter_id")), fields)
    return Event(
        record["messageId"],
        _sequence_number(record),
        asked.counter_id,
        asked.by,
        actor,
        claimed_by,
    )


def _sender(record: Record) -> tuple[str, bool]:
    """Return who sent a message, as SQS reports it, and whether forward_events passed it on.

    Only of a message from that function is the attribute `sender` true: anyone may write one.
    """
    sender: str = record["attributes"]["SenderId"]
    if sender.partition(":")[0] != os.environ["FORWARDER_ROLE_ID"]:
        return sender, False
    return record["messageAttributes"].get("sender", {}).get("stringValue", sender), True


def _source(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_SOURCE:
        rules.invalid("source", f"must be a text of 1 to {_LONGEST_SOURCE} characters")
    if not value.isprintable():
        rules.invalid("source", "must be printable")
    return value


def _name(text: str) -> str:
    """Return a name as it is written in a list of names, which commas separate."""
    return text.replace("%", "%25").replace(",", "%2C")


def _sequence_number(record: Record) -> str:
    number: str = record["attributes"]["SequenceNumber"]
    return number.zfill(_SEQUENCE_DIGITS)


def _group(record: Record) -> str:
    """Return the key of a message's group and queue: each queue has numbers of its own."""
    group = f"{record['eventSourceARN']} {record['attributes']['MessageGroupId']}"
    return hashlib.sha256(group.encode()).hexdigest()[:24]


def _park(record: Record, why: str, until: float) -> bool:
    """Send a message to the dead-letter queue, with the reason; return whether it is there."""
    # Neither SQS nor a log takes every character, so write the others as JSON does.
    told = {"reason": json.dumps(why)[1:-1][:1024], "sender": _sender(record)[0]}
    logger.error("Parked a message", extra={"message_id": record["messageId"], **told})
    message: dict[str, Any] = {
        "QueueUrl": os.environ["INCREMENT_DEAD_LETTER_QUEUE_URL"],
        "MessageBody": record["body"],
        "MessageGroupId": record["attributes"]["MessageGroupId"],
        "MessageDeduplicationId": record[
            "messageId"
        ],  # parked twice in 5 minutes, it is there once
    }
    try:
        try:
            attributes = {
                name: {"StringValue": value, "DataType": "String"} for name, value in told.items()
            }
            _send({**message, "MessageAttributes": attributes}, until)
        except ClientError as error:
            # A message that is as long as SQS allows has no room for attributes.
            if error.response["Error"]["Code"] != "InvalidParameterValue":
                raise
            _send(message, until)
    except (BotoCoreError, ClientError, UndecidedError):
        logger.exception("Could not send a message to the dead-letter queue")
        return False
    return True


def _send(message: dict[str, Any], until: float) -> None:
    answered(until, lambda: sqs().send_message(**message))
