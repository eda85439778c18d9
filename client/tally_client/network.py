"""How requests travel: connections, TLS, proxies and time limits."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2

from tally_client.settings import is_this_machine

if TYPE_CHECKING:
    import ssl

# The service answers within 10 seconds (docs/api.md, section Limits). The rest is for the network.
_LONGEST_REQUEST = 15.0  # seconds
_LONGEST_CONNECT = 3.0  # seconds

# The number of connections has no limit: no thread waits for another thread's request. The pool
# closes idle connections beyond this number.
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100)


class KeptOpen(httpx2.BaseTransport):
    """A transport that stays open when an HTTP client that uses it is closed."""

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        """Send the requests through this transport."""
        self._transport = transport

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        return self._transport.handle_request(request)


def options(url: str, transport: httpx2.BaseTransport | None) -> dict[str, Any]:
    """Return the options of an HTTP client.

    Args:
        url: where the client sends requests. The environment can name a proxy for requests to other
            machines. A request to this machine uses none, because without https:// the proxy could
            read the secret and the token.
        transport: replaces the network; for tests.
    """
    if transport:
        return {"transport": transport}
    trust_env = not is_this_machine(urlsplit(url).hostname)
    return {"verify": _tls_context(), "limits": _LIMITS, "trust_env": trust_env}


def timeout(until: float) -> httpx2.Timeout:
    """Return the time limits of a request: one for each step, such as connecting or reading.

    Args:
        until: latest time to wait for the answer (monotonic clock, seconds).
    """
    seconds = min(_LONGEST_REQUEST, max(0.01, until - time.monotonic()))
    return httpx2.Timeout(seconds, connect=min(_LONGEST_CONNECT, seconds))


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Return the TLS settings. Loading the certificates takes tens of milliseconds."""
    return httpx2.create_ssl_context()
