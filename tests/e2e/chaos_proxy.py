"""A proxy between the functions and DynamoDB that fails as networks and databases do.

Each request draws a fault from a shuffled deck, so every fault comes up again and again. A write is
applied before its reply, seconds after it, or never. One request is never applied twice, and a
change of a counter is never applied later than the apply window allows.
"""

import json
import math
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import IO, Any

import urllib3
from tests.sizes import cases

from counters import clock

REQUEST_SECONDS = 30  # for the emulator
PROMPT_SECONDS = 1.0  # a reply within this time has reached the function before its timeout
LATEST_SECONDS = clock.APPLY_WINDOW - 1  # after a change's time: nothing is applied later

# The function that writes the history meets faults for so long in every period, in seconds. In the
# rest of the period it catches up: callers wait for the history when a reply is lost.
ROUGH_SECONDS, PERIOD_SECONDS = 4, 16

# How many cards of a deck carry which fault. `SIZES` has the number of all cards in a deck; the
# rest of them let a request pass. `make test` sends fewer requests, so it takes smaller decks, with
# every fault in them.
SHARE = cases(1, part=3)
READ = {
    "dropped": 3,
    "refused": 2,
    "reply lost": 4,
    "delayed": 4,
    "late": 1,
    "dripping": 1,
    "cut": 24,
    "throttled": 5,
    "500": 4,
}
WRITE = {
    "dropped": 3,
    "refused": 2,
    "reply lost": 5,
    "delayed": 4,
    "late": 1,
    "dripping": 1,
    "cut": 20,
    "throttled": 6,
    "500": 4,
    "500, applied": 4,
    "500, applied later": 3,
    "lost, applied later": 3,
    "conflict": 5,
}
# Kill the worker that sent the request.
KILLS = {"killed, not applied": 1, "applied, killed": 1, "killed, applied later": 1}
DECKS: dict[str, dict[str, int]] = {
    "read": READ,
    "write": {fault: 2 * number for fault, number in WRITE.items()} | KILLS | {"cut": 56},
    "transaction": WRITE | KILLS | {"cut": 28, "in progress": 4},
    # Writes to TrendTable. They come from the deployed function, which the proxy cannot kill.
    "recording": WRITE,
    "batch read": READ | {"cut": 8, "part": 30},
    "batch write": WRITE | {"cut": 8, "part": 60},
}
SIZES = {
    "read": 200,
    "write": 400,
    "transaction": 160,
    "recording": 500,
    "batch read": 200,
    "batch write": 200,
}

_CLASSES = {
    "GetItem": "read",
    "Query": "read",
    "Scan": "read",
    "TransactGetItems": "read",
    "UpdateItem": "write",
    "PutItem": "write",
    "DeleteItem": "write",
    "TransactWriteItems": "transaction",
    "BatchGetItem": "batch read",
    "BatchWriteItem": "batch write",
}
_TARGET = re.compile(rb"x-amz-target: *DynamoDB_20120810\.(\w+)", re.IGNORECASE)
_WORKER = re.compile(rb"Credential=(WORKER\w+)/")
_CHANGE = re.compile(rb'"request_id": *{"S": *"([^"]+)"}')
_AT = re.compile(rb'"at": *{"S": *"([^"]+)"}')
_FORWARDED = ("authorization", "content-type", "x-amz-date", "x-amz-target", "x-amz-security-token")

Kill = Callable[[str, str], None]


@dataclass(frozen=True)
class Request:
    """What a function asks DynamoDB."""

    operation: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def change(self) -> str | None:
        """The id of the change of counters that this request is to make, if it makes one."""
        found = _CHANGE.search(self.body)
        makes = self.operation in {"UpdateItem", "TransactWriteItems"}
        return found[1].decode() if makes and found else None

    def with_body(self, parameters: dict[str, Any]) -> "Request":
        return Request(self.operation, self.path, self.headers, json.dumps(parameters).encode())


@dataclass(frozen=True)
class Reply:
    """What DynamoDB answers."""

    status: int
    body: bytes

    def raw(self) -> bytes:
        """Return it as it goes over the wire, with the headers that DynamoDB sends."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "Server: Server",
            f"Date: {formatdate(usegmt=True)}",
            "Content-Type: application/x-amz-json-1.0",
            f"Content-Length: {len(self.body)}",
            "Connection: keep-alive",
            f"x-amzn-RequestId: {'0123456789ABCDEFGHIJKLMNOP' * 2}",
            f"x-amz-crc32: {zlib.crc32(self.body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def refusal(status: int, code: str, **members: object) -> Reply:
    """Return an error as DynamoDB shapes it."""
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    return Reply(status, json.dumps({"__type": kind, "message": "a fault", **members}).encode())


class Cuts:
    """Where to cut replies: at each of their bytes in turn, for each operation separately."""

    def __init__(self) -> None:
        self.rounds = Counter[str]()  # by operation: how often its replies were cut at every byte
        self._next = Counter[str]()
        self._lock = threading.Lock()

    def take(self, operation: str, length: int) -> int:
        """Return how many bytes to send of a reply that has `length` bytes: fewer than that."""
        with self._lock:
            if self._next[operation] >= length:
                self._next[operation] = 0
                self.rounds[operation] += 1
            self._next[operation] += 1
            return self._next[operation] - 1


class ChaosProxy:
    """Passes requests on to the emulator's DynamoDB, with faults, and counts the faults.

    Attributes:
        faults: the number of requests by fault and operation.
        told: the ids of the changes whose success was reported to the function in time.
        kill: kills a worker, given its access key and the fault that asks for it.
    """

    def __init__(self, endpoint_url: str, seed: int) -> None:
        self.faults = Counter[tuple[str, str]]()
        self.confirmed: set[str] = set()
        self.cuts = Cuts()
        self.kill: Kill = lambda _access_key, _when: None
        self._endpoint_url = endpoint_url
        self._http = urllib3.PoolManager(retries=False, timeout=REQUEST_SECONDS, maxsize=64)
        self._chances = random.Random(seed)
        self._decks: dict[str, list[str]] = defaultdict(list)
        self._calm = True
        self._later: list[threading.Thread] = []
        self._lock = threading.Lock()

    @contextmanager
    def injecting_faults(self) -> Iterator[None]:
        """Inject faults. At the end, wait for every write that is to be applied later."""
        self._calm = False
        try:
            yield
        finally:
            self._calm = True
            for thread in self._later:
                thread.join()

    def serve(self, connection: socket.socket) -> None:
        """Answer the requests of a connection one by one, until a fault or the caller ends it."""
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while self._serve(connection, stream):
                pass

    def close(self) -> None:
        self._http.clear()

    def _serve(self, connection: socket.socket, stream: IO[bytes]) -> bool:
        """Answer one request. Return whether the connection stays open."""
        head = connection.recv(1 << 16, socket.MSG_PEEK)
        if not head:
            return False
        target, worker = _TARGET.search(head), _WORKER.search(head)
        operation = target[1].decode() if target else ""
        fault = self._draw(operation, of_worker=worker is not None)
        if fault == "refused":
            # The caller gets a reset, because its request is not read.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        request = _read(stream, operation)
        if not operation:  # the function opens its connection
            return self._send(connection, Reply(200, b"healthy"))
        if fault in KILLS:
            assert worker
            self._kill_sender(request, fault, worker[1].decode())
            return False
        return self._answer(connection, request, fault)

    def _answer(self, connection: socket.socket, request: Request, fault: str) -> bool:  # noqa: C901, PLR0911, PLR0912  a case for each fault
        """Answer a request with its fault. Return whether the connection stays open."""
        match fault:
            case "dropped":
                return False
            case "reply lost":
                self._forward(request)
                return False
            case "lost, applied later":
                self._apply_later(request)
                return False
            case "throttled":
                return self._send(connection, refusal(400, "ThrottlingException"))
            case "500":
                return self._send(connection, refusal(500, "InternalServerError"))
            case "500, applied":
                self._forward(request)
                return self._send(connection, refusal(500, "InternalServerError"))
            case "500, applied later":
                self._apply_later(request)
                return self._send(connection, refusal(500, "InternalServerError"))
            case "conflict":
                return self._send(connection, _conflict(request))
            case "in progress":
                return self._send(connection, refusal(400, "TransactionInProgressException"))
            case "part":
                return self._send(connection, self._forward_part(request))
        began = time.monotonic()
        reply = self._forward(request)
        match fault:
            case "cut":
                raw = reply.raw()
                connection.sendall(raw[: self.cuts.take(request.operation, len(raw))])
                return False
            case "delayed":
                time.sleep(self._uniform(0.05, 1.2))
            case "late":
                time.sleep(self._uniform(2.1, 4))
            case "dripping":
                raw = reply.raw()
                for start in range(0, len(raw), len(raw) // 8 + 1):
                    connection.sendall(raw[start : start + len(raw) // 8 + 1])
                    time.sleep(0.4)
                return True
        going_on = self._send(connection, reply)
        prompt = time.monotonic() - began < PROMPT_SECONDS
        if request.change and reply.status == HTTPStatus.OK and prompt:
            self.confirmed.add(request.change)
        return going_on

    def _kill_sender(self, request: Request, fault: str, worker: str) -> None:
        if fault == "applied, killed":
            self._forward(request)
        self.kill(worker, fault)
        if fault == "killed, applied later":
            self._apply_later(request)

    def _draw(self, operation: str, *, of_worker: bool) -> str:
        """Take a card from the operation's deck."""
        kind = _CLASSES.get(operation)
        rough = of_worker or time.monotonic() % PERIOD_SECONDS < ROUGH_SECONDS
        if kind is None or self._calm or not rough:
            return "delivered"
        if kind == "write" and not of_worker:
            kind = "recording"
        with self._lock:
            deck = self._decks[kind]
            if not deck:
                for fault, number in DECKS[kind].items():
                    deck += [fault] * math.ceil(number / SHARE)
                deck += ["delivered"] * (SIZES[kind] // SHARE - len(deck))
                self._chances.shuffle(deck)
            fault = deck.pop()
            self.faults[fault, operation] += 1
        return fault

    def _uniform(self, least: float, most: float) -> float:
        with self._lock:
            return self._chances.uniform(least, most)

    def _forward(self, request: Request) -> Reply:
        try:
            reply = self._http.request(
                "POST",
                self._endpoint_url + request.path,
                body=request.body,
                headers=request.headers,
                decode_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError from error  # closes the connection, like a lost reply
        return Reply(reply.status, reply.data)

    def _forward_part(self, request: Request) -> Reply:
        """Process a part of a batch, and report the rest as unprocessed."""
        parameters = json.loads(request.body)
        ((table, asked),) = parameters["RequestItems"].items()
        listed = asked["Keys"] if request.operation == "BatchGetItem" else asked
        if len(listed) < 2:
            # DynamoDB throttles a batch if it can process nothing of it.
            with self._lock:
                self.faults["part", request.operation] -= 1
                self.faults["throttled", request.operation] += 1
            return refusal(400, "ProvisionedThroughputExceededException")
        with self._lock:
            self._chances.shuffle(listed)
            number = self._chances.randrange(1, len(listed))
        done, left = listed[:number], listed[number:]
        if request.operation == "BatchGetItem":
            done, left = {**asked, "Keys": done}, {**asked, "Keys": left}
        parameters["RequestItems"] = {table: done}
        reply = self._forward(request.with_body(parameters))
        if reply.status != HTTPStatus.OK:
            return reply
        body = json.loads(reply.body)
        name = "UnprocessedKeys" if request.operation == "BatchGetItem" else "UnprocessedItems"
        assert not body.get(name)
        return Reply(reply.status, json.dumps({**body, name: {table: left}}).encode())

    def _apply_later(self, request: Request) -> None:
        delay = self._uniform(0.1, 8)

        def apply() -> None:
            time.sleep(delay)
            at = _AT.search(request.body)
            if at and time.time() > clock.seconds(at[1].decode()) + LATEST_SECONDS:
                return
            with suppress(ConnectionError):
                self._forward(request)

        thread = threading.Thread(target=apply, daemon=True)
        with self._lock:
            self._later.append(thread)
        thread.start()

    @staticmethod
    def _send(connection: socket.socket, reply: Reply) -> bool:
        connection.sendall(reply.raw())
        return True


def _read(stream: IO[bytes], operation: str) -> Request:
    """Read a whole request.

    Raises:
        ConnectionError: the request is incomplete, because its sender was killed.
    """
    start = stream.readline()
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    body = stream.read(length)
    if not start or len(body) < length:
        raise ConnectionError
    forwarded = {name: headers[name] for name in _FORWARDED if name in headers}
    return Request(operation, start.split()[1].decode(), forwarded, body)


def _conflict(request: Request) -> Reply:
    """Refuse a write because another transaction is using one of its items."""
    if request.operation != "TransactWriteItems":
        return refusal(400, "TransactionConflictException")
    reasons = [{"Code": "None"} for _ in json.loads(request.body)["TransactItems"]]
    reasons[-1] = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
    return refusal(400, "TransactionCanceledException", CancellationReasons=reasons)


@contextmanager
def serving(endpoint_url: str, seed: int) -> Iterator[tuple[ChaosProxy, str]]:
    """Serve on a free port of 127.0.0.1. Yield the proxy, without faults yet, and its endpoint."""
    proxy = ChaosProxy(endpoint_url, seed)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:

        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    connection, _ = server.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=proxy.serve, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy, f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            proxy.close()
