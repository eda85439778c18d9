"""PUT /counter, PUT /counters/{counter_id}: set a counter to the body's `value`."""

from counters import attempt, clients, init_phase, rules
from counters.gateway import Response, counter_response, endpoint
from counters.headers import condition
from counters.request import Request


@endpoint(body=["value"], headers=["if-match", "if-none-match"])
def handler(request: Request) -> Response:
    """Set the counter. Return its state right after this request, without later changes."""
    value = rules.integer("value", request.body.get("value"))
    required = condition(request.headers)
    counter = attempt.set_value(request.counter_id, value, required, request.change)
    return counter_response(counter)


init_phase.end(clients.dynamodb)
