"""An error about a parameter names one that was given, whatever the others default to."""

import itertools
from collections.abc import Mapping, Sequence

import pytest
from tests import aws_template
from tests.past import Past
from tests.proxy import Reply
from tests.stack import Stack

from counters import clock
from counters.model import MAX_INTEGER

HOUR, DAY = 3600, 24 * 3600  # seconds
RETENTION = 30  # days
BEGINNING = 1_795_341_600.0  # 2026-11-22T10:00:00Z
NOW = BEGINNING + 40 * DAY + 90

Query = Mapping[str, str]

# None: the parameter is not given.
TIMES = [
    None,
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:01Z",
    clock.timestamp(BEGINNING - DAY),
    clock.timestamp(BEGINNING + 1),
    clock.timestamp(NOW - 2 * HOUR),
    clock.timestamp(NOW),
    clock.timestamp(NOW + 1),
    "9999-12-31T23:59:59Z",
]
VERSIONS = [None, "0", "1", "2", "3", "4", "5", str(MAX_INTEGER)]


def queries(**values: Sequence[str | None]) -> list[Query]:
    """Return every combination of the values of some parameters."""
    return [
        {name: value for name, value in zip(values, given, strict=True) if value is not None}
        for given in itertools.product(*values.values())
    ]


ASKED = {
    "/counters/orders": queries(version=VERSIONS, at=TIMES),
    "/counters/orders/trend": queries(
        interval=[None, "minute", "hour", "day"], **{"from": TIMES, "to": TIMES}
    ),
    "/counters/orders/history": queries(
        order=[None, "desc"], after=[None, "2"], **{"from": TIMES[::2], "to": TIMES[::2]}
    ),
    "/counters": queries(
        prefix=[None, "", "o", "z"], limit=[None, "1", "1000"], after=[None, "", "a", "z"]
    ),
}


@pytest.fixture
def orders(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A counter with five changes: the first two have expired, and the fourth is missing."""
    parameter = aws_template.TEMPLATE["Parameters"]["HistoryDays"]
    monkeypatch.setitem(parameter, "Default", str(RETENTION))
    monkeypatch.setattr(clock, "now", lambda: NOW)
    past = Past("orders")
    for time in (BEGINNING, BEGINNING + 1, NOW - 2 * DAY, NOW - DAY, NOW - HOUR):
        past.change(time, 1)
    past.record(stack)
    for version in ("1", "2", "4"):
        key = {"counter_id": {"S": "orders"}, "version": {"N": version}}
        stack.dynamodb.delete_item(TableName=stack.refs["HistoryTable"], Key=key)
    return stack


def ask(stack: Stack, path: str, query: Query) -> Reply:
    written = "&".join(f"{name}={value}" for name, value in query.items())
    return stack.request("GET", path, query=written)


@pytest.mark.parametrize("path", ASKED)
def test_an_error_names_a_parameter_of_the_request(orders: Stack, path: str) -> None:
    refused = set()
    for query in ASKED[path]:
        reply = ask(orders, path, query)
        if reply.status == 200:
            continue
        blamed = reply.body["detail"].partition(":")[0]
        assert blamed in query, (query, reply.body)
        refused.add((reply.status, blamed))

    assert (
        refused
        == {
            "/counters/orders": {
                *[(400, "at"), (404, "at"), (503, "at")],
                *[(404, "version"), (503, "version")],
            },
            "/counters/orders/trend": {(400, "from"), (400, "to"), (404, "interval")},
            "/counters/orders/history": {(400, "from")},
            "/counters": set(),
        }[path]
    )


@pytest.mark.parametrize("path", ASKED)
def test_without_any_parameter_there_is_no_error(orders: Stack, path: str) -> None:
    assert ask(orders, path, {}).status == 200


NOW_COUNTS = "if to is missing or in the future, now counts"


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (
            {"from": "1970-01-01T00:00:00Z"},
            f"from: must be at most 1000 hours before to; {NOW_COUNTS}",
        ),
        (
            {"interval": "minute", "to": TIMES[4] or ""},
            "interval: the minutes of that time have expired; hours and days are still there",
        ),
        (
            {"interval": "day", "to": "1970-01-01T00:00:00Z"},
            "to: must be after 1970-01-01T00:00:00Z",
        ),
    ],
)
def test_the_error_says_what_to_change(orders: Stack, query: Query, detail: str) -> None:
    assert ask(orders, "/counters/orders/trend", query).body["detail"] == detail
