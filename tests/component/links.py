"""Helpers that follow the links between the pages of a list, as a client does."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from tests.stack import Stack

BASE = "https://tally.example/v1"


def follow(stack: Stack, path: str, query: str) -> Iterator[list[Any]]:
    """Yield all pages of a list. Each page's Link header leads to the next page."""
    address = f"{BASE}{path}?{query}"
    while address:
        parts = urlsplit(address)
        reply = stack.request("GET", parts.path.removeprefix("/v1"), query=parts.query)
        assert reply.status == 200, reply.body
        yield reply.body
        link = reply.headers.get("Link")
        address = urljoin(address, target(link)) if link else ""


def target(link: str) -> str:
    """Return the URL in a Link header. The header must have exactly one link: to the next page."""
    match = re.fullmatch(r'<([^>]*)>; rel="next"', link)
    assert match, link
    return match[1]
