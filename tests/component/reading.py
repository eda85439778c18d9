"""Helpers for tests of reads.

Times are integers, in milliseconds since the epoch, so that they are exact.
"""

import pytest
from tests.proxy import Reply

from counters import clock

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# Problems as `problem` returns them.
THROTTLED = (503, "throttled", "1")
NOT_FOUND = (404, "not-found", None)


def timestamp(time: int) -> str:
    """Return a time in the format of parameters and responses."""
    return clock.timestamp(time / 1000)


def stop_clock(monkeypatch: pytest.MonkeyPatch, time: int) -> None:
    """Stop the functions' clock at a time."""
    monkeypatch.setattr(clock, "now", lambda: time / 1000)


def problem(reply: Reply) -> tuple[int, str, str | None]:
    """Return a problem's status, the last part of its type, and its Retry-After header."""
    return reply.status, reply.body["type"].rpartition(":")[2], reply.headers.get("Retry-After")
