"""What a call of a handler takes when all is warm, in CPU: prints the seconds a call.

It runs in a process of the artifact's own, so it imports nothing of the bench. Its arguments are
the handler, the file of the event, and, if each call is to have its own, the name of a header.
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
CALLS = 50  # a batch
OK = 200
REMAINING = 9000  # milliseconds


class Context:
    """What Lambda tells a handler about its invocation."""

    aws_request_id = "0b8f5b7e-9b0d-4a4b-8e61-5d2f0f3c7a22"
    function_name = "function"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:function"
    memory_limit_in_mb = 512
    log_group_name = "group"
    log_stream_name = "stream"

    def get_remaining_time_in_millis(self) -> int:
        """Return the time that is left, in milliseconds."""
        return REMAINING


def caller(name: str, event: dict[str, Any]) -> Callable[[], int]:
    """Return what calls the handler, or the WSGI application, and returns the status."""
    module, _, attribute = name.rpartition(".")
    sys.path.insert(0, "")
    handler = getattr(importlib.import_module(module), attribute)
    if not hasattr(handler, "wsgi_app"):
        return lambda: int(handler(event, Context())["statusCode"])
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
    """Call the handler again and again, and print the median of the batches."""
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
