"""The HTTP connection under a botocore client: one connection that stays open between requests.

botocore still builds and signs each request, and parses each reply. Before botocore sends a
request, it emits the event `before-send`. A handler of this event may send the request in place of
botocore. This module is such a handler. It sends each request as one piece, and understands the
only kind of reply that DynamoDB, SQS and Systems Manager send: a reply with a Content-Length.
botocore itself would use urllib3, which supports connection pools, proxies and threads. Tally needs
none of these features. Without urllib3, an increment takes less CPU time (see docs/benchmarks.md).
https://docs.aws.amazon.com/botocore/latest/topics/events.html

This module accepts a reply only if the reply is provably complete.
"""

import json
import re
import select
import socket
import ssl
import time
import zlib
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSResponse
from botocore.compat import ensure_bytes
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.httpsession import get_cert_path

from counters import clock

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.client import BaseClient

# Lambda closes idle connections, after a time that AWS does not document. If a change is sent over
# a closed connection, the outcome of the change is unknown. So a connection that was idle for this
# long is not used again: the next request opens a new connection.
# https://docs.aws.amazon.com/lambda/latest/dg/best-practices.html
_MOST_IDLE = 10.0  # seconds

# The start of a final reply, up to the end of its status:
# https://www.rfc-editor.org/rfc/rfc9112#section-4
_STATUS = re.compile(r"HTTP/1\.1 ([2-5]\d\d)(?!\S)", re.ASCII)

_PART = 65536  # the most bytes of a reply that are received at once


@cache
def of(client: "BaseClient") -> "Connection":
    """Return the connection of a client. The first call creates it."""
    return Connection(client)


class Connection:
    """A connection to a client's endpoint. It is not thread-safe: send one request at a time."""

    def __init__(self, client: "BaseClient", certificates: str | None = None) -> None:
        """Create the connection. From now on, the client sends its requests over this connection.

        Args:
            client: a client that sends all requests to one address, such as DynamoDB's or SQS's.
            certificates: a file with the certificate authorities to trust. If it is None, the
                connection trusts the authorities in botocore's file.
        """
        config: Any = client.meta.config
        self._connect_timeout: float = config.connect_timeout
        self._read_timeout: float = config.read_timeout
        self._certificates = certificates
        self._service = client.meta.service_model
        url = urlsplit(client.meta.endpoint_url)
        self._path = url.path or "/"
        self._url = f"{url.scheme}://{url.netloc}{self._path}"
        self._netloc = url.netloc.encode()
        self._secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._secure else 80)
        self._socket: socket.socket | None = None  # None: not connected
        # The id of the last request, as AWS named it in the reply. Each request has its own id. So
        # the next reply, if it has the same id, is a copy, and does not belong to its request.
        # https://docs.aws.amazon.com/sdkfornet/v3/apidocs/items/Runtime/TResponseMetadata.html
        self._last_id: str | None = None
        # When the connection was last used, in seconds since the epoch. This time is not from the
        # monotonic clock, because the monotonic clock may stop between invocations.
        self._used_at = 0.0
        events: Any = client.meta.events
        events.register("before-send", self.send)

    def open(self) -> None:
        """Connect and send a health check, so that later requests need no TLS handshake.

        This method ignores the reply, and all failures.
        """
        with suppress(ConnectTimeoutError, EndpointConnectionError, HTTPClientError):
            self._exchange("GET", b"", {})

    def close(self) -> None:
        """Close the connection. The next request opens a new connection."""
        if self._socket:
            self._socket.close()
            self._socket = self._last_id = None

    def send(self, request: "AWSPreparedRequest", event_name: str, **_: object) -> AWSResponse:
        """Send a request once. botocore calls this method for its event `before-send`.

        Args:
            request: the request.
            event_name: the name of botocore's event. It ends with the name of the operation.

        Returns:
            The reply.

        Raises:
            ValueError: if the request is for an address other than the client's endpoint. Nothing
                was sent. Tally's code does not retry the request.
            ConnectTimeoutError: if connecting took too long. Nothing was sent.
            EndpointConnectionError: if connecting failed. Nothing was sent.
            ReadTimeoutError: if the reply was not complete in time.
            ConnectionClosedError: if the connection broke, if the reply is not provably complete,
                or if it is a copy of the last reply.
        """
        if request.url != self._url:
            # If this method returned None, botocore would send the request itself. In the artifact,
            # botocore cannot send requests, and raises an error that Tally's code retries.
            message = f"This connection sends requests to {self._url} only, not to {request.url}"
            raise ValueError(message)
        # botocore's types allow other bodies, but the services of Tally get JSON, in bytes.
        body: Any = request.body
        status, headers, content = self._exchange(request.method, body, request.headers)
        operation = self._service.operation_model(event_name.rpartition(".")[2])
        request_id = headers.get("x-amzn-requestid")
        is_copy = request_id is not None and request_id == self._last_id
        has_output = operation.output_shape is not None
        if is_copy or not _is_complete(headers, content, has_output=has_output):
            self.close()
            raise ConnectionClosedError(endpoint_url=self._url)
        self._last_id = request_id
        return AWSResponse(self._url, status, headers, _Content(content))

    def _exchange(
        self,
        method: str,
        body: bytes,
        headers: Any,  # noqa: ANN401
    ) -> tuple[int, Any, bytes]:
        """Send a request and return the status, headers and body of the reply."""
        connected = self._connect()
        lines = [f"{method} {self._path} HTTP/1.1".encode(), b"Accept-Encoding: identity"]
        if "host" not in headers:  # depends on how botocore has found the address
            lines.append(b"host: " + self._netloc)
        lines += (ensure_bytes(name) + b": " + ensure_bytes(each) for name, each in headers.items())
        complete = False
        try:
            until = time.monotonic() + self._read_timeout
            connected.settimeout(self._read_timeout)
            connected.sendall(b"\r\n".join([*lines, b"", body]))
            status, fields, content, is_last = _read_reply(connected, until)
            complete = not is_last
            self._used_at = clock.now()
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except (OSError, ValueError) as error:
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from error
        finally:
            # If the connection stayed open after a failure, the next request would get the rest of
            # this reply.
            if not complete:
                self.close()
        return status, fields, content

    def _connect(self) -> socket.socket:
        """Return the open connection. Open it first, unless it is open and still usable."""
        if self._socket:
            # Before a request is sent, the socket must have nothing to read. If it has, the server
            # has closed the connection, or has sent data that belongs to no request.
            # If the clock was set back, it does not tell how long the connection was idle.
            used_recently = 0 <= clock.now() - self._used_at < _MOST_IDLE
            if used_recently and not select.select([self._socket], [], [], 0)[0]:
                return self._socket
            self.close()
        until = time.monotonic() + self._connect_timeout
        try:
            self._socket = _open(self._host, self._port, until)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure:
                # The TLS handshake gets the time that is left for connecting, but at least a
                # millisecond.
                self._socket.settimeout(max(0.001, until - time.monotonic()))
                context = _tls(self._certificates)
                self._socket = context.wrap_socket(self._socket, server_hostname=self._host)
        except OSError as error:
            self.close()  # if the TLS handshake failed, the TCP connection is still open
            timed_out = isinstance(error, TimeoutError)
            raised = ConnectTimeoutError if timed_out else EndpointConnectionError
            raise raised(endpoint_url=self._url, error=error) from error
        return self._socket


def _open(host: str, port: int, until: float) -> socket.socket:
    """Connect to one of the host's addresses. Each address gets an equal share of the time.

    Args:
        host: the host's name.
        port: the port.
        until: latest time to wait for an address, by `time.monotonic()`.

    Raises:
        OSError: if the host has no address, or if connecting failed. The error is that of the last
            address.
    """
    addresses: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for position, (*_, address) in enumerate(addresses):
        share = (until - time.monotonic()) / (len(addresses) - position)
        try:
            timeout = max(0.001, share)  # with a timeout of 0, the socket would not wait at all
            return socket.create_connection(address[:2], timeout)
        except OSError as error:
            failure = error
    raise failure


@cache
def _tls(certificates: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates or get_cert_path(verify=True))


def _read_reply(connected: socket.socket, until: float) -> tuple[int, dict[str, str], bytes, bool]:
    """Read a reply that has a Content-Length.

    Args:
        connected: the connection.
        until: latest time to wait for a part of the reply, by `time.monotonic()`.

    Returns:
        The status, the headers with names in lower case, the body, and whether the connection must
        be closed: because the server said so, or because it sent more than the reply.

    Raises:
        TimeoutError: if the reply did not arrive in time.
        OSError: if the connection was lost before the end of the reply.
        ValueError: if this is not a final HTTP/1.1 reply (status 200 to 599), if it has no
            Content-Length, or if it has a Transfer-Encoding.
    """
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _receive(connected, until)
    status_line, *lines = received[:end].decode("latin-1").split("\r\n")
    status = _STATUS.match(status_line)
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    length = fields.get("content-length", "")
    if not status or not length.isdecimal() or "transfer-encoding" in fields:
        message = "This is not a final HTTP/1.1 reply with a Content-Length alone."
        raise ValueError(message)
    start = end + 4
    while len(received) < start + int(length):
        received += _receive(connected, until)
    content = bytes(received[start : start + int(length)])
    is_last = fields.get("connection", "").lower() == "close"
    is_last = is_last or len(received) > start + int(length)
    return int(status[1]), fields, content, is_last


def _receive(connected: socket.socket, until: float) -> bytes:
    """Receive a part of a reply. A socket's own timeout would restart with each part."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connected.settimeout(left)
    part = connected.recv(_PART)
    if not part:
        raise ConnectionResetError
    return part


def _is_complete(headers: dict[str, str], content: bytes, *, has_output: bool) -> bool:
    """Return whether a reply is provably complete.

    The body already has the length that the header Content-Length says. A reply is provably
    complete if it also meets all of these conditions:
    - If the reply has a checksum, the checksum is correct. DynamoDB sends a checksum. SQS does not.
    - Its body is a JSON object. If the operation has no output (such as SQS's DeleteMessage), the
      body may also be empty.

    Args:
        headers: the headers of the reply, with names in lower case.
        content: the body of the reply.
        has_output: whether the operation has an output.
    """
    checksum = str(zlib.crc32(content))
    if headers.get("x-amz-crc32", checksum) != checksum:
        return False
    if not content:
        return not has_output
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


class _Content:
    """The body of a reply. botocore calls only the method `stream`."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> tuple[bytes, ...]:
        return (self._content,)
