"""GET /public/{counter_id}: return a public counter. This route needs no token."""

from counters import clients, init_phase, public
from counters.gateway import Response, endpoint
from counters.request import Request


@endpoint(headers=["if-none-match"], access="public")
def handler(request: Request) -> Response:
    """Return the counter, if it is public. If the caller already has this version, return 304."""
    counter = public.counter(request.counter_id, request.until)
    return public.response(request, counter, counter._asdict())


init_phase.end(clients.dynamodb)
