"""Every answer is true, although functions are killed and the database fails in every way.

- Workers run the built functions as Lambda does (workers.py). They are killed at random.
- A proxy between them and the local database drops, delays, cuts, refuses and throttles, and
  answers 5xx before, after or long before a write is applied (chaos_proxy.py).
- Callers increment, move, set and read, with keys and without (chaos_callers.py).
- At the end, every answer is compared with the history (linearizability.py).
"""

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import chaos_proxy, workers
from tests.e2e.chaos_callers import Callers, Service
from tests.e2e.chaos_proxy import ChaosProxy
from tests.e2e.linearizability import Entry, Run, Standing, Violation, check
from tests.e2e.service import client, extra_variables, physical_name, wait_for
from tests.e2e.workers import Workers
from tests.sizes import FULL, cases

from deployment import Stack
from emulator_process import Emulator

OPERATIONS = cases(20_000, part=400)  # with faults; a few hundred reads without faults follow
WORKERS = {
    "IncrementCounter": cases(9, part=5),
    "IncrementCounters": cases(8, part=5),
    "SetCounter": cases(3, part=2),
    "GetCounter": cases(4, part=2),
    "ListHistory": cases(3, part=2),
    "ListTrend": cases(2, part=1),
}
CALLERS = cases(32, part=16)
SECONDS_TO_A_KILL = cases(4, part=2)  # of any worker, on average
# How long it may take to settle all open keys, one after the other. Finding an attempt in a long
# history takes a dozen reads. The emulator serves one read at a time, and each takes it as long as
# the history of the counter is: 0.14 s for 2,500 entries. Several callers at once would run out of
# their functions' time.
SETTLE_SECONDS = cases(1800, part=120)
CATCH_UP_SECONDS = cases(600, part=120)
LOOKS = cases(20, part=2)  # versions, and as many times, at which each counter is read at the end
SHOWN = 2  # violations of each kind
# In the full run, replies to these operations are cut at each of their bytes.
ALL_CUT = {"BatchGetItem", "PutItem", "Query", "TransactWriteItems", "UpdateItem"}


class Stored:
    """What the database has about some counters, read without the proxy."""

    def __init__(self, stack: Stack, counters: list[str]) -> None:
        self._stack = stack
        self._counters = counters
        self._dynamodb = client(stack, "dynamodb")

    def histories(self) -> dict[str, list[Entry]]:
        return {
            name: list(map(_entry, self._items("HistoryTable", name))) for name in self._counters
        }

    def standing(self) -> dict[str, Standing]:
        return {
            name: Standing(
                int(item["value"]["N"]),
                int(item["version"]["N"]),
                item["change"]["M"]["request_id"]["S"],
            )
            for name in self._counters
            for item in self._items("CounterTable", name)
        }

    def caught_up(self) -> bool:
        """Tell whether history and trend have every change."""
        for name, standing in self.standing().items():
            hours = self._items("TrendTable", name)
            folded = max((int(hour["last_version"]["N"]) for hour in hours), default=0)
            if not folded == len(self._items("HistoryTable", name)) == standing.version:
                return False
        return True

    def findings(self) -> list[Any]:
        """Return what the deployed audit finds."""
        lambda_, name = client(self._stack, "lambda"), physical_name(self._stack, "AuditHistory")
        findings = []
        for counter_id in self._counters:
            payload = json.dumps({"counter_id": counter_id})
            report = json.load(lambda_.invoke(FunctionName=name, Payload=payload)["Payload"])
            assert report["finished"], report
            findings += report["findings"]
        return findings

    def _items(self, table: str, counter_id: str) -> list[Any]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._stack.outputs[table],
            KeyConditionExpression="counter_id = :counter_id",
            ExpressionAttributeValues={":counter_id": {"S": counter_id}},
            ConsistentRead=True,
        )
        return [item for page in pages for item in page["Items"]]


def _entry(item: dict[str, Any]) -> Entry:
    fields: dict[str, Any] = {
        name: int(item[name]["N"]) if "N" in item[name] else item[name]["S"]
        for name in Entry._fields
    }
    return Entry(**fields)


@pytest.fixture
def proxied(
    emulator: Emulator, stack: Stack, tmp_path: Path
) -> Iterator[tuple[ChaosProxy, Workers, str]]:
    """The proxy, the workers that use it, and its endpoint."""
    with (
        chaos_proxy.serving(stack.endpoint_url, seed=1) as (proxy, url),
        workers.running(emulator, stack, WORKERS, url, tmp_path) as running,
    ):
        proxy.kill = running.kill
        yield proxy, running, url


def test_every_answer_is_true_whatever_fails(
    stack: Stack, proxied: tuple[ChaosProxy, Workers, str], tmp_path: Path
) -> None:
    proxy, running, url = proxied
    service = Service(running)
    callers = Callers(service)
    stored = Stored(stack, callers.counters)
    began = time.monotonic()

    with ThreadPoolExecutor(CALLERS) as pool, ExitStack() as stopping:
        stopping.callback(callers.stop)  # else a failure here would wait for all callers
        with ExitStack() as faults:
            faults.enter_context(
                extra_variables(stack, "RecordHistory", AWS_ENDPOINT_URL_DYNAMODB=url)
            )
            faults.enter_context(proxy.raging())
            faults.enter_context(running.dying(random.Random(2), SECONDS_TO_A_KILL))
            list(pool.map(partial(callers.run, operations=OPERATIONS), range(CALLERS)))
        raged = time.monotonic() - began
        # What became of a key is in the history.
        wait_for(stored.caught_up, seconds=CATCH_UP_SECONDS)
        behind = time.monotonic() - began - raged
        deadline = time.monotonic() + SETTLE_SECONDS
        settled = [callers.settle(asked, deadline) for asked in callers.unsettled()]
        settling = time.monotonic() - deadline + SETTLE_SECONDS
        caught_up = wait_for(stored.caught_up, seconds=CATCH_UP_SECONDS)
        list(pool.map(partial(callers.look_back, looks=LOOKS), callers.counters))
    run = Run(service.calls, stored.histories(), stored.standing(), frozenset(proxy.told))
    violations, findings = check(run), stored.findings()

    print(f"\n{raged:.0f} s with faults, {time.monotonic() - began:.0f} s in all")
    print(f"the history was complete {behind:.0f} s after the faults")
    print(f"{len(settled)} keys to settle, which took {settling:.0f} s")
    print(f"{len(violations)} violations")
    report(run, proxy, running, exceptions(tmp_path / "log"))
    assert caught_up, "history and trend do not have every change"
    assert not violations, "\n".join(shown(violations))
    moved = [each.value for name, each in run.standing.items() if name in callers.accounts]
    assert sum(moved) == 0, "moves keep the total"
    assert findings == []
    assert all(settled), f"{settled.count(False)} keys were not settled in time"
    assert_all_was_met(run, proxy, running)


def exceptions(log: Path) -> Counter[str]:
    """Count the exceptions in the workers' log, by text and line of code."""
    found = Counter[str]()
    for line in log.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a killed worker did not finish the line
        if isinstance(entry, dict) and "exception" in entry:
            lines = entry["exception"].splitlines()
            where = [text.strip() for text in lines if "/counters/" in text][-1:]
            found[f"{lines[-1]} at {where}"] += 1
    return found


def report(run: Run, proxy: ChaosProxy, running: Workers, unforeseen: Counter[str]) -> None:
    """Print the numbers of requests, answers, faults and kills."""
    kinds = Counter(f"{'keyed ' if call.key else ''}{call.kind}" for call in run.calls)
    answers = Counter(f"{call.status} {call.problem or ''}".strip() for call in run.calls)
    faults: dict[str, Counter[str]] = defaultdict(Counter)
    for (fault, operation), number in sorted(proxy.faults.items()):
        faults[fault][operation] += number
    print(f"{len(run.calls)} operations: {dict(kinds.most_common())}")
    print(f"answers: {dict(answers.most_common())}")
    print(f"{sum(map(len, run.histories.values()))} changes of {len(run.histories)} counters")
    for fault, operations in faults.items():
        print(f"  {fault}: {operations.total()} {dict(operations)}")
    print(f"{running.kills.total()} kills: {dict(running.kills)}")
    print(f"replies cut at each of their bytes, so many times: {dict(proxy.cuts.rounds)}")
    for exception, number in unforeseen.most_common():
        print(f"  internal error: {number} {exception}")


def shown(violations: list[Violation]) -> Iterator[str]:
    """Yield the number of violations of each kind, then some of them."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for violation in violations:
        kinds[violation.kind].append(violation.detail)
    for kind, details in kinds.items():
        yield f"{len(details)} {kind}"
    for kind, details in kinds.items():
        yield from (f"{kind}: {detail}" for detail in details[:SHOWN])


def assert_all_was_met(run: Run, proxy: ChaosProxy, running: Workers) -> None:
    """Check that each fault and each kind of kill happened, and each kind of call succeeded."""
    met = {fault for (fault, _), number in proxy.faults.items() if number}
    assert {fault for deck in chaos_proxy.DECKS.values() for fault in deck} <= met
    assert running.kills.keys() == {*chaos_proxy.KILLS, "at any time"}
    answered = {(call.kind, call.key is not None) for call in run.calls if call.status == 200}
    assert answered == {(call.kind, call.key is not None) for call in run.calls}
    if FULL:
        assert proxy.cuts.rounds.keys() >= ALL_CUT
