"""Time: the clock, deadlines, and pauses between attempts."""

import datetime as dt
import random
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aws_lambda_powertools.utilities.typing import LambdaContext

# A change is applied at most this many seconds after its `at`, or never, by any function's clock:
# - the function that sends it is killed at its timeout, 10 s (test_template.py checks that);
# - a request that is then still under way has 5 s to arrive and to be applied;
# - two clocks may differ by 5 s. AWS keeps those of its hosts within milliseconds of UTC.
#   https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/set-time.html
APPLY_WINDOW = 20.0
CLOCK_DIFFERENCE = 5.0  # seconds

_LONGEST_PAUSE = 1.0  # seconds


def now() -> float:
    """Return the time in seconds since the epoch."""
    return time.time()


def deadline(context: "LambdaContext", margin: float) -> float:
    """Return the time `margin` seconds before an invocation's timeout, since the epoch."""
    return now() + context.get_remaining_time_in_millis() / 1000 - margin


def sleep(seconds: float) -> None:
    """Let `seconds` pass."""
    time.sleep(seconds)


def attempts(until: float, most: int = sys.maxsize) -> "Iterator[int]":
    """Yield the number of each attempt, starting at 0, with a pause before all but the first.

    Args:
        until: latest time to start an attempt, in seconds since the epoch.
        most: the greatest number of attempts.
    """
    for number in range(most):
        if (number and not pause(number - 1, until)) or now() >= until:
            return
        yield number


def pause(attempt: int, until: float) -> bool:
    """Sleep before the next attempt: exponential backoff with full jitter.

    Args:
        attempt: number of the attempt that just failed, starting at 0.
        until: latest time to start the next one, in seconds since the epoch.

    Returns:
        False, without sleeping, if the pause would end after `until`.
    """
    # In 15 minutes there are so many attempts that a power of two would be no float any more.
    longest = min(_LONGEST_PAUSE, 0.05 * 2 ** min(attempt, 10))
    seconds = random.uniform(0, longest)  # noqa: S311  no secret
    if now() + seconds >= until:
        return False
    sleep(seconds)
    return True


def timestamp(seconds: float) -> str:
    """Return a time in UTC to the millisecond (RFC 3339): of two, the later sorts behind."""
    utc = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(timestamp: str) -> float:
    """Return the time of a `timestamp` in seconds since the epoch.

    Raises:
        ValueError: it is none.
    """
    time = dt.datetime.fromisoformat(timestamp)
    if time.tzinfo is None:
        detail = "a time without an offset from UTC"
        raise ValueError(detail)
    return time.timestamp()
