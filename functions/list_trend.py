"""GET /counter/trend, GET /counters/{counter_id}/trend: a counter's changes added up."""

from counters import buckets, clients, clock, init_phase, rules
from counters.gateway import Request, Response, endpoint


@endpoint(query=["interval", "from", "to"])
def handler(request: Request) -> Response:
    """Answer the changes of a period by minute, hour or day, the oldest first."""
    interval = rules.interval(request.query.get("interval", "hour"))
    period = rules.window(interval, request.period(), clock.now())
    added_up = buckets.by_interval(request.counter_id, interval, period, request.until)
    return Response([bucket._asdict() for bucket in added_up])


init_phase.end(clients.dynamodb)
