"""POST /increments: add to up to 100 counters, all or none."""

import json

from counters import attempt, clients, init_phase, rules
from counters.gateway import Response, counters_response, endpoint
from counters.idempotency import Intent, once
from counters.request import Request

# The target of the idempotency key (see `Intent`). No counter has this name, because a counter's
# name cannot contain a slash.
_TARGET = "/increments"


@endpoint(body=["increments"], headers=["idempotency-key"], access="counters")
def handler(request: Request) -> Response:
    """Add to all counters. Return their state right after that, in the order of the request."""
    increments = rules.increments(request.body.get("increments"))
    counter_ids = tuple(each.counter_id for each in increments)
    request.rights.require(counter_ids)
    body = json.dumps(increments)
    counters, replayed = once(
        Intent(request.idempotency_key, _TARGET, counter_ids, body),
        request.change,
        lambda change: attempt.increment_all(increments, change),
    )
    return counters_response(counters, replayed=replayed)


init_phase.end(clients.dynamodb)
