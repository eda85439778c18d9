"""Reads of a counter at a version (`version`), also if the version's entry has expired."""

import itertools

import pytest
from tests.component.reading import (
    BEGINNING,
    DAY,
    NOT_FOUND,
    RETENTION_DAYS,
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
    timestamp,
)
from tests.contents import delete_entries
from tests.proxy import ALL_RIGHTS, proxy_event
from tests.stack import Stack
from tests.wire import Fault, Wire, reply_lost, throttled


def get_if_none_match(stack: Stack, query: str, tags: str) -> tuple[int, str]:
    """Send a GET for `orders` with If-None-Match. Return the status and the ETag of the answer."""
    path, headers = "/counters/orders", {"If-None-Match": tags}
    function, route, parameters = stack.route("GET", path)
    event = proxy_event(
        route, path, parameters, query, headers, b"", ALL_RIGHTS | {"sub": "somebody"}
    )
    response = stack.invoke(function.name, event)
    assert (response["body"] == "") == (response["statusCode"] == 304)
    return response["statusCode"], response["headers"]["ETag"]


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
    delete_entries(stack, 3)

    assert problem(get_orders(stack, "version=3")) == THROTTLED
    assert get_orders(stack, "version=2").body == expected_orders(2)
    assert get_orders(stack, "version=4").body == expected_orders(4)


# --- Expired entries -----------------------------------------------------------------------------


@pytest.mark.usefixtures("retention", "orders")
def test_an_expired_version_is_not_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, TIMES[2] + RETENTION_DAYS * DAY)
    delete_entries(stack, 1, 2, 3)

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
    delete_entries(stack, 1, 2, 3, 4, 5)

    assert get_orders(stack, "version=5").body == expected_orders(5)
    assert get_orders_at(stack, TIMES[4]).body == expected_orders(5)
    assert problem(get_orders(stack, "version=4")) == NOT_FOUND
    assert problem(get_orders_at(stack, TIMES[4] - 1)) == NOT_FOUND


@pytest.mark.usefixtures("retention", "orders")
def test_a_time_long_before_the_first_change_needs_no_expired_entry(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch, TIMES[2] + RETENTION_DAYS * DAY)
    delete_entries(stack, 1, 2, 3)

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
    delete_entries(stack, 1, 2, 3)

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
    delete_entries(stack, 1, 3)

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
    delete_entries(stack, 1, 2)

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


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("query", ["version=3", f"at={timestamp(TIMES[2])}"])
@pytest.mark.parametrize("fault", [reply_lost, throttled])
def test_a_read_of_the_past_without_a_reply_is_throttled(
    stack: Stack, wire: Wire, query: str, fault: Fault
) -> None:
    wire.fail("Query", itertools.repeat(fault))

    assert problem(get_orders(stack, query)) == THROTTLED


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("operation", ["GetItem", "Query"])
def test_a_read_of_the_past_is_retried_after_a_lost_reply(
    stack: Stack, wire: Wire, operation: str
) -> None:
    for query in ("version=3", f"at={timestamp(TIMES[2])}"):
        wire.fail(operation, [reply_lost])
        assert get_orders(stack, query).body == expected_orders(3)
