"""Versions as entity tags, conditions on them, and bounds: each decided by the one write itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from tests.aws_template import Function, Route
from tests.proxy import proxy_event
from tests.routes import ROUTES, sample_body, supported
from tests.stack import CLIENT_ID, Stack
from tests.wire import Wire

EDGE = 2**53 - 1


@dataclass(frozen=True)
class Reply:
    """A function's answer: the text is empty if it has no body."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> dict[str, Any]:
        return dict(json.loads(self.text))

    @property
    def problem(self) -> str:
        return str(self.body["type"]).rpartition(":")[2]


class Counter:
    """The counter "hits", as a caller asks for it, and the operations that an answer took."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire

    def ask(
        self,
        method: str,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Reply:
        self.wire.sent.clear()
        function, route, parameters = self.stack.route(method, "/counters/hits")
        text = b"" if body is None else json.dumps(body).encode()
        event = proxy_event(
            route, "/counters/hits", parameters, "", headers or {}, text, {"sub": CLIENT_ID}
        )
        response = self.stack.invoke(function.name, event)
        return Reply(response["statusCode"], response["headers"], response["body"])

    def get(self, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("GET", headers)

    def add(self, by: int = 1, **bounds: object) -> Reply:
        return self.ask("POST", body={"by": by, **bounds})

    def set(self, value: int, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("PUT", headers, {"value": value})

    def stands(self) -> tuple[int, int]:
        """Return the value and the version."""
        body = self.get().body
        return body["value"], body["version"]


@pytest.fixture
def hits(stack: Stack, wire: Wire) -> Counter:
    return Counter(stack, wire)


# --- The entity tag ------------------------------------------------------------------------------


def test_the_etag_of_every_answer_is_the_version(hits: Counter) -> None:
    replies = [hits.get(), hits.add(), hits.add(), hits.get(), hits.set(7), hits.get()]

    assert [reply.headers["ETag"] for reply in replies] == [
        '"0"',
        '"1"',
        '"2"',
        '"2"',
        '"3"',
        '"3"',
    ]
    for reply in replies:
        assert reply.headers["ETag"] == f'"{reply.body["version"]}"'


@pytest.mark.parametrize(
    "tags",
    [
        '"2"',
        'W/"2"',
        '"1", "2"',
        '"2","1"',
        '"1" ,  W/"2"',
        '"another", "2"',
        "*",
        ' "2" ',
        '"1", , "2"',
        ',"2"',
        '"2",',
        ' , ,"2" \t,, ',
        '"a,b", "2"',
        '"2", ","',
        '",,", W/"2"',
        '"\u00e9", "2"',
    ],
)
def test_a_read_with_the_current_version_gets_304_without_a_body(hits: Counter, tags: str) -> None:
    hits.add()
    hits.add()

    reply = hits.get({"If-None-Match": tags})

    assert (reply.status, reply.text) == (304, "")
    assert reply.headers["ETag"] == '"2"'
    assert hits.wire.operations() == ["GetItem"]


@pytest.mark.parametrize(
    "tags",
    [
        '"1"',
        'W/"1"',
        '"1", "3"',
        '"22"',
        '""',
        '"02"',
        '"*"',
        '"a,b"',
        '"1,2"',
        '"1", , "3",',
        '","',
    ],
)
def test_a_read_with_another_version_gets_the_counter(hits: Counter, tags: str) -> None:
    hits.add()
    hits.add()

    reply = hits.get({"If-None-Match": tags})

    assert (reply.status, reply.body["version"], reply.headers["ETag"]) == (200, 2, '"2"')


@pytest.mark.parametrize(("tags", "status"), [('"0"', 304), ('"1"', 200), ("*", 200)])
def test_a_counter_that_was_never_written_has_version_0_and_does_not_match_any(
    hits: Counter, tags: str, status: int
) -> None:
    reply = hits.get({"If-None-Match": tags})

    assert (reply.status, reply.headers["ETag"]) == (status, '"0"')


def test_header_names_are_case_insensitive(hits: Counter) -> None:
    hits.add()

    assert hits.get({"if-none-match": '"1"'}).status == 304
    assert hits.set(5, {"IF-MATCH": '"2"'}).status == 412


# --- Conditional sets ----------------------------------------------------------------------------


def test_a_set_with_the_current_version_is_one_write(hits: Counter) -> None:
    hits.add(3)

    reply = hits.set(10, {"If-Match": '"1"'})

    assert hits.wire.operations() == ["UpdateItem"]
    assert (reply.status, reply.headers["ETag"]) == (200, '"2"')
    assert (reply.body["value"], reply.body["version"]) == (10, 2)


@pytest.mark.parametrize("version", ["0", "1", "3", "9007199254740991"])
def test_a_set_with_another_version_is_refused_and_told_the_current_one(
    hits: Counter, version: str
) -> None:
    hits.add()
    hits.add()

    reply = hits.set(10, {"If-Match": f'"{version}"'})

    assert hits.wire.operations() == ["UpdateItem"]  # the refusal tells, nothing is read
    assert (reply.status, reply.problem) == (412, "version-mismatch")
    assert reply.headers["ETag"] == '"2"'
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert hits.stands() == (2, 2)


def test_the_second_of_two_sets_with_the_same_version_is_refused(hits: Counter) -> None:
    hits.add()

    first, second = [hits.set(value, {"If-Match": '"1"'}) for value in (10, 20)]

    assert (first.status, second.status, second.headers["ETag"]) == (200, 412, '"2"')
    assert hits.stands() == (10, 2)


@pytest.mark.parametrize("headers", [{"If-None-Match": "*"}, {"If-Match": '"0"'}])
def test_only_the_first_of_two_sets_creates_the_counter(
    hits: Counter, headers: Mapping[str, str]
) -> None:
    first = hits.set(10, headers)
    assert hits.wire.operations() == ["UpdateItem"]
    second = hits.set(20, headers)
    assert hits.wire.operations() == ["UpdateItem"]

    assert (first.status, first.headers["ETag"]) == (200, '"1"')
    assert (second.status, second.problem, second.headers["ETag"]) == (
        412,
        "version-mismatch",
        '"1"',
    )
    assert hits.stands() == (10, 1)


@pytest.mark.parametrize(
    "versions", ['"1", "2"', '"2","1"', '"9", , "2",', '"0", "2"', ', "2" , "2"', "*", " * "]
)
def test_a_set_with_several_versions_is_one_write_if_one_is_current(
    hits: Counter, versions: str
) -> None:
    hits.add()
    hits.add()

    reply = hits.set(10, {"If-Match": versions})

    assert hits.wire.operations() == ["UpdateItem"]
    assert (reply.status, reply.headers["ETag"]) == (200, '"3"')
    assert hits.stands() == (10, 3)


def test_a_set_with_several_versions_is_refused_if_none_is_current(hits: Counter) -> None:
    hits.add()
    hits.add()

    reply = hits.set(10, {"If-Match": '"0", "1", "3"'})

    assert hits.wire.operations() == ["UpdateItem"]
    assert (reply.status, reply.problem) == (412, "version-mismatch")
    assert reply.headers["ETag"] == '"2"'
    assert hits.stands() == (2, 2)


def test_a_condition_can_have_100_versions(hits: Counter) -> None:
    hits.add()
    edge = 2**53 - 1
    versions = ", ".join(f'"{version}"' for version in [1, *range(edge - 98, edge + 1)])

    assert hits.set(10, {"If-Match": versions}).status == 200
    assert hits.set(20, {"If-Match": versions}).status == 412


def test_a_set_with_any_version_does_not_create_a_counter(hits: Counter, stack: Stack) -> None:
    reply = hits.set(10, {"If-Match": "*"})

    assert hits.wire.operations() == ["UpdateItem"]
    assert (reply.status, reply.problem, reply.headers["ETag"]) == (412, "version-mismatch", '"0"')
    assert not stack.items("CounterTable")


def test_a_set_with_version_0_among_others_can_create_the_counter(hits: Counter) -> None:
    first, second = [hits.set(value, {"If-Match": '"0", "5"'}) for value in (10, 20)]

    assert (first.status, second.status) == (200, 412)
    assert hits.stands() == (10, 1)


def test_a_set_with_a_version_does_not_create_a_counter(hits: Counter, stack: Stack) -> None:
    reply = hits.set(10, {"If-Match": '"1"'})

    assert (reply.status, reply.headers["ETag"]) == (412, '"0"')
    assert not stack.items("CounterTable")


# --- Headers that do not make sense --------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        *[("PUT", "If-Match", value) for value in ("1", "", '"x"', '"01"', '"-1"', '"1')],
        *[("PUT", "If-Match", value) for value in ('""', 'W/"1"', '"1", W/"2"', '"1.0"')],
        *[("PUT", "If-Match", value) for value in ('"1", "x"', '"1", *', ",", '"1,2"', '"1" "2"')],
        *[("PUT", "If-None-Match", value) for value in ('"1"', "", '"*"', "**", "1")],
        *[("GET", "If-None-Match", value) for value in ("1", "", '"1', '1"', '"1" "2"')],
        *[("GET", "If-None-Match", value) for value in ('w/"1"', "W/1", '"1", *', '"a"b"')],
        *[("GET", "If-None-Match", value) for value in (",", " , ,", '"a b"', '"1";"2"', 'W/ "1"')],
    ],
)
def test_the_error_names_a_malformed_condition(
    hits: Counter, method: str, name: str, value: str
) -> None:
    hits.add()

    reply = hits.ask(method, {name: value}, {"value": 10} if method == "PUT" else None)

    assert "UpdateItem" not in hits.wire.operations()
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith(f"{name}: ")
    assert hits.stands() == (1, 1)


REFUSED, IGNORED = "refused", "ignored"

SINCE = "Sun, 22 Nov 2026 10:00:00 GMT"

# What a route that does not support a header does with it, by method.
UNSUPPORTED: dict[str, dict[str, str]] = {
    "If-Match": {"GET": REFUSED, "POST": REFUSED, "PUT": REFUSED},
    "If-None-Match": {"GET": REFUSED, "POST": REFUSED, "PUT": REFUSED},
    "If-Modified-Since": {"GET": REFUSED, "POST": IGNORED, "PUT": IGNORED},
    "If-Unmodified-Since": {"GET": REFUSED, "POST": REFUSED, "PUT": REFUSED},
    "If-Range": {"GET": IGNORED, "POST": IGNORED, "PUT": IGNORED},
    "Range": {"GET": REFUSED, "POST": IGNORED, "PUT": IGNORED},
    "Idempotency-Key": {"GET": REFUSED, "POST": REFUSED, "PUT": REFUSED},
}
VALUES = {
    "If-Match": '"0"',
    "If-None-Match": "*",
    "If-Modified-Since": SINCE,
    "If-Unmodified-Since": SINCE,
    "If-Range": '"0"',
    "Range": "bytes=0-1",
    "Idempotency-Key": "k",
}


@pytest.mark.parametrize("header", UNSUPPORTED)
@pytest.mark.parametrize(
    ("function", "route"), ROUTES, ids=[f"{route.method} {route.path}" for _, route in ROUTES]
)
def test_every_route_honours_refuses_or_ignores_each_conditional_header(
    stack: Stack, wire: Wire, function: Function, route: Route, header: str
) -> None:
    honoured = header.lower() in supported(function, "headers")
    path = route.path.replace("{counter_id}", "hits")

    reply = stack.request(
        route.method, path, headers={header: VALUES[header]}, body=sample_body(function)
    )

    if not honoured and UNSUPPORTED[header][route.method] == REFUSED:
        assert not wire.sent
        assert reply.status == 400
        assert reply.body["type"].endswith("invalid-request")
        assert reply.body["detail"].startswith(f"{header}: ")
    else:
        assert reply.status == 200
        assert wire.sent
    assert bool(stack.items("CounterTable")) == (reply.status == 200 and route.method != "GET")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        # RFC 9110, section 13.1.3: the list is the more precise condition.
        ("GET", {"If-None-Match": '"1"', "If-Modified-Since": SINCE}, 304),
        ("GET", {"If-None-Match": '"9"', "If-Modified-Since": SINCE}, 200),
        # Section 13.1.4: and so it is here.
        ("PUT", {"If-Match": '"1"', "If-Unmodified-Since": SINCE}, 200),
        ("PUT", {"If-Match": '"9"', "If-Unmodified-Since": SINCE}, 412),
        # Of another condition it says nothing.
        ("PUT", {"If-None-Match": "*", "If-Unmodified-Since": SINCE}, 400),
        ("GET", {"If-None-Match": '"1"', "If-Unmodified-Since": SINCE}, 400),
        ("GET", {"Range": "bytes=0-1", "If-Range": '"1"'}, 400),
    ],
    ids=str,
)
def test_a_date_is_ignored_beside_an_etag(
    hits: Counter, method: str, headers: Mapping[str, str], status: int
) -> None:
    hits.add()

    reply = hits.ask(method, headers, {"value": 10} if method == "PUT" else None)

    assert reply.status == status
    assert hits.stands() == ((10, 2) if method == "PUT" and status == 200 else (1, 1))


def test_if_match_and_if_none_match_together_are_refused(hits: Counter) -> None:
    reply = hits.set(1, {"If-Match": '"0"', "If-None-Match": "*"})

    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert "If-Match" in reply.body["detail"]
    assert not hits.wire.sent


# A header in several lines, whose names may differ in case.
Lines = Mapping[str, list[str]]


@pytest.mark.parametrize(
    ("method", "lines", "status"),
    [
        ("GET", {"If-None-Match": ['"1"', '"2"']}, 304),
        ("GET", {"If-None-Match": ['"1", "2"', '"3"']}, 304),
        ("GET", {"If-None-Match": ["", '"2"', ""]}, 304),
        ("GET", {"If-None-Match": ['"1"'], "if-none-match": ['"2"']}, 304),
        ("GET", {"If-None-Match": ['"2"'], "if-none-match": ['"1"']}, 304),
        ("GET", {"If-None-Match": ['"1"', '"3"']}, 200),
        ("PUT", {"If-Match": ['"1"', '"2"']}, 200),
        ("PUT", {"If-Match": ['"2"'], "IF-MATCH": ['"1"']}, 200),
        ("PUT", {"If-Match": ['"1"', '"3"']}, 412),
        # `*` is no member of a list, and a key is none at all.
        ("GET", {"If-None-Match": ["*", '"2"']}, 400),
        ("PUT", {"If-Match": ["*", "*"]}, 400),
        ("PUT", {"If-None-Match": ["*", "*"]}, 400),
        ("POST", {"Idempotency-Key": ["k", "k"]}, 400),
        ("POST", {"Idempotency-Key": ["k"], "idempotency-key": ["k"]}, 400),
    ],
    ids=str,
)
def test_the_lines_of_a_header_are_one_list(
    hits: Counter, stack: Stack, method: str, lines: Lines, status: int
) -> None:
    hits.add()
    hits.add()
    function, route, parameters = stack.route(method, "/counters/hits")
    body = b'{"value": 10}' if method == "PUT" else b""
    event = proxy_event(route, "/counters/hits", parameters, "", {}, body, {"sub": CLIENT_ID})
    event["multiValueHeaders"] = lines

    response = stack.invoke(function.name, event)

    assert response["statusCode"] == status
    if status == 400:
        detail = json.loads(response["body"])["detail"]
        assert detail.lower().startswith(f"{next(iter(lines)).lower()}: ")
    changed = method == "PUT" and status == 200
    assert hits.stands() == ((10, 3) if changed else (2, 2))


@pytest.mark.parametrize(
    "key", ["", '""', "a b", '"a', "ä", "a" * 256, f'"{"a" * 256}"', '"a"b"', '"a\\b"', "\x7f"]
)
def test_the_error_names_a_malformed_key(hits: Counter, key: str) -> None:
    reply = hits.ask("POST", {"Idempotency-Key": key})

    assert not hits.wire.sent
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith("Idempotency-Key: ")


@pytest.mark.parametrize("key", ["a", "a" * 255, f'"{"a" * 255}"', "!~", 'a"b', '"\\"\\\\"'])
def test_a_key_can_have_any_visible_characters(hits: Counter, key: str) -> None:
    assert hits.ask("POST", {"Idempotency-Key": key}).status == 200


# --- Bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "bounds"),
    [
        (5, {"max": 15}),
        (-5, {"min": 5}),
        (5, {"min": 15, "max": 15}),
        (-20, {"min": -10, "max": 0}),
        (1, {"min": -EDGE, "max": EDGE}),
    ],
)
def test_a_result_may_equal_its_bound(hits: Counter, by: int, bounds: dict[str, int]) -> None:
    hits.set(10)

    reply = hits.add(by, **bounds)

    assert hits.wire.operations() == ["UpdateItem"]
    assert (reply.status, reply.body["value"]) == (200, 10 + by)


@pytest.mark.parametrize(
    ("by", "bounds"),
    [
        (5, {"max": 14}),
        (-5, {"min": 6}),
        (5, {"min": 16}),
        (-5, {"max": 4}),
        (1, {"min": 0, "max": 10}),
        (-11, {"min": 0, "max": 10}),
    ],
)
def test_a_result_outside_its_bounds_is_refused_and_told_the_value(
    hits: Counter, by: int, bounds: dict[str, int]
) -> None:
    hits.set(10)

    reply = hits.add(by, **bounds)

    assert hits.wire.operations() == ["UpdateItem"]  # the refusal tells, nothing is read
    assert (reply.status, reply.problem, reply.body["value"]) == (409, "bound-exceeded", 10)
    assert hits.stands() == (10, 1)


@pytest.mark.parametrize(
    ("by", "bounds", "status"),
    [
        (5, {"max": 5}, 200),
        (5, {"max": 4}, 409),
        (-5, {"min": -5}, 200),
        (-5, {"min": -4}, 409),
        (5, {"min": 6}, 409),
        (-5, {"max": -6}, 409),
        (5, {"min": 5, "max": 5}, 200),
        (5, {"min": -1, "max": 1}, 409),
    ],
)
def test_a_counter_that_was_never_written_has_value_0(
    hits: Counter, stack: Stack, by: int, bounds: dict[str, int], status: int
) -> None:
    reply = hits.add(by, **bounds)

    assert hits.wire.operations() == ["UpdateItem"]
    assert reply.status == status
    assert reply.body["value"] == (by if status == 200 else 0)
    assert len(stack.items("CounterTable")) == (status == 200)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_stays_within_the_range_of_integers(hits: Counter, sign: int) -> None:
    assert hits.set(sign * EDGE).body["value"] == sign * EDGE

    for by in (sign, sign * EDGE):
        reply = hits.add(by)
        assert (reply.status, reply.problem) == (409, "bound-exceeded")
        assert reply.body["value"] == sign * EDGE
    assert hits.add(-sign * EDGE).body["value"] == 0
    assert hits.add(-sign * EDGE).body["value"] == -sign * EDGE
    assert hits.stands() == (-sign * EDGE, 3)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"min": 2, "max": 1}, "min"),
        ({"min": None}, "min"),
        ({"max": None}, "max"),
        ({"min": True}, "min"),
        ({"max": 1.0}, "max"),
        ({"max": "1"}, "max"),
        ({"min": -EDGE - 1}, "min"),
        ({"max": EDGE + 1}, "max"),
        ({"by": 0, "min": 0}, "by"),
        ({"by": None, "min": 0}, "by"),
        ({"minimum": 0}, "minimum"),
    ],
)
def test_the_error_names_malformed_bounds(
    hits: Counter, body: dict[str, object], name: str
) -> None:
    reply = hits.ask("POST", body=body)

    assert not hits.wire.sent
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith(f"{name}: ")


def test_a_set_takes_no_bounds(hits: Counter) -> None:
    reply = hits.ask("PUT", body={"value": 1, "max": 2})

    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith("max: ")
