"""A proxy between a deployed function and DynamoDB that makes requests to one table fail."""

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from tests.e2e.dynamodb_proxy import (
    HEALTHY,
    Proxy,
    Reply,
    Request,
    listening,
    read_request,
    refusal,
)

_WRITES = {"BatchWriteItem", "PutItem", "UpdateItem", "DeleteItem"}

# A fault is a function that the proxy calls instead of forwarding a request. Its argument is a
# function that forwards the request. The fault returns the reply to send, or None to close the
# connection.
Fault = Callable[[Callable[[], Reply]], Reply | None]


def throttled(_forward: Callable[[], Reply]) -> Reply:
    """Refuse the request as DynamoDB does when it throttles. Nothing is applied."""
    return refusal(400, "ThrottlingException")


def refused_internally(_forward: Callable[[], Reply]) -> Reply:
    """Answer with a 500. Nothing is applied."""
    return refusal(500, "InternalServerError")


def reply_lost(forward: Callable[[], Reply]) -> None:
    """Apply the request, and close the connection without a reply."""
    forward()


class ReplyLoss:
    """A fault that forwards every request, and loses a share of the replies."""

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
    """A request that the proxy has handled. Times are those of time.monotonic()."""

    operation: str
    parameters: dict[str, Any]
    fault: Fault | None
    started_at: float  # when the request arrived
    ended_at: float  # when the emulator or the fault had replied


class FaultProxy(Proxy):
    """Forwards requests to DynamoDB, makes some of them fail, and records every request."""

    def __init__(self, endpoint_url: str) -> None:
        super().__init__(endpoint_url)
        self.requests: list[HandledRequest] = []
        self._failing: tuple[str, Fault, Collection[str]] | None = None

    @contextmanager
    def failing(
        self, table: str, fault: Fault, operations: Collection[str] = _WRITES
    ) -> Iterator[None]:
        """Inject a fault into the requests to a table, until the with block ends.

        Args:
            table: the name of the table.
            fault: the fault.
            operations: the operations that fail. By default, these are all writes.
        """
        self._failing = table, fault, operations
        try:
            yield
        finally:
            self._failing = None

    def requests_with(self, fault: Fault | None) -> list[HandledRequest]:
        """Return the requests that met this fault; if `fault` is None, those that met no fault."""
        return [request for request in self.requests if request.fault is fault]

    def has_injected(self, fault: Fault, times: int = 1) -> bool:
        return len(self.requests_with(fault)) >= times

    def serve_request(self, connection: socket.socket, stream: IO[bytes]) -> bool:
        request = read_request(stream)
        reply = self._handle(request) if request.operation else HEALTHY
        if reply is None:
            return False
        connection.sendall(reply.raw())
        return True

    def _handle(self, request: Request) -> Reply | None:
        started_at = time.monotonic()
        parameters = json.loads(request.body)
        fault = None
        if self._failing:
            table, injected, operations = self._failing
            if request.operation in operations and table in parameters.get(
                "RequestItems", {parameters.get("TableName")}
            ):
                fault = injected
        reply = fault(lambda: self.forward(request)) if fault else self.forward(request)
        ended_at = time.monotonic()
        self.requests.append(
            HandledRequest(request.operation, parameters, fault, started_at, ended_at)
        )
        return reply


@contextmanager
def serving(endpoint_url: str) -> Iterator[tuple[FaultProxy, str]]:
    """Serve a proxy on a free port of 127.0.0.1, and yield the proxy and its endpoint.

    Close the proxy when the with block ends.
    """
    proxy = FaultProxy(endpoint_url)
    with listening(proxy) as url:
        yield proxy, url
