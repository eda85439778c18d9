"""Every route of the template, with every token that must not open it."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests import routes
from tests.e2e.service import Answer, Caller, cognito, token_for, written
from tests.routes import documented_scopes, sample_body

from deployment import Stack

SCOPES = documented_scopes()
ALL_SCOPES = frozenset(SCOPES.values())
BODIES = {(route.method, route.path): sample_body(function) for function, route in routes.ROUTES}
SHORT_VALIDITY = 3  # seconds; AWS takes no less than 5 minutes, the emulator does


# Every route of the template: what a request to it is, and the scope that it takes.
ROUTES = [
    (route.method, route.path, SCOPES[route.method, route.path]) for _, route in routes.ROUTES
]


def call(stack: Stack, method: str, path: str, token: str | None) -> Answer:
    """Send a request that nothing but the token can be wrong with."""
    with Caller(stack.url, token) as caller:
        return caller.request(method, path.format(counter_id="guarded"), BODIES[method, path])


def assert_refused(stack: Stack, token_of: Callable[[str], str | None]) -> None:
    """Call every route with the token that is made for a route of its scope."""
    before = written(stack)
    for method, path, scope in ROUTES:
        answer = call(stack, method, path, token_of(scope))
        assert answer.status in {401, 403}, (method, path, answer)
    assert written(stack) == before


def make_client(stack: Stack, user_pool_id: str, **settings: Any) -> tuple[str, str]:  # noqa: ANN401
    """Make an app client with all scopes; return its id and secret."""
    client = cognito(stack).create_user_pool_client(
        UserPoolId=user_pool_id,
        ClientName="made-by-a-test",
        GenerateSecret=True,
        AllowedOAuthFlowsUserPoolClient=True,
        AllowedOAuthFlows=["client_credentials"],
        AllowedOAuthScopes=sorted(ALL_SCOPES),
        **settings,
    )["UserPoolClient"]
    return client["ClientId"], client["ClientSecret"]


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return claims


def encode(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


def test_the_template_has_the_routes_of_a_counter_by_default_and_by_name() -> None:
    for counter in ("/counter", "/counters/{counter_id}"):
        assert {method for method, path, _ in ROUTES if path == counter} == {"GET", "POST", "PUT"}
        assert ("GET", f"{counter}/history", "counters/read") in ROUTES


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_the_scope_of_a_route_opens_it(stack: Stack, method: str, path: str, scope: str) -> None:
    assert call(stack, method, path, token_for(stack, [scope])).status == 200


def test_without_a_token_every_route_is_closed(stack: Stack) -> None:
    assert_refused(stack, lambda _: None)


@pytest.mark.parametrize("garbage", ["garbage", "a.b.c", "..", "e30.e30.e30"])
def test_garbage_opens_no_route(stack: Stack, garbage: str) -> None:
    assert_refused(stack, lambda _: garbage)


def test_a_changed_signature_opens_no_route(stack: Stack) -> None:
    header, payload, signature = token_for(stack, ALL_SCOPES).split(".")
    changed = ("B" if signature.startswith("A") else "A") + signature[1:]
    assert_refused(stack, lambda _: f"{header}.{payload}.{changed}")


def test_scopes_written_into_a_token_open_no_route(stack: Stack) -> None:
    def with_all_scopes(scope: str) -> str:
        token = token_for(stack, ALL_SCOPES - {scope})
        header, _, signature = token.split(".")
        claims = claims_of(token) | {"scope": " ".join(ALL_SCOPES)}
        return f"{header}.{encode(claims)}.{signature}"

    assert_refused(stack, with_all_scopes)


def test_an_unsigned_token_opens_no_route(stack: Stack) -> None:
    claims = claims_of(token_for(stack, ALL_SCOPES))
    assert_refused(stack, lambda _: f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(claims)}.")


def test_a_token_opens_routes_until_it_expires(stack: Stack) -> None:
    client = make_client(
        stack,
        stack.outputs["UserPoolId"],
        AccessTokenValidity=SHORT_VALIDITY,
        TokenValidityUnits={"AccessToken": "seconds"},
    )
    token = token_for(stack, ALL_SCOPES, *client)
    assert call(stack, "GET", "/counter", token).status == 200
    time.sleep(max(0, claims_of(token)["exp"] - time.time()))
    assert_refused(stack, lambda _: token)


def test_a_token_of_another_pool_opens_no_route(stack: Stack) -> None:
    pools = cognito(stack)
    pool = pools.create_user_pool(PoolName="another")["UserPool"]["Id"]
    pools.create_resource_server(
        UserPoolId=pool,
        Identifier="counters",
        Name="counters",
        Scopes=[
            {"ScopeName": scope.removeprefix("counters/"), "ScopeDescription": scope}
            for scope in ALL_SCOPES
        ],
    )
    token = token_for(stack, ALL_SCOPES, *make_client(stack, pool))
    assert_refused(stack, lambda _: token)


def test_all_scopes_but_that_of_the_route_do_not_open_it(stack: Stack) -> None:
    tokens = {scope: token_for(stack, ALL_SCOPES - {scope}) for scope in ALL_SCOPES}
    assert_refused(stack, tokens.__getitem__)
