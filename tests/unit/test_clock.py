import datetime as dt
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counters import clock

times = st.floats(0, 4e9, allow_nan=False)


@given(times)
def test_a_timestamp_is_utc_to_the_millisecond(moment: float) -> None:
    text = clock.timestamp(moment)

    assert text.endswith("Z")
    assert len(text) == len("2026-11-22T10:00:00.123Z")
    assert dt.datetime.fromisoformat(text).tzinfo == dt.UTC
    assert abs(clock.seconds(text) - moment) <= 0.001


@given(times, times)
def test_timestamps_sort_by_time(one: float, other: float) -> None:
    earlier, later = sorted((one, other))

    assert clock.timestamp(earlier) <= clock.timestamp(later)


def test_now_agrees_with_the_system_clock() -> None:
    assert abs(clock.now() - time.time()) < 5


def test_pauses_grow_to_a_limit_and_end_before_until(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(clock, "now", lambda: 100.0 + sum(slept))
    monkeypatch.setattr(clock, "sleep", slept.append)

    attempts = next(n for n in itertools.count() if not clock.pause(n, until=110.0))

    assert attempts > 10
    assert sum(slept) < 10
    for attempt, seconds in enumerate(slept):
        assert 0 <= seconds <= min(1.0, 0.05 * 2**attempt)


@pytest.mark.parametrize("attempt", range(6))
def test_pauses_are_spread_up_to_their_limit(monkeypatch: pytest.MonkeyPatch, attempt: int) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(clock, "sleep", pauses.append)
    longest = min(1.0, 0.05 * 2**attempt)

    assert all(clock.pause(attempt, clock.now() + 60) for _ in range(200))

    assert min(pauses) < 0.2 * longest
    assert max(pauses) > 0.8 * longest


@pytest.mark.parametrize("attempt", [0, 4, 5, 1023, 1024, 10**6])
def test_a_pause_is_at_most_a_second_however_many_attempts_there_were(
    monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(clock, "sleep", pauses.append)

    assert all(clock.pause(attempt, clock.now() + 60) for _ in range(200))
    assert 0 <= min(pauses) <= max(pauses) <= min(1, 0.05 * 2 ** min(attempt, 10))
