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

# Versions 1 to 5 of the counter "orders": when each came, and its value.
TIMES = [BEGINNING + minutes * MINUTE for minutes in range(5)]
VALUES = [1, 6, -4, 10, 11]

RETENTION = 30  # days, where a test has one


def past(times: Sequence[int], values: Sequence[int] | None = None) -> Past:
    """Return a counter "orders" that had these values at these times: 1, 2, 3 … if not given."""
    made = Past("orders")
    value = 0
    for time, new in zip(times, values or range(1, len(times) + 1), strict=True):
        made.change(time / 1000, new - value)
        value = new
    return made


@pytest.fixture
def orders(stack: Stack) -> Past:
    """The counter "orders", recorded, between neighbours."""
    made = past(TIMES, VALUES)

    def record() -> None:
        for name in ("order", "orders2"):
            neighbour = Past(name)
            for time in TIMES:
                neighbour.change(time / 1000 + 30, 100)
            neighbour.record(stack)
        made.record(stack)

    prepare_once(stack, "orders between neighbours", record)
    return made


def ask(stack: Stack, query: str) -> Reply:
    return stack.request("GET", "/counters/orders", query=query)


def conditional(stack: Stack, query: str, tags: str) -> tuple[int, str]:
    """Return the status and the ETag that who has these versions of "orders" is answered."""
    path, headers = "/counters/orders", {"If-None-Match": tags}
    function, route, parameters = stack.route("GET", path)
    event = proxy_event(route, path, parameters, query, headers, b"", {"sub": "somebody"})
    response = stack.invoke(function.name, event)
    assert (response["body"] == "") == (response["statusCode"] == 304)
    return response["statusCode"], response["headers"]["ETag"]


def at(stack: Stack, time: int) -> Reply:
    return ask(stack, f"at={timestamp(time)}")


def listed(stack: Stack, query: str) -> list[int]:
    """Return the versions on the one page of the history that a query asks for."""
    reply = stack.request("GET", "/counters/orders/history", query=query)
    assert reply.status == 200, reply.body
    assert "Link" not in reply.headers
    return [entry["version"] for entry in reply.body]


def counter(version: int) -> dict[str, object]:
    """Return "orders" as it was at a version."""
    return {
        "counter_id": "orders",
        "value": VALUES[version - 1] if version else 0,
        "version": version,
        "created_at": timestamp(TIMES[0]) if version else None,
        "updated_at": timestamp(TIMES[version - 1]) if version else None,
    }


@pytest.fixture
def retention(stack: Stack) -> None:
    """Keep the history for RETENTION days."""
    stack.refs["HistoryDays"] = str(RETENTION)


# --- At a version --------------------------------------------------------------------------------


@pytest.mark.usefixtures("orders")
def test_the_counter_at_each_of_its_versions(stack: Stack) -> None:
    for version in range(6):
        reply = ask(stack, f"version={version}")

        assert (reply.status, reply.body) == (200, counter(version))
        assert reply.headers["ETag"] == f'"{version}"'


def test_a_past_version_equals_the_reply_to_its_change(stack: Stack) -> None:
    answers = [stack.request("POST", "/counter", body={"by": by}) for by in (5, -7)]
    answers.append(stack.request("PUT", "/counter", body={"value": 40}))
    stack.record(stack.changes())

    for answer in answers:
        reply = stack.request("GET", "/counter", query=f"version={answer.body['version']}")
        assert reply.body == answer.body
        assert reply.headers["ETag"] == answer.headers["ETag"]


def test_a_counter_that_was_never_written_has_only_version_0(stack: Stack) -> None:
    assert ask(stack, "version=0").body == counter(0)
    assert problem(ask(stack, "version=1")) == NOT_FOUND
    assert problem(ask(stack, "version=9007199254740991")) == NOT_FOUND


@pytest.mark.usefixtures("orders")
def test_a_version_above_the_current_one_is_not_found(stack: Stack) -> None:
    assert problem(ask(stack, "version=6")) == NOT_FOUND
    assert (
        ask(stack, "version=6").body["detail"]
        == "version: must be at most 5, the counter's version"
    )


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("query", ["version=2", f"at={timestamp(TIMES[1])}"])
@pytest.mark.parametrize(
    ("tags", "status"),
    [('"2"', 304), ('"5"', 200), ('"1"', 200), ('"1", W/"2"', 304), ("*", 304)],
)
def test_a_client_that_has_the_past_version_gets_304(
    stack: Stack, query: str, tags: str, status: int
) -> None:
    assert conditional(stack, query, tags) == (status, '"2"')


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("query", ["version=0", f"at={timestamp(TIMES[0] - 1)}"])
@pytest.mark.parametrize(("tags", "status"), [('"0"', 304), ('"5"', 200), ("*", 200)])
def test_version_0_matches_only_its_own_entity_tag(
    stack: Stack, query: str, tags: str, status: int
) -> None:
    assert conditional(stack, query, tags) == (status, '"0"')


def test_the_current_version_and_version_0_need_no_history(stack: Stack) -> None:
    past(TIMES, VALUES).store(stack)

    assert ask(stack, "version=0").body == counter(0)
    assert ask(stack, "version=5").body == counter(5)


def test_a_version_that_is_not_recorded_yet_is_throttled(stack: Stack) -> None:
    made = past(TIMES, VALUES)
    made.record(stack, made.records[:3])

    assert ask(stack, "version=3").status == 200
    assert problem(ask(stack, "version=4")) == THROTTLED


@pytest.mark.usefixtures("orders")
def test_a_version_that_is_missing_between_others_is_throttled(stack: Stack) -> None:
    forget(stack, 3)

    assert problem(ask(stack, "version=3")) == THROTTLED
    assert ask(stack, "version=2").body == counter(2)
    assert ask(stack, "version=4").body == counter(4)


# --- At a time -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("orders")
def test_the_counter_at_and_around_each_of_its_changes(stack: Stack) -> None:
    for version, time in enumerate(TIMES, 1):
        assert at(stack, time - 1).body == counter(version - 1)
        reply = at(stack, time)
        assert (reply.status, reply.body) == (200, counter(version))
        assert reply.headers["ETag"] == f'"{version}"'
        assert at(stack, time + 1).body == counter(version)


def test_a_counter_that_was_never_written_was_never_written_at_any_time(stack: Stack) -> None:
    for year in (1970, 2020, 2025):
        assert ask(stack, f"at={year}-01-01T00:00:00Z").body == counter(0)


@pytest.mark.usefixtures("orders")
def test_before_the_first_change_the_counter_is_as_never_written(stack: Stack) -> None:
    assert ask(stack, "at=1970-01-01T00:00:00Z").body == counter(0)
    assert at(stack, BEGINNING - 10 * SECOND).body == counter(0)


@pytest.mark.usefixtures("orders")
def test_a_time_in_the_future_is_refused_and_nothing_is_read(
    stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, TIMES[4] + HOUR)
    wire.sent.clear()

    for query in (
        f"at={timestamp(TIMES[4] + HOUR + 1)}",
        f"at={timestamp(TIMES[4] + DAY)}",
        "at=9999-12-31T23:59:59.999Z",
    ):
        reply = ask(stack, query)
        assert problem(reply) == (400, "invalid-request", None)
        assert reply.body["detail"] == "at: must not be in the future"
    assert wire.operations() == []


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize(
    ("ago", "retry_after"),
    [(0, 21), (1, 20), (1000, 20), (1001, 19), (19_000, 2), (19_001, 1), (19_999, 1), (20_000, 1)],
)
def test_a_time_whose_changes_may_still_come_is_throttled_until_none_can(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, ago: int, retry_after: int
) -> None:
    now = TIMES[4] + HOUR
    stop_clock(monkeypatch, now)
    reply = at(stack, now - ago)

    assert problem(reply) == (503, "throttled", str(retry_after))
    assert reply.body["detail"].startswith("at: a change at that time may still be in progress.")

    stop_clock(monkeypatch, now + retry_after * SECOND)
    assert at(stack, now - ago).body == counter(5)


@pytest.mark.usefixtures("orders")
def test_a_time_just_before_the_apply_window_is_answered(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = TIMES[4] + HOUR
    stop_clock(monkeypatch, now)

    assert at(stack, now - 20 * SECOND - 1).body == counter(5)
    assert problem(at(stack, now - 20 * SECOND)) == THROTTLED


def test_the_time_of_the_last_change_is_not_answered_too_early(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = past(TIMES[:2])
    made.record(stack)
    stop_clock(monkeypatch, TIMES[1] + 10 * SECOND)
    assert at(stack, TIMES[1]).status == 503

    # A request that began before that time is applied only now.
    made.record(stack, [made.change((TIMES[1] - SECOND) / 1000, 1)])

    stop_clock(monkeypatch, TIMES[1] + 20 * SECOND + 1)
    assert at(stack, TIMES[1]).body["version"] == 3


@pytest.mark.usefixtures("orders")
def test_a_time_may_be_written_with_any_offset_and_finer_than_a_millisecond(stack: Stack) -> None:
    # TIMES[1] is 2025-01-15T08:01:00Z.
    expected = {
        "2025-01-15T09:01:00+01:00": 2,
        "2025-01-15T09:00:59.999+01:00": 1,
        "2025-01-15T04:31:00-03:30": 2,
        "2025-01-15t08:01:00z": 2,
        "2025-01-15T08:00:59.999999Z": 1,
        "2025-01-15T08:01:00.000001Z": 2,
    }

    given = {text: ask(stack, f"at={quote(text)}").body["version"] for text in expected}

    assert given == expected


def test_the_last_of_several_changes_at_one_time_counts(stack: Stack) -> None:
    past([BEGINNING] * 3 + [BEGINNING + 1] * 40 + [BEGINNING + MINUTE]).record(stack)

    assert at(stack, BEGINNING - 1).body["version"] == 0
    assert at(stack, BEGINNING).body["version"] == 3
    assert at(stack, BEGINNING + 1).body["version"] == 43


def test_where_times_go_back_the_highest_version_up_to_the_time_counts(stack: Stack) -> None:
    seconds = [10, 0, 20, 5, 60, 42, 41, 90]
    past([BEGINNING + second * SECOND for second in seconds]).record(stack)
    expected = {-1: 0, 0: 2, 4: 2, 5: 4, 10: 4, 20: 4, 40: 4, 41: 7, 42: 7, 60: 7, 89: 7, 90: 8}

    given = {second: at(stack, BEGINNING + second * SECOND).body["version"] for second in expected}

    assert given == expected


def late_ones(back: int) -> list[int]:
    """Return 90 times, a second apart, of which each 30th goes back: what is above is younger."""
    return [
        BEGINNING + position * SECOND - (back if position % 30 == 29 else 0)
        for position in range(90)
    ]


@pytest.mark.parametrize("back", [1, 20 * SECOND - 1])
def test_times_may_go_back_by_almost_the_apply_window_anywhere(stack: Stack, back: int) -> None:
    times = late_ones(back)
    past(times).record(stack)

    for time in sorted({near for late in times[29::30] for near in (late - 1, late, late + 1)}):
        assert at(stack, time).body["version"] == version_at(times, time)


def test_at_and_after_its_last_change_the_counter_needs_no_history(stack: Stack) -> None:
    past(TIMES, VALUES).store(stack)

    assert at(stack, TIMES[4]).body == counter(5)
    assert at(stack, TIMES[4] + DAY).body == counter(5)


def test_a_counter_with_one_change_needs_no_history(stack: Stack) -> None:
    past(TIMES[:1]).store(stack)

    assert at(stack, TIMES[0] - 1).body == counter(0)
    assert at(stack, TIMES[0]).body == counter(1)


def test_a_time_whose_changes_are_not_recorded_yet_is_throttled(stack: Stack) -> None:
    made = past(TIMES, VALUES)
    made.record(stack, made.records[:3])

    # Version 4 can be at most 20 seconds older than version 3.
    assert at(stack, TIMES[2] - 20 * SECOND).body == counter(2)
    assert problem(at(stack, TIMES[2])) == THROTTLED
    assert problem(at(stack, TIMES[3])) == THROTTLED
    assert problem(at(stack, TIMES[4] - 1)) == THROTTLED


def test_a_time_without_any_history_yet_is_throttled(stack: Stack) -> None:
    past(TIMES, VALUES).store(stack)

    assert problem(at(stack, TIMES[0])) == THROTTLED
    assert problem(at(stack, TIMES[4] - 1)) == THROTTLED


@pytest.mark.usefixtures("orders")
def test_a_missing_version_matters_only_to_the_times_at_which_it_could_be(stack: Stack) -> None:
    forget(stack, 3)

    # It is less than 20 seconds older than version 2.
    assert at(stack, TIMES[1] - 20 * SECOND).body == counter(1)
    for time in (TIMES[1] - 20 * SECOND + 1, TIMES[1], TIMES[2], TIMES[3] - 1):
        assert problem(at(stack, time)) == THROTTLED
    assert at(stack, TIMES[3]).body == counter(4)


def test_a_missing_version_may_be_younger_than_those_around_it(stack: Stack) -> None:
    made = past([BEGINNING + second * SECOND for second in (0, 60, 75, 62, 200)])
    made.record(stack, [*made.records[:2], *made.records[3:]])

    # Version 3 is missing: it could be of any time up to 82.
    assert at(stack, BEGINNING + 62 * SECOND).body["version"] == 4
    assert problem(at(stack, BEGINNING + 61 * SECOND)) == THROTTLED
    assert at(stack, BEGINNING + 40 * SECOND).body["version"] == 1


# --- What has expired ----------------------------------------------------------------------------


@pytest.mark.usefixtures("retention", "orders")
def test_an_expired_version_is_not_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, TIMES[2] + RETENTION * DAY)
    forget(stack, 1, 2, 3)

    for version in (1, 2, 3):
        assert problem(ask(stack, f"version={version}")) == NOT_FOUND
        assert problem(at(stack, TIMES[version - 1])) == NOT_FOUND
    assert problem(at(stack, TIMES[3] - 1)) == NOT_FOUND
    for version in (4, 5):
        assert ask(stack, f"version={version}").body == counter(version)
        assert at(stack, TIMES[version - 1]).body == counter(version)
    assert ask(stack, "version=0").body == counter(0)


@pytest.mark.usefixtures("retention", "orders")
def test_the_current_counter_never_expires(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, TIMES[4] + 10 * RETENTION * DAY)
    forget(stack, 1, 2, 3, 4, 5)

    assert ask(stack, "version=5").body == counter(5)
    assert at(stack, TIMES[4]).body == counter(5)
    assert problem(ask(stack, "version=4")) == NOT_FOUND
    assert problem(at(stack, TIMES[4] - 1)) == NOT_FOUND


@pytest.mark.usefixtures("retention", "orders")
def test_expired_entries_do_not_matter_long_before_the_first_change(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, TIMES[2] + RETENTION * DAY)
    forget(stack, 1, 2, 3)

    assert at(stack, BEGINNING - DAY).body == counter(0)


def test_unrecorded_changes_do_not_matter_long_before_the_first_change(
    stack: Stack,
) -> None:
    past(TIMES, VALUES).store(stack)

    assert at(stack, BEGINNING - DAY).body == counter(0)


@pytest.mark.usefixtures("retention", "orders")
def test_a_missing_version_that_cannot_have_expired_is_throttled(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(stack, 1, 2, 3)

    stop_clock(monkeypatch, TIMES[0] + RETENTION * DAY - 1)
    assert problem(ask(stack, "version=2")) == THROTTLED
    assert problem(at(stack, TIMES[1])) == THROTTLED
    stop_clock(monkeypatch, TIMES[0] + RETENTION * DAY)
    assert problem(ask(stack, "version=2")) == NOT_FOUND
    assert problem(at(stack, TIMES[1])) == NOT_FOUND


@pytest.mark.usefixtures("retention")
def test_a_version_above_an_entry_that_is_there_has_not_expired(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [BEGINNING + day * DAY for day in (0, 20, 21, 22)]
    past(times).record(stack)
    stop_clock(monkeypatch, BEGINNING + 31 * DAY)
    forget(stack, 1, 3)

    assert problem(ask(stack, "version=1")) == NOT_FOUND
    assert problem(at(stack, times[1] - 20 * SECOND)) == NOT_FOUND
    assert ask(stack, "version=2").status == 200
    assert problem(ask(stack, "version=3")) == THROTTLED
    assert problem(at(stack, times[1])) == THROTTLED
    assert problem(at(stack, times[2])) == THROTTLED
    assert at(stack, times[3]).body["version"] == 4


@pytest.mark.usefixtures("orders")
def test_nothing_expires_by_default(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, TIMES[4] + 10_000 * DAY)
    forget(stack, 1, 2)

    assert problem(ask(stack, "version=2")) == THROTTLED
    assert problem(at(stack, TIMES[1])) == THROTTLED


# --- What it costs, and what if there is no answer -----------------------------------------------


@pytest.mark.usefixtures("orders")
def test_only_a_read_of_the_past_takes_more_than_one_request(stack: Stack, wire: Wire) -> None:
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
        ask(stack, query)
        assert wire.operations() == operations, query


@pytest.mark.usefixtures("orders")
def test_a_read_of_the_past_is_strongly_consistent(stack: Stack, wire: Wire) -> None:
    ask(stack, "version=3")
    at(stack, TIMES[2])

    assert len(wire.sent) > 3
    assert all(sent.parameters["ConsistentRead"] is True for sent in wire.sent)


def test_a_time_in_a_long_history_is_found_with_few_reads(stack: Stack, wire: Wire) -> None:
    count = cases(full=2000, part=400)
    times = [BEGINNING + position * 10 * SECOND for position in range(count)]
    past(times).record(stack)

    for version in (0, 1, 2, count // 2, count - 26, count - 25, count - 24, count - 1):
        wire.sent.clear()
        assert at(stack, BEGINNING + version * 10 * SECOND - 1).body["version"] == version
        assert len(wire.sent) <= 1 + 25


def test_a_period_in_a_long_history_is_found_with_few_reads(stack: Stack, wire: Wire) -> None:
    count = cases(full=2000, part=400)
    times = [BEGINNING + position * 10 * SECOND for position in range(count)]
    past(times).record(stack)

    for order, first in itertools.product(("asc", "desc"), (1, count // 2, count - 2)):
        wire.sent.clear()
        period = f"from={timestamp(times[first - 1])}&to={timestamp(times[first + 1])}"
        assert sorted(listed(stack, f"{period}&order={order}")) == [first, first + 1]
        assert len(wire.sent) <= 25


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("query", ["version=3", f"at={timestamp(TIMES[2])}"])
@pytest.mark.parametrize("fault", [reply_lost, throttled])
def test_a_read_of_the_past_without_a_reply_is_throttled(
    stack: Stack, wire: Wire, query: str, fault: Fault
) -> None:
    wire.fail("Query", itertools.repeat(fault))

    assert problem(ask(stack, query)) == THROTTLED


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
def test_a_read_of_the_past_whose_reply_is_lost_is_repeated(
    stack: Stack, wire: Wire, operation: str
) -> None:
    for query in ("version=3", f"at={timestamp(TIMES[2])}"):
        wire.fail(operation, [reply_lost])
        assert ask(stack, query).body == counter(3)


# --- A period ------------------------------------------------------------------------------------


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

    assert {query: listed(stack, query) for query in expected} == expected
    backwards = {query: listed(stack, f"{query}&order=desc") for query in expected}
    assert backwards == {query: versions[::-1] for query, versions in expected.items()}


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

    assert {query: listed(stack, f"{period}&{query}") for query in expected} == expected


@pytest.mark.usefixtures("orders")
def test_the_link_to_the_next_page_has_the_period(stack: Stack) -> None:
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
def test_the_link_has_only_the_parameters_of_the_request(stack: Stack) -> None:
    for name, other in (("from", "to"), ("to", "from")):
        query = f"limit=1&{name}={timestamp(TIMES[3])}"
        link = stack.request("GET", "/counters/orders/history", query=query).headers["Link"]
        assert f"&{name}=" in link
        assert f"&{other}=" not in link


def test_a_period_is_complete_where_times_go_back(stack: Stack) -> None:
    seconds = [40, 21, 60, 41, 59, 80, 61, 99]
    times = [BEGINNING + second * SECOND for second in seconds]
    past(times).record(stack)

    for start, end in itertools.combinations(sorted(times), 2):
        expected = [version for version, time in enumerate(times, 1) if start <= time < end]
        period = f"from={timestamp(start)}&to={timestamp(end)}"
        assert listed(stack, period) == expected
        assert listed(stack, f"{period}&order=desc") == expected[::-1]


def test_a_period_in_the_middle_is_complete_where_times_go_back(stack: Stack) -> None:
    times = late_ones(20 * SECOND - 1)
    past(times).record(stack)

    for late in times[29::30]:
        start, end = late - 2 * SECOND, late + 2 * SECOND
        expected = [version for version, time in enumerate(times, 1) if start <= time < end]
        period = f"from={timestamp(start)}&to={timestamp(end)}"
        assert listed(stack, period) == expected
        assert listed(stack, f"{period}&order=desc") == expected[::-1]


def test_a_period_with_missing_versions_has_the_others(stack: Stack) -> None:
    times = [BEGINNING + position * MINUTE for position in range(100)]
    past(times).record(stack)
    forget(stack, *range(1, 20), *range(30, 40), 50, 52)

    period = f"from={timestamp(times[9])}&to={timestamp(times[54])}"

    expected = [*range(20, 30), *range(40, 50), 51, 53, 54]
    assert listed(stack, period) == expected
    assert listed(stack, f"{period}&order=desc") == expected[::-1]


# --- Any history, against a model of it in memory -------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A change of a counter, as the history has it."""

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
    """Return the highest version that is not younger than a time; 0 if none is."""
    return max((version for version, made in enumerate(times, 1) if made <= time), default=0)


def as_of(changes: Sequence[Change], version: int) -> dict[str, object]:
    """Return what a counter's answer tells beside its name."""
    if not version:
        return {"value": 0, "version": 0, "created_at": None, "updated_at": None}
    return {
        "value": changes[version - 1].value,
        "version": version,
        "created_at": timestamp(changes[0].time),
        "updated_at": timestamp(changes[version - 1].time),
    }


# How much later the next request is applied, and how long before that it began.
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
        # Only a set may leave the value as it is.
        operation = "set" if is_set or not by else "increment"
        changes.append(Change(len(changes) + 1, applied - delay, value, value + by, operation))
        value += by
    return changes


def moments(times: Sequence[int]) -> list[int]:
    """Return every time at which, or around which, the answer may change."""
    around = {time + near for time in times for near in (-1, 0, 1)}
    outside = {min(times) - DAY, min(times) - 20 * SECOND, max(times) + DAY}
    return sorted(around | outside)


def some(of: list[int], most: int, chance: random.Random) -> list[int]:
    return sorted(chance.sample(of, min(most, len(of))))


def periods(of: list[int], count: int, chance: random.Random) -> Iterator[Mapping[str, int]]:
    """Yield the parameters `from` and `to` of periods, some of which have only one or none."""
    for _ in range(count):
        start, end = sorted(chance.sample(of, 2))
        period = {"from": start, "to": end}
        for name in chance.choice([[], [], ["from"], ["to"], ["from", "to"]]):
            del period[name]
        yield period


def test_any_history_answers_like_the_model(stack: Stack) -> None:
    runs = itertools.count()
    asked = 0

    @examples(full=300, part=6)
    @given(histories(), st.integers(0, 2**32))
    def check(changes: list[Change], seed: int) -> None:
        nonlocal asked
        chance = random.Random(seed)
        name = f"run{next(runs)}"
        made = Past(name)
        for change in changes:
            made.change(change.time / 1000, change.value - change.previous_value, change.operation)
        made.record(stack)
        times = [change.time for change in changes]
        last = len(changes)

        def get(query: str) -> Any:  # noqa: ANN401
            nonlocal asked
            asked += 1
            reply = stack.request("GET", f"/counters/{name}", query=query)
            if reply.status != 200:
                return reply.status
            assert reply.headers["ETag"] == f'"{reply.body["version"]}"'
            return reply.body

        def expected(version: int) -> dict[str, object]:
            return {"counter_id": name, **as_of(changes, version)}

        for version in some(list(range(last + 1)), cases(full=61, part=8), chance):
            assert get(f"version={version}") == expected(version)
        assert get(f"version={last + 1}") == 404
        for time in some(moments(times), cases(full=30, part=5), chance):
            assert get(f"at={timestamp(time)}") == expected(version_at(times, time))
        for period in periods(moments(times), cases(full=5, part=1), chance):
            start, end = period.get("from", times[0] - DAY), period.get("to", times[-1] + 2 * DAY)
            order = chance.choice(["asc", "desc"])
            limit = max(1, last // chance.randint(1, 5))
            query = "&".join(
                [f"order={order}&limit={limit}"]
                + [f"{name}={timestamp(time)}" for name, time in period.items()]
            )
            entries = [change.entry for change in changes if start <= change.time < end]
            pages = list(follow(stack, f"/counters/{name}/history", query))
            assert list(itertools.chain(*pages)) == entries[:: 1 if order == "asc" else -1]
            assert all(len(page) == limit for page in pages[:-1])
            assert pages[-1] or not entries
        # moto looks through a whole table for each Query.
        forget(stack, *range(1, last + 1), counter_id=name)

    with silence():
        check()

    print(f"{asked} looks back in {next(runs)} histories")
    assert asked > cases(full=300, part=6) * 5


def hours_of_changes(chance: random.Random) -> list[int]:
    """Return the times of so many changes that the trend is asked about them."""
    applied, times = BEGINNING, []
    longest = chance.choice([MINUTE, 10 * MINUTE, 2 * HOUR])
    for _ in range(chance.randint(60, 150)):
        applied += chance.choice([0, chance.randint(0, 10 * SECOND), chance.randint(0, longest)])
        times.append(applied - chance.choice([0, chance.randint(0, 20 * SECOND - 1)]))
    return times


def mangle(stack: Stack, name: str, last: int, chance: random.Random) -> None:
    """Make items of a counter's trend wrong: absent, stale, false, in a wrong place or nonsense."""
    table = stack.refs["TrendTable"]
    share = chance.choice([0.2, 0.5, 1])
    for item in stack.items("TrendTable"):
        if item["counter_id"]["S"] != name or chance.random() > share:
            continue
        key = {"counter_id": item["counter_id"], "hour": item["hour"]}
        first, end = (int(item[version]["N"]) for version in ("first_version", "last_version"))
        stale = {"N": str(chance.randint(first, end))}
        false = [{"N": str(chance.randint(-1, last + 9))} for _ in range(2)]
        hour = clock.seconds(item["hour"]["S"]) + 3600 * chance.randint(-9, 9)
        wrong: list[Any] = [
            None,
            {**item, "last_version": stale},
            {**item, "first_version": false[0], "last_version": false[1]},
            {**item, "hour": {"S": clock.timestamp(hour)}},
            {**key, "first_version": {"N": "0.5"}, "last_version": {"S": "many"}},
        ]
        stack.dynamodb.delete_item(TableName=table, Key=key)
        if put := chance.choice(wrong):
            stack.dynamodb.put_item(TableName=table, Item=put)


def test_a_wrong_trend_makes_no_answer_wrong(stack: Stack, wire: Wire) -> None:
    runs = itertools.count()

    @examples(full=300, part=5)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        chance = random.Random(seed)
        name = f"run{next(runs)}"
        made = Past(name)
        times = hours_of_changes(chance)
        changes = [
            Change(version, time, version - 1, version, "increment")
            for version, time in enumerate(times, 1)
        ]
        for time in times:
            made.change(time / 1000, 1)
        made.record(stack)
        last = len(times)
        mangle(stack, name, last, chance)
        gone = chance.choice([[], chance.sample(range(1, last + 1), 9), range(1, last // 2)])
        forget(stack, *gone, counter_id=name)

        for time in some(moments(times), cases(full=30, part=8), chance):
            reply = stack.request("GET", f"/counters/{name}", query=f"at={timestamp(time)}")
            if gone and reply.status != 200:
                assert problem(reply) == THROTTLED
            else:
                expected = {"counter_id": name, **as_of(changes, version_at(times, time))}
                assert reply.body == expected
        for period in periods(moments(times), cases(full=8, part=3), chance):
            start, end = period.get("from", times[0] - DAY), period.get("to", times[-1] + 2 * DAY)
            there = [change for change in changes if change.version not in gone]
            entries = [change.entry for change in there if start <= change.time < end]
            order = chance.choice(["asc", "desc"])
            query = "&".join(
                [f"order={order}&limit=40"]
                + [f"{name}={timestamp(time)}" for name, time in period.items()]
            )
            pages = list(follow(stack, f"/counters/{name}/history", query))
            assert list(itertools.chain(*pages)) == entries[:: 1 if order == "asc" else -1]
        if not gone:
            start = chance.choice(times) // MINUTE * MINUTE
            query = f"interval=minute&from={timestamp(start)}&to={timestamp(start + HOUR - 1)}"
            minutes = stack.request("GET", f"/counters/{name}/trend", query=query).body
            for bucket, begin in zip(minutes, range(start, start + HOUR, MINUTE), strict=True):
                end = begin + MINUTE
                assert bucket["changes"] == sum(begin <= time < end for time in times)
                assert bucket["close"] == as_of(changes, version_at(times, end - 1))["value"]
        forget(stack, *range(1, last + 1), counter_id=name)

    with silence():
        check()

    tables = [sent.parameters.get("TableName") for sent in wire.sent if sent.operation == "Query"]
    looks = tables.count(stack.refs["TrendTable"])
    print(f"{looks} looks at the trends of {next(runs)} histories")
    assert looks > cases(full=300, part=5) * 5
