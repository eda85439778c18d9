"""GET /counter, GET /counters/{counter_id}: where a counter stands, or stood."""

from counters import clients, history, init_phase, model, store
from counters.gateway import (
    Request,
    Response,
    counter_response,
    endpoint,
    not_modified_response,
)
from counters.model import Counter


@endpoint(query=["version", "at"], headers=["if-none-match"])
def handler(request: Request) -> Response:
    """Answer the counter as it is, or was; one that was never written stands at 0."""
    counter = _counter(request)
    if request.has(counter.version):
        return not_modified_response(counter)
    return counter_response(counter)


def _counter(request: Request) -> Counter:
    version, time = request.integer("version", 0, model.MAX_INTEGER), request.time("at")
    if version is not None and time is not None:
        model.invalid("at", "not together with version")
    standing = store.get(request.counter_id)
    if version is not None:
        return history.at_version(standing, version, request.until)
    if time is not None:
        return history.at_time(standing, time, request.until)
    return standing


init_phase.end(clients.dynamodb)
