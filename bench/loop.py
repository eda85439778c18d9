"""Measures the CPU time of a warm handler, and prints the seconds per call.

The handler belongs to an artifact: a built program. This module runs in the process of that
program, so it imports nothing from `bench`. Its command-line arguments are:
- the name of the handler, such as `app.handler`;
- the path of a file with the event;
- optionally, the name of a header that gets a new value in each call.
"""

import importlib
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP = 100  # calls
BATCHES = 7
CALLS = 50  # in each batch
OK = 200
REMAINING = 9000  # milliseconds


class Context:
    """The context that Lambda passes to a handler."""

    aws_request_id = "0b8f5b7e-9b0d-4a4b-8e61-5d2f0f3c7a22"
    function_name = "function"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:function"
    memory_limit_in_mb = 512
    log_group_name = "group"
    log_stream_name = "stream"

    def get_remaining_time_in_millis(self) -> int:
        """Return the time that is left for the invocation, in milliseconds."""
        return REMAINING


def caller(name: str, event: dict[str, Any]) -> Callable[[], int]:
    """Return a callable that calls a handler or a WSGI application, and returns the HTTP status.

    The response of a handler that Cognito calls has no status. It counts as a 200.

    Args:
        name: the module and the attribute, such as `app.handler`.
        event: an event of API Gateway or Cognito. A WSGI application gets the event's method and
            body.
    """
    module, _, attribute = name.rpartition(".")
    sys.path.insert(0, "")
    handler = getattr(importlib.import_module(module), attribute)
    if not hasattr(handler, "wsgi_app"):
        return lambda: int(handler(event, Context()).get("statusCode", OK))
    body = event["body"].encode()
    statuses: list[int] = []

    def call() -> int:
        environ = {
            "REQUEST_METHOD": event["httpMethod"],
            "SCRIPT_NAME": "",
            "PATH_INFO": "/counters/orders:eu",
            "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        answer = handler(environ, lambda status, *_: statuses.append(int(status[:3])))
        b"".join(answer)
        answer.close()
        return statuses.pop()

    return call


def main(name: str, file: str, header: str = "") -> None:
    """Call the handler in batches. Print the CPU seconds per call, as the median of all batches.

    Args:
        name: the handler, as for `caller`.
        file: the path of the file with the event.
        header: the header that gets a new value in each call, or an empty string.

    Raises:
        RuntimeError: if a response was not a 200.
    """
    event = json.loads(Path(file).read_text(encoding="utf-8"))
    call = caller(name, event)
    count = 0

    def batch(calls: int) -> float:
        nonlocal count
        start = time.process_time()
        for _ in range(calls):
            if header:
                count += 1
                value = f"key-{count}"
                event["headers"][header] = value
                event["multiValueHeaders"][header] = [value]
            status = call()
            if status != OK:
                message = f"{name} answered {status}"
                raise RuntimeError(message)
        return (time.process_time() - start) / calls

    batch(WARM_UP)
    print(f"\n{statistics.median(batch(CALLS) for _ in range(BATCHES))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
