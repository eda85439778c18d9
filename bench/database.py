"""A stand-in for DynamoDB, SQS and Parameter Store that responds at once with fixed data.

With this database, a benchmark measures only the program that sends the requests. The database runs
in a process of its own, so its CPU time is not measured. The responses contain only what
the programs read. All responses describe the same counter, which was changed once, when the process
started.
"""

import datetime as dt
import json
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOP_SECONDS = 10

_AT = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
_CHANGE = {
    "operation": {"S": "increment"},
    "actor": {"S": "1example23456789abcdefghij"},
    "request_id": {"S": "0b8f5b7e-9b0d-4a4b-8e61-5d2f0f3c7a22"},
}
_COUNTER: dict[str, Any] = {
    "counter_id": {"S": "orders:eu"},
    "catalog": {"S": "counters"},
    "value": {"N": "5"},
    "version": {"N": "1"},
    "created_at": {"S": _AT},
    "updated_at": {"S": _AT},
    "change": {"M": {**_CHANGE, "at": {"S": _AT}}},
}
_ENTRY: dict[str, Any] = {
    "counter_id": {"S": "orders:eu"},
    "version": {"N": "1"},
    "value": {"N": "5"},
    "previous_value": {"N": "0"},
    "by": {"N": "5"},
    **_CHANGE,
    "created_at": {"S": _AT},
    "counter_created_at": {"S": _AT},
}

# The settings of the dashboard.
_SETTINGS = {
    "client_id": "2example23456789abcdefghij",
    "sign_in": "https://tally-example.auth.eu-west-1.amazoncognito.com",
}

# What the grant of each program and of each group of people has, besides its principal.
_GRANT: dict[str, Any] = {
    "scopes": {"SS": ["increment", "read"]},
    "prefixes": {"SS": ["orders:", "views:"]},
}


def _entries(query: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries that a Query asks for, newest first. The history has two entries."""
    values = query["ExpressionAttributeValues"]
    first, last = (int(values.get(f":{name}", {"N": "1"})["N"]) for name in ("first", "last"))
    versions = range(min(last, 2), first - 1, -1)
    return [{**_ENTRY, "version": {"N": str(version)}} for version in versions]


@contextmanager
def serving() -> Iterator[str]:
    """Run the stand-in in its own process, and yield its endpoint URL.

    The stand-in stops when the with block ends.
    """
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout  # noqa: S101  it is a pipe
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()
            process.wait(STOP_SECONDS)


def _http(answer: Any) -> bytes:  # noqa: ANN401  any JSON
    """Return the bytes of an HTTP response, with the headers that DynamoDB sends."""
    body = json.dumps(answer, separators=(",", ":")).encode()
    headers = (
        "HTTP/1.1 200 OK",
        "Server: Server",
        "Date: Mon, 23 Nov 2026 10:00:00 GMT",
        "Content-Type: application/x-amz-json-1.0",
        f"Content-Length: {len(body)}",
        "Connection: keep-alive",
        "x-amzn-RequestId: 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGHIJ",
        f"x-amz-crc32: {zlib.crc32(body)}",
        "",
        "",
    )
    return "\r\n".join(headers).encode() + body


# The responses that are the same for every request of an operation. `_answer` returns the responses
# to all other operations.
_ANSWERS = {
    "UpdateItem": _http({"Attributes": _COUNTER}),
    "BatchWriteItem": _http({"UnprocessedItems": {}}),
    "GetParameter": _http({"Parameter": {"Value": json.dumps(_SETTINGS)}}),
    "SendMessage": _http({"MessageId": "0b8f5b7e-9b0d-4a4b-8e61-5d2f0f3c7a22"}),
}
_EMPTY = _http({})


class _Connection:
    """A connection from a caller. It remembers the token of the caller's last transaction."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._token = ""

    def serve(self) -> None:
        """Respond to requests until the caller closes the connection."""
        # Without this option, the kernel would delay small packets.
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._connection, self._connection.makefile("rb") as requests:
            while requests.readline():
                headers = {}
                while line := requests.readline().strip():
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                body = requests.read(int(headers.get("content-length", 0)))
                operation = headers.get("x-amz-target", "").rpartition(".")[2]
                self._connection.sendall(_ANSWERS.get(operation) or self._answer(operation, body))

    def _answer(self, operation: str, body: bytes) -> bytes:
        """Return a response that depends on the request. It is empty for unknown operations."""
        # A health check is a GET, which has no body.
        request = json.loads(body or "{}")
        match operation:
            case "TransactWriteItems":
                self._token = request["ClientRequestToken"]
            case "GetItem" if "CounterTable" in request["TableName"]:
                return _http({"Item": _COUNTER})
            case "Query" if "HistoryTable" in request["TableName"]:
                items = _entries(request)
                return _http({"Items": items, "Count": len(items), "ScannedCount": len(items)})
            case "Query" if "CounterTable" in request["TableName"]:
                name = {"counter_id": _COUNTER["counter_id"]}
                return _http({"Items": [name], "Count": 1, "ScannedCount": 1})
            case "Query":
                return _http({"Items": [], "Count": 0, "ScannedCount": 0})
            case "BatchGetItem":
                (table,) = request["RequestItems"]
                items = self._items(table, request["RequestItems"][table]["Keys"])
                return _http({"Responses": {table: items}, "UnprocessedKeys": {}})
        return _EMPTY

    def _items(self, table: str, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the items with the given keys. Only counters and grants exist."""
        if "CounterTable" in table:
            return self._left(keys)
        return [{**key, **_GRANT} for key in keys] if "GrantTable" in table else []

    def _left(self, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the counters as the last transaction left them.

        The `request_id` of their last change is the token of that transaction.
        """
        change = {"M": {**_COUNTER["change"]["M"], "request_id": {"S": self._token}}}
        return [{**_COUNTER, **key, "change": change} for key in keys]


def _serve() -> None:
    server = socket.create_server(("127.0.0.1", 0), backlog=100)
    print(server.getsockname()[1], flush=True)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_Connection(connection).serve, daemon=True).start()


if __name__ == "__main__":
    _serve()
