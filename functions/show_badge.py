"""GET /public/{counter_id}/badge.svg: return an image of a public counter's value.

This route needs no token.
"""

from counters import badge, clients, init_phase, public
from counters.gateway import Response, Text, endpoint
from counters.request import Request

_HEADERS = {
    # A 304 needs the media type, too. Otherwise it would get the media type of JSON, which some
    # caches then store with the image.
    "Content-Type": "image/svg+xml",
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}


@endpoint(query=["label", "color"], headers=["if-none-match"], access="public")
def handler(request: Request) -> Response:
    """Return the image, if the counter is public. If the caller has this version, return 304."""
    label = request.query.get("label")
    text = request.counter_id if label is None else badge.label(label)
    color = badge.color(request.query.get("color", badge.DEFAULT_COLOR))
    counter = public.counter(request.counter_id, request.until)
    image = Text(badge.svg(text, counter.value, color))
    return public.response(request, counter, image, _HEADERS)


init_phase.end(clients.dynamodb)
