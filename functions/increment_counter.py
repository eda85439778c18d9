"""POST /counter, POST /counters/{counter_id}: add to a counter, by 1 or by the body's `by`."""

import json
from functools import partial

from counters import model, store
from counters.gateway import Request, Response, counter_response, endpoint
from counters.idempotency import Intent, once


@endpoint(body=["by", "min", "max"], headers=["idempotency-key"])
def handler(request: Request) -> Response:
    """Answer the counter as this increment, and no other, left it."""
    by = model.increment(request.body.get("by", 1))
    bounds = model.bounds(
        request.body.get("min", model.MIN_INTEGER), request.body.get("max", model.MAX_INTEGER)
    )
    add = partial(store.increment, request.counter_id, by, bounds)
    key = request.idempotency_key()
    if key is None:
        return counter_response(add(request.change()))
    body = json.dumps([by, bounds.low, bounds.high])
    intent = Intent(key, request.actor, request.counter_id, body)
    counter, replayed = once(intent, request.change(), add)
    return counter_response(counter, replayed=replayed)
