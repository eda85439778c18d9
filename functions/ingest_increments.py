"""Consumes IncrementQueue: applies the increments in its messages to the counters."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clients, clock, ingestion, init_phase, metrics
from counters.clients import ATTEMPT

logger = Logger(service="tally")


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Count a batch of messages. Return the ids of the messages that SQS must deliver again.

    In each message group, these are the first message that failed and all later messages.
    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    records = event["Records"]
    progress = ingestion.ingest(records, clock.deadline(context, ATTEMPT))
    logger.info("counted %d of %d, parked %d", progress.counted, len(records), progress.parked)
    metrics.publish({"EventsCounted": progress.counted, "EventsParked": progress.parked})
    return {"batchItemFailures": [{"itemIdentifier": each} for each in progress.failed]}


init_phase.end(clients.dynamodb)
