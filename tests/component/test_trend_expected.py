"""The parameter `expected` of a trend: the expected range of each bucket, and what is unusual."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.component.output import silence
from tests.component.reading import (
    DAY,
    HOUR,
    MINUTE,
    THROTTLED,
    problem,
    stop_clock,
    timestamp,
)
from tests.component.trends import (
    NOON,
    STEPS,
    TODAY,
    Bucket,
    Change,
    answered_buckets,
    expected_buckets,
    get_trend,
    make_counter,
)
from tests.contents import clear
from tests.meter import Meter
from tests.past import WRITES, Past
from tests.sizes import examples
from tests.stack import Stack
from tests.wire import Wire, reply_lost

from counters import anomalies
from counters.model import MAX_INTEGER

WEEK = 7 * DAY
COMPARED = ["hour", "day"]
FEW, USUAL, MANY = 10, 60, 200

Unusual = bool | None


def expected_of(
    stack: Stack, interval: str, start: int, end: int, counter_id: str = "orders"
) -> list[Bucket]:
    """Return the trend from `start` to `end`, with what was expected."""
    query = f"interval={interval}&from={timestamp(start)}&to={timestamp(end)}&expected=true"
    return answered_buckets(stack, query, counter_id)


def bucket_at(stack: Stack, interval: str, time: int) -> Bucket:
    """Return the hour or the day that contains `time`, with what was expected."""
    (bucket,) = expected_of(stack, interval, time, time + 1)
    return bucket


def judgement(bucket: Bucket) -> tuple[Any, Any]:
    return bucket["expected"], bucket["unusual"]


def noons(days: int, by: int = USUAL) -> list[Change]:
    """Return an increment at noon of each of the days before today."""
    return [Change(NOON - day * DAY, by) for day in range(days, 0, -1)]


# --- What is unusual -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("today", "unusual"), [(0, True), (FEW, True), (USUAL, False), (MANY, True)]
)
def test_an_increase_outside_the_expected_range_is_unusual(
    stack: Stack, today: int, unusual: Unusual
) -> None:
    changes = noons(56) + ([Change(NOON, today)] if today else [])
    make_counter(changes).record(stack)

    hour, day = (bucket_at(stack, interval, NOON) for interval in COMPARED)

    assert hour["increase"] == day["increase"] == today
    assert judgement(hour) == ({"low": 33, "high": 94}, unusual)
    assert judgement(day) == ({"low": 27, "high": 105}, unusual)


def test_the_members_are_there_only_if_they_are_asked_for(stack: Stack) -> None:
    make_counter(noons(30)).record(stack)

    for interval in COMPARED:
        period = f"interval={interval}&from={timestamp(NOON - DAY)}&to={timestamp(NOON)}"
        plain = get_trend(stack, period).body
        compared = get_trend(stack, f"{period}&expected=true").body
        assert get_trend(stack, f"{period}&expected=false").body == plain
        assert [list(each)[-2:] for each in compared] == [["expected", "unusual"]] * len(plain)
        assert [dict(list(each.items())[:-2]) for each in compared] == plain
        assert all(list(each)[-1] == "close" for each in plain)


def test_the_default_interval_is_an_hour(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, NOON)
    make_counter(noons(30)).record(stack)

    reply = get_trend(stack, "expected=true")

    assert len(reply.body) == 24
    assert reply == get_trend(stack, "expected=true&interval=hour")


def test_a_set_is_an_unusual_increase(stack: Stack) -> None:
    past = make_counter(noons(56))
    past.change(NOON / 1000, 1_000_000, "set")
    past.record(stack)

    assert bucket_at(stack, "hour", NOON)["unusual"] is True
    # The set does not widen the range of the weeks after it.
    after = bucket_at(stack, "hour", NOON + WEEK)
    assert judgement(after) == ({"low": 33, "high": 94}, True)


def test_subtractions_do_not_count(stack: Stack) -> None:
    make_counter([*noons(56, -USUAL), Change(NOON, -MANY)]).record(stack)

    bucket = bucket_at(stack, "hour", NOON)

    assert (bucket["increase"], bucket["decrease"]) == (0, MANY)
    assert judgement(bucket) == ({"low": 0, "high": 7}, False)


def test_sums_above_the_highest_value_are_compared_exactly_enough(stack: Stack) -> None:
    orders = Past("orders")
    for day in range(56, -1, -1):
        for _ in range(3):
            orders.fold((NOON - day * DAY) / 1000, MAX_INTEGER, MAX_INTEGER)
    orders.record(stack)

    for interval in COMPARED:
        bucket = bucket_at(stack, interval, NOON)
        assert bucket["increase"] == 3 * MAX_INTEGER
        assert bucket["unusual"] is False
        # The range is that of random counts. It is narrow: half a millionth of so many.
        low, high = bucket["expected"].values()
        assert 0.999999 * 3 * MAX_INTEGER < low < 3 * MAX_INTEGER < high
        assert high < 1.000001 * 3 * MAX_INTEGER


# --- Which weeks count ---------------------------------------------------------------------------


def test_there_is_no_range_with_fewer_than_four_weeks(stack: Stack) -> None:
    make_counter([*noons(27), Change(NOON, MANY)]).record(stack)
    make_counter([*noons(28), Change(NOON, MANY)], "older").record(stack)

    for interval in COMPARED:
        assert judgement(bucket_at(stack, interval, NOON)) == (None, None)
        (bucket,) = expected_of(stack, interval, NOON, NOON + 1, "older")
        assert bucket["expected"] is not None
        assert bucket["unusual"] is True


@pytest.mark.parametrize("interval", COMPARED)
def test_weeks_without_changes_after_the_first_change_count_as_0(
    stack: Stack, interval: str
) -> None:
    for weeks in (4, 7, 8, 9, 100):
        name = f"quiet{weeks}"
        first = NOON - weeks * WEEK
        make_counter([Change(first - MINUTE, 1), Change(NOON, 20)], name).record(stack)

        (bucket,) = expected_of(stack, interval, NOON, NOON + 1, name)
        assert bucket["expected"]["low"] == 0, weeks
        assert bucket["expected"]["high"] < 20
        assert bucket["unusual"] is True


@pytest.mark.parametrize("interval", COMPARED)
def test_a_counter_can_begin_within_the_period(stack: Stack, interval: str) -> None:
    make_counter([Change(TODAY, 1)]).record(stack)
    buckets = expected_of(stack, interval, TODAY - 2 * DAY, TODAY + 30 * DAY)

    null = [bucket["start"] for bucket in buckets if bucket["expected"] is None]
    assert null[-1] == timestamp(TODAY + 4 * WEEK - STEPS[interval])
    assert len(null) == (4 * WEEK + 2 * DAY) // STEPS[interval]


@pytest.mark.parametrize("interval", COMPARED)
def test_a_counter_that_was_never_written_has_no_range(stack: Stack, interval: str) -> None:
    buckets = expected_of(stack, interval, TODAY, TODAY + 40 * DAY)

    assert {judgement(bucket) for bucket in buckets} == {(None, None)}


def test_the_first_hours_of_1970_have_no_range(stack: Stack) -> None:
    (bucket,) = expected_of(stack, "hour", 0, HOUR)

    assert judgement(bucket) == (None, None)


def test_later_changes_do_not_change_an_answer(stack: Stack) -> None:
    past = make_counter([*noons(60), Change(NOON, MANY)])
    past.record(stack)
    before = [bucket_at(stack, interval, NOON) for interval in COMPARED]

    later = [past.change((NOON + day * DAY) / 1000, 1000 * day) for day in range(1, 10)]
    past.record(stack, later)

    assert [bucket_at(stack, interval, NOON) for interval in COMPARED] == before


def test_an_answer_does_not_depend_on_the_period(stack: Stack) -> None:
    rng = random.Random(1)
    times = range(NOON - 70 * DAY, NOON, DAY)
    make_counter([Change(time, rng.randint(1, 200)) for time in times]).record(stack)

    for interval in COMPARED:
        for bucket in expected_of(stack, interval, NOON - 30 * DAY, NOON + HOUR)[-30::7]:
            start = bucket["start"]
            period = f"from={start}&to={start.replace('.000', '.001')}"
            reply = get_trend(stack, f"interval={interval}&{period}&expected=true")
            assert reply.body == [bucket]


# --- The current bucket --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("increase", "running", "ended"),
    [(0, None, True), (FEW, None, True), (USUAL, None, False), (MANY, True, True)],
)
def test_the_current_bucket_can_only_be_too_high(
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    increase: int,
    running: Unusual,
    ended: Unusual,
) -> None:
    changes = noons(56) + ([Change(NOON, increase)] if increase else [])
    make_counter(changes).record(stack)

    for interval in COMPARED:
        end = NOON // STEPS[interval] * STEPS[interval] + STEPS[interval]
        for now, unusual in ((NOON, running), (end - 1, running), (end, ended), (end + DAY, ended)):
            stop_clock(monkeypatch, now)
            assert bucket_at(stack, interval, NOON)["unusual"] is unusual


# --- Reads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", COMPARED)
def test_the_reads_are_those_of_a_period_that_begins_eight_weeks_earlier(
    stack: Stack, wire: Wire, interval: str
) -> None:
    make_counter(noons(8)).record(stack)

    def reads(more: str) -> Any:  # noqa: ANN401
        """Return the start of the period that is read, and all parameters of the requests."""
        wire.sent.clear()
        period = f"from={timestamp(TODAY)}&to={timestamp(NOON)}"
        assert get_trend(stack, f"interval={interval}&{period}{more}").status == 200
        assert wire.operations() == ["Query", "Query"]
        before, hours = (sent.parameters for sent in wire.sent)
        first = hours["ExpressionAttributeValues"][":first"]["S"]
        assert before["ExpressionAttributeValues"][":hour"]["S"] == first
        return first, [before, hours]

    assert reads("&expected=true")[0] == timestamp(TODAY - 8 * WEEK)
    assert reads("")[0] == timestamp(TODAY)
    assert reads("&expected=false") == reads("")


def test_the_reads_of_a_day_consume_the_documented_units(stack: Stack) -> None:
    """Read 24 hours after eight weeks with changes in each hour: the greatest possible number."""
    names = ("changes", "first_version", "last_version", "increase", "decrease", "close")
    sums: Any = {name: {"N": str(MAX_INTEGER)} for name in names}
    items = [
        {"counter_id": {"S": "orders"}, "hour": {"S": timestamp(TODAY - hour * HOUR)}, **sums}
        for hour in range(57 * 24, 0, -1)
    ]
    for start in range(0, len(items), WRITES):
        writes: Any = [{"PutRequest": {"Item": item}} for item in items[start : start + WRITES]]
        stack.dynamodb.batch_write_item(RequestItems={stack.refs["TrendTable"]: writes})
    with Meter() as meter:
        expected_of(stack, "hour", TODAY - DAY, TODAY)
    print(dict(meter.requests), meter.items, meter.charged)
    assert meter.requests.total() == 2
    assert meter.items <= 56 * 24 + 24 + 2
    assert meter.charged <= 36


def test_a_read_without_a_reply_is_throttled(stack: Stack, wire: Wire) -> None:
    wire.fail("Query", itertools.repeat(reply_lost))

    assert problem(get_trend(stack, "expected=true")) == THROTTLED


# --- Random histories ----------------------------------------------------------------------------


def test_each_range_of_a_random_history_is_made_from_the_buckets_before_it(stack: Stack) -> None:
    """This proves which buckets are given to `anomalies.ranges`, not what it makes of them."""
    runs = itertools.count()

    @examples(full=50, part=3)
    @given(st.integers(0, 2**32), st.sampled_from(COMPARED))
    def check(seed: int, interval: str) -> None:
        rng, name, step = random.Random(seed), f"run{next(runs)}", STEPS[interval]
        began = TODAY - rng.randint(20, 100) * DAY
        times = sorted(began + rng.randrange(100 * DAY) for _ in range(30))
        changes = [Change(time, rng.choice([-30, 5, 50, 70])) for time in times]
        make_counter(changes, name).record(stack)
        start = TODAY - rng.randint(0, 3) * DAY
        end = start + rng.randint(1, 40) * step

        all_buckets = expected_buckets(changes, interval, times[0] // step * step, end)
        increases = [bucket["increase"] for bucket in all_buckets]
        first = len(all_buckets) - (end - start) // step
        ranges = anomalies.ranges(increases, DAY // step, first)

        for bucket, expected in zip(
            expected_of(stack, interval, start, end, name), ranges, strict=True
        ):
            assert bucket["expected"] == (expected and expected._asdict())
            increase = bucket["increase"]
            assert bucket["unusual"] is anomalies.is_unusual(increase, expected, ended=True)
        clear(stack, "HistoryTable", "TrendTable")

    with silence():
        check()

    print(f"{next(runs)} histories")
