"""Reads of a counter at a time (`at`): the answer is the counter as it was at that time."""

from urllib.parse import quote

import pytest
from tests.component.reading import (
    BEGINNING,
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    THROTTLED,
    TIMES,
    VALUES,
    expected_orders,
    get_orders,
    get_orders_at,
    make_orders,
    problem,
    stop_clock,
    times_going_back,
    timestamp,
    version_at,
)
from tests.contents import delete_entries
from tests.sizes import cases
from tests.stack import Stack
from tests.wire import Wire


@pytest.mark.usefixtures("orders")
def test_a_read_at_a_time_includes_the_changes_up_to_that_time(stack: Stack) -> None:
    for version, time in enumerate(TIMES, 1):
        assert get_orders_at(stack, time - 1).body == expected_orders(version - 1)
        reply = get_orders_at(stack, time)
        assert (reply.status, reply.body) == (200, expected_orders(version))
        assert reply.headers["ETag"] == f'"{version}"'
        assert get_orders_at(stack, time + 1).body == expected_orders(version)


def test_a_counter_that_was_never_written_has_version_0_at_any_time(stack: Stack) -> None:
    for year in (1970, 2020, 2025):
        assert get_orders(stack, f"at={year}-01-01T00:00:00Z").body == expected_orders(0)


@pytest.mark.usefixtures("orders")
def test_before_its_first_change_a_counter_has_version_0(stack: Stack) -> None:
    assert get_orders(stack, "at=1970-01-01T00:00:00Z").body == expected_orders(0)
    assert get_orders_at(stack, BEGINNING - 10 * SECOND).body == expected_orders(0)


@pytest.mark.usefixtures("orders")
def test_a_time_in_the_future_is_refused_without_a_request(
    stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, TIMES[4] + HOUR)
    wire.sent.clear()

    for query in (
        f"at={timestamp(TIMES[4] + HOUR + 1)}",
        f"at={timestamp(TIMES[4] + DAY)}",
        "at=9999-12-31T23:59:59.999Z",
    ):
        reply = get_orders(stack, query)
        assert problem(reply) == (400, "invalid-request", None)
        assert reply.body["detail"] == "at: must not be in the future"
    assert wire.operations() == []


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize(
    ("ago", "retry_after"),
    [(0, 21), (1, 20), (1000, 20), (1001, 19), (19_000, 2), (19_001, 1), (19_999, 1), (20_000, 1)],
)
def test_a_time_within_the_apply_window_is_throttled_until_the_window_ends(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, ago: int, retry_after: int
) -> None:
    now = TIMES[4] + HOUR
    stop_clock(monkeypatch, now)
    reply = get_orders_at(stack, now - ago)

    assert problem(reply) == (503, "throttled", str(retry_after))
    assert reply.body["detail"].startswith("at: a change at that time may still be in progress.")

    stop_clock(monkeypatch, now + retry_after * SECOND)
    assert get_orders_at(stack, now - ago).body == expected_orders(5)


@pytest.mark.usefixtures("orders")
def test_a_time_just_before_the_apply_window_can_be_read(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = TIMES[4] + HOUR
    stop_clock(monkeypatch, now)

    assert get_orders_at(stack, now - 20 * SECOND - 1).body == expected_orders(5)
    assert problem(get_orders_at(stack, now - 20 * SECOND)) == THROTTLED


def test_the_time_of_the_last_change_is_throttled_while_an_earlier_request_can_be_applied(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = make_orders(TIMES[:2])
    orders.record(stack)
    stop_clock(monkeypatch, TIMES[1] + 10 * SECOND)
    assert get_orders_at(stack, TIMES[1]).status == 503

    # This request began a second before TIMES[1], but it is applied only after the read.
    orders.record(stack, [orders.change((TIMES[1] - SECOND) / 1000, 1)])

    stop_clock(monkeypatch, TIMES[1] + 20 * SECOND + 1)
    assert get_orders_at(stack, TIMES[1]).body["version"] == 3


@pytest.mark.usefixtures("orders")
def test_a_time_can_have_an_offset_and_more_digits_than_milliseconds(stack: Stack) -> None:
    # TIMES[1] is 2025-01-15T08:01:00Z.
    expected = {
        "2025-01-15T09:01:00+01:00": 2,
        "2025-01-15T09:00:59.999+01:00": 1,
        "2025-01-15T04:31:00-03:30": 2,
        "2025-01-15t08:01:00z": 2,
        "2025-01-15T08:00:59.999999Z": 1,
        "2025-01-15T08:01:00.000001Z": 2,
    }

    versions = {text: get_orders(stack, f"at={quote(text)}").body["version"] for text in expected}

    assert versions == expected


def test_of_several_changes_at_the_same_time_the_last_one_counts(stack: Stack) -> None:
    make_orders([BEGINNING] * 3 + [BEGINNING + 1] * 40 + [BEGINNING + MINUTE]).record(stack)

    assert get_orders_at(stack, BEGINNING - 1).body["version"] == 0
    assert get_orders_at(stack, BEGINNING).body["version"] == 3
    assert get_orders_at(stack, BEGINNING + 1).body["version"] == 43


def test_if_times_go_back_the_highest_version_up_to_the_time_counts(stack: Stack) -> None:
    seconds = [10, 0, 20, 5, 60, 42, 41, 90]
    make_orders([BEGINNING + second * SECOND for second in seconds]).record(stack)
    expected = {-1: 0, 0: 2, 4: 2, 5: 4, 10: 4, 20: 4, 40: 4, 41: 7, 42: 7, 60: 7, 89: 7, 90: 8}

    versions = {
        second: get_orders_at(stack, BEGINNING + second * SECOND).body["version"]
        for second in expected
    }

    assert versions == expected


@pytest.mark.parametrize("back", [1, 20 * SECOND - 1])
def test_times_can_go_back_by_almost_the_apply_window_anywhere(stack: Stack, back: int) -> None:
    times = times_going_back(back)
    make_orders(times).record(stack)

    for time in sorted({near for late in times[29::30] for near in (late - 1, late, late + 1)}):
        assert get_orders_at(stack, time).body["version"] == version_at(times, time)


def test_the_time_of_the_last_change_and_later_times_need_no_history(stack: Stack) -> None:
    make_orders(TIMES, VALUES).store(stack)

    assert get_orders_at(stack, TIMES[4]).body == expected_orders(5)
    assert get_orders_at(stack, TIMES[4] + DAY).body == expected_orders(5)


def test_a_counter_with_one_change_needs_no_history(stack: Stack) -> None:
    make_orders(TIMES[:1]).store(stack)

    assert get_orders_at(stack, TIMES[0] - 1).body == expected_orders(0)
    assert get_orders_at(stack, TIMES[0]).body == expected_orders(1)


def test_the_time_of_an_unrecorded_change_is_throttled(stack: Stack) -> None:
    orders = make_orders(TIMES, VALUES)
    orders.record(stack, orders.records[:3])

    # The history lacks version 4, so the read does not know the time of version 4. It knows only
    # that version 4 is less than 20 seconds earlier than version 3 (TIMES[2]), or is later.
    assert get_orders_at(stack, TIMES[2] - 20 * SECOND).body == expected_orders(2)
    assert problem(get_orders_at(stack, TIMES[2])) == THROTTLED
    assert problem(get_orders_at(stack, TIMES[3])) == THROTTLED
    assert problem(get_orders_at(stack, TIMES[4] - 1)) == THROTTLED


def test_times_before_the_last_change_are_throttled_while_nothing_is_recorded(stack: Stack) -> None:
    make_orders(TIMES, VALUES).store(stack)

    assert problem(get_orders_at(stack, TIMES[0])) == THROTTLED
    assert problem(get_orders_at(stack, TIMES[4] - 1)) == THROTTLED


@pytest.mark.usefixtures("orders")
def test_a_missing_version_throttles_only_times_that_it_could_have(stack: Stack) -> None:
    delete_entries(stack, 3)

    # The history lacks version 3, so the read does not know the time of version 3. It knows only
    # that version 3 is less than 20 seconds earlier than version 2 (TIMES[1]), or is later.
    assert get_orders_at(stack, TIMES[1] - 20 * SECOND).body == expected_orders(1)
    for time in (TIMES[1] - 20 * SECOND + 1, TIMES[1], TIMES[2], TIMES[3] - 1):
        assert problem(get_orders_at(stack, time)) == THROTTLED
    assert get_orders_at(stack, TIMES[3]).body == expected_orders(4)


def test_a_missing_version_can_have_a_later_time_than_a_higher_version(stack: Stack) -> None:
    orders = make_orders([BEGINNING + second * SECOND for second in (0, 60, 75, 62, 200)])
    orders.record(stack, [*orders.records[:2], *orders.records[3:]])

    # The history lacks version 3, so the read does not know the time of version 3 (75 s). It knows
    # only that version 3 is less than 20 seconds later than version 4 (62 s), or is earlier.
    assert get_orders_at(stack, BEGINNING + 62 * SECOND).body["version"] == 4
    assert problem(get_orders_at(stack, BEGINNING + 61 * SECOND)) == THROTTLED
    assert get_orders_at(stack, BEGINNING + 40 * SECOND).body["version"] == 1


def test_a_time_in_a_long_history_takes_at_most_25_reads(stack: Stack, wire: Wire) -> None:
    count = cases(full=2000, part=400)
    times = [BEGINNING + position * 10 * SECOND for position in range(count)]
    make_orders(times).record(stack)

    for version in (0, 1, 2, count // 2, count - 26, count - 25, count - 24, count - 1):
        wire.sent.clear()
        assert (
            get_orders_at(stack, BEGINNING + version * 10 * SECOND - 1).body["version"] == version
        )
        assert len(wire.sent) <= 1 + 25
