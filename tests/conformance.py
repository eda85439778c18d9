"""Checks responses against the contract, openapi.yaml.

The tests check every response that they get: of the deployed API, and of the functions in moto.

The contract lets a later version add members to a response, so its schemas allow unknown members.
This check does not allow them: a member that the service sends must be in the contract.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jsonschema_rs
from tests.contract_document import (
    COMPONENTS,
    METHODS,
    PROBLEM,
    PROBLEM_TYPE,
    Operation,
    operations,
    problems,
    resolve,
)

# The headers that the contract describes. A response may also have other headers, such as Date.
HEADERS = {
    name.lower()
    for response in COMPONENTS["responses"].values()
    for name in response.get("headers", {})
}
# The headers that a response has only if its problem lists them.
PROBLEM_HEADERS = {name.lower() for problem in problems().values() for name in problem.headers}
# The headers that the contract does not list for each response, because every response has them.
CORS_HEADERS = {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
# Scripts of a web page can read these response headers without a permission:
# https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name
_ALWAYS_EXPOSED = {"cache-control"}
# Browsers read these response headers, and scripts do not need them.
_FOR_BROWSERS = {
    "content-security-policy",
    "cross-origin-opener-policy",
    "location",
    "referrer-policy",
    "strict-transport-security",
    "x-content-type-options",
}
EXPOSED = HEADERS - _ALWAYS_EXPOSED - _FOR_BROWSERS
# The request headers that every preflight response allows, besides those that the contract lists.
_USUAL_REQUEST_HEADERS = {"authorization", "content-type"}
OK, NO_ROUTE = 200, 404


def _without_unknown_members(node: Any) -> Any:  # noqa: ANN401  any part of the contract
    """Return a part of the contract in which an object has only the members that are listed.

    A schema that allows unknown members explicitly (`additionalProperties: true`) stays as it is.
    """
    if isinstance(node, list):
        return [_without_unknown_members(each) for each in node]
    if not isinstance(node, dict):
        return node
    strict = {name: _without_unknown_members(each) for name, each in node.items()}
    return {"additionalProperties": False, **strict} if "properties" in node else strict


_STRICT_COMPONENTS = _without_unknown_members(COMPONENTS)


class ContractError(AssertionError):
    """A response is not as the contract says."""


def check_answer(event: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Check the answer of a function to an event of API Gateway.

    Raises:
        ContractError: the contract does not allow this answer to this request.
    """
    headers = answer["headers"]
    body = parsed(headers["Content-Type"], answer["body"])
    check(event["httpMethod"], event["resource"], answer["statusCode"], headers, body)


def parsed(media_type: str, text: str) -> Any:  # noqa: ANN401  any JSON
    """Return the body of a response: the parsed JSON, or the text if it is not JSON.

    If the body is empty, return None.
    """
    if not text:
        return None
    return json.loads(text) if media_type.endswith("json") else text


def check(
    method: str,
    path: str,
    status: int,
    headers: Mapping[str, str],
    body: Any,  # noqa: ANN401  any JSON
) -> None:
    """Check a response.

    Args:
        method: the method of the request.
        path: the path of the request, or of its route, without a query.
        status: the status of the response.
        headers: the headers of the response.
        body: the body of the response, as `parsed` returns it.

    Raises:
        ContractError: the contract does not allow this response to this request.
    """
    request = f"{method} {path}: {status}"
    given = {name.lower(): value for name, value in headers.items()}
    if method == "OPTIONS" and (allowed := _operations_of(path)):
        _require(status == OK, f"{request}: the status of a preflight response must be {OK}")
        _check_preflight(request, allowed, given)
        return
    found = operation(method, path)
    if found is None:
        _require(status == NO_ROUTE, f"{request}: the contract has no such route")
        responses = {NO_ROUTE: COMPONENTS["responses"]["NotFound"]}
    else:
        responses = found.responses
    _require(status in responses, f"{request}: the contract does not have this status")
    response = responses[status]
    _check_body(request, response, given, body)
    problem_headers: set[str] | None = None
    if given.get("content-type") == PROBLEM and body is not None:
        _require(body["status"] == status, f"{request}: the problem has the status of the response")
        problem = problems()[body["type"].removeprefix(PROBLEM_TYPE)]
        problem_headers = {name.lower() for name in problem.headers}
    _check_headers(request, response, given, problem_headers)
    _check_cors(request, given)


def operation(method: str, path: str) -> Operation | None:
    """Return the operation of a request. Return None if there is none.

    Args:
        method: the method of the request.
        path: the path of the request, or of its route.
    """
    exact = _operations().get((method, path))
    if exact:
        return exact
    for (its_method, _), (pattern, found) in _patterns().items():
        if its_method == method and pattern.fullmatch(path):
            return found
    return None


def _operations_of(path: str) -> list[Operation]:
    """Return the operations of a path, which may be that of a request or of a route."""
    found = [operation(method.upper(), path) for method in METHODS]
    return [each for each in found if each]


@cache
def _operations() -> dict[tuple[str, str], Operation]:
    return operations()


@cache
def _patterns() -> dict[tuple[str, str], tuple[re.Pattern[str], Operation]]:
    return {
        key: (re.compile(re.sub(r"{\w+}", r"[^/]+", key[1])), found)
        for key, found in _operations().items()
        if "{" in key[1]
    }


def _check_body(
    request: str,
    response: Mapping[str, Any],
    headers: Mapping[str, str],
    body: Any,  # noqa: ANN401  any JSON
) -> None:
    content = response.get("content")
    if content is None:
        _require(body is None, f"{request}: the body must be empty, not {body}")
        return
    media_type = headers.get("content-type")
    _require(media_type in content, f"{request}: the media type must not be {media_type}")
    _validate(f"{request}: the body", content[media_type]["schema"], body)


def _check_headers(
    request: str,
    response: Mapping[str, Any],
    headers: Mapping[str, str],
    problem_headers: set[str] | None,
) -> None:
    described = {name.lower(): resolve(each) for name, each in response.get("headers", {}).items()}
    for name in headers.keys() & HEADERS:
        _require(name in described, f"{request}: the contract does not have the header {name}")
    for name, header in described.items():
        value = headers.get(name)
        if value is None:
            _require(not header.get("required"), f"{request}: the header {name} is missing")
            continue
        is_number = resolve(header["schema"])["type"] == "integer"
        parsed = int(value) if is_number and value.isdecimal() else value
        _validate(f"{request}: the header {name}", header["schema"], parsed)
    if problem_headers is not None:
        present = headers.keys() & PROBLEM_HEADERS
        _require(present == problem_headers, f"{request}: the problem has the headers {present}")


def _check_cors(request: str, headers: Mapping[str, str]) -> None:
    """Check that web pages may read a response, with all headers that the contract describes."""
    for name in CORS_HEADERS:
        _require(name.lower() in headers, f"{request}: the header {name} is missing")
    exposed = _names(headers, "access-control-expose-headers")
    _require(exposed == EXPOSED, f"{request}: web pages can read only {sorted(exposed)}")


def _check_preflight(
    request: str, allowed: Iterable[Operation], headers: Mapping[str, str]
) -> None:
    """Check that a browser may send every request to a path, with every header of the contract.

    Args:
        request: the request, for the error.
        allowed: the operations of the path.
        headers: the headers of the preflight response.
    """
    _require("access-control-allow-origin" in headers, f"{request}: no origin is allowed")
    methods = _names(headers, "access-control-allow-methods")
    expected = {"options"} | {each.method.lower() for each in allowed}
    _require(methods == expected, f"{request}: the allowed methods are {sorted(methods)}")
    needed = {name.lower() for each in allowed for name in each.parameters("header")}
    missing = (needed | _USUAL_REQUEST_HEADERS) - _names(headers, "access-control-allow-headers")
    _require(not missing, f"{request}: these headers are not allowed: {sorted(missing)}")


def _names(headers: Mapping[str, str], name: str) -> set[str]:
    """Return the names that a header lists, in lower case."""
    return {each.strip().lower() for each in headers.get(name, "").split(",")}


def _validate(what: str, schema: Mapping[str, Any], value: Any) -> None:  # noqa: ANN401  any JSON
    validator = _validators.get(id(schema))
    if validator is None:
        validator = jsonschema_rs.Draft202012Validator(
            {**_without_unknown_members(schema), "components": _STRICT_COMPONENTS},
            validate_formats=True,
        )
        # The contract is never garbage, so its schemas keep their ids.
        _validators[id(schema)] = validator
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        detail = f"{what} is not as the contract says: {error}"
        raise ContractError(detail) from error


_validators: dict[int, jsonschema_rs.Draft202012Validator] = {}


def _require(condition: bool, detail: str) -> None:  # noqa: FBT001  as in an assert statement
    if not condition:
        raise ContractError(detail)
