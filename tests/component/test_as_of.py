"""A counter as it was at a version or at a time, and the changes of a period."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.component.links import follow, target
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
from tests.contents import forget, prepare_once
from tests.past import Past
from tests.proxy import Reply, proxy_event
from tests.sizes import cases, examples
from tests.stack import Stack
from tests.wire import Fault, Wire, reply_lost, throttled

from counters import clock

BEGINNING = 1_736_928_000_000

# Versions 1 to 5 of the counter "orders": their times and values.
TIMES = [BEGINNING + minutes * MINUTE for minutes in range(5)]
VALUES = [1, 6, -4, 10, 11]

RETENTION_DAYS = 30  # in tests in which the history expires


def make_orders(times: Sequence[int], values: Sequence[int] | None = None) -> Past:
    """Return the counter "orders", changed to these values (by default 1, 2, 3, …)."""
    orders = Past("orders")
    previous = 0
    for time, value in zip(times, values or range(1, len(times) + 1), strict=True):
        orders.change(time / 1000, value - previous)
        previous = value
    return orders


@pytest.fixture
def orders(stack: Stack) -> Past:
    """The recorded counter "orders", and two counters whose ids sort just before and after it."""
    orders = make_orders(TIMES, VALUES)

    def record() -> None:
        for name in ("order", "orders2"):
            neighbour = Past(name)
            for time in TIMES:
                neighbour.change(time / 1000 + 30, 100)
            neighbour.record(stack)
        orders.record(stack)

    prepare_once(stack, "orders between neighbours", record)
    return orders


def get_orders(stack: Stack, query: str) -> Reply:
    return stack.request("GET", "/counters/orders", query=query)


def get_if_none_match(stack: Stack, query: str, tags: str) -> tuple[int, str]:
    """Send a GET for "orders" with If-None-Match; return the response's status and ETag."""
    path, headers = "/counters/orders", {"If-None-Match": tags}
    function, route, parameters = stack.route("GET", path)
    event = proxy_event(route, path, parameters, query, headers, b"", {"sub": "somebody"})
    response = stack.invoke(function.name, event)
    assert (response["body"] == "") == (response["statusCode"] == 304)
    return response["statusCode"], response["headers"]["ETag"]


def get_orders_at(stack: Stack, time: int) -> Reply:
    return get_orders(stack, f"at={timestamp(time)}")


def listed_versions(stack: Stack, query: str) -> list[int]:
    """Return the versions in the history of "orders". They must fit on one page."""
    reply = stack.request("GET", "/counters/orders/history", query=query)
    assert reply.status == 200, reply.body
    assert "Link" not in reply.headers
    return [entry["version"] for entry in reply.body]


def expected_orders(version: int) -> dict[str, object]:
    """Return the expected state of "orders" at one of its versions."""
    return {
        "counter_id": "orders",
        "value": VALUES[version - 1] if version else 0,
        "version": version,
        "created_at": timestamp(TIMES[0]) if version else None,
        "updated_at": timestamp(TIMES[version - 1]) if version else None,
    }


@pytest.fixture
def retention(stack: Stack) -> None:
    """Keep the history for RETENTION_DAYS days."""
    stack.refs["HistoryDays"] = str(RETENTION_DAYS)


# --- At a version --------------------------------------------------------------------------------


@pytest.mark.usefixtures("orders")
def test_a_read_at_a_version_returns_the_counter_at_that_version(stack: Stack) -> None:
    for version in range(6):
        reply = get_orders(stack, f"version={version}")

        assert (reply.status, reply.body) == (200, expected_orders(version))
        assert reply.headers["ETag"] == f'"{version}"'


def test_a_past_version_equals_the_reply_to_its_change(stack: Stack) -> None:
    replies = [stack.request("POST", "/counter", body={"by": by}) for by in (5, -7)]
    replies.append(stack.request("PUT", "/counter", body={"value": 40}))
    stack.record(stack.changes())

    for changed in replies:
        reply = stack.request("GET", "/counter", query=f"version={changed.body['version']}")
        assert reply.body == changed.body
        assert reply.headers["ETag"] == changed.headers["ETag"]


def test_a_counter_that_was_never_written_has_only_version_0(stack: Stack) -> None:
    assert get_orders(stack, "version=0").body == expected_orders(0)
    assert problem(get_orders(stack, "version=1")) == NOT_FOUND
    assert problem(get_orders(stack, "version=9007199254740991")) == NOT_FOUND


@pytest.mark.usefixtures("orders")
def test_a_version_above_the_current_one_is_not_found(stack: Stack) -> None:
    assert problem(get_orders(stack, "version=6")) == NOT_FOUND
    assert (
        get_orders(stack, "version=6").body["detail"]
        == "version: must be at most 5, the counter's version"
    )


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("query", ["version=2", f"at={timestamp(TIMES[1])}"])
@pytest.mark.parametrize(
    ("tags", "status"),
    [('"2"', 304), ('"5"', 200), ('"1"', 200), ('"1", W/"2"', 304), ("*", 304)],
)
def test_if_none_match_compares_with_the_past_version(
    stack: Stack, query: str, tags: str, status: int
) -> None:
    assert get_if_none_match(stack, query, tags) == (status, '"2"')


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("query", ["version=0", f"at={timestamp(TIMES[0] - 1)}"])
@pytest.mark.parametrize(("tags", "status"), [('"0"', 304), ('"5"', 200), ("*", 200)])
def test_version_0_matches_only_its_own_entity_tag(
    stack: Stack, query: str, tags: str, status: int
) -> None:
    assert get_if_none_match(stack, query, tags) == (status, '"0"')


def test_the_current_version_and_version_0_need_no_history(stack: Stack) -> None:
    make_orders(TIMES, VALUES).store(stack)

    assert get_orders(stack, "version=0").body == expected_orders(0)
    assert get_orders(stack, "version=5").body == expected_orders(5)


def test_an_unrecorded_version_is_throttled(stack: Stack) -> None:
    orders = make_orders(TIMES, VALUES)
    orders.record(stack, orders.records[:3])

    assert get_orders(stack, "version=3").status == 200
    assert problem(get_orders(stack, "version=4")) == THROTTLED


@pytest.mark.usefixtures("orders")
def test_a_missing_version_between_others_is_throttled(stack: Stack) -> None:
    forget(stack, 3)

    assert problem(get_orders(stack, "version=3")) == THROTTLED
    assert get_orders(stack, "version=2").body == expected_orders(2)
    assert get_orders(stack, "version=4").body == expected_orders(4)


# --- At a time -----------------------------------------------------------------------------------


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

    # A request that began before that time is applied late.
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


def times_going_back(back: int) -> list[int]:
    """Return 90 times at intervals of a second. Every 30th is earlier by `back` milliseconds."""
    return [
        BEGINNING + position * SECOND - (back if position % 30 == 29 else 0)
        for position in range(90)
    ]


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

    # Version 4 is at most 20 seconds earlier than version 3.
    assert get_orders_at(stack, TIMES[2] - 20 * SECOND).body == expected_orders(2)
    assert problem(get_orders_at(stack, TIMES[2])) == THROTTLED
    assert problem(get_orders_at(stack, TIMES[3])) == THROTTLED
    assert problem(get_orders_at(stack, TIMES[4] - 1)) == THROTTLED


def test_any_time_is_throttled_while_the_history_is_empty(stack: Stack) -> None:
    make_orders(TIMES, VALUES).store(stack)

    assert problem(get_orders_at(stack, TIMES[0])) == THROTTLED
    assert problem(get_orders_at(stack, TIMES[4] - 1)) == THROTTLED


@pytest.mark.usefixtures("orders")
def test_a_missing_version_throttles_only_the_times_that_it_can_have(stack: Stack) -> None:
    forget(stack, 3)

    # Version 3 is less than 20 seconds earlier than version 2.
    assert get_orders_at(stack, TIMES[1] - 20 * SECOND).body == expected_orders(1)
    for time in (TIMES[1] - 20 * SECOND + 1, TIMES[1], TIMES[2], TIMES[3] - 1):
        assert problem(get_orders_at(stack, time)) == THROTTLED
    assert get_orders_at(stack, TIMES[3]).body == expected_orders(4)


def test_a_missing_version_can_be_later_than_the_version_above_it(stack: Stack) -> None:
    orders = make_orders([BEGINNING + second * SECOND for second in (0, 60, 75, 62, 200)])
    orders.record(stack, [*orders.records[:2], *orders.records[3:]])

    # Version 3 is missing. Its time can be anything up to 82 s.
    assert get_orders_at(stack, BEGINNING + 62 * SECOND).body["version"] == 4
    assert problem(get_orders_at(stack, BEGINNING + 61 * SECOND)) == THROTTLED
    assert get_orders_at(stack, BEGINNING + 40 * SECOND).body["version"] == 1


# --- Expired entries -----------------------------------------------------------------------------


@pytest.mark.usefixtures("retention", "orders")
def test_an_expired_version_is_not_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, TIMES[2] + RETENTION_DAYS * DAY)
    forget(stack, 1, 2, 3)

    for version in (1, 2, 3):
        assert problem(get_orders(stack, f"version={version}")) == NOT_FOUND
        assert problem(get_orders_at(stack, TIMES[version - 1])) == NOT_FOUND
    assert problem(get_orders_at(stack, TIMES[3] - 1)) == NOT_FOUND
    for version in (4, 5):
        assert get_orders(stack, f"version={version}").body == expected_orders(version)
        assert get_orders_at(stack, TIMES[version - 1]).body == expected_orders(version)
    assert get_orders(stack, "version=0").body == expected_orders(0)


@pytest.mark.usefixtures("retention", "orders")
def test_the_current_counter_never_expires(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, TIMES[4] + 10 * RETENTION_DAYS * DAY)
    forget(stack, 1, 2, 3, 4, 5)

    assert get_orders(stack, "version=5").body == expected_orders(5)
    assert get_orders_at(stack, TIMES[4]).body == expected_orders(5)
    assert problem(get_orders(stack, "version=4")) == NOT_FOUND
    assert problem(get_orders_at(stack, TIMES[4] - 1)) == NOT_FOUND


@pytest.mark.usefixtures("retention", "orders")
def test_a_time_long_before_the_first_change_needs_no_expired_entry(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, TIMES[2] + RETENTION_DAYS * DAY)
    forget(stack, 1, 2, 3)

    assert get_orders_at(stack, BEGINNING - DAY).body == expected_orders(0)


def test_a_time_long_before_the_first_change_needs_no_recorded_change(
    stack: Stack,
) -> None:
    make_orders(TIMES, VALUES).store(stack)

    assert get_orders_at(stack, BEGINNING - DAY).body == expected_orders(0)


@pytest.mark.usefixtures("retention", "orders")
def test_a_missing_version_that_cannot_have_expired_is_throttled(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(stack, 1, 2, 3)

    stop_clock(monkeypatch, TIMES[0] + RETENTION_DAYS * DAY - 1)
    assert problem(get_orders(stack, "version=2")) == THROTTLED
    assert problem(get_orders_at(stack, TIMES[1])) == THROTTLED
    stop_clock(monkeypatch, TIMES[0] + RETENTION_DAYS * DAY)
    assert problem(get_orders(stack, "version=2")) == NOT_FOUND
    assert problem(get_orders_at(stack, TIMES[1])) == NOT_FOUND


@pytest.mark.usefixtures("retention")
def test_a_missing_version_above_an_existing_entry_has_not_expired(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [BEGINNING + day * DAY for day in (0, 20, 21, 22)]
    make_orders(times).record(stack)
    stop_clock(monkeypatch, BEGINNING + 31 * DAY)
    forget(stack, 1, 3)

    assert problem(get_orders(stack, "version=1")) == NOT_FOUND
    assert problem(get_orders_at(stack, times[1] - 20 * SECOND)) == NOT_FOUND
    assert get_orders(stack, "version=2").status == 200
    assert problem(get_orders(stack, "version=3")) == THROTTLED
    assert problem(get_orders_at(stack, times[1])) == THROTTLED
    assert problem(get_orders_at(stack, times[2])) == THROTTLED
    assert get_orders_at(stack, times[3]).body["version"] == 4


@pytest.mark.usefixtures("orders")
def test_without_a_retention_period_no_version_expires(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, TIMES[4] + 10_000 * DAY)
    forget(stack, 1, 2)

    assert problem(get_orders(stack, "version=2")) == THROTTLED
    assert problem(get_orders_at(stack, TIMES[1])) == THROTTLED


# --- Number of requests, and faults --------------------------------------------------------------


@pytest.mark.usefixtures("orders")
def test_only_a_past_version_needs_a_second_request(stack: Stack, wire: Wire) -> None:
    expected = {
        "": ["GetItem"],
        "version=0": ["GetItem"],
        "version=3": ["GetItem", "Query"],
        "version=5": ["GetItem"],
        "version=6": ["GetItem"],
        f"at={timestamp(TIMES[4])}": ["GetItem"],
    }

    for query, operations in expected.items():
        wire.sent.clear()
        get_orders(stack, query)
        assert wire.operations() == operations, query


@pytest.mark.usefixtures("orders")
def test_reads_of_the_past_are_strongly_consistent(stack: Stack, wire: Wire) -> None:
    get_orders(stack, "version=3")
    get_orders_at(stack, TIMES[2])

    assert len(wire.sent) > 3
    assert all(sent.parameters["ConsistentRead"] is True for sent in wire.sent)


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


def test_a_period_in_a_long_history_takes_at_most_25_reads(stack: Stack, wire: Wire) -> None:
    count = cases(full=2000, part=400)
    times = [BEGINNING + position * 10 * SECOND for position in range(count)]
    make_orders(times).record(stack)

    for order, first in itertools.product(("asc", "desc"), (1, count // 2, count - 2)):
        wire.sent.clear()
        period = f"from={timestamp(times[first - 1])}&to={timestamp(times[first + 1])}"
        assert sorted(listed_versions(stack, f"{period}&order={order}")) == [first, first + 1]
        assert len(wire.sent) <= 25


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("query", ["version=3", f"at={timestamp(TIMES[2])}"])
@pytest.mark.parametrize("fault", [reply_lost, throttled])
def test_a_read_of_the_past_without_a_reply_is_throttled(
    stack: Stack, wire: Wire, query: str, fault: Fault
) -> None:
    wire.fail("Query", itertools.repeat(fault))

    assert problem(get_orders(stack, query)) == THROTTLED


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("query", ["from", "to", "order=desc&from", "order=desc&to"])
def test_a_read_of_a_period_without_a_reply_is_throttled(
    stack: Stack, wire: Wire, query: str
) -> None:
    wire.fail("Query", itertools.repeat(reply_lost))

    path, query = "/counters/orders/history", f"{query}={timestamp(TIMES[2])}"

    assert problem(stack.request("GET", path, query=query)) == THROTTLED


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("operation", ["GetItem", "Query"])
def test_a_read_of_the_past_is_retried_after_a_lost_reply(
    stack: Stack, wire: Wire, operation: str
) -> None:
    for query in ("version=3", f"at={timestamp(TIMES[2])}"):
        wire.fail(operation, [reply_lost])
        assert get_orders(stack, query).body == expected_orders(3)


# --- A period of the history ---------------------------------------------------------------------


@pytest.mark.usefixtures("orders")
def test_a_period_includes_its_start_and_excludes_its_end(stack: Stack) -> None:
    second, fourth = timestamp(TIMES[1]), timestamp(TIMES[3])
    expected = {
        f"from={second}": [2, 3, 4, 5],
        f"from={timestamp(TIMES[1] + 1)}": [3, 4, 5],
        f"to={fourth}": [1, 2, 3],
        f"to={timestamp(TIMES[3] + 1)}": [1, 2, 3, 4],
        f"from={second}&to={fourth}": [2, 3],
        f"from={second}&to={timestamp(TIMES[1] + 1)}": [2],
        f"from={timestamp(TIMES[1] + 1)}&to={timestamp(TIMES[2])}": [],
        f"from={timestamp(TIMES[4] + 1)}": [],
        f"to={timestamp(TIMES[0])}": [],
        "from=1970-01-01T00:00:00Z&to=9999-12-31T23:59:59Z": [1, 2, 3, 4, 5],
    }

    assert {query: listed_versions(stack, query) for query in expected} == expected
    descending = {query: listed_versions(stack, f"{query}&order=desc") for query in expected}
    assert descending == {query: versions[::-1] for query, versions in expected.items()}


@pytest.mark.usefixtures("orders")
def test_after_continues_within_the_period(stack: Stack) -> None:
    period = f"from={timestamp(TIMES[1])}&to={timestamp(TIMES[4])}"
    expected = {
        "after=0": [2, 3, 4],
        "after=2": [3, 4],
        "after=4": [],
        "after=9007199254740991": [],
        "order=desc&after=9007199254740991": [4, 3, 2],
        "order=desc&after=4": [3, 2],
        "order=desc&after=2": [],
        "order=desc&after=0": [],
    }

    assert {query: listed_versions(stack, f"{period}&{query}") for query in expected} == expected


@pytest.mark.usefixtures("orders")
def test_the_link_to_the_next_page_keeps_the_period(stack: Stack) -> None:
    query = "from=2025-01-15T09:01:00%2B01:00&to=2025-01-15T08:04:00Z&limit=1"
    path = "/counters/orders/history"

    link = target(stack.request("GET", path, query=query).headers["Link"])

    assert link == (
        "?limit=1&order=asc&after=2"
        "&from=2025-01-15T09%3A01%3A00%2B01%3A00&to=2025-01-15T08%3A04%3A00Z"
    )
    for order, expected in (("asc", [2, 3, 4]), ("desc", [4, 3, 2])):
        pages = list(follow(stack, path, f"{query}&order={order}"))
        assert [[entry["version"] for entry in page] for page in pages] == [[v] for v in expected]


@pytest.mark.usefixtures("orders")
def test_the_link_has_only_the_period_parameters_of_the_request(stack: Stack) -> None:
    for name, other in (("from", "to"), ("to", "from")):
        query = f"limit=1&{name}={timestamp(TIMES[3])}"
        link = stack.request("GET", "/counters/orders/history", query=query).headers["Link"]
        assert f"&{name}=" in link
        assert f"&{other}=" not in link


def test_a_period_is_complete_if_times_go_back(stack: Stack) -> None:
    seconds = [40, 21, 60, 41, 59, 80, 61, 99]
    times = [BEGINNING + second * SECOND for second in seconds]
    make_orders(times).record(stack)

    for start, end in itertools.combinations(sorted(times), 2):
        expected = [version for version, time in enumerate(times, 1) if start <= time < end]
        period = f"from={timestamp(start)}&to={timestamp(end)}"
        assert listed_versions(stack, period) == expected
        assert listed_versions(stack, f"{period}&order=desc") == expected[::-1]


def test_a_period_in_a_longer_history_is_complete_if_times_go_back(stack: Stack) -> None:
    times = times_going_back(20 * SECOND - 1)
    make_orders(times).record(stack)

    for late in times[29::30]:
        start, end = late - 2 * SECOND, late + 2 * SECOND
        expected = [version for version, time in enumerate(times, 1) if start <= time < end]
        period = f"from={timestamp(start)}&to={timestamp(end)}"
        assert listed_versions(stack, period) == expected
        assert listed_versions(stack, f"{period}&order=desc") == expected[::-1]


def test_a_period_with_missing_versions_has_all_others(stack: Stack) -> None:
    times = [BEGINNING + position * MINUTE for position in range(100)]
    make_orders(times).record(stack)
    forget(stack, *range(1, 20), *range(30, 40), 50, 52)

    period = f"from={timestamp(times[9])}&to={timestamp(times[54])}"

    expected = [*range(20, 30), *range(40, 50), 51, 53, 54]
    assert listed_versions(stack, period) == expected
    assert listed_versions(stack, f"{period}&order=desc") == expected[::-1]


# --- Random histories, compared with a model ------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A change of the model."""

    version: int
    time: int
    previous_value: int
    value: int
    operation: str

    @property
    def entry(self) -> dict[str, object]:
        return {
            "version": self.version,
            "value": self.value,
            "previous_value": self.previous_value,
            "by": self.value - self.previous_value,
            "increase": max(self.value - self.previous_value, 0),
            "decrease": max(self.previous_value - self.value, 0),
            "operation": self.operation,
            "actor": "somebody",
            "created_at": timestamp(self.time),
        }


def version_at(times: Sequence[int], time: int) -> int:
    """Return the highest version that was made at or before a time; 0 if there was none."""
    return max((version for version, each in enumerate(times, 1) if each <= time), default=0)


def expected_state(changes: Sequence[Change], version: int) -> dict[str, object]:
    """Return the expected state of a counter at a version, without its id."""
    if not version:
        return {"value": 0, "version": 0, "created_at": None, "updated_at": None}
    return {
        "value": changes[version - 1].value,
        "version": version,
        "created_at": timestamp(changes[0].time),
        "updated_at": timestamp(changes[version - 1].time),
    }


# PACES: time between two changes. DELAYS: time from the beginning of a request to its change.
PACES = [
    st.integers(0, 40),
    st.integers(0, 3 * SECOND),
    st.integers(0, 30 * SECOND),
    st.integers(0, 2 * HOUR),
    st.one_of(st.just(0), st.integers(0, 20 * SECOND), st.integers(0, 3 * DAY)),
]
DELAYS = st.one_of(st.just(0), st.integers(0, 10 * SECOND), st.integers(0, 20 * SECOND - 1))


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    count = draw(st.integers(1, 60))
    pace = draw(st.sampled_from(PACES))
    delays = draw(st.sampled_from([st.just(0), DELAYS]))
    steps = st.tuples(pace, delays, st.integers(-9, 9), st.booleans())
    changes: list[Change] = []
    applied, value = BEGINNING, 0
    for gap, delay, by, is_set in draw(st.lists(steps, min_size=count, max_size=count)):
        applied += gap
        # Only a set can leave the value unchanged.
        operation = "set" if is_set or not by else "increment"
        changes.append(Change(len(changes) + 1, applied - delay, value, value + by, operation))
        value += by
    return changes


def times_to_check(times: Sequence[int]) -> list[int]:
    """Return the times of all changes, and the milliseconds just before and after each."""
    around = {time + near for time in times for near in (-1, 0, 1)}
    outside = {min(times) - DAY, min(times) - 20 * SECOND, max(times) + DAY}
    return sorted(around | outside)


def sample(numbers: list[int], size: int, rng: random.Random) -> list[int]:
    return sorted(rng.sample(numbers, min(size, len(numbers))))


def periods(times: list[int], count: int, rng: random.Random) -> Iterator[Mapping[str, int]]:
    """Yield periods with the parameters `from` and `to`, or only one of them, or none."""
    for _ in range(count):
        start, end = sorted(rng.sample(times, 2))
        period = {"from": start, "to": end}
        for name in rng.choice([[], [], ["from"], ["to"], ["from", "to"]]):
            del period[name]
        yield period


def test_reads_of_random_histories_agree_with_the_model(stack: Stack) -> None:
    runs = itertools.count()
    requests = 0

    @examples(full=300, part=6)
    @given(histories(), st.integers(0, 2**32))
    def check(changes: list[Change], seed: int) -> None:
        nonlocal requests
        rng = random.Random(seed)
        name = f"run{next(runs)}"
        past = Past(name)
        for change in changes:
            past.change(change.time / 1000, change.value - change.previous_value, change.operation)
        past.record(stack)
        times = [change.time for change in changes]
        last = len(changes)

        def get(query: str) -> Any:  # noqa: ANN401
            nonlocal requests
            requests += 1
            reply = stack.request("GET", f"/counters/{name}", query=query)
            if reply.status != 200:
                return reply.status
            assert reply.headers["ETag"] == f'"{reply.body["version"]}"'
            return reply.body

        def expected(version: int) -> dict[str, object]:
            return {"counter_id": name, **expected_state(changes, version)}

        for version in sample(list(range(last + 1)), cases(full=61, part=8), rng):
            assert get(f"version={version}") == expected(version)
        assert get(f"version={last + 1}") == 404
        for time in sample(times_to_check(times), cases(full=30, part=5), rng):
            assert get(f"at={timestamp(time)}") == expected(version_at(times, time))
        for period in periods(times_to_check(times), cases(full=5, part=1), rng):
            start, end = period.get("from", times[0] - DAY), period.get("to", times[-1] + 2 * DAY)
            order = rng.choice(["asc", "desc"])
            limit = max(1, last // rng.randint(1, 5))
            query = "&".join(
                [f"order={order}&limit={limit}"]
                + [f"{name}={timestamp(time)}" for name, time in period.items()]
            )
            entries = [change.entry for change in changes if start <= change.time < end]
            pages = list(follow(stack, f"/counters/{name}/history", query))
            assert list(itertools.chain(*pages)) == entries[:: 1 if order == "asc" else -1]
            assert all(len(page) == limit for page in pages[:-1])
            assert pages[-1] or not entries
        # Delete the entries: moto scans the whole table for each Query.
        forget(stack, *range(1, last + 1), counter_id=name)

    with silence():
        check()

    print(f"{requests} reads of {next(runs)} histories")
    assert requests > cases(full=300, part=6) * 5


def random_times(rng: random.Random) -> list[int]:
    """Return the times of 60 to 150 changes, enough that a search for a time reads the trend."""
    applied, times = BEGINNING, []
    longest = rng.choice([MINUTE, 10 * MINUTE, 2 * HOUR])
    for _ in range(rng.randint(60, 150)):
        applied += rng.choice([0, rng.randint(0, 10 * SECOND), rng.randint(0, longest)])
        times.append(applied - rng.choice([0, rng.randint(0, 20 * SECOND - 1)]))
    return times


def corrupt_trend(stack: Stack, name: str, last: int, rng: random.Random) -> None:
    """Corrupt items of a counter's trend.

    Each of them is deleted, gets stale or wrong versions, moves to another hour, or is replaced by
    a malformed item.
    """
    table = stack.refs["TrendTable"]
    share = rng.choice([0.2, 0.5, 1])
    for item in stack.items("TrendTable"):
        if item["counter_id"]["S"] != name or rng.random() > share:
            continue
        key = {"counter_id": item["counter_id"], "hour": item["hour"]}
        first, end = (int(item[version]["N"]) for version in ("first_version", "last_version"))
        stale = {"N": str(rng.randint(first, end))}
        false = [{"N": str(rng.randint(-1, last + 9))} for _ in range(2)]
        hour = clock.seconds(item["hour"]["S"]) + 3600 * rng.randint(-9, 9)
        wrong: list[Any] = [
            None,
            {**item, "last_version": stale},
            {**item, "first_version": false[0], "last_version": false[1]},
            {**item, "hour": {"S": clock.timestamp(hour)}},
            {**key, "first_version": {"N": "0.5"}, "last_version": {"S": "many"}},
        ]
        stack.dynamodb.delete_item(TableName=table, Key=key)
        if replacement := rng.choice(wrong):
            stack.dynamodb.put_item(TableName=table, Item=replacement)


def test_a_corrupt_trend_does_not_change_any_result(stack: Stack, wire: Wire) -> None:
    runs = itertools.count()

    @examples(full=300, part=5)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        name = f"run{next(runs)}"
        past = Past(name)
        times = random_times(rng)
        changes = [
            Change(version, time, version - 1, version, "increment")
            for version, time in enumerate(times, 1)
        ]
        for time in times:
            past.change(time / 1000, 1)
        past.record(stack)
        last = len(times)
        corrupt_trend(stack, name, last, rng)
        missing = rng.choice([[], rng.sample(range(1, last + 1), 9), range(1, last // 2)])
        forget(stack, *missing, counter_id=name)

        for time in sample(times_to_check(times), cases(full=30, part=8), rng):
            reply = stack.request("GET", f"/counters/{name}", query=f"at={timestamp(time)}")
            if missing and reply.status != 200:
                assert problem(reply) == THROTTLED
            else:
                expected = {"counter_id": name, **expected_state(changes, version_at(times, time))}
                assert reply.body == expected
        for period in periods(times_to_check(times), cases(full=8, part=3), rng):
            start, end = period.get("from", times[0] - DAY), period.get("to", times[-1] + 2 * DAY)
            present = [change for change in changes if change.version not in missing]
            entries = [change.entry for change in present if start <= change.time < end]
            order = rng.choice(["asc", "desc"])
            query = "&".join(
                [f"order={order}&limit=40"]
                + [f"{name}={timestamp(time)}" for name, time in period.items()]
            )
            pages = list(follow(stack, f"/counters/{name}/history", query))
            assert list(itertools.chain(*pages)) == entries[:: 1 if order == "asc" else -1]
        if not missing:
            start = rng.choice(times) // MINUTE * MINUTE
            query = f"interval=minute&from={timestamp(start)}&to={timestamp(start + HOUR - 1)}"
            minutes = stack.request("GET", f"/counters/{name}/trend", query=query).body
            for bucket, begin in zip(minutes, range(start, start + HOUR, MINUTE), strict=True):
                end = begin + MINUTE
                assert bucket["changes"] == sum(begin <= time < end for time in times)
                assert (
                    bucket["close"] == expected_state(changes, version_at(times, end - 1))["value"]
                )
        forget(stack, *range(1, last + 1), counter_id=name)

    with silence():
        check()

    tables = [sent.parameters.get("TableName") for sent in wire.sent if sent.operation == "Query"]
    trend_reads = tables.count(stack.refs["TrendTable"])
    print(f"{trend_reads} reads of the trends of {next(runs)} histories")
    assert trend_reads > cases(full=300, part=5) * 5
