"""GET /counters: list the names of the counters, or return many counters in one request."""

from counters import clients, init_phase, rules, store
from counters.gateway import Response, counters_response, endpoint, page_response
from counters.request import Request


@endpoint(query=["prefix", "limit", "after", "values"], lists=["id"], access="counters")
def handler(request: Request) -> Response:
    """Return a page of the list of counters, or the counters that the parameters `id` name."""
    if "id" in request.lists:
        return _named(request)
    return _page(request)


def _named(request: Request) -> Response:
    """Return the counters that the request names, in the order of the request."""
    for other in request.query:
        rules.invalid("id", f"must not be combined with {other}")
    counter_ids = rules.counter_ids("id", request.lists["id"])
    request.rights.require(counter_ids)
    return counters_response(store.get_all(counter_ids, request.until))


def _page(request: Request) -> Response:
    """Return a page of sorted counter names that begin with `prefix` and come after `after`.

    The page leaves out counters that the caller may not read. With `values`, it has the counters
    instead of their names.
    """
    prefix = rules.prefix(request.query.get("prefix", ""))
    after = request.query.get("after", "")
    if after:
        rules.counter_id(after, "after")
    values = request.flag("values")
    limit = request.limit(rules.MAX_COUNTERS if values else 1000)
    prefixes = request.rights.within(prefix)
    names, has_more = store.list_names(prefixes, after, limit, request.until)
    next_page = {"prefix": prefix, "limit": limit, "after": names[-1]} if has_more else {}
    if not values:
        return page_response(names, next_page)
    counters = [counter._asdict() for counter in store.get_all(names, request.until)]
    return page_response(counters, {**next_page, "values": "true"} if has_more else {})


init_phase.end(clients.dynamodb)
