"""GET /counter, GET /counters/{counter_id}: where a counter stands."""

from counters import store
from counters.gateway import Request, Response, counter_response, endpoint


@endpoint()
def handler(request: Request) -> Response:
    """Answer the counter; one that was never written stands at 0."""
    return counter_response(store.get(request.counter_id))
