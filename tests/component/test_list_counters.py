import itertools
import time
from collections.abc import Iterable
from itertools import product
from urllib.parse import urlsplit

import pytest
from tests.component.links import follow
from tests.past import Past
from tests.stack import Stack
from tests.wire import Wire, throttled

# In the order of their bytes: digits, then upper case, then lower; "-" and "." before all others.
NAMES = ["0", "A", "B-1", "B.1", "B0", "B:1", "Ba", "a", "a-", "a-b", "a.", "a:b", "aa", "b", "zz"]


@pytest.fixture
def names(stack: Stack) -> Stack:
    """The stack with a counter for each of NAMES, created in another order."""
    store(stack, NAMES[1::2] + NAMES[::-2])
    return stack


def store(stack: Stack, names: Iterable[str]) -> None:
    for name in names:
        counter = Past(name)
        counter.change(time.time(), by=1)
        counter.store(stack)


def test_there_are_no_names_before_the_first_change(stack: Stack) -> None:
    stack.request("GET", "/counters/orders")

    reply = stack.request("GET", "/counters")

    assert (reply.status, reply.body) == (200, [])
    assert "Link" not in reply.headers


def test_names_are_sorted_by_their_bytes(names: Stack) -> None:
    reply = names.request("GET", "/counters")

    assert reply.body == NAMES
    assert "Link" not in reply.headers


def test_a_counter_is_listed_once_however_often_it_changes(stack: Stack) -> None:
    for _ in range(3):
        stack.request("POST", "/counters/orders")
        stack.request("PUT", "/counters/orders", body={"value": 1})

    assert stack.request("GET", "/counters").body == ["orders"]


def test_prefix_keeps_the_names_that_begin_with_it(names: Stack) -> None:
    for prefix in ("", "a", "a-", "B", "B:1", "zzz", "C"):
        reply = names.request("GET", "/counters", query=f"prefix={prefix}")

        assert reply.body == [name for name in NAMES if name.startswith(prefix)]


def test_after_continues_behind_that_name(names: Stack) -> None:
    somewhere = ["0", "A", "B-1", "a", "a-", "a-a", "b", "zz", "zzz", "C"]
    for prefix, after in product(("", "a", "B"), somewhere):
        reply = names.request("GET", "/counters", query=f"prefix={prefix}&after={after}")

        assert reply.body == [name for name in NAMES if name.startswith(prefix) and name > after]


def test_following_the_links_gives_each_name_once(names: Stack) -> None:
    for limit in (1, 2, 4, 7, len(NAMES) - 1, len(NAMES), 1000):
        pages = list(follow(names, "/counters", f"limit={limit}"))

        assert [name for page in pages for name in page] == NAMES
        assert all(len(page) == limit for page in pages[:-1])
        assert pages[-1], "the last page is not empty: a link promises more"


def test_a_link_keeps_the_prefix(names: Stack) -> None:
    pages = list(follow(names, "/counters", "prefix=a&limit=2"))

    assert pages == [["a", "a-"], ["a-b", "a."], ["a:b", "aa"]]


def test_a_link_is_relative_so_that_it_works_on_any_host(names: Stack) -> None:
    link = names.request("GET", "/counters", query="limit=1").headers["Link"]

    reference = urlsplit(link.partition(">")[0].removeprefix("<"))
    assert (reference.scheme, reference.netloc, reference.path) == ("", "", "")


def test_a_page_has_100_names_by_default(stack: Stack) -> None:
    everyone = [f"c{number:03}" for number in range(101)]
    store(stack, everyone)

    assert list(follow(stack, "/counters", "")) == [everyone[:100], everyone[100:]]


def test_a_page_is_one_request(names: Stack, wire: Wire) -> None:
    names.request("GET", "/counters", query="prefix=a&limit=2&after=a")

    assert wire.operations() == ["Query"]


def test_there_is_no_query_if_after_is_behind_the_prefix(names: Stack, wire: Wire) -> None:
    reply = names.request("GET", "/counters", query="prefix=a&after=b")

    assert reply.body == []
    assert wire.operations() == [], "DynamoDB refuses a range that ends before it begins"


def test_a_list_that_gets_no_answer_is_answered_as_throttled(stack: Stack, wire: Wire) -> None:
    wire.fail("Query", itertools.repeat(throttled))

    reply = stack.request("GET", "/counters")

    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
