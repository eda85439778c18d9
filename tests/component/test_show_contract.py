"""GET /openapi.json: the contract, for everybody."""

import json

import pytest
from tests.aws_template import ROOT
from tests.stack import Stack
from tests.wire import Wire

PATH = "/openapi.json"


def test_the_answer_is_the_contract(stack: Stack) -> None:
    reply = stack.request("GET", PATH)

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.body == json.loads((ROOT / "functions" / "openapi.json").read_text())


def test_the_contract_needs_no_caller_and_no_request_to_aws(stack: Stack, wire: Wire) -> None:
    # The test helper leaves the authorizer out of an event for a route that needs no token.
    assert stack.request("GET", PATH).status == 200
    assert not wire.sent


@pytest.mark.parametrize("tags", ["{}", "W/{}", '"a", {}', "*"])
def test_a_caller_that_has_the_contract_gets_304_without_a_body(stack: Stack, tags: str) -> None:
    tag = stack.request("GET", PATH).headers["ETag"]

    reply = stack.request("GET", PATH, headers={"If-None-Match": tags.format(tag)})

    assert (reply.status, reply.body, reply.headers["ETag"]) == (304, None, tag)


def test_a_caller_that_has_another_contract_gets_the_contract(stack: Stack) -> None:
    reply = stack.request("GET", PATH, headers={"If-None-Match": '"another"'})

    assert (reply.status, reply.body["info"]["title"]) == (200, "Tally")


@pytest.mark.parametrize(("query", "body"), [("pretty=1", b""), ("", b"{}")])
def test_a_parameter_or_a_body_is_refused(stack: Stack, query: str, body: bytes) -> None:
    assert stack.request("GET", PATH, query=query, body=body).status == 400
