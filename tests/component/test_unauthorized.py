"""Functions whose routes need a token refuse an event without a caller, and send no request."""

from copy import deepcopy
from typing import Any

import pytest
from tests.proxy import proxy_event
from tests.routes import PROTECTED, sample_body
from tests.stack import Stack
from tests.wire import Wire

MISSING = "the authorizer is missing"

AUTHORIZERS = [
    pytest.param(MISSING, id="no authorizer"),
    pytest.param(None, id="null"),
    pytest.param({}, id="no claims"),
    pytest.param({"claims": None}, id="null claims"),
    pytest.param({"claims": {}}, id="empty claims"),
    pytest.param({"claims": {"scope": "counters/read", "username": "ann"}}, id="no caller"),
    pytest.param({"claims": {"sub": "", "client_id": ""}}, id="empty names"),
    pytest.param({"principalId": "ann"}, id="another authorizer"),
]


@pytest.mark.parametrize("authorizer", AUTHORIZERS)
def test_an_event_without_a_caller_is_refused_by_every_function(
    stack: Stack,
    wire: Wire,
    authorizer: Any,  # noqa: ANN401
) -> None:
    stack.request("PUT", "/counters/orders", body={"value": 3})
    before = stack.contents()
    wire.sent.clear()

    for function, route in PROTECTED:
        path = route.path.replace("{counter_id}", "orders")
        parameters = {"counter_id": "orders"} if path != route.path else {}
        body = sample_body(function)
        event = deepcopy(proxy_event(route, path, parameters, "", {}, body, {"sub": "ann"}))
        event["requestContext"]["authorizer"] = authorizer
        if authorizer is MISSING:
            del event["requestContext"]["authorizer"]

        response = stack.invoke(function.name, event)

        assert response["statusCode"] == 401, route
        assert response["headers"]["Content-Type"] == "application/problem+json"
        assert '"type":"urn:tally:problem:unauthorized"' in response["body"]
        detail = "requestContext.authorizer.claims: must have sub or client_id."
        assert f'"detail":"{detail}' in response["body"]
    assert wire.operations() == []
    assert stack.contents() == before


def test_the_list_has_every_route() -> None:
    assert len(PROTECTED) >= 12


@pytest.mark.parametrize("claims", [{"sub": "ann"}, {"client_id": "app"}], ids=str)
def test_an_event_needs_only_sub_or_client_id(stack: Stack, claims: dict[str, str]) -> None:
    assert stack.request("POST", "/counter", claims=claims).status == 200
    stack.record(stack.changes())

    (entry,) = stack.request("GET", "/counter/history", claims=claims).body
    assert entry["actor"] in claims.values()
