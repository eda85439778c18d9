"""Forwards events from EventQueue to IncrementQueue, each in the message group of its counter.

EventBridge could send events to IncrementQueue itself, but only with one message group for all
events. SQS delivers the messages of a group one after another. So in a single group, each event
would have to wait for all earlier events, even for those of other counters.
"""

import os
import re
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from counters import rules
from counters.clients import UndecidedError, answered, sqs
from counters.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

    Record = dict[str, Any]

# The most events and bytes that Tally sends in one SendMessageBatch request. SQS itself accepts up
# to 1 MiB. An event of more than _MOST_BYTES is sent in a request of its own.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
_MOST_ENTRIES = 10
_MOST_BYTES = 256 * 1024

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_DEDUPLICATION_ID = re.compile(r"[!-~]{1,128}")

logger = Logger(service="tally")


def forward(records: "Sequence[Record]", until: float) -> list[str]:
    """Send events to IncrementQueue, unchanged, each in the message group of its counter.

    An event without a valid counter name gets a message group of its own, so that no other event
    waits for it. ingest_increments, which reads IncrementQueue, sends such an event to the
    dead-letter queue.

    Args:
        records: messages of EventQueue, as Lambda delivers them.
        until: latest time to start a request, in seconds since the epoch.

    Returns:
        The ids of the messages that IncrementQueue did not accept. SQS must deliver them again.
    """
    # EventQueue is a standard queue. It may deliver the same message twice in one batch.
    unique = list({record["messageId"]: record for record in records}.values())
    return [
        message_id for request in _requests(unique) for message_id in _send_batch(request, until)
    ]


def _requests(records: "Sequence[Record]") -> "Iterator[list[Record]]":
    """Split the records into lists. Each list is small enough for one SendMessageBatch request."""
    request: list[Record] = []
    size = 0  # bytes
    for record in records:
        length = len(record["body"].encode())
        if request and (len(request) == _MOST_ENTRIES or size + length > _MOST_BYTES):
            yield request
            request, size = [], 0
        request.append(record)
        size += length
    if request:
        yield request


def _send_batch(records: "Sequence[Record]", until: float) -> list[str]:
    """Send records in one request. Return the ids of the records that were not accepted.

    The request is idempotent for five minutes: during this time, SQS drops every further message
    with the same message group and the same deduplication id.
    """
    entries = [_entry(number, record) for number, record in enumerate(records)]
    try:
        reply = answered(
            until,
            lambda: sqs().send_message_batch(
                QueueUrl=os.environ["INCREMENT_QUEUE_URL"], Entries=entries
            ),
        )
    except (ClientError, UndecidedError):
        logger.exception("Could not send events to IncrementQueue")
        return [record["messageId"] for record in records]
    if failed := reply.get("Failed", []):
        logger.error("IncrementQueue did not accept some events", extra={"failed": failed})
    return [records[int(entry["Id"])]["messageId"] for entry in failed]


def _entry(number: int, record: "Record") -> "SendMessageBatchRequestEntryTypeDef":
    message_id = record["messageId"]
    try:
        event = rules.json_object("body", record["body"])
    except InvalidRequestError:
        event = {}
    return {
        "Id": str(number),
        "MessageBody": record["body"],
        "MessageGroupId": _counter_id(event) or message_id,
        "MessageDeduplicationId": _event_id(event) or message_id,
        # IncrementQueue will report forward_events as the sender of this message. So put the
        # original sender into an attribute.
        "MessageAttributes": {
            "sender": {"StringValue": record["attributes"]["SenderId"], "DataType": "String"}
        },
    }


def _counter_id(event: dict[str, object]) -> str | None:
    try:
        detail = rules.fields("detail", event.get("detail"))
        return rules.counter_id(detail.get("counter_id"))
    except InvalidRequestError:
        return None


def _event_id(event: dict[str, object]) -> str | None:
    value = event.get("id")
    if isinstance(value, str) and _DEDUPLICATION_ID.fullmatch(value):
        return value
    return None
