"""Consumes EventQueue: forwards the events of the event bus to IncrementQueue."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clients, clock, forwarding, init_phase
from counters.clients import ATTEMPT

logger = Logger(service="tally")


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Forward a batch of events. Return the ids of the messages that SQS must deliver again."""
    records = event["Records"]
    failed = forwarding.forward(records, clock.deadline(context, ATTEMPT))
    logger.info("forwarded %d of %d", len(records) - len(failed), len(records))
    return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}


init_phase.end(clients.sqs)
