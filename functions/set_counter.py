"""PUT /counter, PUT /counters/{counter_id}: set a counter to the body's `value`."""

from counters import attempt, clients, init_phase, rules
from counters.gateway import Request, Response, counter_response, endpoint
from counters.headers import condition


@endpoint(body=["value"], headers=["if-match", "if-none-match"])
def handler(request: Request) -> Response:
    """Answer the counter as this request left it."""
    value = rules.integer("value", request.body.get("value"))
    wanted = condition(request.headers)
    return counter_response(attempt.set_value(request.counter_id, value, wanted, request.change()))


init_phase.end(clients.dynamodb)
