"""Serves Lambda's Runtime API on 127.0.0.1.

One process of a function, called the runtime, gets events from this API and sends the results back.

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
    """What the runtime sent back for an event.

    Attributes:
        kind: `response`, `error` if the handler failed, or `init/error` if the runtime failed to
            start.
    """

    kind: str
    body: Any


@dataclass(frozen=True)
class Invocation:
    """An event that the runtime has received."""

    request_id: str
    deadline: float  # seconds since the epoch


class RuntimeApi:
    """Sends events to a runtime and collects the outcomes."""

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        # Each item is an invocation, or None if the runtime has ended.
        self.invocations: queue.SimpleQueue[Invocation | None] = queue.SimpleQueue()
        self._timeout = timeout

    def invoke(self, event: Mapping[str, Any]) -> Outcome:
        """Send an event and return its outcome.

        Raises:
            queue.Empty: the runtime sent no outcome within the timeout.
        """
        self.events.put(event)
        return self.outcomes.get(timeout=self._timeout)


@contextmanager
def serving(timeout: float) -> Iterator[RuntimeApi]:
    """Serve the Runtime API for one runtime, until the with block ends.

    The runtime must handle each event within `timeout` seconds.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == f"{VERSION}/invocation/next"
            event = api.events.get()
            if event is None:  # the runtime has ended
                return
            body = json.dumps(event).encode()
            invocation = Invocation(str(uuid.uuid4()), time.time() + timeout)
            api.invocations.put(invocation)
            with suppress(ConnectionError):  # the runtime has ended
                self._send_event(body, invocation)

        def _send_event(self, body: bytes, invocation: Invocation) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Lambda-Runtime-Aws-Request-Id", invocation.request_id)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int(invocation.deadline * 1000)))
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
    # Let the server stop even if a runtime is still waiting for its next event.
    server.daemon_threads = True
    server.block_on_close = False
    with server:
        threading.Thread(target=server.serve_forever, args=[POLL_SECONDS], daemon=True).start()
        try:
            yield api
        finally:
            server.shutdown()
