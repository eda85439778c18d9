"""All at once: functions that are killed, a database that fails in every way, and many callers.

Workers run the built functions as Lambda does. A proxy between them and the local database drops,
delays, cuts, refuses, throttles and doubts. Callers increment, move, set and read, with keys and
without. What they were told is then held to the history (linearizability.py says to what).
"""

import json
import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from tests import aws_template
from tests.e2e import chaos_proxy, workers
from tests.e2e.chaos_proxy import ChaosProxy
from tests.e2e.linearizability import Answer, Call, Entry, Run, Standing, Wish, check
from tests.e2e.service import client, name_of, variables, wait_for
from tests.e2e.workers import Workers
from tests.proxy import proxy_event
from tests.runtime_api import Outcome
from tests.sizes import FULL, cases

from counters import clock
from local_stack import Emulator, Stack

OPERATIONS = cases(20_000, part=1_300)  # while there are faults; some hundreds follow
WORKERS = {
    "IncrementCounter": 6,
    "IncrementCounters": 5,
    "SetCounter": 3,
    "GetCounter": 4,
    "ListHistory": 3,
    "ListTrend": 2,
}
CALLERS = 20
SECONDS_TO_A_KILL = 1.5
PATIENCE_SECONDS = 90  # for a key, when there are no faults any more
QUIET_SECONDS = clock.APPLY_WINDOW + 2  # the past is told when it is so long ago
CATCH_UP_SECONDS = 120
SHOWN = 20  # violations
LOOKS = 12  # into the past of each counter, at the end

CLAIMS = {"sub": "chaos", "client_id": "chaos"}

# What callers do, and how often each.
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


class Keyed(NamedTuple):
    """A request under a key, which is repeated until it is known what became of it."""

    kind: str
    counter_ids: tuple[str, ...]
    wishes: tuple[Wish, ...]
    body: dict[str, Any]
    key: str


class Service:
    """The functions behind their routes, without API Gateway; every call is written down."""

    def __init__(self, workers: Workers) -> None:
        self.calls: list[Call] = []
        self._workers = workers
        self._functions = aws_template.functions()

    def call(  # noqa: PLR0913
        self,
        kind: str,
        counter_ids: tuple[str, ...],
        *,
        wishes: tuple[Wish, ...] = (),
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Call:
        """Send a request once, and return what came of it."""
        method, ending = {
            "increment": ("POST", ""),
            "set": ("PUT", ""),
            "page": ("GET", "/history"),
            "trend": ("GET", "/trend"),
        }.get(kind, ("GET", ""))
        path = f"/counters/{counter_ids[0]}{ending}"
        if kind == "increments":
            method, path = "POST", "/increments"
        function, event = self._event(
            method,
            path,
            urlencode(query or {}),
            {**(headers or {}), **({"Idempotency-Key": key} if key else {})},
            json.dumps(body).encode() if body is not None else b"",
        )
        invoked = time.monotonic()
        invocation = self._workers.invoke(function, event)
        call = Call(
            kind,
            counter_ids,
            invoked,
            time.monotonic(),
            _answer(invocation.outcome),
            invocation.request_id,
            key,
            wishes,
            query or {},
        )
        self.calls.append(call)
        return call

    def repeat(self, asked: Keyed) -> Call:
        return self.call(
            asked.kind, asked.counter_ids, wishes=asked.wishes, body=asked.body, key=asked.key
        )

    def _event(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[str, dict[str, Any]]:
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
    if outcome.kind != "response":  # which the gateway would answer with 5xx; it may not happen
        return Answer(500, {"type": outcome.kind, **outcome.body})
    content = outcome.body["body"]
    headers = outcome.body["headers"]
    return Answer(outcome.body["statusCode"], json.loads(content) if content else None, headers)


class Callers:
    """They send what chance has them send, until there were enough requests."""

    def __init__(self, service: Service, operations: int) -> None:
        self._service = service
        self._operations = operations
        prefix = uuid.uuid4().hex[:8]
        self.hot = [f"{prefix}-hot-{number}" for number in range(2)]
        self.bounded = [f"{prefix}-bounded-{number}" for number in range(2)]
        self.set = [f"{prefix}-set-{number}" for number in range(3)]
        self.accounts = [f"{prefix}-account-{number}" for number in range(6)]
        self.counters = [*self.hot, *self.bounded, *self.set, *self.accounts]
        self.open: list[Keyed] = []  # keys of which it is not known what became of them
        self.began = time.time()
        self._seen: dict[str, int] = defaultdict(int)  # versions
        self._lock = threading.Lock()

    def run(self, number: int) -> None:
        chances = random.Random(number)
        while len(self._service.calls) < self._operations:
            (name,) = chances.choices(list(SHARES), list(SHARES.values()))
            kind = name.removeprefix("keyed ").removesuffix(" if match")
            if name.startswith("keyed"):
                self._with_key(kind, chances)
            elif kind in {"increment", "increments"}:
                asked = self._asked(kind, chances)
                call = self._service.call(
                    kind, asked.counter_ids, wishes=asked.wishes, body=asked.body
                )
                self._note(call)
            elif kind == "set":
                self._set(chances, if_match=name != kind)
            elif kind == "page":
                self._pages(chances)
            else:
                self._read(kind, chances)

    def settle(self, asked: Keyed, deadline: float) -> None:
        """Repeat a request until it is known what became of it.

        Raises:
            TimeoutError: that took too long.
        """
        while True:
            call = self._service.repeat(asked)
            if call.status == 200 or call.problem == "bound-exceeded":
                return
            if time.monotonic() > deadline:
                message = f"no answer under a key: {call}"
                raise TimeoutError(message)
            time.sleep(min(2.0, _retry_after(call)))

    def look_back(self, counter_id: str, number: int) -> None:
        """Read all of a counter's history and trend, and its state at some times and versions."""
        chances = random.Random(-number - 1)
        standing = self._service.call("get", (counter_id,))
        self._note(standing)
        self._follow(counter_id, {"limit": 1000})
        self._follow(counter_id, {"limit": 1000, "order": "desc"})
        for interval in ("hour", "minute"):
            period = {"from": clock.timestamp(self.began), "to": clock.timestamp(time.time())}
            self._service.call("trend", (counter_id,), query={"interval": interval, **period})
        for _ in range(LOOKS):
            version = chances.randint(0, self._seen[counter_id])
            self._service.call("version", (counter_id,), query={"version": version})
            at = chances.uniform(self.began - 1, time.time() - QUIET_SECONDS)
            self._service.call("at", (counter_id,), query={"at": clock.timestamp(at)})

    def _with_key(self, kind: str, chances: random.Random) -> None:
        """Send something under a key, and repeat it a few times, or let others do so."""
        asked = self._asked(kind, chances)
        with self._lock:
            if self.open and chances.random() < 0.4:
                asked = self.open.pop(chances.randrange(len(self.open)))
            if chances.random() < 0.2:
                self.open.append(asked)  # somebody else sends it at the same time
        for _ in range(chances.choice([1, 1, 2, 4])):
            call = self._service.repeat(asked)
            self._note(call)
            settled = call.status == 200 or call.problem == "bound-exceeded"
            if settled and chances.random() < 0.8:
                return
            time.sleep(min(0.5, _retry_after(call)))
        with self._lock:
            self.open.append(asked)

    def _asked(self, kind: str, chances: random.Random) -> Keyed:
        """Return an increment, or some that keep the total of the accounts."""
        key = str(uuid.uuid4())
        if kind == "increments":
            *takers, giver = chances.sample(self.accounts, chances.randint(2, 5))
            amounts = [chances.randint(1, 9) for _ in takers]
            parts = [
                {"counter_id": taker, "by": by} for taker, by in zip(takers, amounts, strict=True)
            ]
            parts.append({"counter_id": giver, "by": -sum(amounts), "min": -100})
            chances.shuffle(parts)
            wishes = tuple(_wish(part) for part in parts)
            names = tuple(str(part["counter_id"]) for part in parts)
            return Keyed(kind, names, wishes, {"increments": parts}, key)
        counter_id = chances.choice([*self.hot, *self.bounded, *self.set[:1]])
        body: dict[str, Any] = {"by": chances.choice([1, 1, 2, -1, -3])}
        if counter_id in self.bounded:
            body |= {"min": 0, "max": 8}
        return Keyed(kind, (counter_id,), (_wish(body),), body, key)

    def _set(self, chances: random.Random, *, if_match: bool) -> None:
        counter_id, value = chances.choice(self.set), chances.randint(-1000, 1000)
        expected, headers = None, {}
        if if_match:
            expected = self._seen[counter_id]
            headers = {"If-Match": f'"{expected}"'} if expected else {"If-None-Match": "*"}
        call = self._service.call(
            "set",
            (counter_id,),
            wishes=(Wish(value=value, expected=expected),),
            body={"value": value},
            headers=headers,
        )
        self._note(call)

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
        self._note(self._service.call(kind, (counter_id,), query=query))

    def _pages(self, chances: random.Random) -> None:
        """Follow some pages from anywhere; the order is either."""
        counter_id = chances.choice(self.counters)
        query: dict[str, Any] = {"limit": chances.choice([2, 10, 100])}
        if chances.random() < 0.3:
            query["order"] = "desc"
        elif chances.random() < 0.7:
            query["after"] = max(0, self._seen[counter_id] - chances.randint(0, 30))
        self._follow(counter_id, query, most=4)

    def _follow(self, counter_id: str, query: dict[str, Any], most: int = 1000) -> None:
        for _ in range(most):
            call = self._service.call("page", (counter_id,), query=query)
            link = call.answer.headers.get("Link") if call.answer else None
            if link is None:
                return
            assert call.answer
            query = {**query, "after": call.answer.body[-1]["version"]}
            assert f"after={query['after']}" in link

    def _note(self, call: Call) -> None:
        """Remember which versions there are."""
        if call.answer is None or call.status != 200 or call.kind == "trend":
            return
        body = call.answer.body
        for counter in body if isinstance(body, list) else [body]:
            version = counter["version"] or 0
            name = counter["counter_id"]
            self._seen[name] = max(self._seen[name], version)


def _wish(fields: Mapping[str, Any]) -> Wish:
    infinity = float("inf")
    return Wish(by=fields["by"], low=fields.get("min", -infinity), high=fields.get("max", infinity))


def _retry_after(call: Call) -> float:
    return float(call.answer.headers.get("Retry-After", 0.1)) if call.answer else 0.1


def _history(stack: Stack, counter_id: str) -> list[Entry]:
    """Return the items of a counter's history, as they are stored."""
    pages = (
        client(stack, "dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=stack.outputs["HistoryTable"],
            KeyConditionExpression="counter_id = :counter_id",
            ExpressionAttributeValues={":counter_id": {"S": counter_id}},
            ConsistentRead=True,
        )
    )
    entries = []
    for item in (item for page in pages for item in page["Items"]):
        fields: dict[str, Any] = {
            name: int(item[name]["N"]) if "N" in item[name] else item[name]["S"]
            for name in Entry._fields
        }
        entries.append(Entry(**fields))
    return entries


def _standing(stack: Stack, counter_id: str) -> Standing | None:
    reply = client(stack, "dynamodb").get_item(
        TableName=stack.outputs["CounterTable"],
        Key={"counter_id": {"S": counter_id}},
        ConsistentRead=True,
    )
    if "Item" not in reply:
        return None
    item = reply["Item"]
    request_id = item["change"]["M"]["request_id"]["S"]
    return Standing(int(item["value"]["N"]), int(item["version"]["N"]), request_id)


def _caught_up(stack: Stack, counters: list[str]) -> bool:
    """Tell whether the stream has brought every change into history and trend."""
    dynamodb = client(stack, "dynamodb")
    for counter_id in counters:
        standing = _standing(stack, counter_id)
        hours = dynamodb.query(
            TableName=stack.outputs["TrendTable"],
            KeyConditionExpression="counter_id = :counter_id",
            ExpressionAttributeValues={":counter_id": {"S": counter_id}},
        )["Items"]
        folded = max((int(hour["last_version"]["N"]) for hour in hours), default=0)
        if standing and not folded == len(_history(stack, counter_id)) == standing.version:
            return False
    return True


def _findings(stack: Stack, counter_id: str) -> list[Any]:
    """Return what the audit finds in a counter's history."""
    reply = client(stack, "lambda").invoke(
        FunctionName=name_of(stack, "AuditHistory"), Payload=json.dumps({"counter_id": counter_id})
    )
    report = json.load(reply["Payload"])
    assert report["finished"], report
    findings: list[Any] = report["findings"]
    return findings


@pytest.fixture
def proxied(
    emulator: Emulator, stack: Stack, tmp_path: Path
) -> Iterator[tuple[ChaosProxy, Workers, str]]:
    """The proxy, the workers behind it, and its endpoint."""
    with (
        chaos_proxy.serving(stack.endpoint_url, seed=1) as (proxy, url),
        workers.running(emulator, stack, WORKERS, url, tmp_path) as running,
    ):
        proxy.kill = running.kill
        yield proxy, running, url


def test_every_answer_is_true_whatever_fails(
    stack: Stack, proxied: tuple[ChaosProxy, Workers, str]
) -> None:
    proxy, running, url = proxied
    service = Service(running)
    callers = Callers(service, OPERATIONS)
    began = time.monotonic()

    with ThreadPoolExecutor(CALLERS) as pool:
        with ExitStack() as faults:
            faults.enter_context(variables(stack, "RecordHistory", AWS_ENDPOINT_URL_DYNAMODB=url))
            faults.enter_context(proxy.raging())
            faults.enter_context(running.dying(random.Random(2), SECONDS_TO_A_KILL))
            list(pool.map(callers.run, range(CALLERS)))
            raged = time.monotonic() - began
        deadline = time.monotonic() + PATIENCE_SECONDS
        list(pool.map(lambda asked: callers.settle(asked, deadline), set_of(callers.open)))
        caught_up = wait_for(lambda: _caught_up(stack, callers.counters), seconds=CATCH_UP_SECONDS)
        list(pool.map(callers.look_back, callers.counters, range(len(callers.counters))))

    counters = callers.counters
    standing = {name: _standing(stack, name) for name in counters}
    run = Run(
        service.calls,
        {name: _history(stack, name) for name in counters},
        {name: each for name, each in standing.items() if each},
        frozenset(proxy.told),
    )
    violations = check(run)
    findings = [finding for name in counters for finding in _findings(stack, name)]
    report(run, proxy, running)
    print(f"{raged:.0f} s with faults, {time.monotonic() - began:.0f} s in all")
    print(f"violations: {dict(Counter(violation.kind for violation in violations))}")
    shown: Counter[str] = Counter()
    for violation in violations:
        shown[violation.kind] += 1
        if shown[violation.kind] <= 2:
            print(f"  {violation.kind}: {violation.detail[:1500]}")
    assert caught_up, "the stream did not bring every change"
    assert violations == []
    assert findings == []
    assert_all_was_seen(run, proxy, running)


def set_of(asked: list[Keyed]) -> list[Keyed]:
    """Return one request for each key."""
    return list({each.key: each for each in asked}.values())


def report(run: Run, proxy: ChaosProxy, running: Workers) -> None:
    """Print what was asked and answered, and what failed."""
    kinds = Counter(f"{'keyed ' if call.key else ''}{call.kind}" for call in run.calls)
    answers = Counter(f"{call.status or 'none'} {call.problem or ''}".strip() for call in run.calls)
    faults: dict[str, Counter[str]] = defaultdict(Counter)
    for (fault, operation), number in sorted(proxy.faults.items()):
        faults[fault][operation] += number
    print(f"\n{len(run.calls)} operations: {dict(kinds)}")
    print(f"answers: {dict(answers.most_common())}")
    print(f"{sum(map(len, run.histories.values()))} changes of {len(run.histories)} counters")
    for fault, operations in faults.items():
        print(f"  {fault}: {operations.total()} {dict(operations)}")
    print(f"{running.kills.total()} kills: {dict(running.kills)}")
    print(f"each byte of a reply was cut, times: {dict(proxy.cuts.rounds)}")


def assert_all_was_seen(run: Run, proxy: ChaosProxy, running: Workers) -> None:
    """See that the run was as hard as it is meant to be."""
    met = Counter[str]()
    for (fault, _), number in proxy.faults.items():
        met[fault] += number
    expected = {fault for deck in chaos_proxy.DECKS.values() for fault in deck}
    assert {fault for fault in expected if not met[fault]} == set()
    assert running.kills.keys() == {*chaos_proxy.KILLS, "at any time"}
    past = [call for call in run.reads("at") if call.counter_ids]
    assert len(past) > 50
    if FULL:
        cut = {"UpdateItem", "PutItem", "TransactWriteItems", "GetItem"}
        assert cut <= proxy.cuts.rounds.keys()
