"""The expected range of an increase, and which increases are unusual."""

import itertools
import random
from collections.abc import Sequence

import pytest
from bench import unusual
from bench.traffic import HOURS, KINDS
from hypothesis import given
from hypothesis import strategies as st
from tests.sizes import FULL, cases, examples

from counters.anomalies import is_unusual, ranges
from counters.model import Range

WEEK = {24: 168, 1: 7}  # buckets in a week, by the number of buckets in a day
LARGEST = 10**38  # the largest number that DynamoDB stores

DAYS = st.sampled_from(list(WEEK))


def repeated(week: Sequence[int], weeks: int) -> list[int]:
    return list(week) * weeks


def expected_after(increases: Sequence[int], day: int) -> Range:
    """Return the range of the bucket that follows these buckets."""
    (found,) = ranges([*increases, 0], day, len(increases))
    assert found is not None
    return found


@st.composite
def weeks_of(draw: st.DrawFn, day: int, least: int = 0, most: int = LARGEST) -> list[int]:
    """Return the increases of a week: random levels, each for some of the buckets."""
    levels = draw(st.lists(st.integers(least, most), min_size=1, max_size=8))
    rng = random.Random(draw(st.integers(0, 2**32)))
    return [rng.choice(levels) for _ in range(WEEK[day])]


# --- The range -----------------------------------------------------------------------------------


def test_the_range_of_a_steady_hour() -> None:
    # 2 * sqrt(60 + 3/8) is 15.54. The spread is sqrt(1 + pi/16), which is 1.094. So the range is
    # from 15.54 - 3.5 * 1.094 to 15.54 + 3.5 * 1.094, transformed back.
    assert expected_after([60] * 168 * 8, 24) == Range(33, 94)


def test_the_range_of_a_steady_day() -> None:
    # As for an hour, with 4.5 in place of 3.5.
    assert expected_after([60] * 7 * 8, 1) == Range(27, 105)


def test_the_range_of_an_hour_in_which_nothing_was_counted() -> None:
    assert expected_after([0] * 168 * 8, 24) == Range(0, 7)


def test_the_range_is_wider_if_fewer_weeks_are_known() -> None:
    found = [expected_after([1000] * 168 * weeks, 24) for weeks in range(4, 9)]

    assert [each.high for each in found] == sorted({each.high for each in found}, reverse=True)
    assert [each.low for each in found] == sorted({each.low for each in found})


@examples(full=1000, part=30)
@given(
    DAYS.flatmap(
        lambda day: st.tuples(st.just(day), st.lists(weeks_of(day), min_size=4, max_size=9))
    )
)
def test_a_range_is_never_below_0_and_never_empty(case: tuple[int, list[list[int]]]) -> None:
    day, weeks = case
    found = expected_after(list(itertools.chain.from_iterable(weeks)), day)

    assert 0 <= found.low <= found.high
    assert type(found.low) is type(found.high) is int


@examples(full=1000, part=20)
@given(st.data(), DAYS, st.integers(4, 10))
def test_a_week_that_repeats_is_never_unusual(data: st.DataObject, day: int, weeks: int) -> None:
    week = data.draw(weeks_of(day))
    increases = repeated(week, weeks)
    first = 4 * WEEK[day]

    for increase, expected in zip(increases[first:], ranges(increases, day, first), strict=True):
        assert expected is not None
        assert expected.low <= increase <= expected.high


@examples(full=1000, part=8)
@given(st.data(), DAYS, st.integers(60, 170))
def test_steady_growth_is_never_unusual(data: st.DataObject, day: int, percent: int) -> None:
    week = data.draw(weeks_of(day, least=10_000, most=10**15))
    increases = [
        each * percent**age * 100 ** (12 - age) // 100**12 for age in range(12) for each in week
    ]
    first = 4 * WEEK[day]

    for increase, expected in zip(increases[first:], ranges(increases, day, first), strict=True):
        assert is_unusual(increase, expected, ended=True) is False


@examples(full=1000, part=30)
@given(st.data(), DAYS, st.integers(0, 7))
def test_one_odd_week_does_not_change_the_range(
    data: st.DataObject, day: int, position: int
) -> None:
    week = data.draw(weeks_of(day))
    odd = data.draw(weeks_of(day))
    weeks = [week] * 8
    weeks[position] = odd

    found = expected_after(list(itertools.chain.from_iterable(weeks)), day)
    assert found == expected_after(repeated(week, 8), day)


def test_traffic_that_varies_has_a_wider_range() -> None:
    rng = random.Random(1)
    random_counts = [KINDS["daily and weekly rhythm"](rng).increases for _ in range(2)]
    batches = [KINDS["bursty"](rng).increases for _ in range(2)]
    noon = 8 * 7 * 24 + 12

    def width(increases: list[int]) -> int:
        found = expected_after(increases[:noon], 24)
        return found.high - found.low

    assert min(map(width, batches)) > 1.5 * max(map(width, random_counts))


# --- Which weeks count ---------------------------------------------------------------------------


@pytest.mark.parametrize("day", WEEK)
def test_there_is_no_range_with_fewer_than_four_weeks(day: int) -> None:
    week = WEEK[day]
    found = ranges([100] * 6 * week, day)

    assert all(each is None for each in found[: 4 * week])
    assert all(each is not None for each in found[4 * week :])


@pytest.mark.parametrize("day", WEEK)
def test_weeks_before_the_first_change_do_not_count(day: int) -> None:
    week = WEEK[day]
    increases = [0] * 4 * week + [100] * 5 * week
    found = ranges(increases, day, 0, 4 * week)

    assert all(each is None for each in found[: 8 * week])
    assert found[8 * week :] == ranges(increases[4 * week :], day, 4 * week)
    assert found[8 * week :] != ranges(increases, day, 8 * week)


@examples(full=1000, part=20)
@given(st.integers(0, 2**32), DAYS, st.integers(4, 12))
def test_a_range_depends_only_on_the_eight_weeks_before(seed: int, day: int, weeks: int) -> None:
    week, rng = WEEK[day], random.Random(seed)
    increases = [rng.randrange(1000) for _ in range(weeks * week + 1)]
    end = rng.randrange(4 * week, len(increases))
    (found, *_) = ranges(increases, day, end)

    later = [rng.randrange(10**9) for _ in increases[end:]]
    assert ranges([*increases[:end], *later], day, end)[0] == found
    start = max(0, end - 8 * week)
    earlier = [rng.randrange(10**9) for _ in range(start)]
    assert ranges([*earlier, *increases[start:]], day, end)[0] == found


# --- What is unusual -----------------------------------------------------------------------------


def test_an_increase_is_unusual_outside_the_range() -> None:
    expected = Range(10, 20)

    answers = [is_unusual(each, expected, ended=True) for each in (9, 10, 15, 20, 21)]
    assert answers == [True, False, False, False, True]


def test_a_bucket_that_has_not_ended_is_unusual_only_above_the_range() -> None:
    expected = Range(10, 20)

    answers = [is_unusual(each, expected, ended=False) for each in (0, 9, 10, 20, 21)]
    assert answers == [None, None, None, None, True]


def test_nothing_is_unusual_without_a_range() -> None:
    assert is_unusual(10**9, None, ended=True) is None
    assert is_unusual(10**9, None, ended=False) is None


@pytest.mark.parametrize("day", WEEK)
@pytest.mark.parametrize("level", [15, 50, 10**6, 2**53, 10**20, 10**36])
def test_a_silence_is_unusual_where_many_are_expected(day: int, level: int) -> None:
    expected = expected_after([level] * 8 * WEEK[day], day)

    assert is_unusual(0, expected, ended=True)


@pytest.mark.parametrize(("day", "least"), [(24, 10), (1, 13)])  # as docs/history.md says
def test_a_silence_is_unusual_from_this_level_on(day: int, least: int) -> None:
    answers = [
        is_unusual(0, expected_after([level] * 8 * WEEK[day], day), ended=True)
        for level in range(1, 40)
    ]

    assert answers == [level >= least for level in range(1, 40)]


@pytest.mark.parametrize("level", [60, 2**53, 10**20, 10**36])
def test_half_and_double_are_unusual_where_many_are_expected(level: int) -> None:
    expected = expected_after([level] * 8 * 168, 24)

    assert is_unusual(level // 2, expected, ended=True)
    assert is_unusual(level * 2, expected, ended=True)
    assert not is_unusual(level, expected, ended=True)


# --- Simulated traffic ---------------------------------------------------------------------------


def judged(kind: str, day: int, seeds: int) -> unusual.Result:
    """Judge some simulated years. False alarms on the same day are not independent."""
    result = unusual.Result()
    for seed in range(seeds):
        rng = random.Random(f"test {kind} {seed}")
        year = KINDS[kind](rng)
        result.add(unusual.judge(year if day == HOURS else year.by_day(), day, rng))
    return result


# One year of one kind takes eight seconds. The others have the same rhythm.
@pytest.mark.parametrize("kind", KINDS if FULL else ["growth"])
def test_at_most_2_hours_of_1000_are_false_alarms(kind: str) -> None:
    result = judged(kind, 24, cases(full=6, part=1))
    print(result)

    assert result.buckets > 1000
    assert result.false_alarms() <= 2
    if kind not in {"sparse", "bursty"}:  # bursty traffic varies too much from hour to hour
        assert result.found["silence"] >= 0.95 * result.tried > 100
        assert result.found["double"] >= 0.95 * result.tried


@pytest.mark.parametrize("kind", KINDS)
def test_at_most_2_days_of_1000_are_false_alarms(kind: str) -> None:
    result = judged(kind, 1, cases(full=40, part=4))
    print(result)

    assert result.buckets > 1000
    assert result.false_alarms() <= 2
    if kind != "sparse":
        assert result.found["silence"] >= 0.95 * result.tried > 100
        assert result.found["double"] >= 0.95 * result.tried


def test_a_holiday_is_unusual() -> None:
    result = judged("holidays", 1, 4)

    assert result.marked >= 0.9 * result.holidays > 0
