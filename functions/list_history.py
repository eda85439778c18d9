"""GET /counter/history, GET /counters/{counter_id}/history: list a counter's changes."""

from counters import clients, init_phase, listing, model, rules
from counters.gateway import Response, endpoint, page_response
from counters.listing import Listing
from counters.model import Entry
from counters.request import Request


@endpoint(query=["limit", "order", "after", "from", "to"])
def handler(request: Request) -> Response:
    """Return a page of changes, sorted by version. The page starts after the version `after`."""
    limit = request.limit()
    order = rules.order(request.query.get("order", "asc"))
    after = request.integer("after", 0, model.MAX_INTEGER)
    period = request.period()
    query = Listing(request.counter_id, order, after, limit, period)
    entries, has_more = listing.page(query, request.until)
    next_page: dict[str, object] = {}
    if has_more:
        next_page = {"limit": limit, "order": order, "after": entries[-1].version}
        next_page |= {name: request.query[name] for name in ("from", "to") if name in request.query}
    return page_response([_to_json(entry) for entry in entries], next_page)


def _to_json(entry: Entry) -> dict[str, object]:
    members: dict[str, object] = {
        "version": entry.version,
        "value": entry.value,
        "previous_value": entry.previous_value,
        "by": entry.by,
        "increase": entry.increase,
        "decrease": entry.decrease,
        "operation": entry.operation,
        "actor": entry.actor,
        "created_at": entry.created_at,
    }
    if entry.events is not None:
        members["events"] = entry.events
    if entry.sender is not None:
        members["sender"] = entry.sender
    return members


init_phase.end(clients.dynamodb)
