"""Consumes CounterTable's stream: writes each change to the history and adds it to the trend."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clients, clock, init_phase, metrics, recording
from counters.clients import ATTEMPT

logger = Logger(service="tally")


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Record a batch of stream records. If a record fails, return the id of the first failed one.

    Lambda delivers the first failed record and all later records again.
    https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html
    """
    records = event["Records"]
    progress = recording.record(records, clock.deadline(context, ATTEMPT))
    counts = {"EntriesWritten": progress.recorded, "RecordsParked": progress.parked}
    lag = {}
    if progress.newest:
        # The two times come from the clocks of two functions, so the difference can be negative.
        lag = {"HistoryLag": max(0.0, 1000 * (clock.now() - clock.seconds(progress.newest)))}
    metrics.publish(counts, lag)
    if progress.done == len(records):
        return {"batchItemFailures": []}
    logger.warning(
        "A stream record failed. Lambda will deliver %d of %d stream records again.",
        *(len(records) - progress.done, len(records)),
    )
    first = records[progress.done]["dynamodb"]["SequenceNumber"]
    return {"batchItemFailures": [{"itemIdentifier": first}]}


init_phase.end(clients.dynamodb)
