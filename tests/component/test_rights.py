"""Rights: a caller may use exactly the counters whose names begin with one of their prefixes."""

from typing import Any

import pytest
from tests.contents import prepare_once
from tests.proxy import Reply, proxy_event
from tests.proxy import reply as parsed
from tests.routes import PROTECTED, sample_body
from tests.stack import Stack
from tests.wire import Wire

SCOPES = {"GET": "tally:read", "POST": "tally:increment", "PUT": "tally:set"}
ORDERS = dict.fromkeys(SCOPES.values(), "orders:")
CALLER = {"client_id": "app"}
INSIDE = ["orders:", "orders:eu", "orders::", "orders:-", "orders:eu:1"]
# Each of these names is near the names that begin with "orders:".
OUTSIDE = ["orders", "order", "Orders:", "orders2", "orders.", "orders-:", "o"]

# The routes of one counter: the method and the end of the path, with a query.
ONE_COUNTER = [
    ("GET", ""),
    ("GET", "?version=1"),
    ("GET", "?version=0"),
    ("GET", "?at=2025-01-15T08:00:00Z"),
    ("GET", "/history"),
    ("GET", "/history?order=desc"),
    ("GET", "/trend"),
    ("POST", ""),
    ("PUT", ""),
]


def send(stack: Stack, method: str, target: str, rights: dict[str, str], **more: Any) -> Reply:  # noqa: ANN401  arguments of Stack.request
    """Send a request of a caller with these rights, with a body if the route needs one."""
    path, _, query = target.partition("?")
    if method == "PUT":
        more = {"body": {"value": 1}, **more}
    return stack.request(method, path, query=query, claims={**CALLER, **rights}, **more)


def batch(*names: str) -> dict[str, object]:
    return {"increments": [{"counter_id": name} for name in names]}


def assert_forbidden(reply: Reply, name: str) -> None:
    """Check that a reply refuses a request because of the counter with this name."""
    assert (reply.status, reply.body["type"]) == (403, "urn:tally:problem:forbidden")
    detail = f"The access token does not allow this for the counter {name}."
    assert reply.body["detail"] == detail


@pytest.fixture
def filled(stack: Stack) -> Stack:
    """A stack with all counters of INSIDE and OUTSIDE, and `default`, each with one change."""

    def fill() -> None:
        stack.request("POST", "/increments", body=batch(*INSIDE, *OUTSIDE, "default"))
        stack.record(stack.changes())

    prepare_once(stack, "rights", fill)
    return stack


@pytest.mark.parametrize(("method", "end"), ONE_COUNTER)
def test_a_prefix_opens_exactly_the_names_that_begin_with_it(
    filled: Stack, method: str, end: str
) -> None:
    before = filled.contents()
    for name in OUTSIDE:
        assert_forbidden(send(filled, method, f"/counters/{name}{end}", ORDERS), name)
    assert_forbidden(send(filled, method, f"/counter{end}", ORDERS), "default")
    assert filled.contents() == before
    for name in INSIDE:
        reply = send(filled, method, f"/counters/{name}{end}", ORDERS)
        assert reply.status == 200, (name, reply)


@pytest.mark.parametrize(("method", "end"), ONE_COUNTER)
def test_the_default_counter_follows_the_prefixes(filled: Stack, method: str, end: str) -> None:
    for prefix in ("default", "def", "d"):
        rights = dict.fromkeys(ORDERS, prefix)
        assert send(filled, method, f"/counter{end}", rights).status != 403
    for prefix in ("defaults", "default:", "Default", ""):
        rights = dict.fromkeys(ORDERS, prefix)
        assert_forbidden(send(filled, method, f"/counter{end}", rights), "default")


def test_percent_encoded_names_are_decoded_before_the_check(filled: Stack) -> None:
    for path in ("orders%3Aeu", "%6Frders:eu", "orders%3aeu", "%6F%72%64%65%72%73%3A"):
        assert send(filled, "GET", f"/counters/{path}", ORDERS).status == 200
        assert send(filled, "POST", f"/counters/{path}", ORDERS).status == 200
    for path, name in (("%4Frders%3A", "Orders:"), ("orders%32", "orders2"), ("%6F", "o")):
        assert_forbidden(send(filled, "GET", f"/counters/{path}/trend", ORDERS), name)
        assert_forbidden(send(filled, "POST", f"/counters/{path}", ORDERS), name)
    assert send(filled, "GET", "/counters/orders%253Aeu", ORDERS).status == 400
    assert_forbidden(
        send(filled, "GET", "/counters?id=orders%3Aeu&id=%4Frders%3A", ORDERS), "Orders:"
    )


def test_a_scope_does_not_extend_to_the_prefixes_of_another_scope(filled: Stack) -> None:
    rights = {"tally:read": "o", "tally:increment": "orders:", "tally:set": "-"}

    assert send(filled, "GET", "/counters/orders2", rights).status == 200
    assert_forbidden(send(filled, "POST", "/counters/orders2", rights), "orders2")
    assert send(filled, "POST", "/counters/orders:eu", rights).status == 200
    assert_forbidden(send(filled, "PUT", "/counters/orders:eu", rights), "orders:eu")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": '"key"'}], ids=["no key", "a key"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_batch_with_one_name_outside_does_nothing(
    filled: Stack, wire: Wire, name: str, headers: dict[str, str]
) -> None:
    before = filled.contents()
    wire.sent.clear()

    for position in range(3):
        names = INSIDE[:2]
        names.insert(position, name)
        reply = send(filled, "POST", "/increments", ORDERS, body=batch(*names), headers=headers)
        assert_forbidden(reply, name)
        query = "&".join(f"id={each}" for each in names)
        assert_forbidden(send(filled, "GET", f"/counters?{query}", ORDERS), name)

    assert wire.operations() == []
    assert filled.contents() == before
    # The refused requests did not use the key up.
    reply = send(filled, "POST", "/increments", ORDERS, body=batch(*INSIDE), headers=headers)
    assert (reply.status, len(reply.body)) == (200, len(INSIDE))


def test_a_refused_batch_names_the_first_counter_outside(filled: Stack) -> None:
    body = batch("orders:eu", "views", "orders2")

    assert_forbidden(send(filled, "POST", "/increments", ORDERS, body=body), "views")


@pytest.mark.parametrize(
    ("path", "body"), [("/counters/orders:eu", {"by": 2}), ("/increments", batch("orders:eu"))]
)
def test_a_repeat_is_refused_after_the_caller_has_lost_the_right(
    filled: Stack, path: str, body: dict[str, object]
) -> None:
    more = {"body": body, "headers": {"Idempotency-Key": '"key"'}}
    assert send(filled, "POST", path, ORDERS, **more).status == 200
    before = filled.contents()

    other = dict.fromkeys(ORDERS, "views:")
    assert_forbidden(send(filled, "POST", path, other, **more), "orders:eu")
    assert filled.contents() == before


@pytest.mark.parametrize("claim", SCOPES.values())
def test_a_token_without_the_claim_of_the_scope_is_refused(
    filled: Stack, wire: Wire, claim: str
) -> None:
    # If someone detaches the trigger from the user pool, Cognito issues such tokens.
    before = filled.contents()
    wire.sent.clear()
    claims = {**CALLER, **ORDERS}
    del claims[claim]
    for function, route in PROTECTED:
        if SCOPES[route.method] != claim:
            continue
        path = route.path.replace("{counter_id}", "orders:eu")
        parameters = route.match(path) or {}
        event = proxy_event(route, path, parameters, "", {}, sample_body(function), claims)
        reply = parsed(filled.invoke(function.name, event))

        assert (reply.status, reply.body["type"]) == (401, "urn:tally:problem:unauthorized")
        assert reply.body["detail"] == f"The access token has no claim {claim}. Get a new token."
    assert wire.operations() == []
    assert filled.contents() == before
