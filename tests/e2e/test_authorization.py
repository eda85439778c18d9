"""Authorization: a route with a scope accepts only valid tokens that have this scope."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests import routes
from tests.e2e.service import Answer, Caller, cognito, stored_data, token_for
from tests.routes import documented_scopes, sample_body

from deployment import Stack

SCOPES = documented_scopes()
ALL_SCOPES = frozenset(SCOPES.values())
BODIES = {(route.method, route.path): sample_body(function) for function, route in routes.PROTECTED}
SHORT_VALIDITY = 3  # seconds; AWS requires at least 5 minutes, but the emulator does not


# Every route of the template that needs a token: its method, path and scope.
ROUTES = [
    (route.method, route.path, SCOPES[route.method, route.path]) for _, route in routes.PROTECTED
]


def call(stack: Stack, method: str, path: str, token: str | None) -> Answer:
    """Send a valid request with this token to a route."""
    with Caller(stack.url, token) as caller:
        return caller.request(method, path.format(counter_id="guarded"), BODIES[method, path])


def assert_every_route_refuses(stack: Stack, token_for_scope: Callable[[str], str | None]) -> None:
    """Check that every route refuses a token and changes nothing.

    Args:
        stack: the deployed stack.
        token_for_scope: returns the token to use for a route, given the route's scope.
    """
    before = stored_data(stack)
    for method, path, scope in ROUTES:
        answer = call(stack, method, path, token_for_scope(scope))
        assert answer.status in {401, 403}, (method, path, answer)
    assert stored_data(stack) == before


def create_app_client(stack: Stack, user_pool_id: str, **settings: Any) -> tuple[str, str]:  # noqa: ANN401
    """Create an app client with all scopes. Return its id and secret."""
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


def test_template_has_the_same_routes_for_the_default_and_named_counters() -> None:
    for counter in ("/counter", "/counters/{counter_id}"):
        assert {method for method, path, _ in ROUTES if path == counter} == {"GET", "POST", "PUT"}
        assert ("GET", f"{counter}/history", "counters/read") in ROUTES


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_route_accepts_a_token_with_its_scope(
    stack: Stack, method: str, path: str, scope: str
) -> None:
    assert call(stack, method, path, token_for(stack, [scope])).status == 200


def test_every_route_refuses_a_request_without_a_token(stack: Stack) -> None:
    assert_every_route_refuses(stack, lambda _: None)


@pytest.mark.parametrize("malformed", ["garbage", "a.b.c", "..", "e30.e30.e30"])
def test_every_route_refuses_a_malformed_token(stack: Stack, malformed: str) -> None:
    assert_every_route_refuses(stack, lambda _: malformed)


def test_every_route_refuses_a_changed_signature(stack: Stack) -> None:
    header, payload, signature = token_for(stack, ALL_SCOPES).split(".")
    changed = ("B" if signature.startswith("A") else "A") + signature[1:]
    assert_every_route_refuses(stack, lambda _: f"{header}.{payload}.{changed}")


def test_every_route_refuses_a_token_with_edited_scopes(stack: Stack) -> None:
    def with_all_scopes(scope: str) -> str:
        token = token_for(stack, ALL_SCOPES - {scope})
        header, _, signature = token.split(".")
        claims = claims_of(token) | {"scope": " ".join(ALL_SCOPES)}
        return f"{header}.{encode(claims)}.{signature}"

    assert_every_route_refuses(stack, with_all_scopes)


def test_every_route_refuses_an_unsigned_token(stack: Stack) -> None:
    claims = claims_of(token_for(stack, ALL_SCOPES))
    assert_every_route_refuses(
        stack, lambda _: f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(claims)}."
    )


def test_token_works_until_it_expires(stack: Stack) -> None:
    client = create_app_client(
        stack,
        stack.outputs["UserPoolId"],
        AccessTokenValidity=SHORT_VALIDITY,
        TokenValidityUnits={"AccessToken": "seconds"},
    )
    token = token_for(stack, ALL_SCOPES, *client)
    assert call(stack, "GET", "/counter", token).status == 200
    time.sleep(max(0, claims_of(token)["exp"] - time.time()))
    assert_every_route_refuses(stack, lambda _: token)


def test_every_route_refuses_a_token_from_another_user_pool(stack: Stack) -> None:
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
    token = token_for(stack, ALL_SCOPES, *create_app_client(stack, pool))
    assert_every_route_refuses(stack, lambda _: token)


def test_route_refuses_a_token_with_all_scopes_except_its_own(stack: Stack) -> None:
    tokens = {scope: token_for(stack, ALL_SCOPES - {scope}) for scope in ALL_SCOPES}
    assert_every_route_refuses(stack, tokens.__getitem__)
