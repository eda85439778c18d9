"""Badges: draws a label and a value as a small SVG image.

The image has no script, no style sheet and no reference to another resource. Text gets a fixed
length, so that it fits into its box with any font.
"""

import re

from counters.rules import invalid

COLORS = {
    "blue": "0969da",
    "green": "1a7f37",
    "grey": "6e7781",
    "orange": "bc4c00",
    "purple": "8250df",
    "red": "cf222e",
    "yellow": "d4a72c",
}
DEFAULT_COLOR = "blue"
LONGEST_LABEL = 64  # characters

# XML 1.0 allows all characters except most control characters, surrogates, U+FFFE and U+FFFF:
# https://www.w3.org/TR/xml/#charsets
_LABEL = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]{{1,{LONGEST_LABEL}}}")
_HEX = re.compile(r"[0-9A-Fa-f]{3}|[0-9A-Fa-f]{6}")
_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})

_LABEL_BACKGROUND = "444d56"
_WHITE, _BLACK = "fff", "000"
_LINEAR_UNTIL = 0.04045  # a constant of sRGB
_HEIGHT = 20
_PADDING = 6  # on each side of a text
# Approximate widths of characters in Verdana at 11 px, in pixels.
_NARROW, _USUAL, _WIDE = 4, 7, 11
_NARROW_CHARACTERS = frozenset(" !'(),./:;I[]fijlrt|")
_WIDE_CHARACTERS = frozenset("%@MWmw")
_FIRST_WIDE = "\u1100"  # most of the characters from here on, such as Chinese ones, are square


def label(text: str) -> str:
    """Return `text` if it is a valid label.

    Raises:
        InvalidRequestError: if `text` does not have 1 to 64 characters, or has a control character
            or another character that XML does not allow.
    """
    if not _LABEL.fullmatch(text):
        invalid("label", f"must be 1 to {LONGEST_LABEL} characters, without control characters")
    return text


def color(text: str) -> str:
    """Return the hex digits of a color: 3 or 6, as in CSS.

    Args:
        text: a name in COLORS, or 3 or 6 hex digits.

    Raises:
        InvalidRequestError: if `text` is neither.
    """
    if text in COLORS:
        return COLORS[text]
    if not _HEX.fullmatch(text):
        invalid("color", f"must be {', '.join(COLORS)}, or 3 or 6 hex digits without #")
    return text


def svg(label: str, value: int, color: str) -> str:
    """Return an SVG image with a label on the left and a value on the right.

    Args:
        label: the label, as `label` returns it.
        value: the value.
        color: the hex digits of the value's background.
    """
    text, number = label.translate(_ESCAPED), str(value)
    left, right = _box_width(label), _box_width(number)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT}"'
        f' role="img" aria-label="{text}: {number}"><title>{text}: {number}</title>'
        f'<rect width="{left + right}" height="{_HEIGHT}" rx="3" fill="#{_LABEL_BACKGROUND}"/>'
        # The right part has round corners only on the right.
        f'<path fill="#{color}"'
        f' d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v{_HEIGHT - 6}a3 3 0 0 1-3 3h-{right - 3}z"/>'
        '<g font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f"{_text(text, left / 2, left, _WHITE)}"
        f"{_text(number, left + right / 2, right, text_color(color))}</g></svg>"
    )


def text_color(background: str) -> str:
    """Return the color of text that is easy to read: white or black, whichever has more contrast.

    Args:
        background: the hex digits of the background.
    """
    digits = "".join(digit * (6 // len(background)) for digit in background)
    red, green, blue = (_linear(int(digits[i : i + 2], 16) / 255) for i in (0, 2, 4))
    # https://www.w3.org/TR/WCAG22/#dfn-relative-luminance and #dfn-contrast-ratio
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    contrast_with_black, contrast_with_white = (luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)
    return _BLACK if contrast_with_black > contrast_with_white else _WHITE


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= _LINEAR_UNTIL else ((channel + 0.055) / 1.055) ** 2.4


def _box_width(text: str) -> int:
    return 2 * _PADDING + sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if character in _NARROW_CHARACTERS:
        return _NARROW
    return _WIDE if character in _WIDE_CHARACTERS or character >= _FIRST_WIDE else _USUAL


def _text(escaped: str, middle: float, box: int, color: str) -> str:
    return (
        f'<text x="{middle:g}" y="14" fill="#{color}" textLength="{box - 2 * _PADDING}"'
        f' lengthAdjust="spacingAndGlyphs">{escaped}</text>'
    )
