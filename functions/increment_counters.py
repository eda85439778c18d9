"""POST /increments: add to up to 100 counters, all or none."""

import json

from counters import attempt, clients, init_phase, rules
from counters.gateway import Request, Response, counters_response, endpoint
from counters.headers import idempotency_key
from counters.idempotency import Intent, once

_TARGET = "/increments"  # of a key: no counter's name


@endpoint(body=["increments"], headers=["idempotency-key"])
def handler(request: Request) -> Response:
    """Answer the counters, in the order of the increments, as this request left them."""
    asked = rules.increments(request.body.get("increments"))
    key = idempotency_key(request.headers)
    if key is None:
        return counters_response(attempt.increment_all(asked, request.change()))
    body = json.dumps(asked)
    counter_ids = tuple(each.counter_id for each in asked)
    counters, replayed = once(
        Intent(key, request.actor, _TARGET, counter_ids, body),
        request.change(),
        lambda change: attempt.increment_all(asked, change),
    )
    return counters_response(counters, replayed=replayed)


init_phase.end(clients.dynamodb)
