"""What is asked of DynamoDB gets its own answer, or an error that tells whether it was sent."""

import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tests.sizes import examples

from counters import clients, clock
from counters.connection import Connection
from emulator_process import free_port

CONNECT_SECONDS = 0.2
READ_SECONDS = 0.1
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


def answers_and_takes_leave(connection: socket.socket, number: str) -> None:
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
    with suppress(OSError):  # nobody listens any more
        connection.sendall(answer(number))


def speaks_no_http(connection: socket.socket, _number: str) -> None:
    connection.sendall(b"220 ready\r\n")


Manner = Callable[[socket.socket, str], None]
GOOD: list[Manner] = [
    answers,
    answers_and_takes_leave,
    answers_and_closes,
    answers_too_much,
]
BAD: dict[Manner, type[HTTPClientError]] = {
    closes: ConnectionClosedError,
    answers_in_chunks: ConnectionClosedError,  # as no service of AWS does
    answers_half: ConnectionClosedError,
    answers_late: ReadTimeoutError,
    speaks_no_http: ConnectionClosedError,
}


class Server:
    """Serves each request in the manner that it is told, over as many connections as come."""

    def __init__(self, server: socket.socket, certificate: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.connections = 0
        self.manners: SimpleQueue[Manner] = SimpleQueue()
        self.returned: SimpleQueue[None] = SimpleQueue()
        self.over: SimpleQueue[None] = SimpleQueue()
        self._server, self._certificate = server, certificate
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://127.0.0.1:{self._server.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the caller is gone
            if self._certificate:
                connection = self._certificate.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as requests:
                while requests.readline():
                    headers = {}
                    while line := requests.readline().strip():
                        name, _, value = line.decode().partition(": ")
                        headers[name] = value
                    number = json.loads(requests.read(int(headers["Content-Length"])))["TableName"]
                    self.asked.append(number)
                    manner = self.manners.get(timeout=WAIT_SECONDS)
                    if manner is answers_late:
                        self.returned.get(timeout=WAIT_SECONDS)
                    manner(connection, number)
                    if manner is not answers_late:
                        self.returned.get(timeout=WAIT_SECONDS)
                    self.over.put(None)


@contextmanager
def serving(certificate: ssl.SSLContext | None = None) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Server(server, certificate)
        server.shutdown(socket.SHUT_RDWR)


_session = cache(botocore.session.get_session)


class Caller:
    """A client with a connection of ours, which asks the server with a number each time."""

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

    def ask(self, server: Server, manner: Manner = answers) -> bool:
        """Ask once; return whether the answer is that to this question."""
        self._number += 1
        server.manners.put(manner)
        try:
            reply = self.client.update_item(TableName=str(self._number), Key={})
            return bool(reply["Attributes"]["value"]["N"] == str(self._number))
        finally:
            server.returned.put(None)
            server.over.get(timeout=WAIT_SECONDS)

    @property
    def asked(self) -> list[str]:
        return [str(number) for number in range(101, self._number + 1)]


@examples(500, part=25)
@given(st.lists(st.sampled_from([*GOOD, *BAD]), max_size=8))
def test_a_request_is_sent_once_and_gets_its_own_answer(manners: list[Manner]) -> None:
    with serving() as server, Caller(server.endpoint) as caller:
        for manner in manners:
            if manner in BAD:
                with pytest.raises(BAD[manner]) as error:
                    caller.ask(server, manner)
                assert clients.may_be_applied(error.value)
            else:
                assert caller.ask(server, manner)

    assert server.asked == caller.asked


def test_the_connection_is_kept() -> None:
    with serving() as server, Caller(server.endpoint) as caller:
        for _ in range(5):
            assert caller.ask(server)

    assert server.connections == 1


@pytest.mark.parametrize(("idle", "connections"), [(5, 1), (15, 2)])
def test_a_connection_that_was_idle_for_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, idle: float, connections: int
) -> None:
    with serving() as server, Caller(server.endpoint) as caller:
        assert caller.ask(server)
        later = clock.now() + idle
        monkeypatch.setattr(clock, "now", lambda: later)
        assert caller.ask(server)

    assert server.connections == connections


def test_an_answer_may_take_longer_than_the_connect_timeout() -> None:
    with serving() as server, Caller(server.endpoint, read_seconds=WAIT_SECONDS) as caller:
        assert caller.ask(server, answers_slowly)


def test_a_request_is_not_sent_if_there_is_no_connection() -> None:
    caller = Caller(f"http://127.0.0.1:{free_port()}")

    with pytest.raises(EndpointConnectionError) as error:
        caller.client.update_item(TableName="1", Key={})

    assert clients.not_applied(error.value)


def test_a_request_is_not_sent_if_connecting_takes_too_long() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        with socket.create_connection(address):  # now the queue is full
            caller = Caller(f"http://127.0.0.1:{address[1]}")

            with pytest.raises(ConnectTimeoutError) as error:
                caller.client.update_item(TableName="1", Key={})

    assert clients.not_applied(error.value)


def test_a_request_to_another_address_is_left_to_botocore() -> None:
    with serving() as server, serving() as other, Caller(server.endpoint) as caller:
        caller.client.meta.events.register_first(
            "before-send", lambda request, **_: setattr(request, "url", f"{other.endpoint}/")
        )

        assert caller.ask(other)

    assert server.asked == []


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """A server's certificate for 127.0.0.1, and the file of who trusts it."""
    return _certificate(tmp_path, "127.0.0.1")


def test_requests_are_sent_over_tls(certified: tuple[ssl.SSLContext, str]) -> None:
    certificate, trusted = certified
    with serving(certificate) as server, Caller(server.endpoint, trusted) as caller:
        for _ in range(3):
            assert caller.ask(server)

        assert caller.ask(server, answers_and_closes)
        assert caller.ask(server)

    # The first one was found with the server's tickets in it.
    assert server.connections <= 3


def test_nothing_is_sent_to_a_server_with_an_unknown_certificate(
    certified: tuple[ssl.SSLContext, str],
) -> None:
    with serving(certified[0]) as server, Caller(server.endpoint) as caller:
        _assert_refused(caller, server)


def test_nothing_is_sent_to_a_server_with_the_certificate_of_another(tmp_path: Path) -> None:
    certificate, trusted = _certificate(tmp_path, "127.0.0.2")
    with serving(certificate) as server, Caller(server.endpoint, trusted) as caller:
        _assert_refused(caller, server)


def _assert_refused(caller: Caller, server: Server) -> None:
    for number in range(1, 4):
        with pytest.raises(EndpointConnectionError) as error:
            caller.client.update_item(TableName="1", Key={})
        assert clients.not_applied(error.value)
        assert isinstance(error.value, BotoCoreError)
        assert server.connections == number
    assert server.asked == []


def _certificate(directory: Path, address: str) -> tuple[ssl.SSLContext, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, chain = directory / "trusted.pem", directory / "chain.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain.write_bytes(private + trusted.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context, str(trusted)
