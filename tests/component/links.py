"""Pages, as a client goes through them."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from tests.stack import Stack

BASE = "https://tally.example/v1"


def follow(stack: Stack, path: str, query: str) -> Iterator[list[Any]]:
    """Yield the pages of a list, from one to the next by the links of their headers."""
    address = f"{BASE}{path}?{query}"
    while address:
        parts = urlsplit(address)
        reply = stack.request("GET", parts.path.removeprefix("/v1"), query=parts.query)
        assert reply.status == 200, reply.body
        yield reply.body
        link = reply.headers.get("Link")
        address = urljoin(address, target(link)) if link else ""


def target(link: str) -> str:
    """Return where a Link header's one link, to the next page, points."""
    match = re.fullmatch(r'<([^>]*)>; rel="next"', link)
    assert match, link
    return match[1]
