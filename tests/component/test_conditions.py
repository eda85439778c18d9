"""Entity tags and conditional requests. The write of a `set` also checks the condition."""

import json
from collections.abc import Mapping

import pytest
from tests.aws_template import Function, Route
from tests.component.scene import Invocation, Scene
from tests.packed_dashboard import asset_path
from tests.proxy import ALL_RIGHTS, proxy_event
from tests.routes import ROUTES, sample_body, supported
from tests.stack import CLIENT_ID, Stack
from tests.wire import Wire


def get(scene: Scene, headers: Mapping[str, str] | None = None) -> Invocation:
    return scene.call("GET", "hits", headers=headers)


def set_value(scene: Scene, value: int, headers: Mapping[str, str] | None = None) -> Invocation:
    return scene.call("PUT", "hits", {"value": value}, headers)


def value_and_version(scene: Scene) -> tuple[int, int]:
    body = get(scene).body
    return body["value"], body["version"]


# --- The entity tag ------------------------------------------------------------------------------


def test_the_etag_of_every_answer_is_the_version(scene: Scene) -> None:
    replies = [get(scene), scene.add("hits"), scene.add("hits"), get(scene)]
    replies += [set_value(scene, 7), get(scene)]

    assert [reply.headers["ETag"] for reply in replies] == [f'"{n}"' for n in (0, 1, 2, 2, 3, 3)]
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
def test_a_read_with_the_current_version_gets_304_without_a_body(scene: Scene, tags: str) -> None:
    scene.add("hits")
    scene.add("hits")

    reply = get(scene, {"If-None-Match": tags})

    assert (reply.status, reply.text) == (304, "")
    assert reply.headers["ETag"] == '"2"'
    assert reply.operations() == ["GetItem"]


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
def test_a_read_with_another_version_gets_the_counter(scene: Scene, tags: str) -> None:
    scene.add("hits")
    scene.add("hits")

    reply = get(scene, {"If-None-Match": tags})

    assert (reply.status, reply.body["version"], reply.headers["ETag"]) == (200, 2, '"2"')


@pytest.mark.parametrize(("tags", "status"), [('"0"', 304), ('"1"', 200), ("*", 200)])
def test_a_counter_that_was_never_written_has_version_0_and_does_not_match_a_star(
    scene: Scene, tags: str, status: int
) -> None:
    reply = get(scene, {"If-None-Match": tags})

    assert (reply.status, reply.headers["ETag"]) == (status, '"0"')


def test_header_names_are_case_insensitive(scene: Scene) -> None:
    scene.add("hits")

    assert get(scene, {"if-none-match": '"1"'}).status == 304
    assert set_value(scene, 5, {"IF-MATCH": '"2"'}).status == 412


# --- Conditional sets ----------------------------------------------------------------------------


def test_a_set_with_the_current_version_is_one_write(scene: Scene) -> None:
    scene.add("hits", 3)

    reply = set_value(scene, 10, {"If-Match": '"1"'})

    assert reply.operations() == ["UpdateItem"]
    assert (reply.status, reply.headers["ETag"]) == (200, '"2"')
    assert (reply.body["value"], reply.body["version"]) == (10, 2)


@pytest.mark.parametrize("version", ["0", "1", "3", "9007199254740991"])
def test_a_set_with_another_version_is_refused_with_the_current_version(
    scene: Scene, version: str
) -> None:
    scene.add("hits")
    scene.add("hits")

    reply = set_value(scene, 10, {"If-Match": f'"{version}"'})

    assert reply.operations() == ["UpdateItem"]  # no read: the refusal has the version
    assert (reply.status, reply.problem) == (412, "version-mismatch")
    assert reply.headers["ETag"] == '"2"'
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert value_and_version(scene) == (2, 2)


def test_the_second_of_two_sets_with_the_same_version_is_refused(scene: Scene) -> None:
    scene.add("hits")

    first, second = [set_value(scene, value, {"If-Match": '"1"'}) for value in (10, 20)]

    assert (first.status, second.status, second.headers["ETag"]) == (200, 412, '"2"')
    assert value_and_version(scene) == (10, 2)


@pytest.mark.parametrize("headers", [{"If-None-Match": "*"}, {"If-Match": '"0"'}])
def test_only_the_first_of_two_sets_creates_the_counter(
    scene: Scene, headers: Mapping[str, str]
) -> None:
    first, second = [set_value(scene, value, headers) for value in (10, 20)]

    assert first.operations() == second.operations() == ["UpdateItem"]
    assert (first.status, first.headers["ETag"]) == (200, '"1"')
    assert (second.status, second.problem, second.headers["ETag"]) == (
        412,
        "version-mismatch",
        '"1"',
    )
    assert value_and_version(scene) == (10, 1)


@pytest.mark.parametrize(
    "versions", ['"1", "2"', '"2","1"', '"9", , "2",', '"0", "2"', ', "2" , "2"', "*", " * "]
)
def test_a_set_with_several_versions_is_one_write_if_one_is_current(
    scene: Scene, versions: str
) -> None:
    scene.add("hits")
    scene.add("hits")

    reply = set_value(scene, 10, {"If-Match": versions})

    assert reply.operations() == ["UpdateItem"]
    assert (reply.status, reply.headers["ETag"]) == (200, '"3"')
    assert value_and_version(scene) == (10, 3)


def test_a_set_with_several_versions_is_refused_if_none_is_current(scene: Scene) -> None:
    scene.add("hits")
    scene.add("hits")

    reply = set_value(scene, 10, {"If-Match": '"0", "1", "3"'})

    assert reply.operations() == ["UpdateItem"]
    assert (reply.status, reply.problem) == (412, "version-mismatch")
    assert reply.headers["ETag"] == '"2"'
    assert value_and_version(scene) == (2, 2)


def test_a_condition_can_have_100_versions(scene: Scene) -> None:
    scene.add("hits")
    edge = 2**53 - 1
    versions = ", ".join(f'"{version}"' for version in [1, *range(edge - 98, edge + 1)])

    assert set_value(scene, 10, {"If-Match": versions}).status == 200
    assert set_value(scene, 20, {"If-Match": versions}).status == 412


def test_a_set_with_if_match_star_does_not_create_a_counter(scene: Scene) -> None:
    reply = set_value(scene, 10, {"If-Match": "*"})

    assert reply.operations() == ["UpdateItem"]
    assert (reply.status, reply.problem, reply.headers["ETag"]) == (412, "version-mismatch", '"0"')
    assert not scene.stack.items("CounterTable")


def test_a_set_with_several_versions_can_create_the_counter_if_one_version_is_0(
    scene: Scene,
) -> None:
    first, second = [set_value(scene, value, {"If-Match": '"0", "5"'}) for value in (10, 20)]

    assert (first.status, second.status) == (200, 412)
    assert value_and_version(scene) == (10, 1)


def test_a_set_with_version_1_does_not_create_a_counter(scene: Scene) -> None:
    reply = set_value(scene, 10, {"If-Match": '"1"'})

    assert (reply.status, reply.headers["ETag"]) == (412, '"0"')
    assert not scene.stack.items("CounterTable")


# --- Malformed, refused and ignored headers ------------------------------------------------------


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
    scene: Scene, method: str, name: str, value: str
) -> None:
    scene.add("hits")

    reply = scene.call(method, "hits", {"value": 10} if method == "PUT" else None, {name: value})

    assert "UpdateItem" not in reply.operations()
    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert reply.body["detail"].startswith(f"{name}: ")
    assert value_and_version(scene) == (1, 1)


REFUSED, IGNORED = "refused", "ignored"

SINCE = "Sun, 22 Nov 2026 10:00:00 GMT"

# For each header and method: what a route does with the header if it does not support the header.
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
@pytest.mark.usefixtures("unread_settings")
def test_every_route_honours_refuses_or_ignores_each_conditional_header(
    stack: Stack, wire: Wire, function: Function, route: Route, header: str
) -> None:
    honoured = header.lower() in supported(function, "headers")
    is_document = route.public and "{counter_id}" not in route.path
    path = route.path.replace("{counter_id}", "hits")
    path = path.replace("/assets/{digest}/{file}", asset_path("app.js"))
    stack.refs["PublicPrefix"] = "hits"

    reply = stack.request(
        route.method, path, headers={header: VALUES[header]}, body=sample_body(function)
    )

    if not honoured and UNSUPPORTED[header][route.method] == REFUSED:
        assert not wire.sent
        assert reply.status == 400
        assert reply.body["type"].endswith("invalid-request")
        assert reply.body["detail"].startswith(f"{header}: ")
    else:
        # The version of a document is never 0, so `If-None-Match: *` matches it.
        assert reply.status == (304 if honoured and is_document else 200)
        assert bool(wire.sent) == (not is_document or route.path == "/")
    assert bool(stack.items("CounterTable")) == (reply.status == 200 and route.method != "GET")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        # RFC 9110, section 13.1.3: a server ignores If-Modified-Since if there is an If-None-Match.
        ("GET", {"If-None-Match": '"1"', "If-Modified-Since": SINCE}, 304),
        ("GET", {"If-None-Match": '"9"', "If-Modified-Since": SINCE}, 200),
        # RFC 9110, section 13.1.4: a server ignores If-Unmodified-Since if there is an If-Match.
        ("PUT", {"If-Match": '"1"', "If-Unmodified-Since": SINCE}, 200),
        ("PUT", {"If-Match": '"9"', "If-Unmodified-Since": SINCE}, 412),
        # RFC 9110 does not allow a server to ignore a date or a range in any other case.
        ("PUT", {"If-None-Match": "*", "If-Unmodified-Since": SINCE}, 400),
        ("GET", {"If-None-Match": '"1"', "If-Unmodified-Since": SINCE}, 400),
        ("GET", {"Range": "bytes=0-1", "If-Range": '"1"'}, 400),
    ],
    ids=str,
)
def test_a_date_is_ignored_only_if_an_entity_tag_replaces_it(
    scene: Scene, method: str, headers: Mapping[str, str], status: int
) -> None:
    scene.add("hits")

    reply = scene.call(method, "hits", {"value": 10} if method == "PUT" else None, headers)

    assert reply.status == status
    assert value_and_version(scene) == ((10, 2) if method == "PUT" and status == 200 else (1, 1))


def test_if_match_and_if_none_match_together_are_refused(scene: Scene) -> None:
    reply = set_value(scene, 1, {"If-Match": '"0"', "If-None-Match": "*"})

    assert (reply.status, reply.problem) == (400, "invalid-request")
    assert "If-Match" in reply.body["detail"]
    assert reply.operations() == []


# A header that occurs several times in a request. The keys are spellings of the header's name,
# because the name may differ in case from line to line.
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
        # Several lines are one list. A list must not contain `*`, and an Idempotency-Key must not
        # be a list.
        ("GET", {"If-None-Match": ["*", '"2"']}, 400),
        ("PUT", {"If-Match": ["*", "*"]}, 400),
        ("PUT", {"If-None-Match": ["*", "*"]}, 400),
        ("POST", {"Idempotency-Key": ["k", "k"]}, 400),
        ("POST", {"Idempotency-Key": ["k"], "idempotency-key": ["k"]}, 400),
    ],
    ids=str,
)
def test_a_header_that_occurs_several_times_is_one_list(
    stack: Stack, method: str, lines: Lines, status: int
) -> None:
    for _ in range(2):
        stack.request("POST", "/counters/hits")
    function, route, parameters = stack.route(method, "/counters/hits")
    body = b'{"value": 10}' if method == "PUT" else b""
    event = proxy_event(
        route, "/counters/hits", parameters, "", {}, body, ALL_RIGHTS | {"sub": CLIENT_ID}
    )
    event["multiValueHeaders"] = lines

    response = stack.invoke(function.name, event)

    assert response["statusCode"] == status
    if status == 400:
        detail = json.loads(response["body"])["detail"]
        assert detail.lower().startswith(f"{next(iter(lines)).lower()}: ")
    changed = method == "PUT" and status == 200
    counter = stack.request("GET", "/counters/hits").body
    assert (counter["value"], counter["version"]) == ((10, 3) if changed else (2, 2))
