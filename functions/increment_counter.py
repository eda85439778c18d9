"""POST /counter, POST /counters/{counter_id}: add to a counter, by 1 or by the body's `by`."""

import json

from counters import attempt, clients, init_phase, rules
from counters.gateway import Request, Response, counter_response, endpoint
from counters.headers import idempotency_key
from counters.idempotency import Intent, once


@endpoint(body=["by", "min", "max"], headers=["idempotency-key"])
def handler(request: Request) -> Response:
    """Answer the counter as this increment, and no other, left it."""
    asked = rules.increment(request.counter_id, request.body)
    key = idempotency_key(request.headers)
    if key is None:
        return counter_response(attempt.increment(asked, request.change()))
    body = json.dumps([asked.by, asked.bounds.low, asked.bounds.high])
    intent = Intent(key, request.actor, asked.counter_id, (asked.counter_id,), body)
    (counter,), replayed = once(
        intent, request.change(), lambda change: (attempt.increment(asked, change),)
    )
    return counter_response(counter, replayed=replayed)


init_phase.end(clients.dynamodb)
