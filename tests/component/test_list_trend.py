"""Trends: a counter's changes, added up by minute, hour or day."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.component.output import silence
from tests.component.reading import (
    DAY,
    HOUR,
    MINUTE,
    NOT_FOUND,
    SECOND,
    THROTTLED,
    problem,
    stop_clock,
    timestamp,
)
from tests.contents import clear
from tests.past import Past
from tests.proxy import Reply
from tests.sizes import cases, examples
from tests.stack import Stack
from tests.wire import Fault, Wire, reply_lost, throttled

STEPS = {"minute": MINUTE, "hour": HOUR, "day": DAY}

TODAY = 1_736_899_200_000  # 2025-01-15T00:00:00Z
NOON = TODAY + 12 * HOUR

RETENTION_DAYS = 30

Bucket = dict[str, Any]
COUNTS = ("changes", "increase", "decrease")


@dataclass(frozen=True)
class Change:
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
    query = f"interval={interval}&from={timestamp(start)}&to={timestamp(end)}"
    reply = get_trend(stack, query, counter_id)
    assert reply.status == 200, reply.body
    buckets: list[Bucket] = reply.body
    return buckets


def expected_buckets(
    changes: Sequence[Change], interval: str, start: int, end: int
) -> list[Bucket]:
    """Return the expected buckets of a period that consists of whole intervals."""
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


def bounds_of(reply: Reply) -> tuple[str, str, int]:
    """Return the start of the first bucket, the start of the last one, and their number."""
    assert reply.status == 200, reply.body
    return reply.body[0]["start"], reply.body[-1]["start"], len(reply.body)


def closes(buckets: list[Bucket]) -> list[int]:
    return [bucket["close"] for bucket in buckets]


@pytest.fixture
def retention(stack: Stack) -> None:
    """Keep the history for RETENTION_DAYS."""
    stack.refs["HistoryDays"] = str(RETENTION_DAYS)


# --- The period ----------------------------------------------------------------------------------


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
def test_each_interval_has_a_default_number_of_buckets(  # noqa: PLR0913, PLR0917  its columns
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
        # This holds even within the current bucket.
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


# --- The sums ------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", STEPS)
def test_a_bucket_has_the_sums_of_additions_and_subtractions(stack: Stack, interval: str) -> None:
    step = STEPS[interval]
    times = [0, 1, step - 1, step, 3 * step, 3 * step + 1]
    amounts = [5, -7, 4, -3, 10, 0]  # the last change sets the value that the counter already has
    neighbours = [Change(TODAY + step, 1000)]
    changes = [Change(TODAY + time, by) for time, by in zip(times, amounts, strict=True)]
    make_counter(neighbours, "order").record(stack)
    make_counter(changes).record(stack)
    make_counter(neighbours, "orders2").record(stack)

    buckets = buckets_of(stack, interval, TODAY - step, TODAY + 5 * step)

    assert [tuple(bucket.values()) for bucket in buckets] == [
        (timestamp(TODAY - step), 0, 0, 0, None, None, 0),
        (timestamp(TODAY), 3, 9, 7, 1, 3, 2),
        (timestamp(TODAY + step), 1, 0, 3, 4, 4, -1),
        (timestamp(TODAY + 2 * step), 0, 0, 0, None, None, -1),
        (timestamp(TODAY + 3 * step), 2, 10, 0, 5, 6, 9),
        (timestamp(TODAY + 4 * step), 0, 0, 0, None, None, 9),
    ]
    assert list(buckets[0]) == [
        "start",
        "changes",
        "increase",
        "decrease",
        "first_version",
        "last_version",
        "close",
    ]


@pytest.mark.parametrize("interval", STEPS)
def test_a_bucket_without_changes_keeps_the_value_from_before(stack: Stack, interval: str) -> None:
    step = STEPS[interval]
    make_counter([Change(TODAY, 7), Change(TODAY + step, -9)]).record(stack)

    assert closes(buckets_of(stack, interval, TODAY + step, TODAY + 3 * step)) == [-2, -2]
    assert closes(buckets_of(stack, interval, TODAY + 100 * step, TODAY + 102 * step)) == [-2, -2]
    assert closes(buckets_of(stack, interval, TODAY - 2 * step, TODAY + step)) == [0, 0, 7]


@pytest.mark.parametrize("interval", STEPS)
def test_a_bucket_closes_with_the_value_of_its_highest_version_if_times_go_back(
    stack: Stack, interval: str
) -> None:
    boundary = TODAY + STEPS[interval]
    seconds = [-30, 5, -1, 12, -7, 30]
    changes = [Change(boundary + second * SECOND, 10**k) for k, second in enumerate(seconds)]
    make_counter(changes).record(stack)

    for first, last in itertools.combinations(range(-1, 4), 2):
        start, end = TODAY + first * STEPS[interval], TODAY + last * STEPS[interval]
        buckets = buckets_of(stack, interval, start, end)
        assert buckets == expected_buckets(changes, interval, start, end)
    # Versions 1, 3 and 5 are before the boundary. Version 5 is the highest of them.
    assert closes(buckets_of(stack, interval, TODAY, boundary + STEPS[interval])) == [11111, 111111]


@pytest.mark.parametrize("interval", STEPS)
def test_a_later_bucket_can_have_a_lower_version(stack: Stack, interval: str) -> None:
    step = STEPS[interval]
    changes = [Change(TODAY + step + 5 * SECOND, 1), Change(TODAY + step - 5 * SECOND, 10)]
    make_counter(changes).record(stack)

    assert closes(buckets_of(stack, interval, TODAY, TODAY + step)) == [11]
    assert closes(buckets_of(stack, interval, TODAY + step, TODAY + 2 * step)) == [11]
    assert closes(buckets_of(stack, interval, TODAY + 2 * step, TODAY + 3 * step)) == [11]


def test_the_highest_version_of_a_day_can_be_in_an_earlier_hour(stack: Stack) -> None:
    changes = [Change(NOON + 5 * SECOND, 1), Change(NOON - 5 * SECOND, 10)]
    make_counter(changes).record(stack)

    (day,) = buckets_of(stack, "day", TODAY, TODAY + DAY)

    assert (day["first_version"], day["last_version"], day["close"]) == (1, 2, 11)


def test_a_change_over_http_is_in_the_last_bucket(stack: Stack) -> None:
    for body in ({"by": 5}, {"by": -2}):
        stack.request("POST", "/counter", body=body)
    stack.request("PUT", "/counter", body={"value": 10})
    stack.record(stack.changes())

    for interval in STEPS:
        # A new interval may have begun between the changes.
        buckets = stack.request("GET", "/counter/trend", query=f"interval={interval}").body[-2:]
        sums = {name: sum(bucket[name] for bucket in buckets) for name in ("changes", "increase")}
        assert sums == {"changes": 3, "increase": 12}
        assert sum(bucket["decrease"] for bucket in buckets) == 2
        assert buckets[-1]["close"] == 10


def test_a_record_that_is_delivered_twice_counts_once(stack: Stack) -> None:
    changes = [Change(NOON + position * 20 * MINUTE, 1 + position % 3) for position in range(12)]
    orders = make_counter(changes)

    for first, last in ((0, 4), (0, 4), (2, 9), (3, 5), (0, 12), (11, 12)):
        orders.record(stack, orders.records[first:last])
    orders.record(stack, [record for record in orders.records for _ in range(2)])

    for interval, step in STEPS.items():
        start, end = TODAY + 12 * HOUR // step * step, TODAY + max(15 * HOUR, step)
        assert buckets_of(stack, interval, start, end) == expected_buckets(
            changes, interval, start, end
        )


def test_a_day_is_the_sum_of_its_hours(stack: Stack) -> None:
    changes = [Change(TODAY + hour * HOUR, hour - 20) for hour in range(50)]
    make_counter(changes).record(stack)

    days = buckets_of(stack, "day", TODAY, TODAY + 2 * DAY)
    hours = buckets_of(stack, "hour", TODAY, TODAY + 2 * DAY)

    assert days == [summed(hours[:24]), summed(hours[24:])]


def summed(buckets: list[Bucket]) -> Bucket:
    """Return one bucket with the sums of consecutive buckets."""
    return {
        "start": buckets[0]["start"],
        **{name: sum(bucket[name] for bucket in buckets) for name in COUNTS},
        "first_version": min((b["first_version"] for b in buckets if b["changes"]), default=None),
        "last_version": max((b["last_version"] for b in buckets if b["changes"]), default=None),
        "close": buckets[-1]["close"],
    }


def test_minutes_need_only_the_history(stack: Stack) -> None:
    make_counter([Change(NOON, 7), Change(NOON + MINUTE, -9)]).record(stack)
    clear(stack, "TrendTable")

    assert closes(buckets_of(stack, "minute", NOON - MINUTE, NOON + 2 * MINUTE)) == [0, 7, -2]
    assert closes(buckets_of(stack, "minute", NOON + HOUR, NOON + HOUR + MINUTE)) == [-2]


# --- Expired entries -----------------------------------------------------------------------------


@pytest.mark.usefixtures("retention")
def test_minutes_expire_with_the_history_and_hours_and_days_do_not(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_counter([Change(NOON, 7), Change(NOON + HOUR, 1)]).record(stack)
    clear(stack, "HistoryTable")
    stop_clock(monkeypatch, NOON + RETENTION_DAYS * DAY)

    minutes = f"interval=minute&from={timestamp(NOON)}&to={timestamp(NOON + HOUR)}"

    assert problem(get_trend(stack, minutes)) == NOT_FOUND
    assert closes(buckets_of(stack, "hour", NOON, NOON + 2 * HOUR)) == [7, 8]
    assert closes(buckets_of(stack, "day", TODAY, TODAY + DAY)) == [8]


@pytest.mark.usefixtures("retention")
def test_minutes_are_available_until_an_entry_of_the_first_one_can_have_expired(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_counter([Change(NOON, 7)]).record(stack)
    query = f"interval=minute&from={timestamp(NOON + 59 * SECOND)}&to={timestamp(NOON + HOUR)}"

    stop_clock(monkeypatch, NOON + RETENTION_DAYS * DAY - 1)
    assert closes(get_trend(stack, query).body) == [7] * 60
    stop_clock(monkeypatch, NOON + RETENTION_DAYS * DAY)
    assert problem(get_trend(stack, query)) == NOT_FOUND


def test_minutes_do_not_expire_by_default(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    make_counter([Change(NOON, 7)]).record(stack)
    stop_clock(monkeypatch, NOON + 10_000 * DAY)

    assert closes(buckets_of(stack, "minute", NOON, NOON + HOUR)) == [7] * 60


@pytest.mark.usefixtures("retention")
def test_minutes_begin_with_the_value_of_an_expired_change(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = NOON + 40 * DAY
    first, last = Change(NOON, 7), Change(now - 3 * MINUTE, -9)
    stop_clock(monkeypatch, now)

    make_counter([first]).record(stack)
    clear(stack, "HistoryTable")
    assert closes(get_trend(stack, "interval=minute").body) == [7] * 60

    orders = make_counter([first, last])
    orders.record(stack, orders.records[1:])
    assert closes(get_trend(stack, "interval=minute").body) == [7] * 56 + [-2] * 4
    before = f"interval=minute&from={timestamp(now - HOUR)}&to={timestamp(now - 30 * MINUTE)}"
    assert closes(get_trend(stack, before).body) == [7] * 30


# --- Number of requests, and faults --------------------------------------------------------------


def test_hours_and_days_take_two_reads_for_any_number_of_changes(stack: Stack, wire: Wire) -> None:
    make_counter([Change(NOON + position * MINUTE, 1) for position in range(200)]).record(stack)

    for interval in ("hour", "day"):
        wire.sent.clear()
        buckets_of(stack, interval, TODAY, TODAY + DAY)
        assert wire.operations() == ["Query", "Query"]


def test_minutes_in_a_long_history_take_at_most_25_reads(stack: Stack, wire: Wire) -> None:
    changes = [
        Change(TODAY + position * 10 * SECOND, 1) for position in range(cases(full=2000, part=400))
    ]
    make_counter(changes).record(stack)

    for minute in (0, len(changes) // 20, len(changes) // 6 - 1):
        start, end = TODAY + minute * MINUTE, TODAY + (minute + 2) * MINUTE
        wire.sent.clear()
        assert buckets_of(stack, "minute", start, end) == expected_buckets(
            changes, "minute", start, end
        )
        assert len(wire.sent) <= 25
        # One query reads the entries, even though many later entries exist.
        assert [sent.parameters["Limit"] for sent in wire.sent].count(1000) == 1


@pytest.mark.parametrize("interval", STEPS)
@pytest.mark.parametrize("fault", [reply_lost, throttled])
def test_a_read_without_a_reply_is_throttled(
    stack: Stack, wire: Wire, interval: str, fault: Fault
) -> None:
    wire.fail("Query", itertools.repeat(fault))

    assert problem(get_trend(stack, f"interval={interval}")) == THROTTLED


@pytest.mark.parametrize("interval", STEPS)
def test_a_read_is_retried_after_a_lost_reply(stack: Stack, wire: Wire, interval: str) -> None:
    make_counter([Change(TODAY, 7)]).record(stack)
    wire.fail("Query", [reply_lost])

    assert closes(buckets_of(stack, interval, TODAY, TODAY + MINUTE)) == [7]


# --- Random histories, compared with a model -----------------------------------------------------


# PACES: time between two changes. DELAYS: time from the beginning of a request to its change.
PACES = [
    st.integers(0, 20 * SECOND),
    st.integers(0, 10 * MINUTE),
    st.one_of(st.integers(0, 30 * SECOND), st.sampled_from([MINUTE, HOUR, DAY])),
    st.one_of(st.integers(0, 5 * SECOND), st.integers(0, 2 * DAY)),
]
DELAYS = st.one_of(st.just(0), st.integers(0, 10 * SECOND), st.integers(0, 20 * SECOND - 1))


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    count = draw(st.integers(1, 40))
    steps = st.tuples(draw(st.sampled_from(PACES)), DELAYS, st.integers(-9, 9))
    applied = NOON + draw(st.integers(-5 * SECOND, 5 * SECOND))
    changes = []
    for gap, delay, by in draw(st.lists(steps, min_size=count, max_size=count)):
        applied += gap
        changes.append(Change(applied - delay, by))
    return changes


def deliver(past: Past, stack: Stack, rng: random.Random) -> None:
    """Deliver the stream records in batches, some of which repeat records."""
    first = last = 0
    while last < len(past.records):
        first = rng.choice([first, last, rng.randint(0, last)])
        last = min(len(past.records), last + rng.randint(1, 30))
        past.record(stack, past.records[first:last])
    past.record(stack, past.records[first:])


def period_near_a_change(
    changes: list[Change], step: int, most: int, rng: random.Random
) -> tuple[int, int]:
    """Return a period of at most `most` whole intervals, at or near one of the changes."""
    at = rng.choice(changes).time // step * step
    start = at - rng.randint(-1, most // 2) * step
    return start, start + rng.randint(1, most) * step


def test_trends_of_random_histories_agree_with_the_model(stack: Stack) -> None:
    runs = itertools.count()

    @examples(full=200, part=8)
    @given(histories(), st.integers(0, 2**32))
    def check(changes: list[Change], seed: int) -> None:
        rng = random.Random(seed)
        name = f"run{next(runs)}"
        deliver(make_counter(changes, name), stack, rng)

        for interval, most in (("minute", 180), ("hour", 500), ("day", 40)):
            step = STEPS[interval]
            start, end = period_near_a_change(changes, step, most, rng)
            # Any times in the first and the last interval give the same period.
            first, last = (
                start + rng.randint(0, step // 2 - 1),
                end - rng.randint(0, step // 2),
            )
            buckets = buckets_of(stack, interval, first, last, name)
            assert buckets == expected_buckets(changes, interval, start, end)
            place = rng.randrange(len(buckets))
            query = f"at={timestamp(start + (place + 1) * step - 1)}"
            past = stack.request("GET", f"/counters/{name}", query=query).body
            assert past["value"] == buckets[place]["close"]
            if interval == "day":
                hours = iter(buckets_of(stack, "hour", start, end, name))
                days = [summed(list(itertools.islice(hours, 24))) for _ in buckets]
                assert days == buckets

        clear(stack, "HistoryTable", "TrendTable")

    with silence():
        check()

    print(f"{next(runs)} histories")
