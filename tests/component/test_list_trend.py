"""Trends: a counter's changes, added up in buckets. A bucket is one minute, hour or day."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.component.output import silence
from tests.component.reading import (
    DAY,
    DELAYS,
    HOUR,
    MINUTE,
    NOT_FOUND,
    RETENTION_DAYS,
    SECOND,
    THROTTLED,
    problem,
    stop_clock,
    timestamp,
)
from tests.component.trends import (
    NOON,
    STEPS,
    TODAY,
    Change,
    buckets_of,
    closes,
    expected_buckets,
    get_trend,
    make_counter,
    summed,
)
from tests.contents import clear
from tests.past import Past
from tests.sizes import cases, examples
from tests.stack import Stack
from tests.wire import Fault, Wire, reply_lost, throttled

# --- The sums ------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", STEPS)
def test_a_bucket_has_the_sums_of_additions_and_subtractions(stack: Stack, interval: str) -> None:
    step = STEPS[interval]
    times = [0, 1, step - 1, step, 3 * step, 3 * step + 1]
    amounts = [5, -7, 4, -3, 10, 0]  # the last change sets the value to the same value
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
    # The first bucket has versions 1, 3 and 5, so it closes with the value of version 5.
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
        # If an interval ended between the changes, they are in the last two buckets.
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
        # A single query with Limit 1000 reads all entries of the period, even though many later
        # entries exist.
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


# Strategies for the time between two consecutive changes, in milliseconds. Each history uses one.
PACES = [
    st.integers(0, 20 * SECOND),
    st.integers(0, 10 * MINUTE),
    st.one_of(st.integers(0, 30 * SECOND), st.sampled_from([MINUTE, HOUR, DAY])),
    st.one_of(st.integers(0, 5 * SECOND), st.integers(0, 2 * DAY)),
]


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
    """Deliver the stream records of a counter in batches. Some batches repeat earlier records."""
    first = last = 0
    while last < len(past.records):
        first = rng.choice([first, last, rng.randint(0, last)])
        last = min(len(past.records), last + rng.randint(1, 30))
        past.record(stack, past.records[first:last])
    past.record(stack, past.records[first:])


def period_near_a_change(
    changes: list[Change], step: int, most: int, rng: random.Random
) -> tuple[int, int]:
    """Return a period of at most `most` whole intervals. The period is near a random change."""
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
