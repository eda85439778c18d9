"""A request never gets the reply to another request. An error tells if the request was sent."""

import datetime as dt
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tests.component.misbehaving_server import (
    BAD,
    CONNECT_SECONDS,
    GOOD,
    WAIT_SECONDS,
    Behaviour,
    Caller,
    Server,
    answer,
    answers_and_closes,
    answers_slowly,
    answers_with_an_id,
    serving,
)
from tests.sizes import examples

from counters import clients, clock
from emulator_process import free_port


@examples(500, part=25)
@given(st.lists(st.sampled_from([*GOOD, *BAD]), max_size=8))
def test_a_request_is_sent_once_and_gets_its_own_answer(behaviours: list[Behaviour]) -> None:
    with serving() as server, Caller(server.endpoint) as caller:
        for behaviour in behaviours:
            if behaviour in BAD:
                with pytest.raises(BAD[behaviour]) as error:
                    caller.send(server, behaviour)
                assert clients.may_be_applied(error.value)
            else:
                assert caller.send(server, behaviour)

    assert server.received == caller.sent


def test_a_request_has_the_headers_that_botocore_has_signed() -> None:
    signed: dict[str, str] = {}

    def remember(request: Any, **_: object) -> None:  # noqa: ANN401
        signed.update(
            {
                name: each.decode()
                for name, each in request.headers.items()
                if name in ("Authorization", "X-Amz-Date", "X-Amz-Target", "host")
            }
        )

    with serving() as server, Caller(server.endpoint) as caller:
        caller.client.meta.events.register_first("before-send", remember)
        assert caller.send(server)

        assert signed["host"] == server.endpoint.removeprefix("http://")
        assert signed["Authorization"].startswith("AWS4-HMAC-SHA256 ")
        assert signed.items() <= server.headers.items()


def test_requests_share_one_connection() -> None:
    with serving() as server, Caller(server.endpoint) as caller:
        for _ in range(5):
            assert caller.send(server)

    assert server.connections == 1


@pytest.mark.parametrize("name", ["Connection: close", "connection: Close"])
def test_a_connection_that_the_server_is_about_to_close_is_not_used_again(name: str) -> None:
    def answers_for_the_last_time(connection: socket.socket, number: str) -> None:
        connection.sendall(answer(number).replace(b"Content-", f"{name}\r\nContent-".encode(), 1))

    with serving() as server, Caller(server.endpoint) as caller:
        assert caller.send(server, answers_for_the_last_time)
        assert caller.send(server)

    assert server.connections == 2


@pytest.mark.parametrize(
    ("idle", "connections"), [(5, 1), (15, 2), pytest.param(-5, 2, id="the clock was set back")]
)
def test_a_connection_is_used_again_only_if_it_was_idle_for_at_most_10_seconds(
    monkeypatch: pytest.MonkeyPatch, idle: float, connections: int
) -> None:
    with serving() as server, Caller(server.endpoint) as caller:
        assert caller.send(server)
        later = clock.now() + idle
        monkeypatch.setattr(clock, "now", lambda: later)
        assert caller.send(server)

    assert server.connections == connections


def test_a_copy_of_the_last_reply_is_not_accepted() -> None:
    with serving() as server, Caller(server.endpoint) as caller:
        assert caller.send(server, answers_with_an_id)
        with pytest.raises(ConnectionClosedError) as error:
            caller.send(server, answers_with_an_id)
        assert clients.may_be_applied(error.value)
        assert caller.send(server, answers_with_an_id)  # over a new connection

    assert server.connections == 2


def test_a_reply_may_take_longer_than_the_connect_timeout() -> None:
    with serving() as server, Caller(server.endpoint, read_seconds=WAIT_SECONDS) as caller:
        assert caller.send(server, answers_slowly)


def test_a_request_is_not_sent_if_connecting_fails() -> None:
    caller = Caller(f"http://127.0.0.1:{free_port()}")

    with pytest.raises(EndpointConnectionError) as error:
        caller.client.update_item(TableName="1", Key={})

    assert clients.not_applied(error.value)


@contextmanager
def dead() -> Iterator[int]:
    """Yield a port at which connecting takes forever."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),  # the server's queue is full now
    ):
        yield server.getsockname()[1]


def resolve(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let the name of the service have several addresses: 127.0.0.1 with each of the ports."""
    known = socket.getaddrinfo

    def lookup(host: str, port: int, *args: int, **options: int) -> list[Any]:
        if host != "service":
            return known(host, port, *args, **options)
        return [each for port in ports for each in known("127.0.0.1", port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def test_a_request_is_not_sent_if_connecting_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with dead() as port, Caller("http://service") as caller:
        resolve(monkeypatch, port, port, port)
        began = time.monotonic()

        with pytest.raises(ConnectTimeoutError) as error:
            caller.client.update_item(TableName="1", Key={})

    assert clients.not_applied(error.value)
    assert time.monotonic() - began < 2 * CONNECT_SECONDS, "all addresses share the timeout"


def test_a_dead_address_leaves_time_for_the_next_address_and_its_handshake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, trusted = _certificate(tmp_path, "127.0.0.1")
    with (
        dead() as port,
        serving(certificate) as server,
        Caller("https://service", trusted) as caller,
    ):
        resolve(monkeypatch, port, int(server.endpoint.rpartition(":")[2]))
        began = time.monotonic()

        assert caller.send(server)

    assert time.monotonic() - began < CONNECT_SECONDS


def test_a_request_to_another_address_is_refused_with_an_error_that_nothing_retries() -> None:
    with serving() as server, serving() as other, Caller(server.endpoint) as caller:
        caller.client.meta.events.register_first(
            "before-send", lambda request, **_: setattr(request, "url", f"{other.endpoint}/")
        )
        tries = []

        def request() -> None:
            tries.append(caller.client.update_item(TableName="1", Key={}))

        with pytest.raises(ValueError, match=other.endpoint):
            clients.answered(clock.now() + WAIT_SECONDS, request)

    assert server.connections == other.connections == 0


@pytest.fixture
def certificate_and_trust(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """A certificate for a server at 127.0.0.1, and a file that makes a client trust it."""
    return _certificate(tmp_path, "127.0.0.1")


def test_requests_are_sent_over_tls(certificate_and_trust: tuple[ssl.SSLContext, str]) -> None:
    certificate, trusted = certificate_and_trust
    with serving(certificate) as server, Caller(server.endpoint, trusted) as caller:
        for _ in range(3):
            assert caller.send(server)

        assert caller.send(server, answers_and_closes)
        assert caller.send(server)

    # Before a request, the client replaces a connection that has unread bytes. The first connection
    # had unread bytes, because a TLS server sends session tickets after the handshake. The third
    # connection replaces the connection that the server closed.
    assert server.connections <= 3


def test_nothing_is_sent_to_a_server_with_an_unknown_certificate(
    certificate_and_trust: tuple[ssl.SSLContext, str],
) -> None:
    with serving(certificate_and_trust[0]) as server, Caller(server.endpoint) as caller:
        _assert_refused(caller, server)


def test_nothing_is_sent_to_a_server_with_a_certificate_for_another_address(tmp_path: Path) -> None:
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
    assert server.received == []


def _certificate(directory: Path, address: str) -> tuple[ssl.SSLContext, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("service")]
            ),
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
