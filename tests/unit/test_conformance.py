"""The check of responses against the contract finds each kind of difference."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.conformance import ContractError, check, parsed

COUNTER = {
    "counter_id": "orders",
    "value": 1,
    "version": 1,
    "created_at": "2026-11-22T10:00:00.123Z",
    "updated_at": "2026-11-22T10:00:00.123Z",
}
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag, Idempotent-Replayed, Link, Retry-After",
}
IN_EVERY_ANSWER = {**CORS, "Cache-Control": "no-cache"}
HEADERS = {**IN_EVERY_ANSWER, "Content-Type": "application/json", "ETag": '"1"'}
IN_PROBLEM = {**IN_EVERY_ANSWER, "Content-Type": "application/problem+json"}
OF_BADGE = {
    **HEADERS,
    "Cache-Control": "public, max-age=60",
    "Content-Security-Policy": "default-src 'none'",
    "Content-Type": "image/svg+xml",
    "X-Content-Type-Options": "nosniff",
}
PREFLIGHT = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-Match,"
    " If-None-Match",
    "Access-Control-Allow-Methods": "GET,POST,PUT,OPTIONS",
    "Access-Control-Allow-Origin": "*",
}
TEMPORARY = {**IN_PROBLEM, "Retry-After": "1"}


def problem(kind: str, status: int, **more: object) -> dict[str, object]:
    return {
        "type": f"urn:tally:problem:{kind}",
        "title": kind,
        "status": status,
        "detail": "why",
        "instance": "urn:uuid:579b24df-9c5e-441f-a963-b40afcc6f9e6",
        **more,
    }


INVALID = problem("invalid-request", 400)


def without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {each: value for each, value in headers.items() if each != name}


@pytest.mark.parametrize(
    ("method", "path", "status", "headers", "body"),
    [
        ("GET", "/counter", 200, HEADERS, COUNTER),
        ("GET", "/counters/orders", 200, HEADERS, COUNTER),
        ("GET", "/counters/{counter_id}", 200, HEADERS, COUNTER),
        ("GET", "/counter", 200, {**HEADERS, "Date": "today"}, COUNTER),
        ("GET", "/counter", 200, {name.lower(): text for name, text in HEADERS.items()}, COUNTER),
        ("GET", "/counter", 304, {**IN_EVERY_ANSWER, "ETag": '"1"'}, None),
        ("POST", "/counter", 200, {**HEADERS, "Idempotent-Replayed": "true"}, COUNTER),
        ("POST", "/counter", 409, IN_PROBLEM, problem("bound-exceeded", 409, value=1)),
        ("POST", "/counter", 409, TEMPORARY, problem("in-progress", 409)),
        ("GET", "/counter", 503, TEMPORARY, problem("throttled", 503)),
        ("GET", "/public/orders/badge.svg", 200, OF_BADGE, "<svg ></svg>"),
        ("OPTIONS", "/counters/orders", 200, PREFLIGHT, {}),
        ("GET", "/nothing", 404, IN_PROBLEM, problem("not-found", 404)),
        ("DELETE", "/counter", 404, IN_PROBLEM, problem("not-found", 404)),
    ],
)
def test_a_response_of_the_contract_is_accepted(
    method: str,
    path: str,
    status: int,
    headers: Mapping[str, str],
    body: Any,  # noqa: ANN401
) -> None:
    check(method, path, status, headers, body)


@pytest.mark.parametrize(
    ("status", "headers", "body", "detail"),
    [
        (201, HEADERS, COUNTER, "does not have this status"),
        (200, HEADERS, {**COUNTER, "extra": 1}, "the body"),
        (200, HEADERS, {**COUNTER, "value": 2**53}, "the body"),
        (200, HEADERS, {**COUNTER, "value": "1"}, "the body"),
        (200, HEADERS, {**COUNTER, "created_at": "today"}, "the body"),
        (200, HEADERS, {**COUNTER, "created_at": "2026-13-22T10:00:00.123Z"}, "the body"),
        (200, HEADERS, {"value": 1}, "the body"),
        (200, HEADERS, None, "the body"),
        (304, {"ETag": '"1"', "Cache-Control": "no-cache"}, COUNTER, "must be empty"),
        (200, {**HEADERS, "Content-Type": "text/plain"}, COUNTER, "media type"),
        (200, {**HEADERS, "Link": '<?a>; rel="next"'}, COUNTER, "does not have the header link"),
        (200, {**HEADERS, "ETag": "1"}, COUNTER, "header etag"),
        (200, {**HEADERS, "Cache-Control": "max-age=60"}, COUNTER, "header cache-control"),
        (200, IN_PROBLEM | {"Content-Type": "application/json"}, COUNTER, "etag is missing"),
        (200, HEADERS | {"Access-Control-Expose-Headers": "ETag"}, COUNTER, "can read only"),
        (200, without(HEADERS, "Access-Control-Allow-Origin"), COUNTER, "Allow-Origin is missing"),
        (400, without(IN_PROBLEM, "Access-Control-Expose-Headers"), INVALID, "Headers is missing"),
        (400, IN_PROBLEM, problem("bound-exceeded", 400, value=1), "the body"),
        (400, IN_PROBLEM, problem("invalid-request", 415), "status of the response"),
        (400, IN_PROBLEM, problem("invalid-request", 400, value=1), "the body"),
        (400, {**IN_PROBLEM, "Retry-After": "1"}, problem("invalid-request", 400), "retry-after"),
        (503, IN_PROBLEM, problem("throttled", 503), "problem has the headers"),
        (503, TEMPORARY, problem("outcome-unknown", 503), "problem has the headers"),
        (503, {**TEMPORARY, "Retry-After": "soon"}, problem("throttled", 503), "retry-after"),
    ],
)
def test_a_difference_from_the_contract_is_an_error(
    status: int,
    headers: Mapping[str, str],
    body: Any,  # noqa: ANN401
    detail: str,
) -> None:
    with pytest.raises(ContractError, match=detail):
        check("GET", "/counter", status, headers, body)


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("DELETE", "/counter")])
def test_a_route_that_the_contract_lacks_can_only_answer_404(method: str, path: str) -> None:
    with pytest.raises(ContractError, match="no such route"):
        check(method, path, 200, HEADERS, COUNTER)


@pytest.mark.parametrize(
    ("status", "headers", "detail"),
    [
        (403, PREFLIGHT, "the status"),
        (200, without(PREFLIGHT, "Access-Control-Allow-Origin"), "no origin"),
        (200, PREFLIGHT | {"Access-Control-Allow-Methods": "GET,POST,OPTIONS"}, "methods"),
        (200, PREFLIGHT | {"Access-Control-Allow-Headers": "Content-Type"}, "headers"),
    ],
)
def test_a_preflight_response_must_allow_what_the_contract_has(
    status: int, headers: Mapping[str, str], detail: str
) -> None:
    with pytest.raises(ContractError, match=detail):
        check("OPTIONS", "/counter", status, headers, {})


def test_a_body_is_parsed_only_if_it_is_json() -> None:
    assert parsed("application/json", "[1]") == parsed("application/problem+json", "[1]") == [1]
    assert parsed("image/svg+xml", "[1]") == "[1]"
    assert parsed("image/svg+xml", "") is parsed("application/json", "") is None
