"""The check of responses against the contract finds each kind of difference."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.conformance import ContractError, check

COUNTER = {
    "counter_id": "orders",
    "value": 1,
    "version": 1,
    "created_at": "2026-11-22T10:00:00.123Z",
    "updated_at": "2026-11-22T10:00:00.123Z",
}
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-cache", "ETag": '"1"'}
IN_PROBLEM = {"Content-Type": "application/problem+json", "Cache-Control": "no-cache"}
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


@pytest.mark.parametrize(
    ("method", "path", "status", "headers", "body"),
    [
        ("GET", "/counter", 200, HEADERS, COUNTER),
        ("GET", "/counters/orders", 200, HEADERS, COUNTER),
        ("GET", "/counters/{counter_id}", 200, HEADERS, COUNTER),
        ("GET", "/counter", 200, {**HEADERS, "Date": "today"}, COUNTER),
        ("GET", "/counter", 200, {name.lower(): text for name, text in HEADERS.items()}, COUNTER),
        ("GET", "/counter", 304, {"ETag": '"1"', "Cache-Control": "no-cache"}, None),
        ("POST", "/counter", 200, {**HEADERS, "Idempotent-Replayed": "true"}, COUNTER),
        ("POST", "/counter", 409, IN_PROBLEM, problem("bound-exceeded", 409, value=1)),
        ("POST", "/counter", 409, TEMPORARY, problem("in-progress", 409)),
        ("GET", "/counter", 503, TEMPORARY, problem("throttled", 503)),
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
