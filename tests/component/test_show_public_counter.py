"""GET /public/{counter_id}: a public counter, for everybody."""

import re

import pytest
from tests.aws_template import TEMPLATE
from tests.stack import Stack
from tests.wire import Wire, throttled

PATH = "/public/public:visits"
NOT_PUBLIC = ["visits", "publi", "Public:visits", "a:public:visits"]


@pytest.mark.usefixtures("public")
def test_the_answer_is_the_same_counter_as_with_a_token(stack: Stack) -> None:
    stack.request("POST", "/counters/public:visits", body={"by": 5})
    with_token = stack.request("GET", "/counters/public:visits")

    reply = stack.request("GET", PATH)

    assert (reply.status, reply.body) == (200, with_token.body)
    assert reply.headers["ETag"] == with_token.headers["ETag"] == '"1"'
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "public, max-age=60"


@pytest.mark.usefixtures("public")
def test_a_public_counter_that_was_never_changed_is_0(stack: Stack) -> None:
    reply = stack.request("GET", PATH)

    assert (reply.status, reply.body["value"], reply.body["version"]) == (200, 0, 0)


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("path", [PATH, f"{PATH}/badge.svg"])
def test_a_read_is_strongly_consistent_and_the_only_request(
    stack: Stack, wire: Wire, path: str
) -> None:
    stack.request("GET", path)

    (sent,) = wire.sent
    assert wire.operations() == ["GetItem"]
    assert sent.parameters["ConsistentRead"] is True


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("suffix", ["", "/badge.svg"])
@pytest.mark.parametrize("counter_id", NOT_PUBLIC)
def test_a_counter_outside_the_prefix_gets_the_same_404_whether_it_exists_or_not(
    stack: Stack, wire: Wire, counter_id: str, suffix: str
) -> None:
    before = stack.request("GET", f"/public/{counter_id}{suffix}")
    stack.request("POST", f"/counters/{counter_id}")
    wire.sent.clear()
    after = stack.request("GET", f"/public/{counter_id}{suffix}")

    for reply in (before, after):
        assert reply.status == 404
        assert reply.headers["Cache-Control"] == "no-cache"
        assert reply.body["type"] == "urn:tally:problem:not-found"
    assert before.body | {"instance": ""} == after.body | {"instance": ""}
    assert before.headers == after.headers
    assert wire.operations() == []


@pytest.mark.parametrize("suffix", ["", "/badge.svg"])
@pytest.mark.parametrize("counter_id", ["public:visits", *NOT_PUBLIC])
def test_without_a_prefix_no_counter_is_public(
    stack: Stack, wire: Wire, counter_id: str, suffix: str
) -> None:
    stack.request("POST", f"/counters/{counter_id}")
    wire.sent.clear()

    reply = stack.request("GET", f"/public/{counter_id}{suffix}")

    assert (reply.status, reply.headers["Cache-Control"]) == (404, "no-cache")
    assert wire.operations() == []


def test_a_prefix_can_be_the_whole_name_of_a_counter(stack: Stack) -> None:
    stack.refs["PublicPrefix"] = "visits"

    assert stack.request("GET", "/public/visits").status == 200
    assert stack.request("GET", "/public/visits-today").status == 200
    assert stack.request("GET", "/public/visit").status == 404


@pytest.mark.usefixtures("public")
def test_an_encoded_name_is_decoded_before_it_is_compared(stack: Stack) -> None:
    assert stack.request("GET", "/public/public%3Avisits").status == 200
    assert stack.request("GET", "/public/%70ublic%3avisits").status == 200


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("suffix", ["", "/badge.svg"])
@pytest.mark.parametrize("tags", ['"2"', 'W/"2"', '"1", "2"', "*"])
def test_a_caller_that_has_this_version_gets_304_with_the_headers_of_the_200(
    stack: Stack, tags: str, suffix: str
) -> None:
    for _ in range(2):
        stack.request("POST", "/counters/public:visits")
    whole = stack.request("GET", PATH + suffix)

    reply = stack.request("GET", PATH + suffix, headers={"If-None-Match": tags})

    assert (reply.status, reply.body) == (304, None)
    # A cache stores the headers of a 304 with the response that it has (RFC 9111, section 3.2).
    assert reply.headers == whole.headers


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("suffix", ["", "/badge.svg"])
def test_a_caller_that_has_another_version_gets_the_counter(stack: Stack, suffix: str) -> None:
    stack.request("POST", "/counters/public:visits")

    for tags in ('"0"', '"2"', '"another"'):
        reply = stack.request("GET", PATH + suffix, headers={"If-None-Match": tags})
        assert (reply.status, reply.headers["ETag"]) == (200, '"1"')


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("suffix", ["", "/badge.svg"])
def test_no_cache_keeps_the_answer_if_the_database_fails(
    stack: Stack, wire: Wire, suffix: str
) -> None:
    wire.through = throttled

    reply = stack.request("GET", PATH + suffix)

    assert (reply.status, reply.headers["Cache-Control"]) == (503, "no-cache")
    assert reply.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("prefix", ["", "p", "public:", "a" * 64])
def test_the_prefix_can_be_empty_or_begin_a_name(prefix: str) -> None:
    assert re.fullmatch(TEMPLATE["Parameters"]["PublicPrefix"]["AllowedPattern"], prefix)


@pytest.mark.parametrize("prefix", [":", " ", "a b", "-", "*", "a" * 65])
def test_the_prefix_cannot_be_a_text_with_which_no_name_begins(prefix: str) -> None:
    assert not re.fullmatch(TEMPLATE["Parameters"]["PublicPrefix"]["AllowedPattern"], prefix)
