"""Helpers for tests of trends. A bucket has the sums of one minute, hour or day."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.component.reading import DAY, HOUR, MINUTE, timestamp
from tests.past import Past
from tests.proxy import Reply
from tests.stack import Stack

# The length of each interval, in milliseconds.
STEPS = {"minute": MINUTE, "hour": HOUR, "day": DAY}

TODAY = 1_736_899_200_000  # 2025-01-15T00:00:00Z
NOON = TODAY + 12 * HOUR

Bucket = dict[str, Any]
SUMS = ("changes", "increase", "decrease")


@dataclass(frozen=True)
class Change:
    """A change of a counter: a set if `by` is 0, and an increment otherwise.

    Attributes:
        time: in milliseconds since the epoch.
    """

    time: int
    by: int


def make_counter(changes: Sequence[Change], counter_id: str = "orders") -> Past:
    past = Past(counter_id)
    for change in changes:
        past.change(change.time / 1000, change.by, "increment" if change.by else "set")
    return past


def get_trend(stack: Stack, query: str, counter_id: str = "orders") -> Reply:
    return stack.request("GET", f"/counters/{counter_id}/trend", query=query)


def buckets_of(
    stack: Stack, interval: str, start: int, end: int, counter_id: str = "orders"
) -> list[Bucket]:
    """Return the trend from `start` to `end`. The times are in milliseconds since the epoch."""
    query = f"interval={interval}&from={timestamp(start)}&to={timestamp(end)}"
    return answered_buckets(stack, query, counter_id)


def answered_buckets(stack: Stack, query: str, counter_id: str) -> list[Bucket]:
    """Return the trend that the query asks for. The answer must be a 200."""
    reply = get_trend(stack, query, counter_id)
    assert reply.status == 200, reply.body
    buckets: list[Bucket] = reply.body
    return buckets


def expected_buckets(
    changes: Sequence[Change], interval: str, start: int, end: int
) -> list[Bucket]:
    """Return the expected buckets from `start` to `end`, a period of whole intervals."""
    values = list(itertools.accumulate(change.by for change in changes))
    step = STEPS[interval]
    buckets = []
    for first in range(start, end, step):
        inside = [
            (version, change.by)
            for version, change in enumerate(changes, 1)
            if first <= change.time < first + step
        ]
        last = max(
            (version for version, change in enumerate(changes, 1) if change.time < first + step),
            default=0,
        )
        buckets.append(
            {
                "start": timestamp(first),
                "changes": len(inside),
                "increase": sum(by for _, by in inside if by > 0),
                "decrease": -sum(by for _, by in inside if by < 0),
                "first_version": inside[0][0] if inside else None,
                "last_version": inside[-1][0] if inside else None,
                "close": values[last - 1] if last else 0,
            }
        )
    return buckets


def closes(buckets: list[Bucket]) -> list[int]:
    return [bucket["close"] for bucket in buckets]


def summed(buckets: list[Bucket]) -> Bucket:
    """Return one bucket with the sums of consecutive buckets."""
    return {
        "start": buckets[0]["start"],
        **{name: sum(bucket[name] for bucket in buckets) for name in SUMS},
        "first_version": min((b["first_version"] for b in buckets if b["changes"]), default=None),
        "last_version": max((b["last_version"] for b in buckets if b["changes"]), default=None),
        "close": buckets[-1]["close"],
    }
