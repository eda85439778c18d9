"""What browsers need: the template allows web pages to use every route, and nothing else changes.

The tests check the CloudFormation template that SAM generates from Tally's template.
"""

from typing import Any

import pytest
from tests import conformance, sam_transform
from tests.contract_document import operations
from tests.routes import ROUTES
from tests.stack import Stack

from counters import gateway

BODY: dict[str, Any] = sam_transform.template()["Resources"]["Api"]["Properties"]["Body"]
RESPONSES: dict[str, Any] = BODY["x-amazon-apigateway-gateway-responses"]
PATHS = sorted({route.path for _, route in ROUTES})
ORIGIN = {"Fn::Sub": "'${AllowedOrigin}'"}


def preflight_headers(path: str) -> dict[str, Any]:
    integration = BODY["paths"][path]["options"]["x-amazon-apigateway-integration"]
    parameters: dict[str, Any] = integration["responses"]["default"]["responseParameters"]
    return {name.removeprefix("method.response.header."): parameters[name] for name in parameters}


def names(text: str) -> set[str]:
    return {name.strip() for name in text.strip("'").split(",")}


def test_the_paths_are_those_of_the_routes() -> None:
    assert sorted(BODY["paths"]) == PATHS


@pytest.mark.parametrize("path", PATHS)
def test_a_preflight_request_needs_no_token_and_calls_no_function(path: str) -> None:
    options = BODY["paths"][path]["options"]

    assert not options.get("security")
    assert options["x-amazon-apigateway-integration"]["type"] == "mock"
    assert "security" not in BODY, "it would be for every method without an own one"


@pytest.mark.parametrize("path", PATHS)
def test_a_preflight_response_allows_the_methods_and_headers_of_the_contract(path: str) -> None:
    headers = preflight_headers(path)
    of_path = [each for (_, its_path), each in operations().items() if its_path == path]
    needed = {name for each in of_path for name in each.parameters("header")}

    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert names(headers["Access-Control-Allow-Methods"]) == {
        "OPTIONS",
        *(each.method for each in of_path),
    }
    assert needed | {"Authorization", "Content-Type"} <= names(
        headers["Access-Control-Allow-Headers"]
    )


def test_preflight_responses_allow_no_header_that_no_route_takes() -> None:
    taken = {name for each in operations().values() for name in each.parameters("header")}

    for path in PATHS:
        allowed = names(preflight_headers(path)["Access-Control-Allow-Headers"])
        assert allowed == taken | {"Authorization", "Content-Type"}


@pytest.mark.parametrize("error_type", RESPONSES)
def test_web_pages_may_read_the_errors_of_api_gateway(error_type: str) -> None:
    headers = RESPONSES[error_type]["responseParameters"]
    prefix = "gatewayresponse.header.Access-Control"

    assert headers[f"{prefix}-Allow-Origin"] == ORIGIN
    exposed = headers[f"{prefix}-Expose-Headers"]
    assert exposed == f"'{gateway.EXPOSED_HEADERS}'"
    assert {name.lower() for name in names(exposed)} == conformance.EXPOSED


@pytest.mark.parametrize(
    "path", ["/", "/counter", "/openapi.json", "/public/a", "/public/a/badge.svg"]
)
@pytest.mark.parametrize("query", ["", "unknown=1"])
def test_the_allowed_origin_is_that_of_the_parameter(stack: Stack, path: str, query: str) -> None:
    stack.refs["AllowedOrigin"] = "https://shop.example"

    headers = stack.request("GET", path, query=query).headers

    assert headers["Access-Control-Allow-Origin"] == "https://shop.example"
