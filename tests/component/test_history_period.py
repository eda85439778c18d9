"""Tests of reading the changes of a period: from the time in `from` until the time in `to`."""

import itertools

import pytest
from tests.component.links import follow, target
from tests.component.reading import (
    BEGINNING,
    MINUTE,
    SECOND,
    THROTTLED,
    TIMES,
    listed_versions,
    make_orders,
    problem,
    times_going_back,
    timestamp,
)
from tests.contents import delete_entries
from tests.sizes import cases
from tests.stack import Stack
from tests.wire import Wire, reply_lost


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


def test_a_period_with_missing_versions_has_all_other_versions(stack: Stack) -> None:
    times = [BEGINNING + position * MINUTE for position in range(100)]
    make_orders(times).record(stack)
    delete_entries(stack, *range(1, 20), *range(30, 40), 50, 52)

    period = f"from={timestamp(times[9])}&to={timestamp(times[54])}"

    expected = [*range(20, 30), *range(40, 50), 51, 53, 54]
    assert listed_versions(stack, period) == expected
    assert listed_versions(stack, f"{period}&order=desc") == expected[::-1]


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
@pytest.mark.parametrize("query", ["from", "to", "order=desc&from", "order=desc&to"])
def test_a_read_of_a_period_without_a_reply_is_throttled(
    stack: Stack, wire: Wire, query: str
) -> None:
    wire.fail("Query", itertools.repeat(reply_lost))

    path, query = "/counters/orders/history", f"{query}={timestamp(TIMES[2])}"

    assert problem(stack.request("GET", path, query=query)) == THROTTLED
