"""Headers that change what a request means: idempotency keys, conditions and ranges.

A server must not ignore such a header. For example, a server that ignored If-Unmodified-Since would
make a change even if the header's condition does not hold. So a route rejects a request with one of
these headers, unless the route supports the header. There is one exception: RFC 9110 says that some
of these headers have no effect in some requests. In such a request, the route ignores the header.
"""

import re
from collections.abc import Collection, Mapping

from counters.model import Condition
from counters.rules import invalid

_MOST_VERSIONS = 100  # DynamoDB's limit for the operands of IN
_LONGEST_KEY = 255  # characters

_MEANINGFUL = {
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "range",
}

# The values of these headers are lists. If a request has one of these headers several times, the
# lists are joined (RFC 9110, section 5.3).
_LISTS = {"if-match", "if-none-match"}

# One member of a list of entity tags, with the comma or the end of the text after the member. A
# member may be empty. An entity tag may contain a comma. (RFC 9110, sections 5.6.1.2 and 8.8.3.)
# The pattern names the characters that an entity tag must not contain. If it named the permitted
# ones, which reach to U+10FFFF, Python would take 4 ms of each cold start to compile it.
_MEMBER = re.compile(r'[ \t]*(?:(?P<weak>W/)?"(?P<opaque>[^\x00-\x20"\x7f]*)"[ \t]*)?(?P<end>,|\Z)')
_VERSION = re.compile(r"0|[1-9][0-9]{0,15}")

# An idempotency key: visible ASCII characters, either without quotes or as a quoted string (RFC
# 9651, section 3.3.3).
_IDEMPOTENCY_KEY = re.compile(
    r'([\x21\x23-\x7e][\x21-\x7e]*)|"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"'
)


def supported_headers(
    all_headers: dict[str, list[str]], known: Collection[str], method: str
) -> dict[str, str]:
    """Return the headers that change the meaning of a request.

    Args:
        all_headers: all headers of the request: the list of values of each name.
        known: the names of the headers that the route supports, in lower case.
        method: the HTTP method of the request.

    Returns:
        The values of the headers that change the meaning, by their names in lower case. The value
        of Idempotency-Key is the key without quotes.

    Raises:
        InvalidRequestError: if the route does not support one of these headers, if the request has
            one of them twice and its value is not a list, or if Idempotency-Key is not a valid key.
    """
    headers: dict[str, str] = {}
    present = {name.lower() for name in all_headers}
    for name, lines in all_headers.items():
        key = name.lower()
        if key not in _MEANINGFUL or _has_no_effect(key, method, present):
            continue
        if key not in known:
            invalid(name, "is not supported by this request")
        # API Gateway lists `If-Match` and `if-match` as two headers, so join their values.
        values = [headers[key], *lines] if key in headers else lines
        if len(values) > 1 and key not in _LISTS:
            invalid(name, "must be given only once")
        value = ",".join(values).strip(" \t")
        headers[key] = _idempotency_key(value) if key == "idempotency-key" else value
    return headers


def condition(headers: Mapping[str, str]) -> Condition | None:
    """Return the condition in If-Match or If-None-Match; None if the request has neither header.

    Raises:
        InvalidRequestError: if If-Match is neither `*` nor a list of quoted versions, if
            If-None-Match is not `*`, or if the request has both headers.
    """
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is not None and none_match is not None:
        invalid("If-Match", "must not be combined with If-None-Match")
    if none_match is not None:
        if none_match != "*":
            invalid("If-None-Match", "must be * in this request")
        return Condition((0,))
    if match is None:
        return None
    if match == "*":
        return Condition(None)
    tags = _entity_tags(match)
    # Tally itself returns only strong tags, and each tag is a version. Reject any other tag.
    has_other_tags = any(weak or not _VERSION.fullmatch(tag) for weak, tag in tags)
    if not 1 <= len(tags) <= _MOST_VERSIONS or has_other_tags:
        invalid("If-Match", f'must be *, or 1 to {_MOST_VERSIONS} quoted versions, such as "7"')
    return Condition(tuple(sorted({int(tag) for _, tag in tags})))


def none_match(headers: Mapping[str, str], version: int | str) -> bool:
    """Return whether a GET must return the counter or document that it asks for.

    If the result is False, the GET returns 304. The result is False in two cases:
    - If-None-Match lists the current version.
    - If-None-Match is `*`, and the version is not 0, the version of a counter before its first
      change.

    Args:
        headers: the supported headers of the request, by name in lower case.
        version: the counter's version. For a document, a text that stands for its content.

    Raises:
        InvalidRequestError: if If-None-Match is neither `*` nor a list of entity tags.
    """
    text = headers.get("if-none-match")
    if text is None:
        return True
    if text == "*":
        return version == 0
    tags = _entity_tags(text)
    if not tags:
        invalid("If-None-Match", 'must be *, or quoted versions, such as "7"')
    # A weak tag matches, too: If-None-Match compares W/"7" and "7" as equal (RFC 9110, section
    # 13.1.2).
    return all(tag != str(version) for _, tag in tags)


def _idempotency_key(text: str) -> str:
    match = _IDEMPOTENCY_KEY.fullmatch(text)
    key = match and (match[1] or re.sub(r"\\(.)", r"\1", match[2]))
    if not key or len(key) > _LONGEST_KEY:
        invalid("Idempotency-Key", f"must be 1 to {_LONGEST_KEY} visible ASCII characters")
    return key


def _has_no_effect(name: str, method: str, present: Collection[str]) -> bool:
    """Return whether RFC 9110 says that a header has no effect in a request.

    Args:
        name: the name of the header, in lower case.
        method: the HTTP method of the request.
        present: the names of all headers of the request, in lower case.
    """
    match name:
        case "if-modified-since":  # section 13.1.3
            return method != "GET" or "if-none-match" in present
        case "if-unmodified-since":  # section 13.1.4
            return "if-match" in present
        case "range":  # section 14.2
            return method != "GET"
    return False


def _entity_tags(text: str) -> list[tuple[bool, str]]:
    """Parse a list of entity tags.

    Returns:
        For each tag: whether the tag is weak, and the text between its quotes. If `text` is not a
        list of entity tags, the result is empty.
    """
    tags: list[tuple[bool, str]] = []
    position = 0
    while member := _MEMBER.match(text, position):
        if member["opaque"] is not None:
            tags.append((member["weak"] is not None, member["opaque"]))
        if not member["end"]:
            return tags
        position = member.end()
    return []
