"""One connection to DynamoDB, kept open, under a client of botocore's.

botocore signs a request and lets a handler of its event `before-send` answer it; what signs,
repeats and reads stays its own. What it sends with by itself, urllib3, is made for any number of
hosts, proxies and threads: over the standard library's HTTP an increment takes a quarter less CPU.
https://docs.aws.amazon.com/botocore/latest/topics/events.html
"""

import http.client
import select
import ssl
from contextlib import suppress
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

# Lambda drops connections that are idle for long, and what is sent over one then is lost: a change
# would be answered with an unknown outcome. AWS does not tell how long that is.
# https://docs.aws.amazon.com/lambda/latest/dg/best-practices.html
_MOST_IDLE = 10.0  # seconds


class Connection:
    """A connection to a client's endpoint, for one request at a time, as Lambda has them."""

    def __init__(self, client: "BaseClient", certificates: str | None = None) -> None:
        """Take over what the client sends.

        Args:
            client: its requests go all to one address, as DynamoDB's do.
            certificates: a file with the authorities to trust; botocore's if not given.
        """
        config: Any = client.meta.config  # which has the timeouts
        self._read_timeout: float = config.read_timeout
        scheme, host, path, *_ = urlsplit(client.meta.endpoint_url)
        self._path = path or "/"
        self._url = f"{scheme}://{host}{self._path}"
        self._http = http.client.HTTPConnection(host, timeout=config.connect_timeout)
        if scheme == "https":
            trusted = ssl.create_default_context(cafile=certificates or get_cert_path(verify=True))
            self._http = http.client.HTTPSConnection(
                host, timeout=config.connect_timeout, context=trusted
            )
        self._used_at = 0.0  # seconds since the epoch: other clocks stand still in between events
        events: Any = client.meta.events
        events.register("before-send", self.send)

    def open(self) -> None:
        """Connect, and ask for DynamoDB's health; no answer is no error.

        What comes unasked over a new connection, as TLS's tickets, is read with the answer.
        """
        with suppress(ConnectTimeoutError, EndpointConnectionError, HTTPClientError):
            self._exchange("GET", None, {})

    def close(self) -> None:
        """Close it; the next request opens it again."""
        self._http.close()

    def send(self, request: "AWSPreparedRequest", **_: object) -> AWSResponse | None:
        """Send a request, once.

        Returns:
            The answer; None, which leaves it to botocore, if it is for another address.

        Raises:
            ConnectTimeoutError: there is no connection; nothing was sent.
            EndpointConnectionError: likewise.
            ReadTimeoutError: the answer did not come in time.
            ConnectionClosedError: the connection ended before the answer did, or it is no HTTP.
        """
        if request.url != self._url:
            return None
        return self._exchange(request.method, request.body, request.headers)

    def _exchange(self, method: str, body: Any, headers: Any) -> AWSResponse:  # noqa: ANN401
        self._connect()
        whole = False
        try:
            self._http.request(method, self._path, body, headers)
            answer = self._http.getresponse()
            content = answer.read()
            whole = True
            self._used_at = clock.now()
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from error
        finally:
            # Else the next request would be answered with what is left of this answer.
            if not whole:
                self.close()
        got: Any = dict(answer.getheaders())
        return AWSResponse(self._url, answer.status, got, _Content(content))

    def _connect(self) -> None:
        """Connect, unless there is a connection as it should be: used lately, open, and silent."""
        if self._http.sock:
            used_lately = clock.now() < self._used_at + _MOST_IDLE
            if used_lately and not select.select([self._http.sock], [], [], 0)[0]:
                return
            self.close()
        try:
            self._http.connect()
        except OSError as error:
            self.close()  # it may be open, and TLS have failed on it
            timed_out = isinstance(error, TimeoutError)
            raised = ConnectTimeoutError if timed_out else EndpointConnectionError
            raise raised(endpoint_url=self._url, error=error) from error
        self._http.sock.settimeout(self._read_timeout)


class _Content:
    """The body of an answer, in the form in which botocore asks for it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> tuple[bytes, ...]:
        return (self._content,)
