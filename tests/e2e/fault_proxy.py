"""What lies between a deployed function and its database: it can refuse writes or lose replies."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

POLL_SECONDS = 0.02
REQUEST_SECONDS = 30

_WRITES = {"BatchWriteItem", "PutItem", "UpdateItem", "DeleteItem"}
# Those of one connection, not of the request or reply; and those that are made anew.
_HOP_HEADERS = {"connection", "content-length", "date", "host", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Reply:
    """What DynamoDB answers."""

    status: int
    headers: dict[str, str]
    body: bytes


# Takes what forwards the request; returns the reply, or None to break the connection instead.
Fault = Callable[[Callable[[], Reply]], Reply | None]


def throttled(_forward: Callable[[], Reply]) -> Reply:
    """Refuse the request as DynamoDB does if it is asked too much: nothing is applied."""
    return _error(HTTPStatus.BAD_REQUEST, "ThrottlingException")


def refused_internally(_forward: Callable[[], Reply]) -> Reply:
    """Answer that something went wrong, before anything was applied."""
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError")


def reply_lost(forward: Callable[[], Reply]) -> None:
    """Let the request be applied, and break the connection before the reply."""
    forward()


class ReplyLoss:
    """A fault: every request is applied, and then the replies to a share of them are lost."""

    def __init__(self, share: float) -> None:
        self.lost = 0
        self._share = share
        self._chances = random.Random(0)
        self._lock = threading.Lock()

    def __call__(self, forward: Callable[[], Reply]) -> Reply | None:
        reply = forward()
        with self._lock:
            if self._chances.random() >= self._share:
                return reply
            self.lost += 1
        return None


@dataclass(frozen=True)
class HandledRequest:
    """A request that came, and what became of it."""

    operation: str
    parameters: dict[str, Any]
    fault: Fault | None
    started_at: float  # when it came; of time.monotonic()
    ended_at: float  # when the emulator, or else the fault, had answered; of time.monotonic()


class FaultProxy:
    """Carries a function's requests to the emulator's DynamoDB, and notes each."""

    def __init__(self, endpoint_url: str) -> None:
        self.requests: list[HandledRequest] = []
        self._endpoint_url = endpoint_url
        self._http = urllib3.PoolManager(retries=False, timeout=REQUEST_SECONDS)
        self._failing: tuple[str, Fault] | None = None

    @contextmanager
    def failing(self, table: str, fault: Fault) -> Iterator[None]:
        """Let every write to a table meet a fault."""
        self._failing = table, fault
        try:
            yield
        finally:
            self._failing = None

    def requests_with(self, fault: Fault | None) -> list[HandledRequest]:
        """Return the requests that requests_with a fault, or those that requests_with none."""
        return [request for request in self.requests if request.fault is fault]

    def has_injected(self, fault: Fault, times: int = 1) -> bool:
        return len(self.requests_with(fault)) >= times

    def handle(self, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
        def forward() -> Reply:
            reply = self._http.request(
                "POST", self._endpoint_url + path, body=body, headers=headers, decode_content=False
            )
            return Reply(reply.status, dict(reply.headers), reply.data)

        started_at = time.monotonic()
        operation = headers["X-Amz-Target"].rpartition(".")[2]
        parameters = json.loads(body)
        fault = None
        if self._failing and operation in _WRITES:
            table, injected = self._failing
            if table in parameters.get("RequestItems", {parameters.get("TableName")}):
                fault = injected
        reply = fault(forward) if fault else forward()
        self.requests.append(
            HandledRequest(operation, parameters, fault, started_at, time.monotonic())
        )
        return reply

    def close(self) -> None:
        self._http.clear()


@contextmanager
def serving(endpoint_url: str) -> Iterator[tuple[FaultProxy, str]]:
    """Serve on a free port of 127.0.0.1; give the proxy, and its own endpoint."""
    proxy = FaultProxy(endpoint_url)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = proxy.handle(self.path, _end_to_end(dict(self.headers)), body)
            if reply is None:
                return
            self.send_response(reply.status)
            for name, value in _end_to_end(reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with server:
        threading.Thread(target=server.serve_forever, args=[POLL_SECONDS], daemon=True).start()
        try:
            yield proxy, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            proxy.close()


def _end_to_end(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_HEADERS}


def _error(status: HTTPStatus, code: str) -> Reply:
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    body = json.dumps({"__type": kind, "message": "as the test has it"}).encode()
    return Reply(status, {"Content-Type": "application/x-amz-json-1.0"}, body)
