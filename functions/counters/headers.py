"""HTTP headers that change what a request means: idempotency keys and conditional requests.

Ignoring such a header would do something that the caller did not want: without If-Unmodified-Since,
a conditional change would be unconditional. So a route refuses those that it does not support,
unless RFC 9110 makes them void in that request.
"""

import re
from collections.abc import Collection, Mapping

from counters.model import Condition
from counters.rules import invalid

_MOST_VERSIONS = 100  # in If-Match: DynamoDB's IN takes this many operands
_LONGEST_KEY = 255  # characters

_MEANINGFUL = {
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "range",
}

# Several lines of a header whose value is a list are one list (RFC 9110, section 5.3).
_LISTS = {"if-match", "if-none-match"}

# A member of a list of entity tags, which may be empty, and what ends it (RFC 9110, sections
# 5.6.1.2 and 8.8.3). A comma inside a tag ends nothing.
_MEMBER = re.compile(
    r'[ \t]*(?:(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\U0010ffff]*)"[ \t]*)?(?P<end>,|\Z)'
)
_VERSION = re.compile(r"0|[1-9][0-9]{0,15}")

# Bare, or as a string of RFC 9651, section 3.3.3, of visible characters.
_IDEMPOTENCY_KEY = re.compile(
    r'([\x21\x23-\x7e][\x21-\x7e]*)|"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"'
)


def supported_headers(
    given: dict[str, list[str]], known: Collection[str], method: str
) -> dict[str, str]:
    """Return the headers that the route supports.

    Args:
        given: the lines of each header, by its name.
        known: the names of the headers that the route supports, in lower case.
        method: the request's HTTP method.

    Returns:
        Their values, by name in lower case.

    Raises:
        InvalidRequestError: the request has a meaningful header that the route does not support,
            or has one more than once.
    """
    headers: dict[str, str] = {}
    present = {name.lower() for name in given}
    for name, lines in given.items():
        key = name.lower()
        if key not in _MEANINGFUL or _is_void(key, method, present):
            continue
        if key not in known:
            invalid(name, "this request does not support it")
        # API Gateway lists `If-Match` and `if-match` as two headers.
        values = [headers[key], *lines] if key in headers else lines
        if len(values) > 1 and key not in _LISTS:
            invalid(name, "given more than once")
        headers[key] = ",".join(values).strip(" \t")
    return headers


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """Return the key in Idempotency-Key; None without that header.

    Raises:
        InvalidRequestError: it is not a key.
    """
    text = headers.get("idempotency-key")
    if text is None:
        return None
    match = _IDEMPOTENCY_KEY.fullmatch(text)
    key = match and (match[1] or re.sub(r"\\(.)", r"\1", match[2]))
    if not key or len(key) > _LONGEST_KEY:
        invalid("Idempotency-Key", f"must be 1 to {_LONGEST_KEY} visible ASCII characters")
    return key


def condition(headers: Mapping[str, str]) -> Condition | None:
    """Return the condition of a change, in If-Match or If-None-Match; None without either.

    Raises:
        InvalidRequestError: If-Match is not `*` and not a list of versions in quotes,
            If-None-Match is not `*`, or both are given.
    """
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is not None and none_match is not None:
        invalid("If-Match", "not together with If-None-Match")
    if none_match is not None:
        if none_match != "*":
            invalid("If-None-Match", "must be * in this request")
        return Condition((0,))
    if match is None:
        return None
    if match == "*":
        return Condition(None)
    tags = _entity_tags(match)
    # Tally issues no other tags: one in the list is a mistake of the caller.
    strange = any(weak or not _VERSION.fullmatch(tag) for weak, tag in tags)
    if not 1 <= len(tags) <= _MOST_VERSIONS or strange:
        invalid("If-Match", f'must be *, or 1 to {_MOST_VERSIONS} versions in quotes, such as "7"')
    return Condition(tuple(sorted({int(tag) for _, tag in tags})))


def none_match(headers: Mapping[str, str], version: int) -> bool:
    """Return whether a read is to be answered: False if If-None-Match has the version.

    Raises:
        InvalidRequestError: If-None-Match is not `*` and not a list of entity tags.
    """
    text = headers.get("if-none-match")
    if text is None:
        return True
    if text == "*":
        return version == 0
    tags = _entity_tags(text)
    if not tags:
        invalid("If-None-Match", 'must be versions in quotes, such as "7", or *')
    # RFC 9110, section 13.1.2, compares weakly: W/"7" matches "7".
    return all(tag != str(version) for _, tag in tags)


def _is_void(name: str, method: str, present: Collection[str]) -> bool:
    """Return whether the method, or another header of `present`, makes a header void (RFC 9110)."""
    match name:
        case "if-modified-since":  # section 13.1.3
            return method != "GET" or "if-none-match" in present
        case "if-unmodified-since":  # section 13.1.4
            return "if-match" in present
        case "range":  # section 14.2
            return method != "GET"
    return False


def _entity_tags(text: str) -> list[tuple[bool, str]]:
    """Return the entity tags of a list, in order: whether each is weak, and what is in its quotes.

    Returns an empty list if `text` is not a list of entity tags.
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
