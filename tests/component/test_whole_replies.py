"""The functions treat an incomplete or damaged reply of DynamoDB or SQS as a lost reply."""

import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, ReadTimeoutError
from tests.sizes import cases

from counters import clients
from counters.connection import Connection

CONNECT_SECONDS = 0.5
READ_SECONDS = 0.5
TOLERANCE = 0.5  # seconds
PIECES = 20  # the server sends a slow reply in this many pieces

COUNTER = {
    "counter_id": {"S": "orders:eu"},
    "value": {"N": "105"},
    "version": {"N": "4"},
    "created_at": {"S": "2026-11-22T10:00:00.123Z"},
    "updated_at": {"S": "2026-11-22T10:00:03.789Z"},
}
ENTRY = {**COUNTER, "previous_value": {"N": "104"}, "by": {"N": "1"}, "request_id": {"S": "id"}}

# The reply of DynamoDB to a call of each client method.
REPLIES: dict[str, dict[str, Any]] = {
    "update_item": {"Attributes": COUNTER},
    "get_item": {"Item": COUNTER},
    "transact_write_items": {},
    "query": {"Count": 1, "Items": [ENTRY], "ScannedCount": 1},
    "put_item": {},
}
REQUESTS: dict[str, dict[str, Any]] = {
    "update_item": {"TableName": "table", "Key": {"counter_id": {"S": "orders:eu"}}},
    "get_item": {"TableName": "table", "Key": {"counter_id": {"S": "orders:eu"}}},
    "transact_write_items": {"TransactItems": []},
    "query": {"TableName": "table"},
    "put_item": {"TableName": "table", "Item": COUNTER},
}
REFUSAL = {
    "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
    "message": "The conditional request failed",
    "Item": COUNTER,
}

every_request = pytest.mark.parametrize("method", REPLIES)


def head(body: bytes, status: str = "200 OK", **changed: str | None) -> bytes:
    """Return the start of a reply of DynamoDB: the status line and the headers.

    Args:
        body: the body that follows the headers.
        status: the status code and its phrase.
        changed: headers to change, by name, with `_` in place of `-`. None leaves a header out.
    """
    headers: dict[str, str | None] = {
        "Server": "Server",
        "Date": "Sun, 22 Nov 2026 10:00:03 GMT",
        "Content-Type": "application/x-amz-json-1.0",
        "Content-Length": str(len(body)),
        "Connection": "keep-alive",
        "x-amzn-RequestId": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEF",
        "x-amz-crc32": str(zlib.crc32(body)),
    }
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def raw_reply(reply: dict[str, Any], status: str = "200 OK") -> bytes:
    """Return a complete reply with a JSON body, as bytes."""
    body = json.dumps(reply, separators=(",", ":")).encode()
    return head(body, status) + body


Send = Callable[[socket.socket], None]


class Server:
    """A server that answers one request on each connection, and then closes the connection."""

    def __init__(self, server: socket.socket) -> None:
        self.endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        self.send: Send = lambda _connection: None
        self.requests = 0
        self._server = server
        threading.Thread(target=self._serve, daemon=True).start()

    def reply_with(self, sent: bytes) -> None:
        self.send = lambda connection: connection.sendall(sent)

    def _serve(self) -> None:
        with suppress(OSError):  # the test has closed the server
            while True:
                connection, _ = self._server.accept()
                with suppress(OSError), connection, connection.makefile("rb") as stream:
                    length = 0
                    while line := stream.readline().strip():
                        name, _, value = line.partition(b":")
                        if name.lower() == b"content-length":
                            length = int(value)
                    stream.read(length)
                    self.requests += 1
                    self.send(connection)


@pytest.fixture(scope="module")
def create_client() -> Callable[..., Any]:
    """Return a function that creates AWS clients with the settings that Tally uses."""
    session = botocore.session.Session()

    def make(endpoint: str, service: str = "dynamodb", seconds: float = READ_SECONDS) -> Any:  # noqa: ANN401
        client: Any = session.create_client(
            service,
            "eu-west-1",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",  # noqa: S106
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=seconds,
                retries={"mode": "standard", "total_max_attempts": 1},
                parameter_validation=False,
            ),
        )
        return client

    return make


@contextmanager
def serving() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Server(server)
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def client(server: Server, create_client: Callable[..., Any]) -> Iterator[Any]:
    """A DynamoDB client that sends its requests to the server through a Connection."""
    client = create_client(server.endpoint)
    connection = Connection(client)
    yield client
    connection.close()


def ask(client: Any, method: str) -> dict[str, Any]:  # noqa: ANN401
    """Send a request. Return the reply without botocore's metadata."""
    reply: dict[str, Any] = getattr(client, method)(**REQUESTS[method])
    return {name: value for name, value in reply.items() if name != "ResponseMetadata"}


def is_lost(client: Any, method: str) -> bool:  # noqa: ANN401
    """Send a request. Return whether its reply counts as lost."""
    try:
        ask(client, method)
    except HTTPClientError as error:
        return clients.may_be_applied(error)
    except ClientError:
        pass
    return False


def accepted_cuts(server: Server, client: Any, method: str, whole: bytes) -> list[bytes]:  # noqa: ANN401
    """Try beginnings of a reply. Return the beginnings that did not count as lost replies."""
    accepted = []
    for length in cuts(whole):
        server.reply_with(whole[:length])
        if not is_lost(client, method):
            accepted.append(whole[:length])
    return accepted


def cuts(whole: bytes) -> list[int]:
    """Return the lengths of the beginnings to try.

    Those near the end of the headers and near the end of the reply are always among them. Of the
    others, `make test` tries every third.
    """
    body = whole.index(b"\r\n\r\n") + 4
    some = range(0, len(whole), cases(full=1, part=3))
    ends = {*range(body - 5, body + 3), *range(len(whole) - 5, len(whole))}
    return sorted(length for length in {*some, *ends} if length < len(whole))


@every_request
def test_a_reply_cut_at_any_byte_is_lost(server: Server, client: Any, method: str) -> None:  # noqa: ANN401
    whole = raw_reply(REPLIES[method])
    server.reply_with(whole)
    assert ask(client, method) == REPLIES[method]

    assert accepted_cuts(server, client, method, whole) == []
    assert server.requests <= 1 + len(cuts(whole)), "a request was sent twice"


def test_a_refusal_cut_at_any_byte_is_lost(server: Server, client: Any) -> None:  # noqa: ANN401
    whole = raw_reply(REFUSAL, "400 Bad Request")
    server.reply_with(whole)
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as error:
        ask(client, "update_item")
    assert error.value.response["Item"] == COUNTER

    assert accepted_cuts(server, client, "update_item", whole) == []


@every_request
def test_a_reply_with_a_wrong_checksum_is_lost(server: Server, client: Any, method: str) -> None:  # noqa: ANN401
    body = json.dumps(REPLIES[method]).encode()
    server.reply_with(head(body, x_amz_crc32=str(zlib.crc32(body) ^ 1)) + body)

    assert is_lost(client, method)


@every_request
def test_a_reply_without_a_content_length_is_lost(
    server: Server,
    client: Any,  # noqa: ANN401
    method: str,
) -> None:
    body = json.dumps(REPLIES[method]).encode()
    server.reply_with(head(body, Content_Length=None) + body)

    assert is_lost(client, method)


@pytest.mark.parametrize(
    "status", ["100 Continue", "103 Early Hints", "600", "20", "2000 OK", "20_ OK", " 200 OK"]
)
def test_a_reply_without_a_final_status_is_lost(server: Server, client: Any, status: str) -> None:  # noqa: ANN401
    server.reply_with(raw_reply(REPLIES["update_item"], status))

    assert is_lost(client, "update_item")


def test_a_reply_with_a_transfer_encoding_is_lost(server: Server, client: Any) -> None:  # noqa: ANN401
    body = json.dumps(REPLIES["update_item"]).encode()
    server.reply_with(head(body, Transfer_Encoding="chunked") + body)

    assert is_lost(client, "update_item")


@every_request
@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"text"', b"{", b"<html></html>"])
def test_a_reply_that_is_not_a_json_object_is_lost(
    server: Server,
    client: Any,  # noqa: ANN401
    method: str,
    body: bytes,
) -> None:
    server.reply_with(head(body) + body)

    assert is_lost(client, method)


WITHOUT_OUTPUT: dict[str, dict[str, Any]] = {
    "delete_message": {"ReceiptHandle": "handle"},
    "change_message_visibility": {"ReceiptHandle": "handle", "VisibilityTimeout": 0},
}


@pytest.mark.parametrize("method", WITHOUT_OUTPUT)
@pytest.mark.parametrize("body", [b"", b"{}"])
def test_an_empty_reply_of_sqs_is_accepted_if_its_operation_has_no_output(
    server: Server, create_client: Callable[..., Any], method: str, body: bytes
) -> None:
    queues = create_client(server.endpoint, "sqs")
    connection = Connection(queues)
    whole = head(body, x_amz_crc32=None) + body
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/queue"

    def is_accepted(sent: bytes) -> bool:
        server.reply_with(sent)
        try:
            getattr(queues, method)(QueueUrl=url, **WITHOUT_OUTPUT[method])
        except HTTPClientError:
            return False
        return True

    assert is_accepted(whole)
    accepted = [whole[:length] for length in range(len(whole)) if is_accepted(whole[:length])]
    # A cut reply may be accepted only if its body is empty and its Content-Length has arrived.
    # Such a reply is complete.
    assert all(not body and b"Content-Length: 0" in cut for cut in accepted)
    connection.close()


def test_an_empty_reply_of_sqs_is_lost_if_its_operation_has_output(
    server: Server, create_client: Callable[..., Any]
) -> None:
    queues = create_client(server.endpoint, "sqs")
    Connection(queues)
    server.reply_with(head(b"", x_amz_crc32=None))

    with pytest.raises(HTTPClientError):
        queues.receive_message(QueueUrl="https://sqs.eu-west-1.amazonaws.com/123456789012/queue")


@pytest.mark.parametrize("method", ["update_item", "put_item"])
def test_a_reply_that_arrives_too_slowly_is_lost_at_the_timeout(
    server: Server,
    client: Any,  # noqa: ANN401
    method: str,
) -> None:
    whole = raw_reply(REPLIES[method])
    size = len(whole) // PIECES

    def send_slowly(connection: socket.socket) -> None:
        for start in range(0, len(whole), size):
            connection.sendall(whole[start : start + size])
            time.sleep(4 * READ_SECONDS / PIECES)

    server.send = send_slowly
    began = time.monotonic()

    with pytest.raises(ReadTimeoutError):
        ask(client, method)
    assert time.monotonic() - began < CONNECT_SECONDS + READ_SECONDS + TOLERANCE


def test_a_reply_that_stops_halfway_is_lost_at_the_timeout(
    server: Server, create_client: Callable[..., Any]
) -> None:
    seconds = 2.0
    client = create_client(server.endpoint, seconds=seconds)
    Connection(client)
    whole = raw_reply(REPLIES["update_item"])
    released = threading.Event()

    def send_half(connection: socket.socket) -> None:
        time.sleep(0.9 * seconds)
        connection.sendall(whole[: len(whole) // 2])
        released.wait(10 * seconds)

    server.send = send_half
    began = time.monotonic()

    with pytest.raises(ReadTimeoutError):
        ask(client, "update_item")
    # The arrival of the first half did not restart the timeout.
    assert time.monotonic() - began < 1.8 * seconds
    released.set()
