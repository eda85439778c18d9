"""Lists: fetches page after page, as the caller asks for items."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl

from tally_client import model, retrying
from tally_client.exchange import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tally_client.exchange import Service

T = TypeVar("T")

# The link to the next page is relative to the page, and has only a query (docs/api.md, Responses).
# A link to another path or host is not followed, because the request would take the token there.
_NEXT = re.compile(r'<\?([^<>]*)>; *rel="next"')


def items(
    service: Service,
    path: str,
    query: Mapping[str, str],
    convert: Callable[[object], T],
    deadline: float,
) -> Iterator[T]:
    """Yield the items of a list. The next page is fetched when its first item is asked for.

    Args:
        service: where to send the requests.
        path: the path of the list.
        query: the query parameters of the first page.
        convert: converts an item from JSON.
        deadline: how many seconds each page may take.

    Raises:
        TallyError: a page could not be read. The list is not complete then.
    """

    def parse(reply: Reply) -> tuple[list[T], str]:
        found = [convert(each) for each in model.items(reply.document)]
        link = reply.headers.get("Link", "")
        following = _NEXT.fullmatch(link)
        if link and not following:
            detail = "the link to the next page has another form than the documented one"
            raise ValueError(detail)
        return found, following[1] if following else ""

    parameters = tuple(query.items())
    while True:
        page, following = retrying.read(service, Request("GET", path, parameters), parse, deadline)
        yield from page
        if not following:
            return
        parameters = tuple(parse_qsl(following, keep_blank_values=True))
