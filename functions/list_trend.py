"""GET /counter/trend, GET /counters/{counter_id}/trend: sum up changes by minute, hour or day."""

from counters import buckets, clients, clock, init_phase, rules
from counters.gateway import Response, endpoint
from counters.request import Request


@endpoint(query=["interval", "from", "to"])
def handler(request: Request) -> Response:
    """Return the sums of the changes in each minute, hour or day of a period, oldest first."""
    interval = rules.interval(request.query.get("interval", "hour"))
    period = rules.window(interval, request.period(), clock.now())
    sums = buckets.by_interval(request.counter_id, interval, period, request.until)
    return Response([bucket._asdict() for bucket in sums])


init_phase.end(clients.dynamodb)
