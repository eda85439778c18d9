"""Versions as entity tags, conditions on them, and bounds: each decided by the one write itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from tests.proxy import proxy_event
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


def test_the_entity_tag_is_the_version_whatever_the_request(hits: Counter) -> None:
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
    ],
)
def test_who_has_the_version_gets_no_body(hits: Counter, tags: str) -> None:
    hits.add()
    hits.add()

    reply = hits.get({"If-None-Match": tags})

    assert (reply.status, reply.text) == (304, "")
    assert reply.headers["ETag"] == '"2"'
    assert hits.wire.operations() == ["GetItem"]


@pytest.mark.parametrize("tags", ['"1"', 'W/"1"', '"1", "3"', '"22"', '""', '"02"', '"*"'])
def test_who_has_another_version_gets_the_counter(hits: Counter, tags: str) -> None:
    hits.add()
    hits.add()

    reply = hits.get({"If-None-Match": tags})

    assert (reply.status, reply.body["version"], reply.headers["ETag"]) == (200, 2, '"2"')


@pytest.mark.parametrize(("tags", "status"), [('"0"', 304), ('"1"', 200), ("*", 200)])
def test_a_counter_that_was_never_written_has_version_0_but_is_not_there(
    hits: Counter, tags: str, status: int
) -> None:
    reply = hits.get({"If-None-Match": tags})

    assert (reply.status, reply.headers["ETag"]) == (status, '"0"')


def test_header_names_are_the_same_in_any_case(hits: Counter) -> None:
    hits.add()

    assert hits.get({"if-none-match": '"1"'}).status == 304
    assert hits.set(5, {"IF-MATCH": '"2"'}).status == 412


# --- Conditional sets ----------------------------------------------------------------------------


def test_a_set_on_the_current_version_is_one_write(hits: Counter) -> None:
    hits.add(3)

    reply = hits.set(10, {"If-Match": '"1"'})

    assert hits.wire.operations() == ["UpdateItem"]
    assert (reply.status, reply.headers["ETag"]) == (200, '"2"')
    assert (reply.body["value"], reply.body["version"]) == (10, 2)


@pytest.mark.parametrize("version", ["0", "1", "3", "9007199254740991"])
def test_a_set_on_another_version_is_refused_with_the_current_one(
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


def test_of_two_sets_on_one_version_the_second_is_refused(hits: Counter) -> None:
    hits.add()

    first, second = [hits.set(value, {"If-Match": '"1"'}) for value in (10, 20)]

    assert (first.status, second.status, second.headers["ETag"]) == (200, 412, '"2"')
    assert hits.stands() == (10, 2)


@pytest.mark.parametrize("headers", [{"If-None-Match": "*"}, {"If-Match": '"0"'}])
def test_a_set_that_makes_the_counter_makes_it_once(
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


def test_a_set_on_a_version_of_a_counter_that_is_not_there_makes_none(
    hits: Counter, stack: Stack
) -> None:
    reply = hits.set(10, {"If-Match": '"1"'})

    assert (reply.status, reply.headers["ETag"]) == (412, '"0"')
    assert not stack.items("CounterTable")


# --- Headers that do not make sense --------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        *[("PUT", "If-Match", value) for value in ("1", "", '"x"', '"01"', '"-1"', '"1')],
        *[("PUT", "If-Match", value) for value in ('""', 'W/"1"', '"1", "2"', '"1.0"')],
        *[("PUT", "If-None-Match", value) for value in ('"1"', "", '"*"', "**", "1")],
        *[("GET", "If-None-Match", value) for value in ("1", "", '"1', '1"', '"1" "2"')],
        *[("GET", "If-None-Match", value) for value in ('w/"1"', "W/1", '"1", *', '"a"b"')],
    ],
)
def test_a_malformed_condition_is_named(hits: Counter, method: str, name: str, value: str) -> None:
    hits.add()

    reply = hits.ask(method, {name: value}, {"value": 10} if method == "PUT" else None)

    assert "UpdateItem" not in hits.wire.operations()
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith(f"{name}: ")
    assert hits.stands() == (1, 1)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("GET", "Idempotency-Key"),
        ("PUT", "Idempotency-Key"),
        ("GET", "If-Match"),
        ("POST", "If-Match"),
        ("POST", "If-None-Match"),
    ],
)
def test_a_header_that_a_request_does_not_support_is_not_ignored(
    hits: Counter, method: str, name: str
) -> None:
    body = {"GET": None, "POST": {}, "PUT": {"value": 1}}[method]

    reply = hits.ask(method, {name: '"1"'}, body)

    assert not hits.wire.sent
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith(f"{name}: ")


def test_two_conditions_at_once_are_too_many(hits: Counter) -> None:
    reply = hits.set(1, {"If-Match": '"0"', "If-None-Match": "*"})

    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert "If-Match" in reply.body["detail"]
    assert not hits.wire.sent


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
def test_a_condition_given_twice_is_refused(hits: Counter, stack: Stack, name: str) -> None:
    function, route, parameters = stack.route("PUT", "/counters/hits")
    event = proxy_event(
        route, "/counters/hits", parameters, "", {name: "*"}, b'{"value": 1}', {"sub": CLIENT_ID}
    )
    event["multiValueHeaders"][name] = ["*", "*"]

    response = stack.invoke(function.name, event)

    assert response["statusCode"] == 400
    assert json.loads(response["body"])["detail"].startswith(f"{name}: ")
    assert not hits.wire.sent


@pytest.mark.parametrize(
    "key", ["", '""', "a b", '"a', "ä", "a" * 256, f'"{"a" * 256}"', '"a"b"', '"a\\b"', "\x7f"]
)
def test_a_malformed_key_is_named(hits: Counter, key: str) -> None:
    reply = hits.ask("POST", {"Idempotency-Key": key})

    assert not hits.wire.sent
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith("Idempotency-Key: ")


@pytest.mark.parametrize("key", ["a", "a" * 255, f'"{"a" * 255}"', "!~", 'a"b', '"\\"\\\\"'])
def test_a_key_is_any_visible_characters(hits: Counter, key: str) -> None:
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
def test_a_result_on_its_bound_is_within(hits: Counter, by: int, bounds: dict[str, int]) -> None:
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
def test_a_result_outside_its_bounds_is_refused_with_the_value(
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
def test_a_counter_that_was_never_written_stands_at_0(
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
def test_malformed_bounds_are_named(hits: Counter, body: dict[str, object], name: str) -> None:
    reply = hits.ask("POST", body=body)

    assert not hits.wire.sent
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith(f"{name}: ")


def test_a_set_takes_no_bounds(hits: Counter) -> None:
    reply = hits.ask("PUT", body={"value": 1, "max": 2})

    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith("max: ")
