"""If an error names a query parameter, the request has that parameter."""

import itertools
from collections.abc import Mapping, Sequence

import pytest
from tests import aws_template
from tests.past import Past
from tests.proxy import Reply
from tests.sizes import cases
from tests.stack import Stack
from tests.times import BEGINNING, DAY, HOUR

from counters import clock
from counters.model import MAX_INTEGER

RETENTION = 30  # days
NOW = BEGINNING + 40 * DAY + 90

Query = Mapping[str, str]

# None means that the request does not have the parameter.
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
    """Return a query for every combination of these values.

    Args:
        values: the possible values of each parameter. None leaves the parameter out.
    """
    return [
        {name: value for name, value in zip(values, combination, strict=True) if value is not None}
        for combination in itertools.product(*values.values())
    ]


QUERIES_BY_PATH = {
    "/counters/orders": queries(version=VERSIONS, at=TIMES),
    "/counters/orders/trend": queries(
        interval=[None, "minute", "hour", "day"],
        expected=[None, "true"],
        **{"from": TIMES, "to": TIMES},
    )[:: cases(full=1, part=5)],
    "/counters/orders/history": queries(
        order=[None, "desc"], after=[None, "2"], **{"from": TIMES[::2], "to": TIMES[::2]}
    ),
    "/counters": queries(
        prefix=[None, "", "o", "z"], limit=[None, "1", "1000"], after=[None, "", "a", "z"]
    ),
    "/public/orders/badge.svg": queries(
        label=[None, "", "a"], color=[None, "", "red", "fff", "tomato"]
    ),
}


@pytest.fixture
def stack_with_gaps(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack with a counter of five versions. The history lacks versions 1, 2 and 4.

    Versions 1 and 2 have expired. Version 4 is missing, but has not expired.
    """
    parameter = aws_template.TEMPLATE["Parameters"]["HistoryDays"]
    monkeypatch.setitem(parameter, "Default", str(RETENTION))
    monkeypatch.setattr(clock, "now", lambda: NOW)
    stack.refs["PublicPrefix"] = "orders"
    past = Past("orders")
    for time in (BEGINNING, BEGINNING + 1, NOW - 2 * DAY, NOW - DAY, NOW - HOUR):
        past.change(time, 1)
    past.record(stack)
    for version in ("1", "2", "4"):
        key = {"counter_id": {"S": "orders"}, "version": {"N": version}}
        stack.dynamodb.delete_item(TableName=stack.refs["HistoryTable"], Key=key)
    return stack


def get(stack: Stack, path: str, query: Query) -> Reply:
    query_string = "&".join(f"{name}={value}" for name, value in query.items())
    return stack.request("GET", path, query=query_string)


@pytest.mark.parametrize("path", QUERIES_BY_PATH)
def test_an_error_names_a_parameter_of_the_request(stack_with_gaps: Stack, path: str) -> None:
    errors = set()
    for query in QUERIES_BY_PATH[path]:
        reply = get(stack_with_gaps, path, query)
        if reply.status == 200:
            continue
        parameter = reply.body["detail"].partition(":")[0]
        assert parameter in query, (query, reply.body)
        errors.add((reply.status, parameter))

    assert (
        errors
        == {
            "/counters/orders": {
                *[(400, "at"), (404, "at"), (503, "at")],
                *[(404, "version"), (503, "version")],
            },
            "/counters/orders/trend": {
                *[(400, "from"), (400, "to"), (400, "expected"), (404, "interval")]
            },
            "/counters/orders/history": {(400, "from")},
            "/counters": set(),
            "/public/orders/badge.svg": {(400, "label"), (400, "color")},
        }[path]
    )


@pytest.mark.parametrize("path", QUERIES_BY_PATH)
def test_a_request_without_parameters_succeeds(stack_with_gaps: Stack, path: str) -> None:
    assert get(stack_with_gaps, path, {}).status == 200


OR_NOW = "(or before now, if to is missing or in the future)"


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (
            {"from": "1970-01-01T00:00:00Z"},
            f"from: must be at most 1000 hours before to {OR_NOW}",
        ),
        (
            {"interval": "minute", "to": TIMES[4] or ""},
            "interval: the minutes of that time have expired. Use hour or day.",
        ),
        (
            {"interval": "day", "to": "1970-01-01T00:00:00Z"},
            "to: must be after 1970-01-01T00:00:00Z",
        ),
    ],
)
def test_the_error_explains_how_to_correct_the_parameter(
    stack_with_gaps: Stack, query: Query, detail: str
) -> None:
    assert get(stack_with_gaps, "/counters/orders/trend", query).body["detail"] == detail
