"""A badge is well-formed XML with the text that was asked for, whatever that text is."""

import itertools
import re
import string
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from counters import badge
from counters.errors import InvalidRequestError
from counters.model import MAX_INTEGER, MIN_INTEGER

SVG = "{http://www.w3.org/2000/svg}"
LEAST_CONTRAST = 4.5  # https://www.w3.org/TR/WCAG22/#contrast-minimum
# The attributes with which an image could load something or run a script.
DANGEROUS = re.compile(r"href|src|style|on[a-z]+|.*url\(", re.IGNORECASE)

# Texts of all characters, often with characters that XML or this test treats in a special way.
texts = st.text(max_size=66) | st.text(
    "ab&<>\"'#;]/! \t\n\0\x7f\x85\ud800\ufffe\U0001f600", max_size=66
)
hex_digits = st.text(string.hexdigits, min_size=3, max_size=3) | st.text(
    string.hexdigits, min_size=6, max_size=6
)
values = st.integers(MIN_INTEGER, MAX_INTEGER)


def is_allowed(character: str) -> bool:
    """Return whether XML 1.0 allows a character (https://www.w3.org/TR/xml/#charsets).

    Control characters are not allowed, although XML allows some.
    """
    code = ord(character)
    is_control = code < 0x20 or 0x7F <= code < 0xA0
    is_xml = code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
    return is_xml and not is_control


def accepts(check: Callable[[str], str], text: str) -> bool:
    """Return whether a check of `badge` accepts a text."""
    try:
        check(text)
    except InvalidRequestError:
        return False
    return True


valid_labels = texts.filter(lambda text: accepts(badge.label, text))


@given(texts)
@example("a" * 64)
@example("a" * 65)
@example("a\n")
@example("")
def test_a_label_is_accepted_exactly_if_xml_allows_it_and_it_has_1_to_64_characters(
    label: str,
) -> None:
    assert accepts(badge.label, label) == (1 <= len(label) <= 64 and all(map(is_allowed, label)))


@given(valid_labels, values, st.sampled_from([*badge.COLORS.values()]) | hex_digits)
def test_an_image_is_well_formed_and_shows_exactly_the_label_and_the_value(
    label: str, value: int, color: str
) -> None:
    image = badge.svg(label, value, color)

    root = ET.fromstring(image.encode())  # noqa: S314  the image is ours
    title, frame, right, group = root
    left_text, right_text = group
    assert [each.tag.removeprefix(SVG) for each in root.iter()] == [
        *("svg", "title", "rect", "path", "g", "text", "text")
    ]
    assert (left_text.text, right_text.text) == (label, str(value))
    assert title.text == root.attrib["aria-label"] == f"{label}: {value}"
    assert root.attrib["role"] == "img"
    assert right.attrib["fill"] == f"#{color}"
    assert frame.attrib["width"] == root.attrib["width"]
    for element in root.iter():
        for name, text in element.attrib.items():
            assert not DANGEROUS.fullmatch(name)
            assert name == "aria-label" or not DANGEROUS.fullmatch(text)


@given(valid_labels, values)
def test_each_text_fits_into_its_box_with_any_font(label: str, value: int) -> None:
    root = ET.fromstring(badge.svg(label, value, "fff"))  # noqa: S314  the image is ours
    (*_, right, group) = root
    width, edge = int(root.attrib["width"]), int(right.attrib["d"].split()[0].removeprefix("M"))

    for text, (start, end) in zip(group, [(0, edge), (edge, width)], strict=True):
        middle, length = float(text.attrib["x"]), int(text.attrib["textLength"])
        assert length > 0
        assert start < middle - length / 2 < middle + length / 2 < end
        assert text.attrib["lengthAdjust"] == "spacingAndGlyphs"


def test_a_wider_text_gets_a_wider_box() -> None:
    widths = [
        int(re.findall(r'width="(\d+)"', badge.svg(label, 1, "fff"))[0])
        for label in ("iiii", "aaaa", "mmmm")
    ]

    assert widths == sorted(set(widths))


@given(st.text(max_size=8) | st.text(string.hexdigits + "#g\n", max_size=8) | hex_digits)
@example("fff\n")
def test_a_color_is_accepted_exactly_if_it_is_a_name_or_3_or_6_hex_digits(color: str) -> None:
    is_hex = len(color) in {3, 6} and all(digit in string.hexdigits for digit in color)

    assert accepts(badge.color, color) == (is_hex or color in badge.COLORS)


@given(hex_digits)
def test_hex_digits_stay_as_they_are(color: str) -> None:
    assert badge.color(color) == color


@pytest.mark.parametrize("name", badge.COLORS)
def test_each_name_stands_for_six_hex_digits(name: str) -> None:
    assert re.fullmatch("[0-9a-f]{6}", badge.color(name))


def luminance(color: str) -> float:
    """Return the luminance of a color (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    digits = color if len(color) == 6 else "".join(2 * digit for digit in color)
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def test_a_value_can_be_read_on_every_color() -> None:
    three_digits = map("".join, itertools.product("0123456789abcdef", repeat=3))
    for color in [*three_digits, *badge.COLORS.values()]:
        assert contrast(badge.text_color(color), color) >= LEAST_CONTRAST, color


def test_the_label_can_be_read() -> None:
    image = badge.svg("visits", 1, "fff")
    background = re.findall(r'<rect [^>]*fill="#(\w+)"', image)[0]
    text = re.findall(r'fill="#(\w+)"[^>]*>visits<', image)[0]

    assert contrast(text, background) >= LEAST_CONTRAST
