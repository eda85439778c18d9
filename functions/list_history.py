"""GET /counter/history, GET /counters/{counter_id}/history: a counter's changes."""

from counters import clients, init_phase, listing, model, rules
from counters.gateway import Request, Response, endpoint, page_response
from counters.listing import Listing
from counters.model import Entry


@endpoint(query=["limit", "order", "after", "from", "to"])
def handler(request: Request) -> Response:
    """Answer the changes by version, from behind the version `after`, those of a period."""
    limit = request.limit()
    order = rules.order(request.query.get("order", "asc"))
    after = request.integer("after", 0, model.MAX_INTEGER)
    period = request.period()
    asked = Listing(request.counter_id, order, after, limit, period)
    entries, more = listing.page(asked, request.until)
    following: dict[str, object] = {}
    if more:
        following = {"limit": limit, "order": order, "after": entries[-1].version}
        following |= {name: request.query[name] for name in ("from", "to") if name in request.query}
    return page_response([_shown(entry) for entry in entries], following)


def _shown(entry: Entry) -> dict[str, object]:
    shown: dict[str, object] = {
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
        shown["events"] = entry.events
    if entry.sender is not None:
        shown["sender"] = entry.sender
    return shown


init_phase.end(clients.dynamodb)
