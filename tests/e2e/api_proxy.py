"""A proxy between a client and a stack. It loses, cuts or replaces some of the replies.

These are the faults that a request can meet:

- `lost`: the stack handles the request, but the reply is lost.
- `cut`: the stack handles the request, but the reply ends in the middle of its body.
- `unavailable`: the stack does not get the request. The reply is a 503 that is not a problem.
- `throttled`: the stack does not get the request. The reply is API Gateway's 429.
- `in progress`: the stack does not get the request. The reply is the 409 of a key that is in use.
- `empty`: the stack does not get the request. The reply is a 200 with an empty JSON object.
- `denied`: the stack does not get the request. The reply is a firewall's 403.
"""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import urllib3
from tests.http_server import HttpServer

from deployment import Stack
from local_settings import HOST

REQUEST_SECONDS = 90
_NOT_FORWARDED = {"host", "connection", "accept-encoding"}
_NOT_RETURNED = {"connection", "content-length", "transfer-encoding", "server", "date"}
_HTML = {"Content-Type": "text/html"}
_Reply = tuple[int, dict[str, str], bytes]


def _problem(status: int, kind: str) -> _Reply:
    """Return a problem that asks for a repeat after a second."""
    members = {
        "type": f"urn:tally:problem:{kind}",
        "title": kind,
        "status": status,
        "detail": "a fault",
        "instance": "urn:uuid:00000000-0000-0000-0000-000000000000",
    }
    headers = {"Content-Type": "application/problem+json", "Retry-After": "1"}
    return status, headers, json.dumps(members).encode()


_REPLIES: Mapping[str, _Reply] = {
    "unavailable": (503, _HTML, b"<h1>Service Unavailable</h1>"),
    "throttled": _problem(429, "throttled"),
    "in progress": _problem(409, "in-progress"),
    "empty": (200, {"Content-Type": "application/json"}, b"{}"),
    "denied": (403, _HTML, b"<h1>Forbidden</h1>"),
}

# Returns the fault of the next request; an empty text for no fault. The argument is the method of
# the request, or `token` for a request for a token.
Choose = Callable[[str], str]


class Deck:
    """Deals faults in random order. Each is dealt exactly so often in `size` deals.

    So it is certain that each fault is among the first `size` deals. Threads may share a deck.
    """

    def __init__(self, size: int, **faults: int) -> None:
        """Make a deck.

        Args:
            size: the number of deals, most of them without a fault.
            **faults: how often each fault is dealt.
        """
        dealt = [fault for fault, times in faults.items() for _ in range(times)]
        self._cards = dealt + [""] * (size - len(dealt))
        self._left: list[str] = []
        self._random = random.Random(0)
        self._lock = threading.Lock()

    def deal(self) -> str:
        """Return a fault; an empty text for no fault."""
        with self._lock:
            if not self._left:
                self._left = self._random.sample(self._cards, len(self._cards))
            return self._left.pop()


class ApiProxy(HttpServer):
    """Forwards requests to a stack. Each connection carries one request.

    Attributes:
        stack: the stack. Its URLs lead through the proxy.
        counts: how many requests arrived (`requests`), how many of them met each fault, and what
            a test has counted.
        seen: the method and the idempotency key of each request. The method of a request for a
            token is `token`.
    """

    def __init__(self, stack: Stack, choose: Choose) -> None:
        super().__init__((HOST, 0), _Handler)
        self.endpoint_url = stack.endpoint_url
        self.http = urllib3.PoolManager(retries=False, timeout=REQUEST_SECONDS, maxsize=64)
        self.counts: Counter[str] = Counter()
        self.seen: list[tuple[str, str | None]] = []
        self._choose = choose
        self._lock = threading.Lock()
        moved = f"http://{HOST}:{self.server_port}"
        self.stack = replace(
            stack,
            url=moved + urlsplit(stack.url).path,
            token_url=moved + urlsplit(stack.token_url).path,
        )

    def count(self, name: str) -> None:
        """Count an event."""
        with self._lock:
            self.counts[name] += 1

    def meet(self, method: str, key: str | None) -> str:
        """Note a request, and return its fault; an empty text for no fault."""
        with self._lock:
            self.seen.append((method, key))
            fault = self._choose(method)
            self.counts["requests"] += 1
            self.counts[fault] += bool(fault)
            return fault


class _Handler(BaseHTTPRequestHandler):
    server: ApiProxy

    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        # The request for a token is a POST, too.
        method = "token" if self.path.endswith("/token") else self.command
        fault = self.server.meet(method, self.headers["Idempotency-Key"])
        if fault in _REPLIES:
            self._reply(*_REPLIES[fault])
            return
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in _NOT_FORWARDED
        }
        reply = self.server.http.request(
            self.command, self.server.endpoint_url + self.path, body=body or None, headers=headers
        )
        if fault != "lost":
            length = len(reply.data) // 2 if fault == "cut" else len(reply.data)
            self._reply(reply.status, reply.headers, reply.data, length)

    do_GET = do_POST = do_PUT = do_OPTIONS = handle_any  # noqa: N815

    def _reply(
        self, status: int, headers: Mapping[str, str], body: bytes, length: int | None = None
    ) -> None:
        """Send a reply.

        Args:
            status: the status.
            headers: the headers.
            body: the body.
            length: after how many bytes of the body the connection closes; None for all.
        """
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _NOT_RETURNED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:length])


def planned(faults: Mapping[str, list[str]]) -> Choose:
    """Return a function that takes each fault from the list for the method of the request."""

    def choose(method: str) -> str:
        left = faults.get(method)
        return left.pop(0) if left else ""

    return choose


@contextmanager
def serving(stack: Stack, choose: Choose) -> Iterator[ApiProxy]:
    """Serve a proxy on a free port of this machine, until the with block ends."""
    with ApiProxy(stack, choose) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=[0.05], daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
            proxy.http.clear()
