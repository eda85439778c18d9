"""Reads of several counters in one request: GET /counters with `id`, or with `values=true`."""

import itertools
from urllib.parse import urlencode

import pytest
from tests.component.links import follow
from tests.stack import Stack
from tests.wire import Wire, read_in_part, reply_lost, throttled

NAMES = ["a", "b", "c:1", "c:2", "d"]


def named(*names: str) -> str:
    return urlencode([("id", name) for name in names])


@pytest.fixture
def filled(stack: Stack) -> Stack:
    """A stack in which each counter of NAMES has changed once more than the one before it."""
    for number, name in enumerate(NAMES, 1):
        for _ in range(number):
            stack.request("POST", f"/counters/{name}", body={"by": 10})
    return stack


def test_counters_are_returned_in_the_order_of_the_request(filled: Stack) -> None:
    single = {name: filled.request("GET", f"/counters/{name}").body for name in NAMES}

    for order in itertools.permutations(NAMES, 3):
        reply = filled.request("GET", "/counters", query=named(*order))

        assert reply.status == 200
        assert reply.body == [single[name] for name in order]


def test_a_counter_that_was_never_written_has_version_0(filled: Stack) -> None:
    reply = filled.request("GET", "/counters", query=named("missing", "a"))

    missing, counter = reply.body
    assert (missing["value"], missing["version"], missing["created_at"]) == (0, 0, None)
    assert counter["value"] == 10


def test_100_counters_are_one_strongly_consistent_request(stack: Stack, wire: Wire) -> None:
    names = [f"c{number}" for number in range(100)]
    stack.request("POST", "/counters/c99")
    wire.sent.clear()

    reply = stack.request("GET", "/counters", query=named(*names))

    assert [counter["counter_id"] for counter in reply.body] == names
    assert reply.body[99]["value"] == 1
    assert wire.operations() == ["BatchGetItem"]
    (tables,) = [sent.parameters["RequestItems"] for sent in wire.sent]
    assert all(table["ConsistentRead"] for table in tables.values())


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (named(*map(str, range(101))), "id: must be given at most 100 times"),
        (named("a", "b", "a"), "id: must not name a counter twice"),
        ("id=", "id: must match [A-Za-z0-9][A-Za-z0-9._:-]{0,127}"),
        ("id=a&id=%20", "id: must match [A-Za-z0-9][A-Za-z0-9._:-]{0,127}"),
        ("id=a&values=true", "id: must not be combined with values"),
        ("id=a&values=false", "id: must not be combined with values"),
        ("id=a&prefix=a", "id: must not be combined with prefix"),
        ("id=a&limit=1", "id: must not be combined with limit"),
        ("id=a&after=a", "id: must not be combined with after"),
        ("id=a&ids=b", "ids: unknown parameter"),
        ("values=1", "values: must be true or false"),
        ("values=True", "values: must be true or false"),
        ("values=", "values: must be true or false"),
        ("values=true&values=true", "values: must be given only once"),
        ("values=true&limit=101", "limit: must be an integer from 1 to 100"),
        ("values=true&limit=0", "limit: must be an integer from 1 to 100"),
    ],
)
def test_an_invalid_request_is_refused_without_a_read(
    stack: Stack, wire: Wire, query: str, detail: str
) -> None:
    reply = stack.request("GET", "/counters", query=query)

    assert (reply.status, reply.body["detail"]) == (400, detail)
    assert wire.operations() == []


def test_other_routes_refuse_the_parameters(stack: Stack) -> None:
    for path in ("/counter", "/counter/history", "/counter/trend"):
        for query in ("id=a", "values=true"):
            assert stack.request("GET", path, query=query).status == 400


def test_keys_that_dynamodb_left_unprocessed_are_read_again(filled: Stack, wire: Wire) -> None:
    wire.fail("BatchGetItem", [read_in_part(2), read_in_part(1)])

    reply = filled.request("GET", "/counters", query=named(*reversed(NAMES)))

    assert [counter["value"] for counter in reply.body] == [50, 40, 30, 20, 10]
    assert wire.operations() == ["BatchGetItem"] * 3


@pytest.mark.parametrize("query", [named(*NAMES), "values=true"])
def test_a_read_is_repeated_after_a_lost_reply(filled: Stack, wire: Wire, query: str) -> None:
    wire.fail("BatchGetItem", [reply_lost, throttled])

    reply = filled.request("GET", "/counters", query=query)

    assert [counter["value"] for counter in reply.body] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("query", [named(*NAMES), "values=true"])
@pytest.mark.parametrize("fault", [throttled, reply_lost, read_in_part(0)])
def test_a_read_without_a_complete_reply_is_throttled(
    filled: Stack, wire: Wire, query: str, fault: object
) -> None:
    wire.fail("BatchGetItem", itertools.repeat(fault))  # type: ignore[arg-type]

    reply = filled.request("GET", "/counters", query=query)

    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")


def test_values_returns_the_listed_counters(filled: Stack, wire: Wire) -> None:
    single = [filled.request("GET", f"/counters/{name}").body for name in NAMES]
    wire.sent.clear()

    assert filled.request("GET", "/counters", query="values=true").body == single
    assert wire.operations() == ["Query", "BatchGetItem"]
    assert filled.request("GET", "/counters", query="values=false").body == NAMES
    assert filled.request("GET", "/counters", query="values=true&prefix=c:").body == single[2:4]
    assert filled.request("GET", "/counters", query="values=true&after=c:2").body == single[4:]


def test_a_list_without_counters_needs_no_second_request(stack: Stack, wire: Wire) -> None:
    assert stack.request("GET", "/counters", query="values=true").body == []
    assert wire.operations() == ["Query"]


def test_following_the_links_gives_each_counter_once(filled: Stack) -> None:
    for limit in (1, 2, 4, 5, 100):
        pages = list(follow(filled, "/counters", f"values=true&prefix=&limit={limit}"))

        assert [counter["counter_id"] for page in pages for counter in page] == NAMES
        assert all(len(page) == limit for page in pages[:-1])
