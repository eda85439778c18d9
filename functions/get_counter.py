"""GET /counter, GET /counters/{counter_id}: where a counter stands, or stood."""

import math

from counters import clients, clock, init_phase, model, rules, store, timeline
from counters.errors import ThrottledError
from counters.gateway import (
    Request,
    Response,
    counter_response,
    endpoint,
    not_modified_response,
)
from counters.headers import none_match
from counters.model import Counter


@endpoint(query=["version", "at"], headers=["if-none-match"])
def handler(request: Request) -> Response:
    """Answer the counter as it is, or was; one that was never written stands at 0."""
    counter = _counter(request)
    if none_match(request.headers, counter.version):
        return counter_response(counter)
    return not_modified_response(counter)


def _counter(request: Request) -> Counter:
    version, time = request.integer("version", 0, model.MAX_INTEGER), request.time("at")
    if version is not None and time is not None:
        rules.invalid("at", "not together with version")
    if time is not None:
        _require_final(rules.past("at", time, clock.now()))
    standing = store.get(request.counter_id, request.until)
    if version is not None:
        return timeline.at_version(standing, version, request.until)
    if time is not None:
        return timeline.at_time(standing, time, request.until)
    return standing


def _require_final(time: float) -> None:
    """Refuse a time of which a change may still come: what is answered must never change.

    Raises:
        ThrottledError: the time is not longer ago than the apply window.
    """
    wait = time + clock.APPLY_WINDOW - clock.now()
    if wait >= 0:
        detail = "at: a change of that time may still come. Repeat the request later."
        raise ThrottledError(detail, retry_after=math.floor(wait) + 1)


init_phase.end(clients.dynamodb)
