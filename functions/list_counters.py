"""GET /counters: list the names of the counters."""

from counters import clients, init_phase, rules, store
from counters.gateway import Request, Response, endpoint, page_response


@endpoint(query=["prefix", "limit", "after"])
def handler(request: Request) -> Response:
    """Return a page of sorted counter names that begin with `prefix` and come after `after`."""
    prefix = rules.prefix(request.query.get("prefix", ""))
    after = request.query.get("after", "")
    if after:
        rules.counter_id(after, "after")
    limit = request.limit()
    names, has_more = store.list_names(prefix, after, limit, request.until)
    next_page = {"prefix": prefix, "limit": limit, "after": names[-1]} if has_more else {}
    return page_response(names, next_page)


init_phase.end(clients.dynamodb)
