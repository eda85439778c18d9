"""AWS on 127.0.0.1: what another process asks it for is answered by moto in this one."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from tests.wire import delivered

POLL_SECONDS = 0.02


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # Credential=<key>/<date>/<region>/<service>/aws4_request
        scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", self.headers["Authorization"])
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


@contextmanager
def serving() -> Iterator[str]:
    """Serve AWS as moto knows it, and give its endpoint; moto must have been started."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    with server:
        threading.Thread(target=server.serve_forever, args=[POLL_SECONDS], daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
