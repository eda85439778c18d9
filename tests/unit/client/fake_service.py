"""A small Tally on 127.0.0.1, for tests of the client: counters, receipts, history and faults.

It follows docs/api.md. A fault is taken from `faults` for each request, in order:

- `lose`: the request is handled, but the reply is lost.
- `cut`: the request is handled, and the reply ends in the middle of its body.
- `drop`: the connection is closed before the request is handled.
- `late`: the connection is closed, and the request is handled when a test calls `deliver_late`.
- a status with a kind, such as `503 throttled`: the answer, instead of handling the request.
"""

import json
import re
import threading
import time
from collections import Counter as Tallies
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import httpx2
from tests.http_server import HttpServer

from tally_client import Tally

SECRET = "s3cr3t-0f-the-client"  # noqa: S105
LIMIT = 2**53 - 1
TIME = "2026-11-22T16:07:13.192Z"


class Seen(NamedTuple):
    """A request that the service received."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: Any
    fault: str


Answer = tuple[int, Any, dict[str, str]]


@dataclass
class FakeService:
    """The state of the service, and what it has seen."""

    faults: Callable[[], str] = lambda: ""
    port: int = 0
    token_life: int = 3600
    tokens: list[str] = field(default_factory=list)
    refused_tokens: set[str] = field(default_factory=set)
    token_faults: list[Answer] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    late: list[Seen] = field(default_factory=list)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    receipts: dict[tuple[str, str], tuple[str, Answer]] = field(default_factory=dict)
    forbidden: str = "no-prefix-begins-like-this"
    values_known: bool = True
    page: int = 1000
    before_answer: Callable[[Seen], object] = lambda _: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, deadline: float = 5.0, transport: httpx2.BaseTransport | None = None) -> Tally:
        return Tally(
            self.url,
            token_url=f"http://127.0.0.1:{self.port}/oauth2/token",
            client_id="client",
            client_secret=SECRET,
            deadline=deadline,
            transport=transport,
        )

    def plan(self, *faults: str) -> None:
        """Use these faults, one for each of the next requests, and none later."""
        left = list(faults)
        self.faults = lambda: left.pop(0) if left else ""

    def value(self, counter_id: str) -> int:
        entries = self.history.get(counter_id)
        value: int = entries[-1]["value"] if entries else 0
        return value

    def requests(self, method: str = "") -> list[Seen]:
        return [each for each in self.seen if method in ("", each.method)]

    def by_operation(self, counter_id: str) -> Tallies[int]:
        """How often each number was added to a counter."""
        return Tallies(each["by"] for each in self.history.get(counter_id, []))

    def deliver_late(self) -> None:
        """Handle the requests that came with the fault `late`. Nobody gets the answers."""
        with self.lock:
            while self.late:
                self.answer(self.late.pop(0))

    # What follows is the service itself.

    def token(self) -> Answer:
        if self.token_faults:
            return self.token_faults.pop(0)
        self.tokens.append(f"t0ken-{len(self.tokens)}-of-the-test")
        return (
            200,
            {
                "access_token": self.tokens[-1],
                "expires_in": self.token_life,
                "token_type": "Bearer",
            },
            {},
        )

    def answer(self, seen: Seen) -> Answer:  # noqa: PLR0911
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens or token in self.refused_tokens:
            return problem(401, "unauthorized")
        if seen.path == "/increments":
            return self.keyed(seen, seen.body["increments"], many=True)
        if seen.path == "/counters":
            return self.list(seen)
        match = re.fullmatch(r"/counters/([^/]+)(/\w+)?", seen.path)
        if not match:
            return problem(404, "not-found")
        name = unquote(match[1])
        if match[2] == "/history":
            return self.list_history(name, seen)
        if match[2] == "/trend":
            return 200, [interval(name, compared=("expected", "true") in seen.query)], {}
        if seen.method == "POST":
            return self.keyed(seen, [{"counter_id": name, **seen.body}], many=False)
        if seen.method == "PUT":
            return self.put(name, seen)
        return self.get(name, seen)

    def keyed(self, seen: Seen, increments: list[Any], *, many: bool) -> Answer:
        key = seen.headers.get("idempotency-key", "")
        receipt, body = (seen.path, key), json.dumps(seen.body)
        if receipt in self.receipts:
            content, answer = self.receipts[receipt]
            return answer if content == body else problem(422, "idempotency-key-reused")
        if any(each["counter_id"].startswith(self.forbidden) for each in increments):
            return problem(403, "forbidden")
        names = [each["counter_id"] for each in increments]
        if len(set(names)) < len(names) or not 1 <= len(names) <= 100:
            return problem(400, "invalid-request")
        for position, each in enumerate(increments):
            value = self.value(each["counter_id"]) + each["by"]
            if not each.get("min", -LIMIT) <= value <= each.get("max", LIMIT):
                return problem(
                    409,
                    "bound-exceeded",
                    f"increments[{position}].by",
                    value=self.value(each["counter_id"]),
                )
        counters = [self.change(each["counter_id"], each["by"], "increment") for each in increments]
        if many and not self.values_known:
            counters = [{**each, "value": None, "version": None} for each in counters]
        made: Answer = (200, counters if many else counters[0], {})
        if key:
            self.receipts[receipt] = (body, made)
        return made

    def change(self, name: str, by: int, operation: str) -> dict[str, Any]:
        entries = self.history.setdefault(name, [])
        previous = self.value(name)
        entries.append(
            {
                "version": len(entries) + 1,
                "value": previous + by,
                "previous_value": previous,
                "by": by,
                "increase": max(by, 0),
                "decrease": max(-by, 0),
                "operation": operation,
                "actor": "client",
                "created_at": TIME,
            }
        )
        return self.counter(name)

    def counter(self, name: str) -> dict[str, Any]:
        version = len(self.history.get(name, []))
        time = TIME if version else None
        return {
            "counter_id": name,
            "value": self.value(name),
            "version": version,
            "created_at": time,
            "updated_at": time,
        }

    def put(self, name: str, seen: Seen) -> Answer:
        version = len(self.history.get(name, []))
        wanted = seen.headers.get("if-match")
        if (wanted and wanted != f'"{version}"') or ("if-none-match" in seen.headers and version):
            status, body, headers = problem(412, "version-mismatch")
            return status, body, {**headers, "ETag": f'"{version}"'}
        return 200, self.change(name, seen.body["value"] - self.value(name), "set"), {}

    def get(self, name: str, seen: Seen) -> Answer:
        counter = self.counter(name)
        if seen.headers.get("if-none-match") == f'"{counter["version"]}"':
            return 304, None, {}
        return 200, counter, {}

    def list(self, seen: Seen) -> Answer:
        query = dict(seen.query)
        if "id" in query:
            names = [value for _, value in seen.query]
            if len(set(names)) < len(names) or len(names) > 100:
                return problem(400, "invalid-request")
            return 200, [self.counter(name) for name in names], {}
        found = sorted(
            name
            for name in self.history
            if name.startswith(query.get("prefix", "")) and name > query.get("after", "")
        )
        page = found[: min(int(query["limit"]), self.page)]
        headers = {}
        if len(found) > len(page):
            headers["Link"] = f'<?{urlencode({**query, "after": page[-1]})}>; rel="next"'
        values = query.get("values") == "true"
        return 200, [self.counter(name) for name in page] if values else page, headers

    def list_history(self, name: str, seen: Seen) -> Answer:
        query = dict(seen.query)
        entries = self.history.get(name, [])
        if query.get("order") == "desc":
            entries = entries[::-1]
            found = [each for each in entries if each["version"] < int(query.get("after", 10**9))]
        else:
            found = [each for each in entries if each["version"] > int(query.get("after", 0))]
        page = found[: min(int(query["limit"]), self.page)]
        headers = {}
        if len(found) > len(page):
            following = {**query, "after": page[-1]["version"]}
            headers["Link"] = f'<?{urlencode(following)}>; rel="next"'
        return 200, page, headers


def interval(name: str, *, compared: bool = False) -> dict[str, Any]:
    assert name
    more = {"expected": {"low": 33, "high": 94}, "unusual": True} if compared else {}
    return {
        "start": "2026-11-22T16:00:00.000Z",
        "changes": 2,
        "increase": 10,
        "decrease": 4,
        "first_version": 1,
        "last_version": 2,
        "close": 6,
        **more,
    }


def problem(status: int, kind: str, detail: str = "", **members: object) -> Answer:
    body = {
        "type": f"urn:tally:problem:{kind}",
        "title": kind,
        "status": status,
        "detail": detail or kind,
        "instance": "urn:uuid:1",
        **members,
    }
    return status, body, {"Content-Type": "application/problem+json"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: FakeService

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        service = self.service
        if url.path == "/oauth2/token":
            with service.lock:
                answer = service.token()
            self.reply(answer)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        with service.lock:
            fault = service.faults()
            body = json.loads(text) if text else {}
            path = url.path.removeprefix("/v1")
            seen = Seen(str(self.command), path, parse_qsl(url.query), headers, body, fault)
            service.seen.append(seen)
            if fault == "late":
                service.late.append(seen)
            if fault in {"drop", "late"}:
                self.close_connection = True
                return
            if fault[:1].isdigit():
                status, _, kind = fault.partition(" ")
                answer = problem(int(status), kind) if kind else (int(status), "no JSON here", {})
                if kind in {"throttled", "in-progress"}:
                    answer[2]["Retry-After"] = "0"
            else:
                answer = service.answer(seen)
        service.before_answer(seen)
        if fault == "lose":
            self.close_connection = True
            return
        self.reply(answer, cut=fault == "cut")

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815

    def reply(self, answer: Answer, *, cut: bool = False) -> None:
        status, document, headers = answer
        text = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if cut:
            self.close_connection = True
            text = text[: len(text) // 2]
        self.wfile.write(text)


@contextmanager
def running(service: FakeService | None = None) -> Iterator[FakeService]:
    """Run the service until the block ends."""
    service = service or FakeService()
    handler = type("Handler", (_Handler,), {"service": service})
    with HttpServer(("127.0.0.1", service.port), handler) as server:
        service.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: the condition does not hold in time.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition did not hold in time"
        time.sleep(0.005)


def in_threads(count: int, work: Callable[[], object]) -> None:
    """Do the same work in several threads at once, and wait for them."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
