"""Rights: a list has exactly the counters whose names begin with one of the caller's prefixes."""

import itertools
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.component.links import BASE, target
from tests.past import create, store
from tests.sizes import cases, examples
from tests.stack import Item, Stack
from tests.wire import Wire

from counters.grants import Grant, claims

NAMES = ["Orders:", "a", "order", "orders", "orders-1", "orders.1", "orders0"]
NAMES += ["orders:", "orders:e", "orders:eu", "orders:eu:1", "orders:us", "ordersA", "views:", "z"]


def claims_of_grants(stack: Stack, *prefixes: Collection[str]) -> dict[str, str]:
    """Return the claims that IssueToken gives to a person. Each of their groups has prefixes."""
    groups = [f"group-{number}" for number in range(len(prefixes))]
    for group, some in zip(groups, prefixes, strict=True):
        item: Any = {"principal": {"S": f"group:{group}"}, "prefixes": {"SS": list(some)}}
        item["scopes"] = {"SS": ["read", "increment", "set"]}
        stack.dynamodb.put_item(TableName=stack.refs["GrantTable"], Item=item)
    event = {
        "triggerSource": "TokenGeneration_HostedAuth",
        "callerContext": {"clientId": "people"},
        "request": {
            "userAttributes": {"sub": "ann"},
            "groupConfiguration": {"groupsToOverride": groups},
        },
    }
    response = stack.invoke("IssueToken", event)["response"]["claimsAndScopeOverrideDetails"]
    claims: dict[str, str] = response["accessTokenGeneration"]["claimsToAddOrOverride"]
    return claims


def pages(stack: Stack, rights: dict[str, str], **query: object) -> list[list[str]]:
    """Follow the links from the first page of a list. Return the names on each page."""
    found: list[list[str]] = []
    address = f"{BASE}/counters?{urlencode(query)}"
    while address:
        query_string = urlsplit(address).query
        reply = stack.request(
            "GET", "/counters", query=query_string, claims={"client_id": "app", **rights}
        )
        assert reply.status == 200, reply.body
        found.append([each if isinstance(each, str) else each["counter_id"] for each in reply.body])
        link = reply.headers.get("Link")
        address = urljoin(address, target(link)) if link else ""
    return found


def names_on(pages: Sequence[Sequence[str]]) -> list[str]:
    return list(itertools.chain.from_iterable(pages))


@pytest.mark.parametrize("values", ["true", "false"])
@pytest.mark.parametrize(
    "prefixes",
    [["orders:"], ["orders:", "orders:eu"], ["order", "orders", "orders:eu:1"], ["z", "a", "q"]],
    ids=str,
)
def test_each_counter_is_listed_once_even_if_prefixes_overlap(
    stack: Stack, prefixes: list[str], values: str
) -> None:
    create(stack, NAMES)
    allowed = [name for name in NAMES if name.startswith(tuple(prefixes))]
    assert allowed

    together = claims_of_grants(stack, prefixes)
    apart = claims_of_grants(stack, *([prefix] for prefix in prefixes))
    assert together == apart
    for limit in (1, 2, 100):
        found = pages(stack, together, limit=limit, values=values)
        assert names_on(found) == allowed
        assert all(len(page) == limit for page in found[:-1])
        assert found[-1], "a link led to an empty page"


@pytest.mark.parametrize("values", ["true", "false"])
@pytest.mark.parametrize(
    "prefix", ["orders:", "orders:eu", "orders:eu:1", "o", "orders:e", "order", "views:", "x", "Or"]
)
def test_the_parameter_prefix_narrows_the_list_and_never_widens_it(
    stack: Stack, prefix: str, values: str
) -> None:
    create(stack, NAMES)
    rights = {"tally:read": "orders:eu orders:us views:"}
    allowed = tuple(rights["tally:read"].split())
    expected = [name for name in NAMES if name.startswith(prefix) and name.startswith(allowed)]

    for limit in (1, 100):
        found = pages(stack, rights, prefix=prefix, limit=limit, values=values)
        assert names_on(found) == expected


def test_after_is_only_a_position_so_it_can_be_a_name_outside(stack: Stack) -> None:
    create(stack, NAMES)
    rights = {"tally:read": "orders: views:"}
    for after in ("0", "Orders:", "orders", "orders:eu", "orders:zz", "ordersA", "views:", "zz"):
        expected = [name for name in NAMES if name.startswith(("orders:", "views:"))]
        found = pages(stack, rights, after=after, limit=2)
        assert names_on(found) == [name for name in expected if name > after]


@pytest.mark.parametrize("query", ["", "values=true", "prefix=orders:", "limit=1"])
def test_a_caller_without_prefixes_gets_an_empty_list(stack: Stack, wire: Wire, query: str) -> None:
    create(stack, NAMES)
    wire.sent.clear()

    reply = stack.request("GET", "/counters", query=query, claims={"sub": "ann", "tally:read": "-"})

    assert (reply.status, reply.body, "Link" in reply.headers) == (200, [], False)
    assert wire.operations() == []


def test_only_the_right_to_read_counts(stack: Stack) -> None:
    create(stack, NAMES)
    rights = {"tally:read": "views:", "tally:increment": "*", "tally:set": "orders:"}

    assert names_on(pages(stack, rights)) == ["views:"]


# moto reads all names for each page. So without `make test-full`, the pages of values are of fewer.
@pytest.mark.parametrize(
    ("size", "values", "limits"),
    [(2500, "false", [1000, 834]), (cases(2500, 400), "true", [100, 99])],
    ids=["names", "values"],
)
def test_many_names_with_three_prefixes_are_each_listed_once(
    stack: Stack, size: int, values: str, limits: list[int]
) -> None:
    prefixes = itertools.cycle(("b:", "c-", "orders:"))
    many = sorted(
        f"{prefix}{number:04}" for number, prefix in zip(range(size), prefixes, strict=False)
    )
    assert many.index("c-0001") == 834 or size < 2500  # a page with 834 names ends with a prefix
    stack.remove_stream()
    outside = ["a", "b", "b.", "bz", "c", "c.", "d", "orders", "ordersA", "p"]
    # Small items save moto's CPU time.
    catalog: Item = {"catalog": {"S": "counters"}}
    items: list[Item] = [{"counter_id": {"S": name}, **catalog} for name in [*many, *outside]]
    if values == "false":
        store(stack, items)
    else:
        create(stack, [*many, *outside])
    rights = claims_of_grants(stack, ["b:", "orders:"], ["c-"])
    for limit in limits:
        found = pages(stack, rights, limit=limit, values=values)
        assert names_on(found) == many
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert found[-1], "a link led to an empty page"


# Few characters, so that many names begin with a prefix, and many prefixes begin with another one.
PARTS = st.text("-.0:Aaz", max_size=3)
BEGINNINGS = st.builds("".join, st.tuples(st.sampled_from("0Aaz"), PARTS))


@examples(full=2000, part=30)
@given(
    names=st.sets(BEGINNINGS, max_size=25),
    prefixes=st.lists(st.sets(BEGINNINGS, min_size=1, max_size=4), max_size=3),
    prefix=st.one_of(st.just(""), BEGINNINGS),
    limit=st.integers(1, 6),
    values=st.sampled_from(["true", "false"]),
)
def test_the_pages_have_exactly_the_sorted_names_that_begin_with_a_prefix(  # noqa: PLR0913, PLR0917
    stack: Stack,
    names: set[str],
    prefixes: list[set[str]],
    prefix: str,
    limit: int,
    values: str,
) -> None:
    stack.empty_tables()
    create(stack, names)
    rights = claims([Grant(["read"], sorted(some)) for some in prefixes], "app")
    allowed = tuple(itertools.chain.from_iterable(prefixes))

    found = pages(stack, rights, prefix=prefix, limit=limit, values=values)

    expected = [name for name in names if name.startswith(allowed) and name.startswith(prefix)]
    assert names_on(found) == sorted(expected)
    assert all(len(page) == limit for page in found[:-1])
    assert len(found) == 1 or found[-1], "a link led to an empty page"
