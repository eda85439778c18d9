"""Endpoints parse and check requests. The handler in these tests returns the parsed request."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.aws_template import Route
from tests.proxy import ALL_RIGHTS, Context, Reply, proxy_event, reply

from counters import errors, model
from counters.gateway import MAX_BODY, Handler, Response, endpoint, page_response
from counters.headers import condition, none_match
from counters.model import MAX_INTEGER, MIN_INTEGER
from counters.request import Request

POST = Route("POST", "/counters/{counter_id}", {})
CLAIMS = ALL_RIGHTS | {"sub": "ann", "client_id": "app"}


@pytest.fixture(scope="module", autouse=True)
def allowed_origin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ALLOWED_ORIGIN", "*")
        patched.setenv("STACK_NAME", "tally")
        yield


integers = st.integers(MIN_INTEGER, MAX_INTEGER)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("by"), inner),
    max_leaves=20,
)


@endpoint(query=["limit", "after"], body=["by"])
def echo(request: Request) -> Response:
    return Response(
        {**request._asdict(), "change": request.change._asdict(), "limit": request.limit()}
    )


@endpoint(headers=["if-match", "if-none-match"])
def conditional(request: Request) -> Response:
    """Return what the condition in the request's headers says.

    For If-None-Match, return whether the header names version 7. For If-Match, return the versions
    that the header names.
    """
    if "if-none-match" in request.headers:
        return Response(not none_match(request.headers, 7))
    wanted = condition(request.headers)
    return Response([] if wanted is None else wanted.versions or "*")


@endpoint()
def broken(_request: Request) -> Response:
    detail = "the password is 1234"
    raise RuntimeError(detail)


def event(
    *,
    counter_id: str = "orders",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> dict[str, Any]:
    path, parameters = f"/counters/{counter_id}", {"counter_id": counter_id}
    return proxy_event(POST, path, parameters, query, headers or {}, body, CLAIMS)


def call(request: dict[str, Any], handler: Handler = echo) -> Reply:
    return reply(handler(request, Context("Echo")))  # type: ignore[arg-type]  # a stand-in


def is_json(value: object) -> bool:
    """Return whether the value is valid JSON: JSON has no NaN and no Infinity, but Python does."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def assert_accepted_or_refused(response: Reply) -> None:
    if response.status != 200:
        assert response.status == 400
        assert response.headers["Content-Type"] == "application/problem+json"
        assert ": " in response.body["detail"]


@given(integers)
def test_an_integer_in_range_arrives_as_it_was_sent(by: int) -> None:
    assert call(event(body=json.dumps({"by": by}).encode())).body["body"] == {"by": by}


@given(st.integers())
def test_parsing_does_not_move_an_integer_into_or_out_of_range(by: int) -> None:
    parsed = call(event(body=b'{"by": %d}' % by)).body["body"]["by"]

    assert (MIN_INTEGER <= parsed <= MAX_INTEGER) == (MIN_INTEGER <= by <= MAX_INTEGER)


@given(json_values)
def test_any_json_gets_200_or_400(value: object) -> None:
    response = call(event(body=json.dumps(value).encode()))

    assert_accepted_or_refused(response)
    known = isinstance(value, dict) and value.keys() <= {"by"}
    assert (response.status == 200) == (known and is_json(value))


@given(st.text() | st.binary())
def test_any_body_gets_200_or_400(body: str | bytes) -> None:
    assert_accepted_or_refused(call(event(body=body if isinstance(body, bytes) else body.encode())))


@given(st.text(st.characters(max_codepoint=127)))
def test_any_body_that_claims_to_be_base64_gets_200_or_400(body: str) -> None:
    assert_accepted_or_refused(call({**event(), "body": body, "isBase64Encoded": True}))


def test_a_body_in_base64_is_decoded() -> None:
    body = base64.b64encode(b'{"by": 7}').decode()

    assert call({**event(), "body": body, "isBase64Encoded": True}).body["body"] == {"by": 7}


def test_the_longest_body_is_accepted_and_a_longer_one_refused() -> None:
    assert call(event(body=b'{"by": 1}'.ljust(MAX_BODY))).status == 200
    assert call(event(body=b'{"by": 1}'.ljust(MAX_BODY + 1))).status == 400


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True))
def test_a_name_is_decoded_however_it_is_encoded(counter_id: str) -> None:
    encoded = "".join(f"%{ord(character):02X}" for character in counter_id)

    for path in (counter_id, quote(counter_id, safe=""), encoded, encoded.lower()):
        assert call(event(counter_id=path)).body["counter_id"] == counter_id


@given(st.text(min_size=1))
def test_any_name_gets_200_or_400(text: str) -> None:
    assert_accepted_or_refused(call(event(counter_id=text)))
    assert_accepted_or_refused(call(event(counter_id=quote(text, safe="", errors="replace"))))


@given(st.dictionaries(st.text() | st.sampled_from(["limit", "after"]), st.lists(st.text())))
def test_any_query_gets_200_or_400(query: dict[str, list[str]]) -> None:
    sent = {name: values for name, values in query.items() if values}

    response = call({**event(), "multiValueQueryStringParameters": sent or None})

    assert_accepted_or_refused(response)
    if response.status == 200:
        assert sent.keys() <= {"limit", "after"}
        assert all(len(values) == 1 for values in sent.values())


@given(st.integers(1, 1000))
def test_a_limit_in_range_is_accepted(limit: int) -> None:
    assert call(event(query=f"limit={limit}")).body["limit"] == limit


@given(st.integers(max_value=0) | st.integers(min_value=1001))
def test_a_limit_out_of_range_is_refused(limit: int) -> None:
    response = call(event(query=f"limit={limit}"))

    assert response.status == 400
    assert response.body["detail"].startswith("limit: ")


def test_the_default_limit_is_100() -> None:
    assert call(event()).body["limit"] == 100


@given(
    st.sampled_from(["idempotency-key", "if-match", "if-none-match", "if-unmodified-since"]),
    st.lists(st.booleans()),
)
def test_a_header_that_is_not_honoured_is_refused_in_upper_and_lower_case(
    name: str, upper: list[bool]
) -> None:
    cases = [*upper, *[False] * len(name)]
    written = "".join(c.upper() if up else c for c, up in zip(name, cases, strict=False))

    response = call(event(headers={written: "x"}))

    assert response.status == 400
    assert response.body["detail"].startswith(f"{written}: ")


opaque = st.text(st.characters(codec="latin-1", exclude_characters='"\x7f', min_codepoint=0x21))
tags = st.builds('{}"{}"'.format, st.sampled_from(["", "W/"]), opaque | st.integers(0, 9).map(str))
spaces = st.text(" \t", max_size=3)
gaps = st.lists(spaces, max_size=3).map(",".join)  # commas with only spaces between them


@st.composite
def header_lists(draw: st.DrawFn, members: st.SearchStrategy[str]) -> tuple[list[str], list[str]]:
    """Return list members, and header lines that list them (RFC 9110, section 5.6.1)."""
    listed = draw(st.lists(members, min_size=1, max_size=5))
    lines = [draw(gaps)]
    for member in listed:
        lines[-1] += draw(spaces) + member + draw(spaces)
        if draw(st.booleans()):
            lines.append(draw(gaps))
        else:
            lines[-1] += "," + draw(gaps) + ","
    return listed, lines


def call_conditional(name: str, lines: list[str]) -> Reply:
    return call({**event(), "multiValueHeaders": {name: lines}}, conditional)


@given(header_lists(tags))
def test_a_list_of_entity_tags_is_read_member_by_member(
    tags_and_lines: tuple[list[str], list[str]],
) -> None:
    listed, lines = tags_and_lines

    response = call_conditional("If-None-Match", lines)

    assert (response.status, response.body) == (200, '"7"' in listed or 'W/"7"' in listed)


@given(header_lists(st.integers(0, MAX_INTEGER).map('"{}"'.format)))
def test_a_list_of_versions_is_read_member_by_member(
    tags_and_lines: tuple[list[str], list[str]],
) -> None:
    listed, lines = tags_and_lines

    response = call_conditional("If-Match", lines)

    assert response.status == 200
    assert response.body == sorted({int(member.strip('"')) for member in listed})


@given(header_lists(tags))
def test_an_etag_that_is_not_a_version_is_refused(
    tags_and_lines: tuple[list[str], list[str]],
) -> None:
    listed, lines = tags_and_lines
    versions = all(re.fullmatch(r'"(0|[1-9]\d{0,15})"', tag, re.ASCII) for tag in listed)

    assert call_conditional("If-Match", lines).status == (200 if versions else 400)


@given(
    st.lists(st.text() | st.text('"W/*7, \t'), min_size=1), st.sampled_from(["Match", "None-Match"])
)
def test_any_condition_gets_200_or_400(lines: list[str], name: str) -> None:
    assert_accepted_or_refused(call_conditional(f"If-{name}", lines))


def test_other_headers_are_ignored() -> None:
    assert call(event(headers={"Accept": "text/html", "X-Idempotency-Key": "k"})).status == 200


def test_a_request_without_headers_is_accepted() -> None:
    assert call({**event(), "headers": None}).status == 200


def test_the_log_line_of_a_request_with_a_surrogate_can_be_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    response = call(event(body=b'{"\\ud800": 1}'))

    assert response.status == 400
    (record,) = caplog.records
    assert vars(record)["detail"].encode() == b"\\ud800: unknown field"


def test_the_actor_is_the_subject_of_the_token() -> None:
    assert call(event()).body["change"]["actor"] == "ann"


def test_two_invocations_with_the_same_request_id_are_two_attempts() -> None:
    request = event()

    first, second = call(request), call(request)

    assert first.body["change"]["request_id"] != second.body["change"]["request_id"]


@given(
    st.dictionaries(
        st.sampled_from(["limit", "after", "prefix"]), st.text() | st.integers(), min_size=1
    )
)
def test_a_link_has_the_parameters_of_the_next_page(following: dict[str, object]) -> None:
    page = "https://tally.example/v1/counters?limit=1"
    link = page_response([], following).headers["Link"]

    address = urljoin(page, link.removesuffix('>; rel="next"').removeprefix("<"))

    assert address.startswith("https://tally.example/v1/counters?")
    assert parse_qs(urlsplit(address).query, keep_blank_values=True) == {
        name: [str(value)] for name, value in following.items()
    }


def test_the_last_page_has_no_link() -> None:
    assert "Link" not in page_response([1], {}).headers


def test_an_unexpected_error_is_a_problem_without_its_message() -> None:
    request = event()

    response = call(request, broken)

    assert response.status == 500
    assert response.body["type"].endswith("internal-error")
    assert response.body["instance"] == f"urn:uuid:{request['requestContext']['requestId']}"
    assert "1234" not in json.dumps(response.body)


ERRORS = {
    errors.InvalidRequestError("why"): 400,
    errors.UnauthorizedError("why"): 401,
    errors.ForbiddenError("why"): 403,
    errors.NotFoundError("why"): 404,
    errors.BoundExceededError(model.Bounds(0, 9), model.Counter("orders", 7)): 409,
    errors.VersionMismatchError(model.Condition((7,)), model.Counter("orders", version=8)): 412,
    errors.KeyReusedError("why"): 422,
    errors.InProgressError(20): 409,
    errors.ThrottledError("why"): 503,
    errors.OutcomeUnknownError("why"): 503,
    errors.InternalError(): 500,
}


def test_the_table_has_every_error() -> None:
    assert {type(error) for error in ERRORS} == set(errors.CounterError.__subclasses__())


@pytest.mark.parametrize(("error", "status"), ERRORS.items())
def test_every_error_has_its_status(error: errors.CounterError, status: int) -> None:
    @endpoint()
    def failing(_request: Request) -> Response:
        raise error

    response = call(event(), failing)

    assert response.status == status
    assert response.body["detail"] == str(error)
    assert response.body["status"] == response.status
