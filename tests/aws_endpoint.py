"""An HTTP server on 127.0.0.1 that takes the place of AWS.

moto, which simulates AWS in this process, answers the requests of other processes.
"""

import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from tests.wire import delivered

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that the endpoint received.

    Attributes:
        port: the client's port, which identifies the connection.
    """

    method: str
    port: int


@dataclass(frozen=True)
class Endpoint:
    """The URL of a server, and the requests that the server has received, in order."""

    url: str
    requests: queue.SimpleQueue[ReceivedRequest] = field(default_factory=queue.SimpleQueue)


@contextmanager
def serving() -> Iterator[Endpoint]:
    """Serve AWS on a free port of 127.0.0.1, and yield the endpoint.

    The server stops when the with block ends. moto must be running: it answers every POST. The
    server itself answers every GET, which is a health check, with 200.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open

        def do_GET(self) -> None:
            self._note_request()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self._note_request()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            # The header has Credential=<key>/<date>/<region>/<service>/aws4_request.
            scope = re.search(
                r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", self.headers["Authorization"]
            )
            assert scope
            url = f"https://{scope[2]}.{scope[1]}.amazonaws.com{self.path}"
            headers = HTTPHeaders.from_dict(dict(self.headers))
            answer = delivered(AWSPreparedRequest("POST", url, headers, body, stream_output=False))
            self.send_response(answer.status_code)
            for name in answer.headers.keys() - {"Content-Length", "Connection", "Date"}:
                self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_args: object) -> None:
            pass

        def _note_request(self) -> None:
            # HTTP/1.1 requires this header in each request.
            assert self.headers.get_all("Host") == [endpoint.url.removeprefix("http://")]
            endpoint.requests.put(ReceivedRequest(self.command, self.client_address[1]))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}")
    with server:
        threading.Thread(target=server.serve_forever, args=[POLL_SECONDS], daemon=True).start()
        try:
            yield endpoint
        finally:
            server.shutdown()
