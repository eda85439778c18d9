"""GET /counter/trend, GET /counters/{counter_id}/trend: sum up changes by minute, hour or day."""

from counters import buckets, clients, clock, init_phase, rules
from counters.gateway import Response, endpoint
from counters.model import ComparedBucket
from counters.request import Request


@endpoint(query=["interval", "from", "to", "expected"])
def handler(request: Request) -> Response:
    """Return the sums of the changes in each minute, hour or day of a period, oldest first.

    With `expected`, each sum also has the range that was expected for its increase.
    """
    interval = rules.interval(request.query.get("interval", "hour"))
    now = clock.now()
    period = rules.window(interval, request.period(), now)
    if not request.flag("expected"):
        sums = buckets.by_interval(request.counter_id, interval, period, request.until)
        return Response([bucket._asdict() for bucket in sums])
    if interval == "minute":
        rules.invalid("expected", "must be false if interval is minute")
    compared = buckets.compared(request.counter_id, interval, period, now, request.until)
    return Response([_to_json(bucket) for bucket in compared])


def _to_json(bucket: ComparedBucket) -> dict[str, object]:
    expected = bucket.expected._asdict() if bucket.expected else None
    return {**bucket._asdict(), "expected": expected}


init_phase.end(clients.dynamodb)
