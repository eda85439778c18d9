"""POST /counter, POST /counters/{counter_id}: add the body's `by` (by default 1) to a counter."""

import json

from counters import attempt, clients, init_phase, rules
from counters.gateway import Response, counter_response, endpoint
from counters.idempotency import Intent, once
from counters.request import Request


@endpoint(body=["by", "min", "max"], headers=["idempotency-key"])
def handler(request: Request) -> Response:
    """Add to the counter. Return its state right after this increment, without later changes."""
    increment = rules.increment(request.counter_id, request.body)
    body = json.dumps([increment.by, increment.bounds.low, increment.bounds.high])
    intent = Intent(request.idempotency_key, request.counter_id, (request.counter_id,), body)
    (counter,), replayed = once(
        intent, request.change, lambda change: (attempt.increment(increment, change),)
    )
    return counter_response(counter, replayed=replayed)


init_phase.end(clients.dynamodb)
