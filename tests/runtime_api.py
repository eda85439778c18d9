"""Lambda's side of a function: the Runtime API, on 127.0.0.1.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

POLL_SECONDS = 0.02
VERSION = "/2018-06-01/runtime"


@dataclass(frozen=True)
class Outcome:
    """What a runtime made of an event: `kind` is `response`, `error` or `init/error`."""

    kind: str
    body: Any


@dataclass(frozen=True)
class Handed:
    """The invocation of an event that the runtime has taken."""

    request_id: str
    deadline: float  # seconds since the epoch


class RuntimeApi:
    """Hands events to the one runtime that asks, and takes what it makes of them."""

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        # None: the runtime is gone, so there is nothing to wait for.
        self.handed: queue.SimpleQueue[Handed | None] = queue.SimpleQueue()
        self._timeout = timeout

    def invoke(self, event: Mapping[str, Any]) -> Outcome:
        """Return what the runtime makes of an event.

        Raises:
            queue.Empty: nothing, in time.
        """
        self.events.put(event)
        return self.outcomes.get(timeout=self._timeout)


@contextmanager
def serving(timeout: float) -> Iterator[RuntimeApi]:
    """Serve the Runtime API for one runtime, which has `timeout` seconds for an event."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == f"{VERSION}/invocation/next"
            event = api.events.get()
            if event is None:  # the runtime is gone
                return
            body = json.dumps(event).encode()
            handed = Handed(str(uuid.uuid4()), time.time() + timeout)
            api.handed.put(handed)
            with suppress(ConnectionError):  # the runtime is gone
                self._hand_over(body, handed)

        def _hand_over(self, body: bytes, handed: Handed) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Lambda-Runtime-Aws-Request-Id", handed.request_id)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int(handed.deadline * 1000)))
            arn = "arn:aws:lambda:eu-west-1:123456789012:function:tally"
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn)
            trace = "Root=1-6b02bd20-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0"
            self.send_header("Lambda-Runtime-Trace-Id", trace)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            kind = self.path.removeprefix(f"{VERSION}/")
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(HTTPStatus.ACCEPTED)
            self.send_header("Content-Length", "0")
            self.end_headers()
            api.outcomes.put(Outcome(kind if kind == "init/error" else kind.split("/")[-1], body))

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = RuntimeApi(f"127.0.0.1:{server.server_port}", timeout)
    # A runtime that waits for its next event does not keep the server from closing.
    server.daemon_threads = True
    server.block_on_close = False
    with server:
        threading.Thread(target=server.serve_forever, args=[POLL_SECONDS], daemon=True).start()
        try:
            yield api
        finally:
            server.shutdown()
