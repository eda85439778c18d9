"""GET /counter/history, GET /counters/{counter_id}/history: a counter's changes."""

from counters import history, model
from counters.gateway import Request, Response, endpoint, page_response
from counters.model import Entry


@endpoint(query=["limit", "order", "after"])
def handler(request: Request) -> Response:
    """Answer the changes by version, from behind the version `after`, the oldest first."""
    limit = request.limit()
    order = model.order(request.query.get("order", "asc"))
    after = request.integer("after", 0, model.MAX_INTEGER)
    entries, more = history.page(request.counter_id, order, after, limit)
    following = {"limit": limit, "order": order, "after": entries[-1].version} if more else None
    return page_response([_shown(entry) for entry in entries], following)


def _shown(entry: Entry) -> dict[str, object]:
    return {
        "version": entry.version,
        "value": entry.value,
        "previous_value": entry.previous_value,
        "by": entry.by,
        "operation": entry.operation,
        "actor": entry.actor,
        "created_at": entry.created_at,
    }
