"""The stream of CounterTable: every change becomes an entry of the history."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import recording

logger = Logger(service="tally")


def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Record a batch of stream records; return the first that is to be delivered again, if any.

    Lambda goes on from that one, so all behind it come again as well:
    https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html
    """
    records = event["Records"]
    done = recording.record(records)
    logger.info("recorded %d of %d", done, len(records))
    if done == len(records):
        return {"batchItemFailures": []}
    first = records[done]["dynamodb"]["SequenceNumber"]
    return {"batchItemFailures": [{"itemIdentifier": first}]}
