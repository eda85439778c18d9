"""The period of a trend: its default, its limits, and its first and last bucket.

A bucket is one minute, hour or day of the trend.
"""

import pytest
from tests.component.reading import DAY, MINUTE, SECOND, problem, stop_clock, timestamp
from tests.component.trends import NOON, STEPS, TODAY, buckets_of, get_trend
from tests.proxy import Reply
from tests.stack import Stack


def bounds_of(reply: Reply) -> tuple[str, str, int]:
    """Return the start of the first bucket, the start of the last, and the number of buckets."""
    assert reply.status == 200, reply.body
    return reply.body[0]["start"], reply.body[-1]["start"], len(reply.body)


def test_the_default_is_the_last_24_hours(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, NOON + 59 * MINUTE)

    reply = get_trend(stack, "")

    assert bounds_of(reply) == ("2025-01-14T13:00:00.000Z", "2025-01-15T12:00:00.000Z", 24)
    assert get_trend(stack, "interval=hour") == reply


@pytest.mark.parametrize(
    ("interval", "first", "last", "count"),
    [
        ("minute", "2025-01-15T11:05:00.000Z", "2025-01-15T12:04:00.000Z", 60),
        ("hour", "2025-01-14T13:00:00.000Z", "2025-01-15T12:00:00.000Z", 24),
        ("day", "2024-12-17T00:00:00.000Z", "2025-01-15T00:00:00.000Z", 30),
    ],
)
def test_each_interval_has_a_default_number_of_buckets(  # noqa: PLR0913, PLR0917  columns
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    interval: str,
    first: str,
    last: str,
    count: int,
) -> None:
    for into_the_minute in (0, 1, 30 * SECOND, MINUTE - 1):
        stop_clock(monkeypatch, NOON + 4 * MINUTE + into_the_minute)
        assert bounds_of(get_trend(stack, f"interval={interval}")) == (first, last, count)


def test_the_last_bucket_begins_at_the_full_hour(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, NOON)
    assert bounds_of(get_trend(stack, ""))[1] == "2025-01-15T12:00:00.000Z"
    stop_clock(monkeypatch, NOON - 1)
    assert bounds_of(get_trend(stack, ""))[1] == "2025-01-15T11:00:00.000Z"


def test_a_period_is_widened_to_whole_intervals(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, NOON + 90 * SECOND)
    ten, eleven = "2025-01-15T10:00:00.000Z", "2025-01-15T11:00:00.000Z"
    day_before = "2025-01-14T11:00:00.000Z"
    periods = {
        "from=2025-01-15T10:00:00Z&to=2025-01-15T12:00:00Z": (ten, eleven, 2),
        "from=2025-01-15T10:59:59.999Z&to=2025-01-15T11:00:00.001Z": (ten, eleven, 2),
        "from=2025-01-15T10:30:00Z&to=2025-01-15T10:30:01Z": (ten, ten, 1),
        "from=2025-01-15T11:30:00%2B01:00&to=2025-01-15T12:00:00%2B01:00": (ten, ten, 1),
        "from=2025-01-15T11:59:00Z": (eleven, "2025-01-15T12:00:00.000Z", 2),
        "to=2025-01-15T10:00:01Z": (day_before, ten, 24),
        "to=2025-01-15T11:00:00Z": (day_before, ten, 24),
        "interval=minute&to=2025-01-15T11:00:00.001Z": ("2025-01-15T10:01:00.000Z", eleven, 60),
        "interval=day&from=2025-01-14T10:30:00Z&to=2025-01-15T00:00:00Z": (
            "2025-01-14T00:00:00.000Z",
            "2025-01-14T00:00:00.000Z",
            1,
        ),
    }

    assert {query: bounds_of(get_trend(stack, query)) for query in periods} == periods


def test_a_default_period_never_starts_before_1970(stack: Stack) -> None:
    first, last, count = bounds_of(get_trend(stack, "to=1970-01-01T02:00:00Z"))
    assert (first, last, count) == ("1970-01-01T00:00:00.000Z", "1970-01-01T01:00:00.000Z", 2)


@pytest.mark.parametrize(
    ("interval", "current", "count"),
    [("minute", "11:58", 60), ("hour", "11:00", 24), ("day", "00:00", 30)],
)
def test_a_trend_ends_with_the_current_bucket(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, interval: str, current: str, count: int
) -> None:
    now = NOON - MINUTE - 1
    stop_clock(monkeypatch, now)
    end = f"2025-01-15T{current}:00.000Z"

    for to in (timestamp(now + 1), timestamp(now + DAY), "9999-12-31T23:59:59.999Z"):
        assert bounds_of(get_trend(stack, f"interval={interval}&to={to}"))[1:] == (end, count)
        query = f"interval={interval}&from={timestamp(now)}&to={to}"
        assert bounds_of(get_trend(stack, query)) == (end, end, 1)


@pytest.mark.parametrize("interval", STEPS)
def test_a_period_that_starts_in_the_future_is_refused(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, interval: str
) -> None:
    stop_clock(monkeypatch, NOON)

    for to in ("", f"&to={timestamp(NOON + DAY)}"):
        # The request is refused, even though the time in `from` is in the current bucket.
        reply = get_trend(stack, f"interval={interval}&from={timestamp(NOON + 1)}{to}")
        assert problem(reply) == (400, "invalid-request", None)
        assert reply.body["detail"] == "from: must not be in the future"
    assert get_trend(stack, f"interval={interval}&from={timestamp(NOON)}").status == 200


@pytest.mark.parametrize("interval", STEPS)
def test_a_period_that_ends_at_the_start_of_1970_is_refused(stack: Stack, interval: str) -> None:
    reply = get_trend(stack, f"interval={interval}&to=1970-01-01T00:00:00Z")

    assert problem(reply) == (400, "invalid-request", None)
    assert reply.body["detail"] == "to: must be after 1970-01-01T00:00:00Z"


@pytest.mark.parametrize(("interval", "most"), [("minute", 180), ("hour", 1000), ("day", 1000)])
def test_the_number_of_buckets_is_limited(stack: Stack, interval: str, most: int) -> None:
    start, step = TODAY - 2000 * DAY, STEPS[interval]

    assert len(buckets_of(stack, interval, start, start + most * step)) == most
    query = f"interval={interval}&from={timestamp(start)}&to={timestamp(start + most * step + 1)}"
    reply = get_trend(stack, query)
    assert (reply.status, reply.body["detail"].split(":")[0]) == (400, "from")


@pytest.mark.parametrize("interval", STEPS)
def test_a_counter_that_was_never_written_has_empty_buckets(stack: Stack, interval: str) -> None:
    step = STEPS[interval]

    buckets = buckets_of(stack, interval, TODAY, TODAY + 2 * step)

    nothing = {
        "changes": 0,
        "increase": 0,
        "decrease": 0,
        "first_version": None,
        "last_version": None,
        "close": 0,
    }
    assert buckets == [
        {"start": timestamp(TODAY), **nothing},
        {"start": timestamp(TODAY + step), **nothing},
    ]
