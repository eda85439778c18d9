import itertools
from itertools import product
from urllib.parse import urlsplit

import pytest
from tests.component.links import follow
from tests.past import create
from tests.stack import Stack
from tests.wire import Wire, throttled

# In byte order: "-" and "." come first, then digits, ":", upper case and lower case.
NAMES = ["0", "A", "B-1", "B.1", "B0", "B:1", "Ba", "a", "a-", "a-b", "a.", "a:b", "aa", "b", "zz"]


@pytest.fixture
def stack_with_names(stack: Stack) -> Stack:
    """A stack with a counter for each name in NAMES, created in a different order."""
    create(stack, NAMES[1::2] + NAMES[::-2])
    return stack


def test_there_are_no_names_before_the_first_change(stack: Stack) -> None:
    stack.request("GET", "/counters/orders")

    reply = stack.request("GET", "/counters")

    assert (reply.status, reply.body) == (200, [])
    assert "Link" not in reply.headers


def test_names_are_sorted_by_their_bytes(stack_with_names: Stack) -> None:
    reply = stack_with_names.request("GET", "/counters")

    assert reply.body == NAMES
    assert "Link" not in reply.headers


def test_a_counter_that_changes_several_times_is_listed_once(stack: Stack) -> None:
    for _ in range(3):
        stack.request("POST", "/counters/orders")
        stack.request("PUT", "/counters/orders", body={"value": 1})

    assert stack.request("GET", "/counters").body == ["orders"]


def test_prefix_keeps_the_names_that_begin_with_it(stack_with_names: Stack) -> None:
    for prefix in ("", "a", "a-", "B", "B:1", "zzz", "C"):
        reply = stack_with_names.request("GET", "/counters", query=f"prefix={prefix}")

        assert reply.body == [name for name in NAMES if name.startswith(prefix)]


def test_after_continues_with_the_names_after_it(stack_with_names: Stack) -> None:
    positions = ["0", "A", "B-1", "a", "a-", "a-a", "b", "zz", "zzz", "C"]
    for prefix, after in product(("", "a", "B"), positions):
        reply = stack_with_names.request("GET", "/counters", query=f"prefix={prefix}&after={after}")

        assert reply.body == [name for name in NAMES if name.startswith(prefix) and name > after]


def test_following_the_links_gives_each_name_once(stack_with_names: Stack) -> None:
    for limit in (1, 2, 4, 7, len(NAMES) - 1, len(NAMES), 1000):
        pages = list(follow(stack_with_names, "/counters", f"limit={limit}"))

        assert [name for page in pages for name in page] == NAMES
        assert all(len(page) == limit for page in pages[:-1])
        assert pages[-1], "a link led to an empty page"


def test_a_link_keeps_the_prefix(stack_with_names: Stack) -> None:
    pages = list(follow(stack_with_names, "/counters", "prefix=a&limit=2"))

    assert pages == [["a", "a-"], ["a-b", "a."], ["a:b", "aa"]]


def test_a_link_is_relative_so_that_it_works_on_any_host(stack_with_names: Stack) -> None:
    link = stack_with_names.request("GET", "/counters", query="limit=1").headers["Link"]

    reference = urlsplit(link.partition(">")[0].removeprefix("<"))
    assert (reference.scheme, reference.netloc, reference.path) == ("", "", "")


def test_a_page_has_100_names_by_default(stack: Stack) -> None:
    names = [f"c{number:03}" for number in range(101)]
    create(stack, names)

    assert list(follow(stack, "/counters", "")) == [names[:100], names[100:]]


def test_a_page_is_one_request(stack_with_names: Stack, wire: Wire) -> None:
    stack_with_names.request("GET", "/counters", query="prefix=a&limit=2&after=a")

    assert wire.operations() == ["Query"]


def test_there_is_no_query_if_after_is_past_the_prefix(stack_with_names: Stack, wire: Wire) -> None:
    reply = stack_with_names.request("GET", "/counters", query="prefix=a&after=b")

    assert reply.body == []
    assert wire.operations() == [], "DynamoDB refuses a range whose end is before its start"


def test_a_list_that_gets_no_reply_from_dynamodb_gets_throttled(stack: Stack, wire: Wire) -> None:
    wire.fail("Query", itertools.repeat(throttled))

    reply = stack.request("GET", "/counters")

    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
