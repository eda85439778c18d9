"""By hand: the parked stream records go into history and trend, those that make sense by now."""

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clients, clock, errors, init_phase, recording, rules

logger = Logger(service="tally")

_MARGIN = 30  # seconds before the timeout; no record is begun later


def handler(event: object, context: LambdaContext) -> dict[str, int]:
    """Go once through the dead-letter queue.

    Args:
        event: must be empty. Every parked record is tried.
        context: tells how much time there is.

    Returns:
        How many records are in, and how many stay parked.

    Raises:
        InvalidRequestError: the event is not empty.
        ThrottledError: the queue did not answer.
    """
    try:
        rules.only([], rules.fields("event", event))
        redriven, parked = recording.redrive(clock.deadline(context, _MARGIN))
    except errors.CounterError as error:
        # Whoever invoked it by hand reads the text, and needs no stack trace.
        raise error.with_traceback(None) from None
    answer = {"redriven": redriven, "parked": parked}
    logger.info("redrove %d, %d stay parked", redriven, parked, extra={"answer": answer})
    return answer


init_phase.end(clients.dynamodb)
