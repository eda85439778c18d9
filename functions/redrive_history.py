"""Run by hand: writes the changes in the history's dead-letter queue to the history.

record_history sent stream records to this queue because it could not write their changes to the
history. Run this function after you have fixed the cause, or to find out which records still fail.
"""

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clients, clock, errors, init_phase, recording, rules

logger = Logger(service="tally")

_MARGIN = 30  # seconds before the timeout; in these seconds, no further record is begun


def handler(event: object, context: LambdaContext) -> dict[str, int]:
    """Try once to write each record in the dead-letter queue to the history.

    Args:
        event: an empty JSON object.
        context: the Lambda context. It tells how much time is left.

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
