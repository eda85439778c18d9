"""Callers: threads that send random requests of every kind, and record each request and answer."""

import json
import math
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests import aws_template, conformance
from tests.e2e.recorded_run import Answer, Call, Update
from tests.e2e.workers import InvocationResult
from tests.proxy import ALL_RIGHTS, proxy_event
from tests.runtime_api import Outcome

from counters import clock

# An attempt is one invocation that tries to make a change. It changes a counter within the apply
# window after the attempt began, or never (see counters/clock.py). So the state that the counters
# had SETTLED_SECONDS ago can no longer change.
SETTLED_SECONDS = clock.APPLY_WINDOW + 2
LONGEST_PAUSE_SECONDS = 5.0  # even if Retry-After is longer
Invoke = Callable[[str, Mapping[str, Any]], InvocationResult]
Check = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
CLAIMS = ALL_RIGHTS | {"sub": "chaos", "client_id": "chaos"}

# The operations of the callers, with their relative frequencies.
FREQUENCIES = {
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


class ChangeRequest(NamedTuple):
    """A request to change counters. Its Idempotency-Key is `key`; None if it has no key."""

    operation: str
    counter_ids: tuple[str, ...]
    updates: tuple[Update, ...]
    body: dict[str, Any]
    key: str | None = None
    headers: Mapping[str, str] = {}


class Service:
    """Calls the functions of the API without API Gateway. `calls` records every call.

    Args:
        invoke: sends an event to the function with a logical id.
        check: checks an event and its answer.
    """

    def __init__(self, invoke: Invoke, check: Check = conformance.check_answer) -> None:
        self.calls: list[Call] = []
        self._invoke = invoke
        self._check = check
        self._functions = aws_template.functions()

    def change(self, request: ChangeRequest) -> Call:
        """Send a request for a change once, and return the call."""
        headers = dict(request.headers)
        if request.key:
            headers["Idempotency-Key"] = request.key
        method, path = "POST", "/increments"
        if request.operation != "increments":
            (counter_id,) = request.counter_ids
            method, ending = _ROUTES[request.operation]
            path = f"/counters/{counter_id}{ending}"
        event = self._event(method, path, "", headers, json.dumps(request.body).encode())
        return self._send(event, request, {})

    def read(self, operation: str, counter_id: str, **query: Any) -> Call:  # noqa: ANN401
        """Send a request for a read once, and return the call."""
        method, ending = _ROUTES[operation]
        event = self._event(method, f"/counters/{counter_id}{ending}", urlencode(query), {}, b"")
        return self._send(event, ChangeRequest(operation, (counter_id,), (), {}), query)

    def _send(
        self, event: tuple[str, dict[str, Any]], request: ChangeRequest, query: dict[str, Any]
    ) -> Call:
        result = self._invoke(*event)
        if result.outcome and result.outcome.kind == "response":
            self._check(event[1], result.outcome.body)
        call = Call(
            request.operation,
            request.counter_ids,
            result.began,
            time.monotonic(),
            _answer(result.outcome),
            result.request_id,
            request.key,
            request.updates,
            query,
        )
        self.calls.append(call)
        return call

    def _event(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[str, dict[str, Any]]:
        """Return the logical id of the function for a request, and the event for this function."""
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
    if outcome.kind != "response":  # the function raised an exception, which must never happen
        return Answer(500, {"type": outcome.kind, **outcome.body})
    content = outcome.body["body"]
    body = json.loads(content) if content else None
    return Answer(outcome.body["statusCode"], body, outcome.body["headers"])


class _Unsettled(NamedTuple):
    """A change with an unknown outcome."""

    request: ChangeRequest
    retry_at: float  # time.monotonic()


class Callers:
    """Callers that send random requests.

    A change is keyed if its request has an Idempotency-Key. The callers repeat keyed changes until
    their outcomes are known.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        prefix = uuid.uuid4().hex[:8]
        self.hot = [f"{prefix}-hot-{number}" for number in range(2)]
        self.bounded = [f"{prefix}-bounded-{number}" for number in range(2)]
        self.set = [f"{prefix}-set-{number}" for number in range(3)]
        self.accounts = [f"{prefix}-account-{number}" for number in range(6)]
        self.counters = [*self.hot, *self.bounded, *self.set, *self.accounts]
        self.began = time.time()
        self._stopped = False
        self._unsettled: list[_Unsettled] = []
        self._latest_versions: dict[str, int] = defaultdict(int)  # by counter
        self._lock = threading.Lock()

    def run(self, number: int, operations: int) -> None:
        """Run one caller. Return when all callers together have sent `operations` requests.

        Args:
            number: the number of this caller, which is the seed of its random choices.
            operations: the number of requests of all callers together.
        """
        chances = random.Random(number)
        while not self._stopped and len(self._service.calls) < operations:
            (operation,) = chances.choices(list(FREQUENCIES), list(FREQUENCIES.values()))
            if operation.startswith("keyed "):
                self._send_keyed(operation.removeprefix("keyed "), chances)
            elif operation in {"increment", "increments"}:
                self._remember_versions(self._service.change(self._increment(operation, chances)))
            elif operation in {"set", "set if match"}:
                self._remember_versions(
                    self._service.change(self._set(chances, if_match=operation != "set"))
                )
            elif operation == "page":
                self._read_pages(chances)
            else:
                self._read(operation, chances)

    def stop(self) -> None:
        """Make all running calls of `run` and `settle` return soon."""
        self._stopped = True

    def unsettled(self) -> list[ChangeRequest]:
        """Return the keyed changes whose outcome is unknown, one change for each key."""
        return list({each.request.key: each.request for each in self._unsettled}.values())

    def settle(self, request: ChangeRequest, deadline: float) -> bool:
        """Repeat a keyed change until its outcome is known.

        Args:
            request: the change.
            deadline: when to give up, by the clock time.monotonic().

        Returns:
            Whether the outcome is known.
        """
        while True:
            call = self._service.change(request)
            if _is_settled(call) or self._stopped or time.monotonic() > deadline:
                return _is_settled(call)
            time.sleep(min(LONGEST_PAUSE_SECONDS, _retry_after(call)))

    def read_past(self, counter_id: str, reads: int) -> None:
        """Read a counter's whole history and trend, and its state at random versions and times."""
        chances = random.Random(counter_id[8:])
        self._remember_versions(self._service.read("get", counter_id))
        for order in ("asc", "desc"):
            self._follow(counter_id, {"limit": 1000, "order": order})
        for interval in ("hour", "minute"):
            period = {"from": clock.timestamp(self.began), "to": clock.timestamp(time.time())}
            self._service.read("trend", counter_id, interval=interval, **period)
        for _ in range(reads):
            version = chances.randint(0, self._latest_versions[counter_id])
            self._service.read("version", counter_id, version=version)
            at = chances.uniform(self.began - 1, time.time() - SETTLED_SECONDS)
            self._service.read("at", counter_id, at=clock.timestamp(at))

    def _send_keyed(self, operation: str, chances: random.Random) -> None:
        """Send a new keyed change, or repeat a keyed change whose outcome is unknown."""
        request = self._take_unsettled(chances)
        if request is None:
            request = self._increment(operation, chances)._replace(key=str(uuid.uuid4()))
            if chances.random() < 0.2:
                self._add_unsettled(request, 0)  # lets another caller send the change, too
        while True:
            call = self._service.change(request)
            self._remember_versions(call)
            if _is_settled(call):
                if chances.random() < 0.9:
                    return
            elif call.answer:
                self._add_unsettled(request, _retry_after(call))
                return

    def _take_unsettled(self, chances: random.Random) -> ChangeRequest | None:
        """Take a random change whose outcome is unknown. Return None if there is no such change.

        In 30 % of the calls, return None even if there is such a change, so that callers also send
        new changes. In 63 % of the calls, choose only among changes whose Retry-After time has
        passed. In 7 % of the calls, choose among all, so that some repeats come too early.
        """
        with self._lock:
            now = time.monotonic() if chances.random() < 0.9 else math.inf
            due = [each for each in self._unsettled if each.retry_at <= now]
            if not due or chances.random() < 0.3:
                return None
            chosen = chances.choice(due)
            self._unsettled.remove(chosen)
            return chosen.request

    def _add_unsettled(self, request: ChangeRequest, seconds: float) -> None:
        with self._lock:
            self._unsettled.append(_Unsettled(request, time.monotonic() + seconds))

    def _increment(self, operation: str, chances: random.Random) -> ChangeRequest:
        """Return a random request for the operation `increment` or `increments`.

        For `increment`, the request changes one counter. For `increments`, it moves amounts between
        accounts, so the amounts add up to 0.
        """
        if operation == "increment":
            counter_id = chances.choice([*self.hot, *self.bounded, *self.set[:1]])
            body: dict[str, Any] = {"by": chances.choice([1, 1, 2, -1, -3])}
            if counter_id in self.bounded:
                body |= {"min": 0, "max": 8}
            return ChangeRequest(operation, (counter_id,), (_update(body),), body)
        *payees, payer = chances.sample(self.accounts, chances.randint(2, 5))
        parts: list[dict[str, Any]] = [
            {"counter_id": payee, "by": chances.randint(1, 9)} for payee in payees
        ]
        total = sum(part["by"] for part in parts)
        parts.append({"counter_id": payer, "by": -total, "min": -100})
        chances.shuffle(parts)
        names = tuple(part["counter_id"] for part in parts)
        return ChangeRequest(operation, names, tuple(map(_update, parts)), {"increments": parts})

    def _set(self, chances: random.Random, *, if_match: bool) -> ChangeRequest:
        counter_id, value = chances.choice(self.set), chances.randint(-1000, 1000)
        expected = self._latest_versions[counter_id] if if_match else None
        headers: dict[str, str] = {}
        if expected is not None:
            headers = {"If-Match": f'"{expected}"'} if expected else {"If-None-Match": "*"}
        update = Update(value=value, expected=expected)
        return ChangeRequest("set", (counter_id,), (update,), {"value": value}, None, headers)

    def _read(self, operation: str, chances: random.Random) -> None:
        counter_id = chances.choice(self.counters)
        query: dict[str, Any] = {}
        if operation == "version":
            query["version"] = max(
                0, self._latest_versions[counter_id] - chances.choice([0, 1, 2, 5, 30])
            )
        elif operation == "at":
            ago = chances.choice([0, 0.5, 2, 8, SETTLED_SECONDS, 2 * SETTLED_SECONDS])
            query["at"] = clock.timestamp(time.time() - ago)
        elif operation == "trend":
            query["interval"] = chances.choice(["hour", "minute"])
        self._remember_versions(self._service.read(operation, counter_id, **query))

    def _read_pages(self, chances: random.Random) -> None:
        """Read successive pages of a history.

        The first page begins at the first entry, at a random entry, or at the newest entry.
        """
        counter_id = chances.choice(self.counters)
        query: dict[str, Any] = {"limit": chances.choice([2, 10, 100])}
        if chances.random() < 0.3:
            query["order"] = "desc"
        elif chances.random() < 0.7:
            query["after"] = max(0, self._latest_versions[counter_id] - chances.randint(0, 30))
        self._follow(counter_id, query, most=4)

    def _follow(self, counter_id: str, query: dict[str, Any], most: int = 1000) -> None:
        for _ in range(most):
            call = self._service.read("page", counter_id, **query)
            if not call.answer or "Link" not in call.answer.headers or not call.answer.body:
                return
            query = {**query, "after": call.answer.body[-1]["version"]}
            assert f"after={query['after']}" in call.answer.headers["Link"]

    def _remember_versions(self, call: Call) -> None:
        """Remember the highest version of each counter that the answer to a call shows."""
        if call.answer is None or call.status != 200 or call.operation == "trend":
            return
        body = call.answer.body
        for counter in body if isinstance(body, list) else [body]:
            name, version = counter["counter_id"], counter["version"] or 0
            self._latest_versions[name] = max(self._latest_versions[name], version)


def _update(fields: Mapping[str, Any]) -> Update:
    return Update(
        by=fields["by"], low=fields.get("min", -math.inf), high=fields.get("max", math.inf)
    )


def _is_settled(call: Call) -> bool:
    return call.status == 200 or call.problem == "bound-exceeded"


def _retry_after(call: Call) -> float:
    """Return the seconds to wait before repeating the call."""
    return float(call.answer.headers.get("Retry-After", 0.1)) if call.answer else 0.1
