"""Checks responses against the contract, openapi.yaml.

The tests check every response that they get: of the deployed API, and of the functions in moto.

The contract lets a later version add members to a response, so its schemas allow unknown members.
This check does not allow them: a member that the service sends must be in the contract.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs
from tests.contract_document import (
    COMPONENTS,
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
NO_ROUTE = 404


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
    text = answer["body"]
    body = json.loads(text) if text else None
    headers = answer["headers"]
    check(event["httpMethod"], event["resource"], answer["statusCode"], headers, body)


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
        body: the parsed body of the response; None if the body is empty.

    Raises:
        ContractError: the contract does not allow this response to this request.
    """
    request = f"{method} {path}: {status}"
    found = operation(method, path)
    if found is None:
        _require(status == NO_ROUTE, f"{request}: the contract has no such route")
        responses = {NO_ROUTE: COMPONENTS["responses"]["NotFound"]}
    else:
        responses = found.responses
    _require(status in responses, f"{request}: the contract does not have this status")
    response = responses[status]
    given = {name.lower(): value for name, value in headers.items()}
    _check_body(request, response, given, body)
    problem_headers: set[str] | None = None
    if given.get("content-type") == PROBLEM and body is not None:
        _require(body["status"] == status, f"{request}: the problem has the status of the response")
        problem = problems()[body["type"].removeprefix(PROBLEM_TYPE)]
        problem_headers = {name.lower() for name in problem.headers}
    _check_headers(request, response, given, problem_headers)


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
