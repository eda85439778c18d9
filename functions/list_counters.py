"""GET /counters: the names of the counters."""

from counters import clients, init_phase, rules, store
from counters.gateway import Request, Response, endpoint, page_response


@endpoint(query=["prefix", "limit", "after"])
def handler(request: Request) -> Response:
    """Answer the names in order, from behind `after`, those that begin with `prefix`."""
    prefix = rules.prefix(request.query.get("prefix", ""))
    after = request.query.get("after", "")
    if after:
        rules.counter_id(after, "after")
    limit = request.limit()
    names, more = store.list_names(prefix, after, limit, request.until)
    following = {"prefix": prefix, "limit": limit, "after": names[-1]} if more else {}
    return page_response(names, following)


init_phase.end(clients.dynamodb)
