"""Every answer is correct, although functions are killed and the database fails in every way.

- Workers are processes that run the built functions as Lambda does (workers.py). The test kills
  workers at random.
- A proxy between the workers and the local database injects faults (chaos_proxy.py). It drops,
  refuses or throttles requests. It delays or cuts replies. It answers a write with a 5xx, and
  applies this write before the answer, seconds later, or never.
- Callers send requests that increment, set and read counters, and that move amounts between
  counters (chaos_callers.py). Some requests have an Idempotency-Key.
- After all calls, the test checks every answer against the history (linearizability.py).

Only `make test-full` runs this test. `make test` has faster tests for the rules that it checks.
This test also checks the rules in combination.
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

import pytest
from tests.e2e import chaos_proxy, workers
from tests.e2e.chaos_callers import Callers, Service
from tests.e2e.chaos_proxy import ChaosProxy
from tests.e2e.linearizability import check
from tests.e2e.recorded_run import Run, Violation
from tests.e2e.service import extra_variables, wait_for
from tests.e2e.stored import Stored
from tests.e2e.workers import Workers
from tests.sizes import FULL

from deployment import Stack
from emulator_process import Emulator

OPERATIONS = 20_000  # with faults. A few hundred reads without faults follow.
WORKERS = {
    "IncrementCounter": 9,
    "IncrementCounters": 8,
    "SetCounter": 3,
    "GetCounter": 4,
    "ListHistory": 3,
    "ListTrend": 2,
}
CALLERS = 32
MEAN_SECONDS_BETWEEN_KILLS = 4  # each kill hits a random worker
# After the faults, the outcome of some requests with an Idempotency-Key is unknown. The test
# repeats one of these requests after the other, until the outcome of each is known. This is the
# time limit for all repeats together.
#
# The test cannot repeat several requests at once, because the functions would time out. A function
# needs a dozen reads to find a change in a long history. The emulator serves only one read at a
# time, and reads from a long history are slow: 0.14 s for 2,500 entries.
SETTLE_SECONDS = 1800
CATCH_UP_SECONDS = 600
# Finally, the test reads each counter at this many versions, and at this many times.
PAST_READS = 20
SHOWN_PER_KIND = 2  # how many violations of each kind the failure message shows
# Replies to these operations are cut after every possible number of bytes.
CUT_AT_EVERY_BYTE = {"BatchGetItem", "PutItem", "Query", "TransactWriteItems", "UpdateItem"}


@pytest.fixture
def proxied(
    emulator: Emulator, stack: Stack, tmp_path: Path
) -> Iterator[tuple[ChaosProxy, Workers, str]]:
    """A proxy, the workers that reach the database through this proxy, and the proxy's endpoint."""
    with (
        chaos_proxy.serving(stack.endpoint_url, seed=1) as (proxy, url),
        workers.running(emulator.directory / "build", stack, WORKERS, url, tmp_path) as worker_pool,
    ):
        proxy.kill = worker_pool.kill
        yield proxy, worker_pool, url


@pytest.mark.skipif(not FULL, reason="repeats what faster tests prove, with all faults at once")
def test_every_answer_matches_the_history_despite_all_faults(
    stack: Stack, proxied: tuple[ChaosProxy, Workers, str], tmp_path: Path
) -> None:
    proxy, worker_pool, url = proxied
    service = Service(worker_pool.invoke)
    callers = Callers(service)
    stored = Stored(stack, callers.counters)
    began = time.monotonic()

    with ThreadPoolExecutor(CALLERS) as pool, ExitStack() as cleanup:
        cleanup.callback(callers.stop)  # a failed test does not wait for its callers
        with ExitStack() as faults:
            faults.enter_context(
                extra_variables(stack, "RecordHistory", AWS_ENDPOINT_URL_DYNAMODB=url)
            )
            faults.enter_context(proxy.injecting_faults())
            faults.enter_context(worker_pool.killing(random.Random(2), MEAN_SECONDS_BETWEEN_KILLS))
            list(pool.map(partial(callers.run, operations=OPERATIONS), range(CALLERS)))
        fault_seconds = time.monotonic() - began
        # A repeated request searches the history for the change. So wait until the history has
        # every change.
        wait_for(stored.caught_up, seconds=CATCH_UP_SECONDS)
        catch_up_seconds = time.monotonic() - began - fault_seconds
        deadline = time.monotonic() + SETTLE_SECONDS
        settled = [callers.settle(request, deadline) for request in callers.unsettled()]
        settle_seconds = time.monotonic() - deadline + SETTLE_SECONDS
        caught_up = wait_for(stored.caught_up, seconds=CATCH_UP_SECONDS)
        list(pool.map(partial(callers.read_past, reads=PAST_READS), callers.counters))
    run = Run(service.calls, stored.histories(), stored.states(), frozenset(proxy.confirmed))
    violations, findings = check(run), stored.findings()

    print(f"\n{fault_seconds:.0f} s with faults, {time.monotonic() - began:.0f} s in total")
    print(f"the history was complete {catch_up_seconds:.0f} s after the faults")
    print(f"settling {len(settled)} keys took {settle_seconds:.0f} s")
    print(f"{len(violations)} violations")
    report(run, proxy, worker_pool, count_exceptions(tmp_path / "log"))
    assert caught_up, "history or trend lacks a change"
    assert not violations, "\n".join(summary(violations))
    account_values = [each.value for name, each in run.states.items() if name in callers.accounts]
    assert sum(account_values) == 0, "moves changed the total of the accounts"
    assert findings == []
    assert all(settled), f"{settled.count(False)} keys still have an unknown outcome"
    assert_full_coverage(run, proxy, worker_pool)


def count_exceptions(log: Path) -> Counter[str]:
    """Count the exceptions in the log of the workers. Group them by message and line of code."""
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


def report(run: Run, proxy: ChaosProxy, worker_pool: Workers, exceptions: Counter[str]) -> None:
    """Print the numbers of requests, answers, faults and kills."""
    calls = Counter(f"{'keyed ' if call.key else ''}{call.operation}" for call in run.calls)
    answers = Counter(f"{call.status} {call.problem or ''}".strip() for call in run.calls)
    faults: dict[str, Counter[str]] = defaultdict(Counter)
    for (fault, operation), number in sorted(proxy.faults.items()):
        faults[fault][operation] += number
    print(f"{len(run.calls)} operations: {dict(calls.most_common())}")
    print(f"answers: {dict(answers.most_common())}")
    print(f"{sum(map(len, run.histories.values()))} changes of {len(run.histories)} counters")
    for fault, operations in faults.items():
        print(f"  {fault}: {operations.total()} {dict(operations)}")
    print(f"{worker_pool.kills.total()} kills: {dict(worker_pool.kills)}")
    print(f"rounds of cuts at every byte, by operation: {dict(proxy.cuts.rounds)}")
    for exception, number in exceptions.most_common():
        print(f"  internal error: {number} {exception}")


def summary(violations: list[Violation]) -> Iterator[str]:
    """Yield lines with the number of violations of each kind, and with some examples."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for violation in violations:
        kinds[violation.kind].append(violation.detail)
    for kind, details in kinds.items():
        yield f"{len(details)} {kind}"
    for kind, details in kinds.items():
        yield from (f"{kind}: {detail}" for detail in details[:SHOWN_PER_KIND])


def assert_full_coverage(run: Run, proxy: ChaosProxy, worker_pool: Workers) -> None:
    """Check that each fault and each kind of kill happened, and that each operation succeeded."""
    injected = {fault for (fault, _), number in proxy.faults.items() if number}
    assert {fault for deck in chaos_proxy.DECKS.values() for fault in deck} <= injected
    assert worker_pool.kills.keys() == {*chaos_proxy.KILLS, "at any time"}
    succeeded = {(call.operation, call.key is not None) for call in run.calls if call.status == 200}
    assert succeeded == {(call.operation, call.key is not None) for call in run.calls}
    assert proxy.cuts.rounds.keys() >= CUT_AT_EVERY_BYTE
