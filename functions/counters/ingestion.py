"""Consumes IncrementQueue: applies its messages to the counters, each message once.

A message is `{"counter_id": "…", "by": 1}`, or an EventBridge event that has such a `detail`.

SQS may deliver a message several times. But SQS delivers a message only after all earlier messages
of its message group are deleted. `folding` relies on this order to count each message once.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html

After a batch is processed, each message of the batch has one of these states:
- counted: the message was added to its counter.
- parked: the message can never be counted. It was sent to the dead-letter queue, with the reason.
- failed: a request to AWS failed, the time was up, or an earlier message of the same group failed.
  SQS delivers the message again.

A message is done if it is counted or parked.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from counters import clock, folding, rules
from counters.clients import UndecidedError, answered, sqs
from counters.errors import CounterError, InvalidRequestError
from counters.model import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

# A sequence number has 128 bits: at most this many digits. The numbers are padded to this length,
# so that greater numbers sort later as text.
_SEQUENCE_DIGITS = 39

_LONGEST_SOURCE = 256  # characters; EventBridge's limit

# The message groups of a batch are processed one after another. Each group gets an equal share of
# the remaining time. So if the requests for one group fail, there is still time for the other
# groups. A share is at least this long, in seconds.
_LEAST_SHARE = 2.0

_NO_ROOM = "The counter has no room: the result would be outside the integer range."

logger = Logger(service="tally")

Record = dict[str, Any]


@dataclass(slots=True)
class Progress:
    """The result of a batch.

    Attributes:
        counted: the number of counted messages.
        parked: the number of parked messages.
        failed: the ids of the messages that SQS must deliver again.
    """

    counted: int = 0
    parked: int = 0
    failed: list[str] = field(default_factory=list)


def ingest(records: "Sequence[Record]", until: float) -> Progress:
    """Count the messages of a batch. Counting a message again has no effect.

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
    """Add the messages of one group in a batch to their counters.

    Returns:
        The number of messages before the first message that is not done.
    """
    done = 0
    while done < len(batch):
        events, reason = _events(batch[done:])
        count = _count(group, events, batch[done:], until, progress)
        done += count
        if count < len(events):
            break
        if done < len(batch):
            if not _park(batch[done], reason, until):
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
    """Count events of one group, one counter after another.

    Args:
        group: the key of the group.
        events: the events.
        batch: the messages of these events, in the same order.
        until: latest time to start a request, in seconds since the epoch.
        progress: the result of the batch. The result of these events is added to it.

    Returns:
        The number of events before the first event that is not done. Some events after this event
        may already be counted. SQS delivers them again, but they are not counted again.
    """
    positions: dict[str, list[int]] = {}
    for position, event in enumerate(events):
        positions.setdefault(event.counter_id, []).append(position)
    end = len(events)
    parked: list[int] = []
    for counter_id, own_positions in positions.items():
        pending = [position for position in own_positions if position < end]
        try:
            while pending:
                done = folding.fold(counter_id, group, [events[each] for each in pending], until)
                del pending[:done]
                if pending:
                    park = partial(_park, batch[pending[0]], _NO_ROOM, until)
                    if not folding.refuse(counter_id, group, events[pending[0]], park, until):
                        break
                    parked.append(pending.pop(0))
        except (ClientError, CounterError, KeyError, TypeError, ValueError):
            # An item that somebody has edited by hand can be malformed. It must not stop the other
            # groups.
            logger.exception("Could not write events", extra={"counter_id": counter_id})
        if pending:
            end = pending[0]
    progress.parked += len(parked)
    progress.counted += end - sum(position < end for position in parked)
    return end


def _events(batch: "Sequence[Record]") -> tuple[list[Event], str]:
    """Return the events of the messages before the first malformed message.

    Returns:
        The events, and what is wrong with the malformed message. If no message is malformed, the
        second value is empty.
    """
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
        InvalidRequestError: if the message is malformed.
    """
    sender, was_forwarded = _sender(record)
    actor, event_sender = f"sqs:{_name(sender)}", None
    fields = rules.json_object("body", record["body"])
    if was_forwarded and "detail-type" not in fields:
        rules.invalid("detail-type", "is missing. EventQueue accepts only EventBridge events.")
    if "detail-type" in fields:
        # Anyone who may send to the queue can write any source into an event. So the source proves
        # nothing, and the sender, which SQS reports, is stored, too.
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
        if fields["detail-type"] != "Count":
            rules.invalid("detail-type", "must be Count")
        if "replay-name" in fields:
            rules.invalid("replay-name", "a replayed event may have been counted already")
        actor, event_sender = f"event:{_name(_source(fields.get('source')))}", _name(sender)
        fields = rules.fields("detail", fields.get("detail"))
    rules.only(["counter_id", "by"], fields)
    increment = rules.increment(rules.counter_id(fields.get("counter_id")), fields)
    return Event(
        record["messageId"],
        _sequence_number(record),
        increment.counter_id,
        increment.by,
        actor,
        event_sender,
    )


def _sender(record: Record) -> tuple[str, bool]:
    """Return the original sender of a message, and whether forward_events forwarded it.

    SQS reports forward_events as the sender of a forwarded message. So forward_events puts the
    original sender into the message attribute `sender`. If a message was not forwarded, this
    attribute is ignored, because any sender can write it.
    """
    sender: str = record["attributes"]["SenderId"]
    if sender.partition(":")[0] != os.environ["FORWARDER_ROLE_ID"]:
        return sender, False
    return record["messageAttributes"].get("sender", {}).get("stringValue", sender), True


def _source(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_SOURCE:
        rules.invalid("source", f"must be a string of 1 to {_LONGEST_SOURCE} characters")
    if not value.isprintable():
        rules.invalid("source", "must have printable characters only")
    return value


def _name(text: str) -> str:
    """Escape the commas in a name, because `actor` and `sender` are lists with commas."""
    return text.replace("%", "%25").replace(",", "%2C")


def _sequence_number(record: Record) -> str:
    number: str = record["attributes"]["SequenceNumber"]
    return number.zfill(_SEQUENCE_DIGITS)


def _group(record: Record) -> str:
    """Return a key for a message's group. Groups of different queues have different keys."""
    group = f"{record['eventSourceARN']} {record['attributes']['MessageGroupId']}"
    return hashlib.sha256(group.encode()).hexdigest()[:24]


def _park(record: Record, reason: str, until: float) -> bool:
    """Send a message to the dead-letter queue, with the reason. Return whether SQS accepted it."""
    # SQS does not allow every character in a message attribute. So escape the reason as in JSON.
    details = {"reason": json.dumps(reason)[1:-1][:1024], "sender": _sender(record)[0]}
    logger.warning("Parked a message", extra={"message_id": record["messageId"], **details})
    message: dict[str, Any] = {
        "QueueUrl": os.environ["INCREMENT_DEAD_LETTER_QUEUE_URL"],
        "MessageBody": record["body"],
        "MessageGroupId": record["attributes"]["MessageGroupId"],
        # If the message is parked again within five minutes, SQS drops the duplicate.
        "MessageDeduplicationId": record["messageId"],
    }
    try:
        try:
            attributes = {
                name: {"StringValue": value, "DataType": "String"}
                for name, value in details.items()
            }
            _send({**message, "MessageAttributes": attributes}, until)
        except ClientError as error:
            # A message of the maximum size has no room for attributes. So send it without
            # attributes.
            if error.response["Error"]["Code"] != "InvalidParameterValue":
                raise
            _send(message, until)
    except (ClientError, UndecidedError):
        logger.exception("Could not send a message to the dead-letter queue")
        return False
    return True


def _send(message: dict[str, Any], until: float) -> None:
    answered(until, lambda: sqs().send_message(**message))
