"""The HTTP connection under a botocore client: one connection that stays open between requests.

botocore still builds and signs each request, and parses each reply. Before botocore sends a
request, it emits the event `before-send`. A handler of this event may send the request in place of
botocore. This module is such a handler. It uses the HTTP client of the standard library. botocore
itself would use urllib3, which supports connection pools, proxies and threads. Tally needs none of
these features. Without urllib3, an increment takes less CPU time (see docs/benchmarks.md).
https://docs.aws.amazon.com/botocore/latest/topics/events.html

This module accepts a reply only if the reply is provably complete. `http.client` does not check
whether a reply is complete: if the connection is lost in the middle of the headers, `http.client`
returns a valid reply with an empty body.
"""

import http.client
import io
import json
import select
import socket
import ssl
import time
import zlib
from contextlib import suppress
from functools import cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSResponse
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
        scheme, host, path, *_ = urlsplit(client.meta.endpoint_url)
        self._path = path or "/"
        self._url = f"{scheme}://{host}{self._path}"
        self._secure = scheme == "https"
        self._http = http.client.HTTPConnection(host)
        if self._secure:
            self._http = http.client.HTTPSConnection(host, context=_tls(certificates))
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
            self._exchange("GET", None, {})

    def close(self) -> None:
        """Close the connection. The next request opens a new connection."""
        self._http.close()

    def send(
        self, request: "AWSPreparedRequest", event_name: str, **_: object
    ) -> AWSResponse | None:
        """Send a request once. botocore calls this method for its event `before-send`.

        Args:
            request: the request.
            event_name: the name of botocore's event. It ends with the name of the operation.

        Returns:
            The reply. None if the request is for an address other than the client's endpoint:
            botocore sends such a request itself.

        Raises:
            ConnectTimeoutError: if connecting took too long. Nothing was sent.
            EndpointConnectionError: if connecting failed. Nothing was sent.
            ReadTimeoutError: if the reply was not complete in time.
            ConnectionClosedError: if the connection broke, or the reply is not provably complete.
        """
        if request.url != self._url:
            return None
        status, headers, content = self._exchange(request.method, request.body, request.headers)
        operation = self._service.operation_model(event_name.rpartition(".")[2])
        if not _is_complete(headers, content, has_output=operation.output_shape is not None):
            self.close()
            raise ConnectionClosedError(endpoint_url=self._url)
        return AWSResponse(self._url, status, headers, _Content(content))

    def _exchange(
        self,
        method: str,
        body: Any,  # noqa: ANN401  botocore does not say
        headers: Any,  # noqa: ANN401
    ) -> tuple[HTTPStatus | int, Any, bytes]:
        """Send a request and return the status, headers and body of the reply."""
        self._connect()
        complete = False
        try:
            until = time.monotonic() + self._read_timeout
            self._http.sock.settimeout(self._read_timeout)
            self._http.response_class = partial(_response, until)  # type: ignore[assignment]
            self._http.request(method, self._path, body, headers)
            reply = self._http.getresponse()
            content = reply.read()
            complete = True
            self._used_at = clock.now()
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from error
        finally:
            # If the connection stayed open after a failure, the next request would get the rest of
            # this reply.
            if not complete:
                self.close()
        return reply.status, dict(reply.getheaders()), content

    def _connect(self) -> None:
        """Open the connection, unless it is open and still usable."""
        if self._http.sock:
            # Before a request is sent, the socket must have nothing to read. If it has, the server
            # has closed the connection, or has sent data that belongs to no request.
            used_recently = clock.now() < self._used_at + _MOST_IDLE
            if used_recently and not select.select([self._http.sock], [], [], 0)[0]:
                return
            self.close()
        until = time.monotonic() + self._connect_timeout
        try:
            address = self._http.host, self._http.port
            self._http.sock = socket.create_connection(address, self._connect_timeout)
            self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure:
                # The TLS handshake gets the time that is left for connecting, but at least a
                # millisecond. With a timeout of 0, the socket would not wait at all.
                self._http.sock.settimeout(max(0.001, until - time.monotonic()))
                context = _tls(self._certificates)
                self._http.sock = context.wrap_socket(
                    self._http.sock, server_hostname=self._http.host
                )
        except OSError as error:
            self.close()  # if the TLS handshake failed, the TCP connection is still open
            timed_out = isinstance(error, TimeoutError)
            raised = ConnectTimeoutError if timed_out else EndpointConnectionError
            raise raised(endpoint_url=self._url, error=error) from error


@cache
def _tls(certificates: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates or get_cert_path(verify=True))


def _response(until: float, sock: Any, **options: Any) -> http.client.HTTPResponse:  # noqa: ANN401
    """Return an `http.client` response that times out when `time.monotonic()` reaches `until`."""
    timed: Any = _TimedSocket(sock, until)
    return http.client.HTTPResponse(timed, **options)


class _TimedSocket(io.RawIOBase):
    """Reads from a socket until a deadline. A socket's own timeout would restart at each read."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._until = until
        self._raw = sock.makefile("rb", buffering=0)  # the socket stays open until this is closed

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a buffered file. This is the only method of a socket that `http.client` calls."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  the base class does the same
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _is_complete(headers: dict[str, str], content: bytes, *, has_output: bool) -> bool:
    """Return whether a reply is provably complete.

    A reply is provably complete if it meets all of these conditions:
    - Its body has the length that the header Content-Length says.
    - If the reply has a checksum, the checksum is correct. DynamoDB sends a checksum. SQS does not.
    - Its body is a JSON object. If the operation has no output (such as SQS's DeleteMessage), the
      body may also be empty.

    Args:
        headers: the headers of the reply.
        content: the body of the reply.
        has_output: whether the operation has an output.
    """
    fields = {name.lower(): value for name, value in headers.items()}
    if fields.get("content-length") != str(len(content)):
        return False
    checksum = str(zlib.crc32(content))
    if fields.get("x-amz-crc32", checksum) != checksum:
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
