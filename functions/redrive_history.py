"""By hand: the parked stream records go into history and trend, those that make sense by now."""

from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clients, clock, init_phase, recording

logger = Logger(service="tally")

_MARGIN = 30  # seconds before the timeout; no record is begun later


def handler(_event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Go once through the dead-letter queue; return how many are in, and how many stay parked."""
    redriven, parked = recording.redrive(clock.deadline(context, _MARGIN))
    logger.info("redrove %d, %d stay parked", redriven, parked)
    return {"redriven": redriven, "parked": parked}


init_phase.end(clients.dynamodb)
