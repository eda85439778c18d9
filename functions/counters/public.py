"""Public counters: which counters everybody may read without a token, and how to answer them."""

import os
from collections.abc import Mapping
from types import MappingProxyType

from counters import store
from counters.errors import NotFoundError
from counters.gateway import Response, unless_known
from counters.model import Counter
from counters.request import Request

# A cache may answer for Tally for a minute. So a page with many visitors costs few requests.
_CACHE_CONTROL = "public, max-age=60"  # seconds


def counter(counter_id: str, until: float) -> Counter:
    """Return a public counter, with a strongly consistent read.

    A counter is public if its name begins with the template's parameter `PublicPrefix`. If the
    parameter is empty, no counter is public.

    Args:
        counter_id: the counter.
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        NotFoundError: if the counter is not public. The error does not say whether it exists.
        ThrottledError: if DynamoDB did not answer in time.
    """
    prefix = os.environ["PUBLIC_PREFIX"]
    if not prefix or not counter_id.startswith(prefix):
        detail = "counter_id: there is no public counter with this name"
        raise NotFoundError(detail)
    return store.get(counter_id, until)


def response(
    request: Request,
    current: Counter,
    body: object,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return a response that shows a public counter; 304 if the caller already has this version.

    Args:
        request: the request.
        current: the counter.
        body: the body of the response, unless it is a 304.
        headers: additional headers. A cache also gets them from a 304.

    Raises:
        InvalidRequestError: if If-None-Match is neither `*` nor a list of entity tags.
    """
    headers = {**headers, "ETag": current.entity_tag(), "Cache-Control": _CACHE_CONTROL}
    return unless_known(request, current.version, Response(body, headers=headers))
