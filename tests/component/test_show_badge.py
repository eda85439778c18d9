"""GET /public/{counter_id}/badge.svg: an image of a public counter's value, for everybody."""

import string
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.proxy import Reply
from tests.stack import Stack

from counters.model import MAX_INTEGER, MIN_INTEGER

pytestmark = pytest.mark.usefixtures("public")

PATH = "/public/public:visits/badge.svg"
SVG = "{http://www.w3.org/2000/svg}"


def shown(reply: Reply) -> list[str | None]:
    """Return the texts that an image shows. Also check the status and the image's elements."""
    assert reply.status == 200, reply.body
    root = ET.fromstring(reply.body)  # noqa: S314  the image is ours
    names = [each.tag.removeprefix(SVG) for each in root.iter()]
    assert names == ["svg", "title", "rect", "path", "g", "text", "text"]
    return [text.text for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("value", [0, 7, -7, MIN_INTEGER, MAX_INTEGER])
def test_the_image_shows_the_name_and_the_exact_value(stack: Stack, value: int) -> None:
    stack.request("PUT", "/counters/public:visits", body={"value": value})

    assert shown(stack.request("GET", PATH)) == ["public:visits", str(value)]


def test_a_counter_that_was_never_changed_has_an_image_with_0(stack: Stack) -> None:
    assert shown(stack.request("GET", PATH)) == ["public:visits", "0"]


def test_the_name_is_the_default_label_even_if_it_has_more_characters_than_a_label(
    stack: Stack,
) -> None:
    counter_id = "public:".ljust(128, "x")

    assert shown(stack.request("GET", f"/public/{counter_id}/badge.svg"))[0] == counter_id


def test_the_headers_make_browsers_show_only_an_image(stack: Stack) -> None:
    headers = stack.request("GET", PATH).headers

    assert headers["Content-Type"] == "image/svg+xml"
    assert headers["Content-Security-Policy"] == "default-src 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "public, max-age=60"
    assert headers["ETag"] == '"0"'


@pytest.mark.parametrize(
    ("color", "fill"), [("red", "#cf222e"), ("f80", "#f80"), ("Ff8800", "#Ff8800"), ("", "#0969da")]
)
def test_the_color_is_the_background_of_the_value(stack: Stack, color: str, fill: str) -> None:
    reply = stack.request("GET", PATH, query=f"color={color}" if color else "")

    assert f'<path fill="{fill}"' in reply.body


def test_an_error_is_a_problem_and_no_image(stack: Stack) -> None:
    reply = stack.request("GET", PATH, query="label=")

    assert (reply.status, reply.headers["Content-Type"]) == (400, "application/problem+json")
    assert reply.headers["Cache-Control"] == "no-cache"
    assert "Content-Security-Policy" not in reply.headers


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=66) | st.text("<&>\"'a]\0\n\x85"),
    st.text(max_size=8).filter(lambda text: text.isprintable())
    | st.text(string.hexdigits, max_size=7),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_label_and_color_get_an_image_or_a_400(stack: Stack, label: str, color: str) -> None:
    reply = stack.request("GET", PATH, query=urlencode({"label": label, "color": color}))

    if reply.status == 400:
        assert reply.body["detail"].startswith(("label: ", "color: "))
    else:
        assert shown(reply) == [label, "0"]
