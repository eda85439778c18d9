"""A proxy between a client and the API that loses replies, refuses connections and throttles."""

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any
from urllib.parse import urlsplit

import urllib3

from deployment import Stack

REQUEST_SECONDS = 30
_REPEATED = ("authorization", "content-type", "idempotency-key", "if-match", "if-none-match")
_THROTTLED = {
    "type": "urn:tally:problem:throttled",
    "title": "Throttled",
    "status": 429,
    "detail": "a fault",
    "instance": "urn:uuid:00000000-0000-0000-0000-000000000000",
}


@dataclass(frozen=True)
class Faults:
    """The share of requests that meet each fault.

    Attributes:
        lost: the API handles the request, but its reply is lost.
        refused: the connection is closed before the request is read.
        unavailable: the reply is a 503 or 429 of something in front of the API.
    """

    lost: float
    refused: float
    unavailable: float


class ApiProxy(ThreadingHTTPServer):
    """Forwards requests to the API of a stack. Each connection carries one request.

    Attributes:
        counts: how many connections were opened, how many requests were forwarded, and how many met
            each fault.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, stack: Stack, faults: Faults) -> None:
        parts = urlsplit(stack.url)
        self.counts: Counter[str] = Counter()
        self.api = f"{parts.scheme}://{parts.netloc}"
        self.http = urllib3.PoolManager(retries=False, timeout=REQUEST_SECONDS, maxsize=64)
        self._faults = faults
        self._chances = random.Random(0)
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}{parts.path}"

    def verify_request(
        self,
        request: socket | tuple[bytes, socket],  # noqa: ARG002
        client_address: object,  # noqa: ARG002
    ) -> bool:
        """Return whether to read the request. If not, the connection is closed."""
        return not self.happens("refused", self._faults.refused)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as in socketserver
        """Print the traceback, unless the client has closed its connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def fault(self) -> str | None:
        """Choose the fault of the next request; None for no fault."""
        self.count("connections")
        if self.happens("unavailable", self._faults.unavailable):
            return "unavailable"
        return "lost" if self.happens("lost", self._faults.lost) else None

    def happens(self, name: str, share: float) -> bool:
        """Return True with this probability, and count it."""
        with self._lock:
            happens = self._chances.random() < share
            self.counts[name] += happens
            return happens

    def count(self, name: str) -> int:
        """Count an event, and return how often it has happened."""
        with self._lock:
            self.counts[name] += 1
            return self.counts[name]


class _Handler(BaseHTTPRequestHandler):
    server: ApiProxy

    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fault = self.server.fault()
        if fault == "unavailable":
            self._refuse()
            return
        headers = {name: self.headers[name] for name in _REPEATED if name in self.headers}
        reply = self.server.http.request(
            self.command, self.server.api + self.path, body=body or None, headers=headers
        )
        self.server.count("forwarded")
        if fault == "lost":
            self.close_connection = True
            return
        passed = {name: reply.headers[name] for name in reply.headers if name != "Connection"}
        self._answer(reply.status, passed, reply.data)

    def _refuse(self) -> None:
        """Answer with a 429 of API Gateway, or with a 503 that is not a problem."""
        if self.server.count("refusals") % 2:
            self._answer(503, {"Content-Type": "text/html"}, b"<h1>Service Unavailable</h1>")
            return
        kind = {"Content-Type": "application/problem+json", "Retry-After": "0"}
        self._answer(429, kind, json.dumps(_THROTTLED).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "server", "date"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(stack: Stack, faults: Faults) -> Iterator[ApiProxy]:
    """Serve a proxy on a free port of 127.0.0.1, until the with block ends."""
    with ApiProxy(stack, faults) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=[0.05], daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
            proxy.http.clear()
