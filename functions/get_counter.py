"""GET /counter, GET /counters/{counter_id}: return a counter as it is now, or as it was before."""

from counters import clients, init_phase, model, rules, store, timeline
from counters.gateway import Response, counter_response, endpoint, unless_known
from counters.model import Counter
from counters.request import Request


@endpoint(query=["version", "at"], headers=["if-none-match"])
def handler(request: Request) -> Response:
    """Return the counter as it is now, as it was at a `version`, or as it was `at` a time.

    If the request's If-None-Match says that the caller already has this version, return 304.
    """
    counter = _counter(request)
    return unless_known(request, counter.version, counter_response(counter))


def _counter(request: Request) -> Counter:
    version, time = request.integer("version", 0, model.MAX_INTEGER), request.time("at")
    if version is not None and time is not None:
        rules.invalid("at", "must not be combined with version")
    if time is not None:
        timeline.require_final(time)
    current = store.get(request.counter_id, request.until)
    if version is not None:
        return timeline.at_version(current, version, request.until)
    if time is not None:
        return timeline.at_time(current, time, request.until)
    return current


init_phase.end(clients.dynamodb)
