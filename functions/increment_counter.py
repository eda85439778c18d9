"""POST /counter, POST /counters/{counter_id}: add to a counter, by 1 or by the body's `by`."""

from counters import model, store
from counters.gateway import Request, Response, counter_response, endpoint


@endpoint(body=["by"])
def handler(request: Request) -> Response:
    """Answer the counter as this increment, and no other, left it."""
    by = model.increment(request.body.get("by", 1))
    return counter_response(store.increment(request.counter_id, by, request.change()))
