"""Time: the clock, deadlines, and pauses between attempts."""

import datetime as dt
import random
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aws_lambda_powertools.utilities.typing import LambdaContext

# The apply window. An attempt (the work of one invocation to make one change) takes effect within
# this many seconds after the attempt began, or never. When the window is over, the outcome of the
# attempt is final. The window is the sum of:
# - 10 s: the timeout of the functions that send changes (test_permissions.py checks it);
# - 5 s: the time that a request needs to arrive and to be applied, if it was sent just before the
#   timeout;
# - 5 s: the most by which the clocks of two functions may differ. AWS keeps the clocks of its hosts
#   within milliseconds of UTC.
#   https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/set-time.html
APPLY_WINDOW = 20.0  # seconds
CLOCK_DIFFERENCE = 5.0  # seconds

_LONGEST_PAUSE = 1.0  # seconds


def now() -> float:
    """Return the current time, in seconds since the epoch."""
    return time.time()


def deadline(context: "LambdaContext", margin: float) -> float:
    """Return the latest time to start new work in this invocation, in seconds since the epoch.

    Args:
        context: the Lambda context. It tells how much time is left.
        margin: the returned time is this many seconds before the function's timeout.
    """
    return now() + context.get_remaining_time_in_millis() / 1000 - margin


def sleep(seconds: float) -> None:
    """Sleep for `seconds`. Tests replace this function."""
    time.sleep(seconds)


def attempts(until: float, most: int = sys.maxsize) -> "Iterator[int]":
    """Yield the number of each attempt, starting at 0. Pause before each attempt except the first.

    Args:
        until: latest time to start an attempt, in seconds since the epoch.
        most: the maximum number of attempts.
    """
    for number in range(most):
        if (number and not pause(number - 1, until)) or now() >= until:
            return
        yield number


def pause(attempt: int, until: float) -> bool:
    """Sleep before the next attempt: exponential backoff with full jitter.

    Args:
        attempt: number of the attempt that just failed, starting at 0.
        until: latest time to start the next attempt, in seconds since the epoch.

    Returns:
        False, without sleeping, if the pause would end after `until`.
    """
    # Without the limit on the exponent, the power of two would overflow a float after about 1,000
    # attempts.
    longest = min(_LONGEST_PAUSE, 0.05 * 2 ** min(attempt, 10))
    seconds = random.uniform(0, longest)  # noqa: S311  not used for security
    if now() + seconds >= until:
        return False
    sleep(seconds)
    return True


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 text, in UTC and with milliseconds. An earlier time sorts first."""
    utc = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(timestamp: str) -> float:
    """Convert a time from RFC 3339 text to seconds since the epoch.

    Raises:
        ValueError: if the text is not a time, or has no offset from UTC.
    """
    time = dt.datetime.fromisoformat(timestamp)
    if time.tzinfo is None:
        detail = "The time has no offset from UTC."
        raise ValueError(detail)
    return time.timestamp()
