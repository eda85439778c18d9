"""What tests of reads share.

Their times are in milliseconds since the epoch: as integers they are exact.
"""

import pytest
from tests.proxy import Reply

from counters import clock

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# The status of a problem, its type, and when to ask again.
THROTTLED = (503, "throttled", "1")
NOT_FOUND = (404, "not-found", None)


def moment(time: int) -> str:
    """Return a time as a parameter and an answer have it."""
    return clock.timestamp(time / 1000)


def set_now(monkeypatch: pytest.MonkeyPatch, time: int) -> None:
    """Let the time stand still."""
    monkeypatch.setattr(clock, "now", lambda: time / 1000)


def problem(reply: Reply) -> tuple[int, str, str | None]:
    """Return the status of a problem, its type, and when to ask again."""
    return reply.status, reply.body["type"].rpartition(":")[2], reply.headers.get("Retry-After")
