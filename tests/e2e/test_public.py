"""Public counters and badges over HTTP, without a token; and what browsers need of every route."""

import re
import uuid
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest
from tests.e2e.service import Answer, Caller, stored_counters
from tests.routes import ROUTES

from deployment import PUBLIC_PREFIX, Stack

PATHS = sorted({route.path for _, route in ROUTES})
SUFFIXES = ["", "/badge.svg"]
ORIGIN = {"Origin": "https://shop.example"}


@pytest.fixture
def anybody(stack: Stack) -> Iterator[Caller]:
    """A caller without a token."""
    with Caller(stack.url, None) as caller:
        yield caller


@pytest.fixture
def public(caller: Caller) -> str:
    """The name of a new public counter with value 7 and version 1."""
    name = f"{PUBLIC_PREFIX}{uuid.uuid4()}"
    assert caller.post(f"/counters/{name}", by=7).status == 200
    return name


def is_open(answer: Answer) -> bool:
    """Return whether web pages may read an answer. `Caller` checks the exposed headers."""
    return answer.headers["Access-Control-Allow-Origin"] == "*"


def test_everybody_can_read_a_public_counter(caller: Caller, anybody: Caller, public: str) -> None:
    answer = anybody.get(f"/public/{public}")

    assert (answer.status, answer.body) == (200, caller.get(f"/counters/{public}").body)
    assert answer.body["value"] == 7
    assert answer.headers["Cache-Control"] == "public, max-age=60"


def test_everybody_can_see_the_badge_of_a_public_counter(anybody: Caller, public: str) -> None:
    answer = anybody.get(f"/public/{public}/badge.svg?label=a%20%3Cb%3E%20%26%20%C3%A9&color=f80")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    texts = ET.fromstring(answer.body).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314
    assert [text.text for text in texts] == ["a <b> & é", "7"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_caller_that_has_this_version_gets_304_until_the_counter_changes(
    caller: Caller, anybody: Caller, public: str, suffix: str
) -> None:
    path = f"/public/{public}{suffix}"
    first = anybody.get(path)
    known = {"If-None-Match": first.headers["ETag"]}

    same = anybody.request("GET", path, headers=known)
    caller.post(f"/counters/{public}")
    changed = anybody.request("GET", path, headers=known)

    assert (same.status, same.body, same.headers["ETag"]) == (304, None, '"1"')
    assert (changed.status, changed.headers["ETag"]) == (200, '"2"')


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_counter_outside_the_prefix_is_not_found(
    caller: Caller, anybody: Caller, suffix: str
) -> None:
    name = f"private:{uuid.uuid4()}"
    before = anybody.get(f"/public/{name}{suffix}")
    caller.post(f"/counters/{name}")
    after = anybody.get(f"/public/{name}{suffix}")

    assert before.status == after.status == 404
    assert before.body["detail"] == after.body["detail"]
    assert after.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nobody_can_change_a_counter_on_a_public_path(
    stack: Stack, caller: Caller, anybody: Caller, method: str, suffix: str
) -> None:
    before = stored_counters(stack)

    for sender in (anybody, caller):
        answer = sender.request(method, f"/public/{PUBLIC_PREFIX}a{suffix}", '{"value": 1}')
        assert (answer.status, is_open(answer)) == (404, True)

    assert stored_counters(stack) == before


def test_a_public_counter_still_needs_a_token_on_every_other_path(
    anybody: Caller, public: str
) -> None:
    for suffix in ("", "/history", "/trend"):
        assert anybody.get(f"/counters/{public}{suffix}").status == 401
    assert anybody.post(f"/counters/{public}").status == 401
    assert anybody.put(f"/counters/{public}", value=1).status == 401


@pytest.mark.parametrize("path", PATHS)
def test_every_path_answers_a_preflight_request_without_a_token(anybody: Caller, path: str) -> None:
    # `Caller` compares the allowed methods and headers with the contract.
    answer = anybody.request(
        "OPTIONS",
        re.sub(r"{\w+}", "public:a", path),
        headers={**ORIGIN, "Access-Control-Request-Method": "GET"},
    )

    assert (answer.status, is_open(answer)) == (200, True)


def test_web_pages_may_read_every_kind_of_answer(
    caller: Caller, anybody: Caller, public: str
) -> None:
    path = f"/counters/{public}"
    tag = caller.get(path).headers["ETag"]
    answers = [
        caller.request("GET", path, headers=ORIGIN),
        caller.request("GET", path, headers={**ORIGIN, "If-None-Match": tag}),
        caller.request("GET", f"{path}?version=x", headers=ORIGIN),
        caller.request("GET", f"{path}?version=99", headers=ORIGIN),
        anybody.request("GET", path, headers=ORIGIN),
        anybody.request("GET", "/nothing", headers=ORIGIN),
        anybody.request("GET", "/openapi.json", headers=ORIGIN),
        anybody.request("GET", f"/public/{public}", headers=ORIGIN),
    ]

    assert [answer.status for answer in answers] == [200, 304, 400, 404, 401, 404, 200, 200]
    assert all(map(is_open, answers))
