"""Callers who send random requests of every kind, and record each call with its answer."""

import json
import math
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests import aws_template
from tests.e2e.linearizability import Answer, Call, Wish
from tests.e2e.workers import Workers
from tests.proxy import proxy_event
from tests.runtime_api import Outcome

from counters import clock

QUIET_SECONDS = clock.APPLY_WINDOW + 2  # the state at a time that long ago cannot change any more
LONGEST_PAUSE_SECONDS = 5.0  # though Retry-After may ask for more
CLAIMS = {"sub": "chaos", "client_id": "chaos"}

# What callers do, with the relative frequency of each.
SHARES = {
    "increment": 20,
    "keyed increment": 18,
    "increments": 8,
    "keyed increments": 9,
    "set": 6,
    "set if match": 7,
    "get": 10,
    "version": 5,
    "at": 5,
    "page": 8,
    "trend": 4,
}

_ROUTES = {
    "increment": ("POST", ""),
    "set": ("PUT", ""),
    "get": ("GET", ""),
    "version": ("GET", ""),
    "at": ("GET", ""),
    "page": ("GET", "/history"),
    "trend": ("GET", "/trend"),
}


class Asked(NamedTuple):
    """A change to send, with an Idempotency-Key if `key` is not None."""

    kind: str
    counter_ids: tuple[str, ...]
    wishes: tuple[Wish, ...]
    body: dict[str, Any]
    key: str | None = None
    headers: Mapping[str, str] = {}


class Service:
    """The API's routes, without API Gateway. Every call is recorded in `calls`."""

    def __init__(self, workers: Workers) -> None:
        self.calls: list[Call] = []
        self._workers = workers
        self._functions = aws_template.functions()

    def change(self, asked: Asked) -> Call:
        """Send a change once, and return the call."""
        headers = dict(asked.headers)
        if asked.key:
            headers["Idempotency-Key"] = asked.key
        method, path = "POST", "/increments"
        if asked.kind != "increments":
            (counter_id,) = asked.counter_ids
            method, ending = _ROUTES[asked.kind]
            path = f"/counters/{counter_id}{ending}"
        event = self._event(method, path, "", headers, json.dumps(asked.body).encode())
        return self._send(event, asked, {})

    def read(self, kind: str, counter_id: str, **query: Any) -> Call:  # noqa: ANN401
        """Send a read once, and return the call."""
        method, ending = _ROUTES[kind]
        event = self._event(method, f"/counters/{counter_id}{ending}", urlencode(query), {}, b"")
        return self._send(event, Asked(kind, (counter_id,), (), {}), query)

    def _send(self, event: tuple[str, dict[str, Any]], asked: Asked, query: dict[str, Any]) -> Call:
        invocation = self._workers.invoke(*event)
        call = Call(
            asked.kind,
            asked.counter_ids,
            invocation.began,
            time.monotonic(),
            _answer(invocation.outcome),
            invocation.request_id,
            asked.key,
            asked.wishes,
            query,
        )
        self.calls.append(call)
        return call

    def _event(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[str, dict[str, Any]]:
        """Return the logical id of the function for a request, and the function's event."""
        for name, function in self._functions.items():
            for route in function.routes:
                parameters = route.match(path)
                if route.method == method and parameters is not None:
                    event = proxy_event(route, path, parameters, query, headers, body, CLAIMS)
                    return name, event
        raise LookupError(method, path)


def _answer(outcome: Outcome | None) -> Answer | None:
    if outcome is None:
        return None
    if outcome.kind != "response":  # the function raised an exception, which it should never do
        return Answer(500, {"type": outcome.kind, **outcome.body})
    content = outcome.body["body"]
    body = json.loads(content) if content else None
    return Answer(outcome.body["statusCode"], body, outcome.body["headers"])


class _Open(NamedTuple):
    """A change with an unknown outcome, and when to send it again."""

    asked: Asked
    when: float  # by time.monotonic()


class Callers:
    """Send random requests. Repeat each keyed change until its outcome is known."""

    def __init__(self, service: Service) -> None:
        self._service = service
        prefix = uuid.uuid4().hex[:8]
        self.hot = [f"{prefix}-hot-{number}" for number in range(2)]
        self.bounded = [f"{prefix}-bounded-{number}" for number in range(2)]
        self.set = [f"{prefix}-set-{number}" for number in range(3)]
        self.accounts = [f"{prefix}-account-{number}" for number in range(6)]
        self.counters = [*self.hot, *self.bounded, *self.set, *self.accounts]
        self.began = time.time()
        self._over = False
        self._open: list[_Open] = []
        self._seen: dict[str, int] = defaultdict(int)  # the highest version of each counter
        self._lock = threading.Lock()

    def run(self, number: int, operations: int) -> None:
        """Act as one caller until all callers together have sent `operations` requests."""
        chances = random.Random(number)
        while not self._over and len(self._service.calls) < operations:
            (kind,) = chances.choices(list(SHARES), list(SHARES.values()))
            if kind.startswith("keyed "):
                self._repeat_some(kind.removeprefix("keyed "), chances)
            elif kind in {"increment", "increments"}:
                self._note(self._service.change(self._increment(kind, chances)))
            elif kind in {"set", "set if match"}:
                self._note(self._service.change(self._set(chances, if_match=kind != "set")))
            elif kind == "page":
                self._read_pages(chances)
            else:
                self._read(kind, chances)

    def stop(self) -> None:
        """Let all callers return soon, also from `settle`."""
        self._over = True

    def unsettled(self) -> list[Asked]:
        """Return the changes with an unknown outcome, one for each key."""
        return list({each.asked.key: each.asked for each in self._open}.values())

    def settle(self, asked: Asked, deadline: float) -> bool:
        """Repeat a keyed change until its outcome is known.

        Args:
            asked: the change.
            deadline: when to give up, by time.monotonic().

        Returns:
            Whether the outcome is known.
        """
        while True:
            call = self._service.change(asked)
            if _settled(call) or self._over or time.monotonic() > deadline:
                return _settled(call)
            time.sleep(min(LONGEST_PAUSE_SECONDS, _retry_after(call)))

    def look_back(self, counter_id: str, looks: int) -> None:
        """Read all of a counter's history and trend, and its state at some versions and times."""
        chances = random.Random(counter_id[8:])
        self._note(self._service.read("get", counter_id))
        for order in ("asc", "desc"):
            self._follow(counter_id, {"limit": 1000, "order": order})
        for interval in ("hour", "minute"):
            period = {"from": clock.timestamp(self.began), "to": clock.timestamp(time.time())}
            self._service.read("trend", counter_id, interval=interval, **period)
        for _ in range(looks):
            version = chances.randint(0, self._seen[counter_id])
            self._service.read("version", counter_id, version=version)
            at = chances.uniform(self.began - 1, time.time() - QUIET_SECONDS)
            self._service.read("at", counter_id, at=clock.timestamp(at))

    def _repeat_some(self, kind: str, chances: random.Random) -> None:
        """Send a keyed change: a new one, or one with an unknown outcome."""
        asked = self._taken(chances)
        if asked is None:
            asked = self._increment(kind, chances)._replace(key=str(uuid.uuid4()))
            if chances.random() < 0.2:
                self._put_back(asked, 0)  # another caller sends it at the same time
        while True:
            call = self._service.change(asked)
            self._note(call)
            if _settled(call):
                if chances.random() < 0.9:
                    return
            elif call.answer:
                self._put_back(asked, _retry_after(call))
                return

    def _taken(self, chances: random.Random) -> Asked | None:
        """Return an open change that is due, sometimes one that is not due yet, or None."""
        with self._lock:
            now = time.monotonic() if chances.random() < 0.9 else math.inf
            due = [each for each in self._open if each.when <= now]
            if not due or chances.random() < 0.3:
                return None
            taken = chances.choice(due)
            self._open.remove(taken)
            return taken.asked

    def _put_back(self, asked: Asked, seconds: float) -> None:
        with self._lock:
            self._open.append(_Open(asked, time.monotonic() + seconds))

    def _increment(self, kind: str, chances: random.Random) -> Asked:
        """Return a random increment, or increments that keep the total of the accounts."""
        if kind == "increment":
            counter_id = chances.choice([*self.hot, *self.bounded, *self.set[:1]])
            body: dict[str, Any] = {"by": chances.choice([1, 1, 2, -1, -3])}
            if counter_id in self.bounded:
                body |= {"min": 0, "max": 8}
            return Asked(kind, (counter_id,), (_wish(body),), body)
        *takers, giver = chances.sample(self.accounts, chances.randint(2, 5))
        parts: list[dict[str, Any]] = [
            {"counter_id": taker, "by": chances.randint(1, 9)} for taker in takers
        ]
        total = sum(part["by"] for part in parts)
        parts.append({"counter_id": giver, "by": -total, "min": -100})
        chances.shuffle(parts)
        names = tuple(part["counter_id"] for part in parts)
        return Asked(kind, names, tuple(map(_wish, parts)), {"increments": parts})

    def _set(self, chances: random.Random, *, if_match: bool) -> Asked:
        counter_id, value = chances.choice(self.set), chances.randint(-1000, 1000)
        expected = self._seen[counter_id] if if_match else None
        headers: dict[str, str] = {}
        if expected is not None:
            headers = {"If-Match": f'"{expected}"'} if expected else {"If-None-Match": "*"}
        wish = Wish(value=value, expected=expected)
        return Asked("set", (counter_id,), (wish,), {"value": value}, None, headers)

    def _read(self, kind: str, chances: random.Random) -> None:
        counter_id = chances.choice(self.counters)
        query: dict[str, Any] = {}
        if kind == "version":
            query["version"] = max(0, self._seen[counter_id] - chances.choice([0, 1, 2, 5, 30]))
        elif kind == "at":
            ago = chances.choice([0, 0.5, 2, 8, QUIET_SECONDS, 2 * QUIET_SECONDS])
            query["at"] = clock.timestamp(time.time() - ago)
        elif kind == "trend":
            query["interval"] = chances.choice(["hour", "minute"])
        self._note(self._service.read(kind, counter_id, **query))

    def _read_pages(self, chances: random.Random) -> None:
        """Read some pages in a row, starting at the first, at any, or at the newest entry."""
        counter_id = chances.choice(self.counters)
        query: dict[str, Any] = {"limit": chances.choice([2, 10, 100])}
        if chances.random() < 0.3:
            query["order"] = "desc"
        elif chances.random() < 0.7:
            query["after"] = max(0, self._seen[counter_id] - chances.randint(0, 30))
        self._follow(counter_id, query, most=4)

    def _follow(self, counter_id: str, query: dict[str, Any], most: int = 1000) -> None:
        for _ in range(most):
            call = self._service.read("page", counter_id, **query)
            if not call.answer or "Link" not in call.answer.headers or not call.answer.body:
                return
            query = {**query, "after": call.answer.body[-1]["version"]}
            assert f"after={query['after']}" in call.answer.headers["Link"]

    def _note(self, call: Call) -> None:
        """Remember the highest version that an answer shows."""
        if call.answer is None or call.status != 200 or call.kind == "trend":
            return
        body = call.answer.body
        for counter in body if isinstance(body, list) else [body]:
            name, version = counter["counter_id"], counter["version"] or 0
            self._seen[name] = max(self._seen[name], version)


def _wish(fields: Mapping[str, Any]) -> Wish:
    return Wish(by=fields["by"], low=fields.get("min", -math.inf), high=fields.get("max", math.inf))


def _settled(call: Call) -> bool:
    return call.status == 200 or call.problem == "bound-exceeded"


def _retry_after(call: Call) -> float:
    """Return the pause before the call is repeated, in seconds."""
    return float(call.answer.headers.get("Retry-After", 0.1)) if call.answer else 0.1
