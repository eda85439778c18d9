"""One kept-open connection to an AWS service, under a botocore client.

botocore signs a request, and a handler of its event `before-send` may answer it. Signing and
parsing stay botocore's own. Its usual HTTP library, urllib3, supports many hosts, proxies and
threads. With the standard library's HTTP client an increment takes a quarter less CPU.
https://docs.aws.amazon.com/botocore/latest/topics/events.html

A reply is accepted only if it is provably whole. `http.client` takes the end of the stream for the
end of the headers, so a reply that is cut there would pass as a good, empty one.
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

# Lambda closes connections that are idle for long. A change sent over a closed connection would be
# answered with an unknown outcome. AWS does not document how long a connection may be idle.
# https://docs.aws.amazon.com/lambda/latest/dg/best-practices.html
_MOST_IDLE = 10.0  # seconds


@cache
def of(client: "BaseClient") -> "Connection":
    """Return the connection of a client; the first call creates it."""
    return Connection(client)


class Connection:
    """A connection to a client's endpoint, for one request at a time, as Lambda has them."""

    def __init__(self, client: "BaseClient", certificates: str | None = None) -> None:
        """Send the client's requests from now on.

        Args:
            client: all its requests go to one address, as those of DynamoDB and SQS do.
            certificates: a file with the authorities to trust; botocore's if not given.
        """
        config: Any = client.meta.config  # which has the timeouts
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
        self._used_at = 0.0  # seconds since the epoch: a monotonic clock stops between invocations
        events: Any = client.meta.events
        events.register("before-send", self.send)

    def open(self) -> None:
        """Connect, and ask for the service's health, so that TLS is complete before an event comes.

        The reply is not looked at, and no reply is no error.
        """
        with suppress(ConnectTimeoutError, EndpointConnectionError, HTTPClientError):
            self._exchange("GET", None, {})

    def close(self) -> None:
        """Close it. The next request opens it again."""
        self._http.close()

    def send(
        self, request: "AWSPreparedRequest", event_name: str, **_: object
    ) -> AWSResponse | None:
        """Send a request, once.

        Args:
            request: the request.
            event_name: the event that botocore emits, which ends in the name of the operation.

        Returns:
            The reply; None, which leaves the request to botocore, if it is for another address.

        Raises:
            ConnectTimeoutError: there is no connection; nothing was sent.
            EndpointConnectionError: there is no connection; nothing was sent.
            ReadTimeoutError: the whole reply did not come in time.
            ConnectionClosedError: the reply is not provably whole.
        """
        if request.url != self._url:
            return None
        status, headers, content = self._exchange(request.method, request.body, request.headers)
        operation = self._service.operation_model(event_name.rpartition(".")[2])
        if not _is_whole(headers, content, has_output=operation.output_shape is not None):
            self.close()
            raise ConnectionClosedError(endpoint_url=self._url)
        return AWSResponse(self._url, status, headers, _Content(content))

    def _exchange(
        self,
        method: str,
        body: Any,  # noqa: ANN401  as botocore has it
        headers: Any,  # noqa: ANN401
    ) -> tuple[HTTPStatus | int, Any, bytes]:
        """Send a request and return the reply: its status, headers and body."""
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
            # The rest of this reply would be taken for the reply to the next request.
            if not complete:
                self.close()
        return reply.status, dict(reply.getheaders()), content

    def _connect(self) -> None:
        """Connect, unless the connection was used lately, is open, and has nothing to read."""
        if self._http.sock:
            used_lately = clock.now() < self._used_at + _MOST_IDLE
            if used_lately and not select.select([self._http.sock], [], [], 0)[0]:
                return
            self.close()
        until = time.monotonic() + self._connect_timeout
        try:
            address = self._http.host, self._http.port
            self._http.sock = socket.create_connection(address, self._connect_timeout)
            self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure:
                # TLS has what is left of the time; at 0 it would not wait at all.
                self._http.sock.settimeout(max(0.001, until - time.monotonic()))
                context = _tls(self._certificates)
                self._http.sock = context.wrap_socket(
                    self._http.sock, server_hostname=self._http.host
                )
        except OSError as error:
            self.close()  # TCP may be open although TLS failed
            timed_out = isinstance(error, TimeoutError)
            raised = ConnectTimeoutError if timed_out else EndpointConnectionError
            raise raised(endpoint_url=self._url, error=error) from error


@cache
def _tls(certificates: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates or get_cert_path(verify=True))


def _response(until: float, sock: Any, **options: Any) -> http.client.HTTPResponse:  # noqa: ANN401
    """Return a response of `http.client` that must be read by `until`, of the monotonic clock."""
    timed: Any = _TimedSocket(sock, until)
    return http.client.HTTPResponse(timed, **options)


class _TimedSocket(io.RawIOBase):
    """Reads from a socket until a deadline: its timeout alone would begin anew at each read."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._until = until
        self._raw = sock.makefile("rb", buffering=0)  # the socket stays open as long as this is

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a file, as a socket does."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  as RawIOBase has it
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _is_whole(headers: dict[str, str], content: bytes, *, has_output: bool) -> bool:
    """Return whether a reply is provably whole.

    It has the announced length, the checksum that DynamoDB sends with it, and a JSON object. An
    operation without output, as SQS's DeleteMessage, may have an empty body.
    """
    fields = {name.lower(): value for name, value in headers.items()}
    if fields.get("content-length") != str(len(content)):
        return False
    checksum = str(zlib.crc32(content))
    if fields.get("x-amz-crc32", checksum) != checksum:  # SQS sends none
        return False
    if not content:
        return not has_output
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


class _Content:
    """The body of a reply, in the form in which botocore asks for it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> tuple[bytes, ...]:
        return (self._content,)
