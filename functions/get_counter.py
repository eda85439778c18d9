"""GET /counter, GET /counters/{counter_id}: where a counter stands."""

from counters import store
from counters.gateway import (
    Request,
    Response,
    counter_response,
    endpoint,
    not_modified_response,
)


@endpoint(headers=["if-none-match"])
def handler(request: Request) -> Response:
    """Answer the counter; one that was never written stands at 0."""
    counter = store.get(request.counter_id)
    if request.has(counter.version):
        return not_modified_response(counter)
    return counter_response(counter)
