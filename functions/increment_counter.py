"""POST /counter, POST /counters/{counter_id}: add to a counter, by 1 or by the body's `by`."""

import json

from counters import attempt, clients, init_phase, rules
from counters.gateway import Request, Response, counter_response, endpoint
from counters.headers import idempotency_key
from counters.idempotency import Intent, once


@endpoint(body=["by", "min", "max"], headers=["idempotency-key"])
def handler(request: Request) -> Response:
    """Return the counter as this increment left it, whatever changed it afterwards."""
    increment = rules.increment(request.counter_id, request.body)
    key = idempotency_key(request.headers)
    if key is None:
        return counter_response(attempt.increment(increment, request.change()))
    body = json.dumps([increment.by, increment.bounds.low, increment.bounds.high])
    intent = Intent(key, request.actor, increment.counter_id, (increment.counter_id,), body)
    (counter,), replayed = once(
        intent, request.change(), lambda change: (attempt.increment(increment, change),)
    )
    return counter_response(counter, replayed=replayed)


init_phase.end(clients.dynamodb)
