"""A proxy between the functions and DynamoDB that makes requests fail as networks and databases do.

The proxy chooses faults as from a deck of cards. There is a deck for each kind of request. A card
names a fault, or lets a request pass. For each request, the proxy draws a card. When a deck is
empty, the proxy shuffles a new deck of the same cards. So every fault happens again and again.

A write is applied before the proxy replies, seconds after the proxy replies, or never. No request
is applied twice. No change of a counter is applied after its apply window: the 20 seconds after its
attempt began (see counters/clock.py).
"""

import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from typing import IO

from tests.e2e.dynamodb_proxy import (
    HEALTHY,
    Proxy,
    Reply,
    Request,
    listening,
    read_request,
    refusal,
)

from counters import clock

PROMPT_SECONDS = 1.0  # a reply that is sent within this time certainly reaches the function
LATEST_SECONDS = clock.APPLY_WINDOW - 1  # drop a change whose attempt began longer ago than this

# RecordHistory writes the history. The proxy injects faults into the requests of RecordHistory only
# in the first FAULT_SECONDS of each period. In the rest of the period, RecordHistory writes the
# changes that the history still lacks. The other functions need these entries: after a lost reply,
# a function searches the history for its change.
FAULT_SECONDS, PERIOD_SECONDS = 4, 16

# READ, WRITE, KILLS and DECKS say how many cards of a deck name each fault. SIZES says how many
# cards a deck has. The cards that name no fault let a request pass.
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
# These faults kill the worker (the process of a function) that sent the request.
KILLS = {"killed, not applied": 1, "applied, killed": 1, "killed, applied later": 1}
DECKS: dict[str, dict[str, int]] = {
    "read": READ,
    "write": {fault: 2 * number for fault, number in WRITE.items()} | KILLS | {"cut": 56},
    "transaction": WRITE | KILLS | {"cut": 28, "in progress": 4},
    # Writes to TrendTable. The deployed function RecordHistory sends these writes. The proxy cannot
    # kill this function, so the deck has no card of KILLS.
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

_DECK_OF = {
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
_CHANGE_ID = re.compile(rb'"request_id": *{"S": *"([^"]+)"}')
_AT = re.compile(rb'"at": *{"S": *"([^"]+)"}')

Kill = Callable[[str, str], None]


class Cuts:
    """Chooses where to cut the replies to each operation.

    The first reply to an operation is cut after 0 bytes, the second reply after 1 byte, and so on.
    If a reply is too short for the next number of bytes, a new round begins with 0 bytes.
    """

    def __init__(self) -> None:
        self.rounds = Counter[str]()  # complete rounds, by operation
        self._next = Counter[str]()
        self._lock = threading.Lock()

    def next_length(self, operation: str, length: int) -> int:
        """Return how many bytes of a reply to send. The result is always less than `length`.

        Args:
            operation: the operation of the request.
            length: the length of the whole reply, in bytes.
        """
        with self._lock:
            if self._next[operation] >= length:
                self._next[operation] = 0
                self.rounds[operation] += 1
            self._next[operation] += 1
            return self._next[operation] - 1


class ChaosProxy(Proxy):
    """Forwards requests to DynamoDB with faults, and counts the faults.

    Attributes:
        faults: the number of requests that met a fault, by fault and operation.
        confirmed: the ids of the changes for which a successful reply reached the function in time.
        kill: kills a worker. The arguments are the worker's access key and the fault.
    """

    def __init__(self, endpoint_url: str, seed: int) -> None:
        super().__init__(endpoint_url)
        self.faults = Counter[tuple[str, str]]()
        self.confirmed: set[str] = set()
        self.cuts = Cuts()
        self.kill: Kill = lambda _access_key, _when: None
        self._chances = random.Random(seed)
        self._decks: dict[str, list[str]] = defaultdict(list)
        self._paused = True
        self._delayed_writes: list[threading.Thread] = []
        self._lock = threading.Lock()

    @contextmanager
    def injecting_faults(self) -> Iterator[None]:
        """Inject faults until the with block ends.

        After the with block, wait until every delayed write is applied or dropped.
        """
        self._paused = False
        try:
            yield
        finally:
            self._paused = True
            for thread in self._delayed_writes:
                thread.join()

    def serve_request(self, connection: socket.socket, stream: IO[bytes]) -> bool:
        head = connection.recv(1 << 16, socket.MSG_PEEK)
        if not head:
            return False
        target, worker = _TARGET.search(head), _WORKER.search(head)
        operation = target[1].decode() if target else ""
        fault = self._draw(operation, from_worker=worker is not None)
        if fault == "refused":
            # With this option, closing the connection sends a reset to the function.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        request = read_request(stream)
        if not operation:  # the function only opens a connection
            return self._send(connection, HEALTHY)
        if fault in KILLS:
            assert worker
            self._kill_sender(request, fault, worker[1].decode())
            return False
        return self._answer(connection, request, fault)

    def _answer(self, connection: socket.socket, request: Request, fault: str) -> bool:  # noqa: C901, PLR0911, PLR0912  a case for each fault
        """Answer a request as this fault demands. Return whether the connection stays open."""
        match fault:
            case "dropped":
                return False
            case "reply lost":
                self.forward(request)
                return False
            case "lost, applied later":
                self._apply_later(request)
                return False
            case "throttled":
                return self._send(connection, refusal(400, "ThrottlingException"))
            case "500":
                return self._send(connection, refusal(500, "InternalServerError"))
            case "500, applied":
                self.forward(request)
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
        reply = self.forward(request)
        match fault:
            case "cut":
                raw = reply.raw()
                connection.sendall(raw[: self.cuts.next_length(request.operation, len(raw))])
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
        stays_open = self._send(connection, reply)
        prompt = time.monotonic() - began < PROMPT_SECONDS
        change = _change_id(request)
        if change and reply.status == HTTPStatus.OK and prompt:
            self.confirmed.add(change)
        return stays_open

    def _kill_sender(self, request: Request, fault: str, worker: str) -> None:
        if fault == "applied, killed":
            self.forward(request)
        self.kill(worker, fault)
        if fault == "killed, applied later":
            self._apply_later(request)

    def _draw(self, operation: str, *, from_worker: bool) -> str:
        """Draw a fault from the operation's deck. If the deck is empty, shuffle a new one first."""
        deck_name = _DECK_OF.get(operation)
        faults_on = from_worker or time.monotonic() % PERIOD_SECONDS < FAULT_SECONDS
        if deck_name is None or self._paused or not faults_on:
            return "delivered"
        if deck_name == "write" and not from_worker:
            deck_name = "recording"
        with self._lock:
            deck = self._decks[deck_name]
            if not deck:
                for fault, number in DECKS[deck_name].items():
                    deck += [fault] * number
                deck += ["delivered"] * (SIZES[deck_name] - len(deck))
                self._chances.shuffle(deck)
            fault = deck.pop()
            self.faults[fault, operation] += 1
        return fault

    def _uniform(self, low: float, high: float) -> float:
        with self._lock:
            return self._chances.uniform(low, high)

    def _forward_part(self, request: Request) -> Reply:
        """Forward some entries of a batch request, and report the other entries as unprocessed."""
        parameters = json.loads(request.body)
        ((table, requested),) = parameters["RequestItems"].items()
        entries = requested["Keys"] if request.operation == "BatchGetItem" else requested
        if len(entries) < 2:
            # If DynamoDB can process no entry of a batch, it throttles the whole request.
            with self._lock:
                self.faults["part", request.operation] -= 1
                self.faults["throttled", request.operation] += 1
            return refusal(400, "ProvisionedThroughputExceededException")
        with self._lock:
            self._chances.shuffle(entries)
            number = self._chances.randrange(1, len(entries))
        done, left = entries[:number], entries[number:]
        if request.operation == "BatchGetItem":
            done, left = {**requested, "Keys": done}, {**requested, "Keys": left}
        parameters["RequestItems"] = {table: done}
        reply = self.forward(replace(request, body=json.dumps(parameters).encode()))
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
                self.forward(request)

        thread = threading.Thread(target=apply, daemon=True)
        with self._lock:
            self._delayed_writes.append(thread)
        thread.start()

    @staticmethod
    def _send(connection: socket.socket, reply: Reply) -> bool:
        connection.sendall(reply.raw())
        return True


def _change_id(request: Request) -> str | None:
    """Return the id of the change that a request makes; None if the request changes no counter."""
    found = _CHANGE_ID.search(request.body)
    writes = request.operation in {"UpdateItem", "TransactWriteItems"}
    return found[1].decode() if writes and found else None


def _conflict(request: Request) -> Reply:
    """Refuse a write as DynamoDB does while a transaction changes an item of the write."""
    if request.operation != "TransactWriteItems":
        return refusal(400, "TransactionConflictException")
    reasons = [{"Code": "None"} for _ in json.loads(request.body)["TransactItems"]]
    reasons[-1] = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
    return refusal(400, "TransactionCanceledException", CancellationReasons=reasons)


@contextmanager
def serving(endpoint_url: str, seed: int) -> Iterator[tuple[ChaosProxy, str]]:
    """Serve a proxy on a free port of 127.0.0.1, and yield the proxy and its endpoint.

    The proxy injects faults only in `with proxy.injecting_faults()`. The proxy is closed when the
    with block of this function ends.
    """
    proxy = ChaosProxy(endpoint_url, seed)
    with listening(proxy) as url:
        yield proxy, url
