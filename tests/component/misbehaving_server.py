"""A server whose replies misbehave, and a client that sends it requests through a Connection."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from queue import SimpleQueue
from typing import Any, Self

import botocore.session
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, HTTPClientError, ReadTimeoutError

from counters.connection import Connection

CONNECT_SECONDS = 1
READ_SECONDS = 0.5
WAIT_SECONDS = 10


def answer(number: str) -> bytes:
    body = _body(number)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _body(number: str) -> bytes:
    return json.dumps({"Attributes": {"value": {"N": number}}}).encode()


def answers(connection: socket.socket, number: str) -> None:
    connection.sendall(answer(number))


def answers_in_chunks(connection: socket.socket, number: str) -> None:
    body = _body(number)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


def answers_with_connection_close(connection: socket.socket, number: str) -> None:
    body = _body(number)
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % len(body) + body)
    connection.shutdown(socket.SHUT_RDWR)


def answers_and_closes(connection: socket.socket, number: str) -> None:
    connection.sendall(answer(number))
    connection.shutdown(socket.SHUT_RDWR)


def answers_too_much(connection: socket.socket, number: str) -> None:
    connection.sendall(answer(number) + 1000 * answer("666"))


def answers_slowly(connection: socket.socket, number: str) -> None:
    time.sleep(CONNECT_SECONDS + READ_SECONDS)
    connection.sendall(answer(number))


def closes(connection: socket.socket, _number: str) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def answers_half(connection: socket.socket, number: str) -> None:
    connection.sendall(answer(number)[:-1])
    connection.shutdown(socket.SHUT_RDWR)


def answers_late(connection: socket.socket, number: str) -> None:
    with suppress(OSError):  # the client may have closed the connection
        connection.sendall(answer(number))


def answers_without_http(connection: socket.socket, _number: str) -> None:
    connection.sendall(b"220 ready\r\n")


def answers_with_an_id(connection: socket.socket, number: str) -> None:
    connection.sendall(answer(number).replace(b"\r\n", b"\r\nx-amzn-RequestId: 1\r\n", 1))


Behaviour = Callable[[socket.socket, str], None]
GOOD: list[Behaviour] = [
    answers,
    answers_with_connection_close,
    answers_and_closes,
    answers_too_much,
]
BAD: dict[Behaviour, type[HTTPClientError]] = {
    closes: ConnectionClosedError,
    answers_in_chunks: ConnectionClosedError,  # AWS services do not send chunked replies
    answers_half: ConnectionClosedError,
    answers_late: ReadTimeoutError,
    answers_without_http: ReadTimeoutError,  # the rest of the headers does not come
}


class Server:
    """A server for any number of connections. The n-th behaviour answers the n-th request."""

    def __init__(self, server: socket.socket, certificate: ssl.SSLContext | None = None) -> None:
        self.received: list[str] = []  # the numbers of the received requests
        self.headers: dict[str, str] = {}  # of the last request
        self.connections = 0
        self.behaviours: SimpleQueue[Behaviour] = SimpleQueue()
        self.client_done: SimpleQueue[None] = SimpleQueue()
        self.server_done: SimpleQueue[None] = SimpleQueue()
        self._server, self._certificate = server, certificate
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://127.0.0.1:{self._server.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):  # the test has closed the server
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the client may close the connection
            if self._certificate:
                connection = self._certificate.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as requests:
                while requests.readline():
                    headers = {}
                    while line := requests.readline().strip():
                        name, _, value = line.decode().partition(": ")
                        headers[name] = value
                    number = json.loads(requests.read(int(headers["Content-Length"])))["TableName"]
                    self.headers = headers
                    self.received.append(number)
                    behaviour = self.behaviours.get(timeout=WAIT_SECONDS)
                    if behaviour is answers_late:
                        self.client_done.get(timeout=WAIT_SECONDS)
                    behaviour(connection, number)
                    if behaviour is not answers_late:
                        self.client_done.get(timeout=WAIT_SECONDS)
                    self.server_done.put(None)


@contextmanager
def serving(certificate: ssl.SSLContext | None = None) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Server(server, certificate)
        server.shutdown(socket.SHUT_RDWR)


_session = cache(botocore.session.get_session)


class Caller:
    """A DynamoDB client that sends its requests through a Connection. It numbers its requests."""

    def __init__(
        self, endpoint: str, trusted: str | None = None, read_seconds: float = READ_SECONDS
    ) -> None:
        self.client: Any = _session().create_client(
            "dynamodb",
            "eu-west-1",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",  # noqa: S106
            verify=False,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=read_seconds,
                retries={"mode": "standard", "total_max_attempts": 1},
            ),
        )
        self.connection = Connection(self.client, trusted)
        self._number = 100

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, server: Server, behaviour: Behaviour = answers) -> bool:
        """Send a request to `server`, which answers with `behaviour`.

        Returns:
            Whether the reply has the number of this request.
        """
        self._number += 1
        server.behaviours.put(behaviour)
        try:
            reply = self.client.update_item(TableName=str(self._number), Key={})
            return bool(reply["Attributes"]["value"]["N"] == str(self._number))
        finally:
            server.client_done.put(None)
            server.server_done.get(timeout=WAIT_SECONDS)

    @property
    def sent(self) -> list[str]:
        """The numbers of the requests that this client sent."""
        return [str(number) for number in range(101, self._number + 1)]
