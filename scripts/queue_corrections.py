"""Corrects MiniStack's queues: several batches of a FIFO queue run at once, and messages can move.

The corrections replace private Python functions of MiniStack. See `emulator.py`.
"""

from collections.abc import Sequence
from typing import Any

from ministack.services import lambda_svc, sqs

BATCHES_AT_ONCE = 8  # batches of one queue; each needs its own process of the Lambda function


def use() -> None:
    """Install the corrections in MiniStack."""
    run_message_groups_at_once()
    move_messages()


def run_message_groups_at_once() -> None:
    """Process several batches of a FIFO queue at once, if they are of different message groups.

    MiniStack processes only one batch of a FIFO queue at a time. But several batches at once also
    keep each message group in order: while a message of a group is being processed, the queue
    delivers no other message of that group.
    """
    limit, collect = lambda_svc._sqs_esm_concurrency, sqs._collect_fifo

    def limit_of_any_queue(
        mapping: dict[str, Any], function: dict[str, Any], config: dict[str, Any], _queue: object
    ) -> int:
        # Numbers that come from CloudFormation parameters are strings here.
        scaling = {name: int(value) for name, value in mapping.get("ScalingConfig", {}).items()}
        at_once: int = limit({**mapping, "ScalingConfig": scaling}, function, config)
        return at_once

    def collect_by_group(queue: dict[str, Any], *arguments: Any) -> list[Any]:  # noqa: ANN401  MiniStack's own
        messages: list[Any] = collect(
            {**queue, "messages": by_group(queue["messages"])}, *arguments
        )
        return messages

    lambda_svc._ESM_SQS_DEFAULT_CONCURRENCY = BATCHES_AT_ONCE
    lambda_svc._sqs_esm_concurrency = limit_of_any_queue
    sqs._collect_fifo = collect_by_group


def by_group(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the messages of each group together, in order. SQS prefers to deliver them this way.

    If the groups were mixed, a few batches would hold messages of all groups. Until those batches
    are processed, the queue could deliver no message of any group.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        groups.setdefault(message.get("group_id", ""), []).append(message)
    return [message for group in groups.values() for message in group]


def move_messages() -> None:
    """Add the SQS operation StartMessageMoveTask, which moves all messages at once.

    On AWS, the operation moves only messages of a dead-letter queue, and takes a while. Both queues
    must exist.
    """

    def start(request: dict[str, Any], _url: str) -> dict[str, Any]:
        source, target = (
            sqs._queue_by_arn(request[name]) for name in ("SourceArn", "DestinationArn")
        )
        messages, source["messages"] = source["messages"], []
        for message in messages:
            send = {
                "QueueUrl": target["url"],
                "MessageBody": message["body"],
                "MessageAttributes": message["message_attributes"],
            }
            if target["is_fifo"]:
                send["MessageGroupId"] = message["group_id"]
                send["MessageDeduplicationId"] = message["id"]
            sqs._act_send_message(send, "")
        return {"TaskHandle": f"{len(messages)} messages"}

    sqs._HANDLERS["StartMessageMoveTask"] = start
