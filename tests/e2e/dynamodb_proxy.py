"""The base of the proxies that forward requests of functions to the emulator's DynamoDB."""

import json
import socket
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import IO

import urllib3

REQUEST_SECONDS = 30  # the emulator's limit for a request

_FORWARDED = ("authorization", "content-type", "x-amz-date", "x-amz-target", "x-amz-security-token")


@dataclass(frozen=True)
class Request:
    """A request to DynamoDB. `operation` is empty if a function only opens a connection."""

    operation: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """A reply from DynamoDB."""

    status: int
    body: bytes

    def raw(self) -> bytes:
        """Return the bytes of the reply, with the same headers as DynamoDB sends."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "Server: Server",
            f"Date: {formatdate(usegmt=True)}",
            "Content-Type: application/x-amz-json-1.0",
            f"Content-Length: {len(self.body)}",
            "Connection: keep-alive",
            f"x-amzn-RequestId: {'0123456789ABCDEFGHIJKLMNOP' * 2}",
            f"x-amz-crc32: {zlib.crc32(self.body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


HEALTHY = Reply(200, b"healthy")  # the reply to a request without an operation


def refusal(status: int, code: str, **members: object) -> Reply:
    """Return an error in DynamoDB's format."""
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    return Reply(status, json.dumps({"__type": kind, "message": "a fault", **members}).encode())


class Proxy(ABC):
    """Forwards requests to the emulator's DynamoDB."""

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url
        self._http = urllib3.PoolManager(retries=False, timeout=REQUEST_SECONDS, maxsize=64)

    @abstractmethod
    def serve_request(self, connection: socket.socket, stream: IO[bytes]) -> bool:
        """Serve one request. Return whether the connection stays open after the request."""

    def serve(self, connection: socket.socket) -> None:
        """Serve the requests of a connection, until a fault or the caller closes the connection."""
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while self.serve_request(connection, stream):
                pass

    def forward(self, request: Request) -> Reply:
        """Forward a request to the emulator, and return the emulator's reply.

        Raises:
            ConnectionError: the emulator did not reply.
        """
        try:
            reply = self._http.request(
                "POST",
                self._endpoint_url + request.path,
                body=request.body,
                headers=request.headers,
                decode_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError from error  # closes the connection, as if the reply was lost
        return Reply(reply.status, reply.data)

    def close(self) -> None:
        self._http.clear()


def read_request(stream: IO[bytes]) -> Request:
    """Read a whole request.

    Raises:
        ConnectionError: the request is incomplete, because its sender was killed.
    """
    start = stream.readline()
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    body = stream.read(length)
    if not start or len(body) < length:
        raise ConnectionError
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    forwarded = {name: headers[name] for name in _FORWARDED if name in headers}
    return Request(operation, start.split()[1].decode(), forwarded, body)


@contextmanager
def listening(proxy: Proxy) -> Iterator[str]:
    """Serve a proxy on a free port of 127.0.0.1, and yield its endpoint.

    Close the proxy when the with block ends.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:

        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    connection, _ = server.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=proxy.serve, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            with suppress(OSError):  # on macOS, a listening socket cannot be shut down
                server.shutdown(socket.SHUT_RDWR)
            proxy.close()
