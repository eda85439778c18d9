"""Run by hand: records the changes that wait in the dead-letter queue of the history.

The records are there because record_history could not process them. Run this after the cause is
fixed, or to find out which records still fail.
"""

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clients, clock, errors, init_phase, recording, rules

logger = Logger(service="tally")

_MARGIN = 30  # start no record later than this before the timeout, in seconds


def handler(event: object, context: LambdaContext) -> dict[str, int]:
    """Try each record in the dead-letter queue once.

    Args:
        event: an empty JSON object.
        context: the Lambda context, which knows the time that remains.

    Returns:
        `redriven`: the number of records that are now in the history and deleted from the queue.
        `parked`: the number of records that stay in the queue.

    Raises:
        InvalidRequestError: if the event is not empty.
        ThrottledError: if SQS did not answer in time.
    """
    try:
        rules.only([], rules.fields("event", event))
        redriven, parked = recording.redrive(clock.deadline(context, _MARGIN))
    except errors.CounterError as error:
        # The person who invoked the function needs the text, not the stack trace.
        raise error.with_traceback(None) from None
    answer = {"redriven": redriven, "parked": parked}
    logger.info("redrove %d records, %d stay parked", redriven, parked, extra={"answer": answer})
    return answer


init_phase.end(clients.dynamodb)
