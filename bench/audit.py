"""Simulates a nightly audit of a million counters, and computes one of ten million.

The functions run in this process, as the state machine in template.yaml invokes them. Their
database is in memory (bench/many_counters.py). `python -m bench.audit` prints the section.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import botocore.session
from moto.core.models import botocore_stubber
from tests import aws_template, state_machine
from tests.past import Past
from tests.stack import Stack, running
from tests.state_machine import FailedError

from bench import prices
from bench.many_counters import Database
from bench.output import captured
from bench.report import Section, cents, table
from bench.usage import DATABASE_MS
from counters import clients, clock

COUNTERS = 1_000_000
TEN_MILLION = 10_000_000
SEGMENTS = int(aws_template.parameter("AuditSegments"))
CHANGES = 2  # of each counter
BEGAN = 1_795_000_000.0  # when the counters changed, in seconds since the epoch
HOUR = 3600  # seconds
DAY = 24 * HOUR

SDK_COUNTERS = 200  # counters with which the CPU time is measured
PAUSE = state_machine.states("NightlyAudit")["AllSegments"]["ItemProcessor"]["States"]["Pause"][
    "Seconds"
]  # between two invocations for a segment
KILLED = 3  # the segment whose function is killed
KILLED_AFTER = (2_000, 0, 700)  # requests in each of its first invocations
TRIES = 1 + state_machine.retries("NightlyAudit", "Begin")  # of an invocation that fails

# The share of a CPU that AuditHistory has:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MEMORY = 1024  # MB
CPU_SHARE = MEMORY / 1769


@dataclass(frozen=True)
class Night:
    """A simulated nightly audit.

    Attributes:
        counters: the number of counters in the database.
        result: what the state machine returned; what it had counted when it failed.
        finished: whether the execution succeeded.
        verified: the number of different counters whose progress is saved.
        tried: the number of invocations.
        killed: the number of invocations in which the function was killed.
        pauses: how often a segment waited before its next invocation.
        requests: the number of requests, by operation and table.
        units: the units that DynamoDB charges, by operation and table.
        hours: the time that the slowest segment took.
        work: the run time of all invocations together, in seconds.
    """

    counters: int
    result: dict[str, Any]
    finished: bool
    verified: int
    tried: int
    killed: int
    pauses: int
    requests: Counter[tuple[str, str]]
    units: dict[tuple[str, str], float]
    hours: float
    work: float

    @property
    def reads(self) -> float:
        """The read units."""
        return sum(units for (operation, _), units in self.units.items() if operation != "PutItem")

    @property
    def writes(self) -> float:
        """The write units."""
        return self.units["PutItem", "AuditTable"]

    @property
    def repeated(self) -> int:
        """How many audits of a counter were repeated, because the function was killed."""
        return self.requests["GetItem", "CounterTable"] - int(self.result["counters"])

    @property
    def transitions(self) -> int:
        """The state transitions that Step Functions charges, with the start of each segment."""
        given_up = not self.finished  # one segment
        return 5 + 2 * SEGMENTS + self.tried + (self.tried - self.killed) + self.pauses + given_up


class Simulation:
    """Nightly audits of the same counters, one night after the other."""

    def __init__(self, stack: Stack, count: int, cpu_seconds: float) -> None:
        """Let every counter have the changes that RecordHistory records for one counter.

        Args:
            stack: an empty stack. It records the changes of the one counter.
            count: the number of counters.
            cpu_seconds: the CPU time of the function for a request.
        """
        names = [f"counter{number:09}" for number in range(count)]
        with patch.object(clock, "now", lambda: BEGAN + DAY):
            _past(names[0]).record(stack)
        seconds = DATABASE_MS / 1000 + cpu_seconds / CPU_SHARE
        self._stack = stack
        self._count = count
        self._database = Database(names, stack.refs, stack.contents(), seconds)

    def night(self, days: int, kills: Sequence[int] = ()) -> Night:
        """Run the nightly audit.

        Args:
            days: how many days after the changes of the counters.
            kills: kill the function of the segment KILLED after this many requests, in each of its
                first invocations.
        """
        database = self._database
        database.requests.clear()
        database.units.clear()
        tried, pauses = Counter[int](), Counter[int]()
        times: dict[int, float] = defaultdict(float)
        last: dict[str, Any] = {}
        waiting, number = list(kills), -1

        def call(name: str, event: Any) -> Any:  # noqa: ANN401
            nonlocal last, number
            number = event.get("segment", {}).get("number", -1)
            if number == KILLED and waiting:
                database.killed_after = waiting.pop(0)
            tried[number] += number >= 0
            began = database.seconds
            try:
                last = self._stack.invoke(name, event)
            finally:
                times[number] += database.seconds - began
            return last

        start = database.seconds
        now = lambda: BEGAN + DAY * days + database.seconds - start  # noqa: E731
        pause = lambda _seconds: pauses.update([number])  # noqa: E731
        finished = False
        with _replacing(database, now=now, sleep=pause), suppress(FailedError):
            state_machine.run("NightlyAudit", call)
            finished = True
        return Night(
            self._count,
            last,
            finished,
            len(database.states) - ("*" in database.states),
            tried.total(),
            len(kills) - len(waiting),
            pauses.total(),
            Counter(database.requests),
            dict(database.units),
            max(time + PAUSE * pauses[number] for number, time in times.items()) / HOUR,
            sum(times.values()),
        )


@contextmanager
def _replacing(
    database: Database, now: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[None]:
    """Let the functions use a database and a clock until the with block ends."""
    clients.dynamodb.cache_clear()
    with patch.object(clients, "_client", lambda _service: database):
        clients.dynamodb()
    try:
        with patch.multiple(clock, now=now, sleep=sleep):
            yield
    finally:
        clients.dynamodb.cache_clear()


def measure() -> Section:
    """Simulate three nights, and compute the time and the price of ten million counters.

    Returns:
        The section of docs/benchmarks.md.

    Raises:
        RuntimeError: if a counter is missing in a result, or is counted twice.
    """
    session = botocore.session.get_session()
    with captured():
        cpu_seconds, requests = cpu_of_a_counter(session)
        with running(session) as stack:
            simulation = Simulation(stack, COUNTERS, cpu_seconds / requests)
            first = simulation.night(2, KILLED_AFTER)
            second = simulation.night(3)
        with running(session) as stack:
            small = Simulation(stack, COUNTERS // 100, cpu_seconds / requests)
            failed, repaired = small.night(2, (0,) * TRIES), small.night(3)
    check(first, COUNTERS, COUNTERS)
    check(second, COUNTERS, 0)
    check(repaired, COUNTERS // 100, COUNTERS // 100)
    if failed.finished or failed.result["counters"] != failed.verified:
        detail = "the result of the failed night is wrong"
        raise RuntimeError(detail)
    parts = (
        _INTRODUCTION,
        table(["", *_TITLES], _nights(first, second, failed, repaired)),
        _PER_COUNTER.format(cpu=1000 * cpu_seconds),
        table(["request", "requests", "read units", "write units"], _requests(first)),
        _COMPUTED.format(ms=1000 * first.work / COUNTERS, scan=_scanned(second)),
        table(["ten million counters", "hours", *_COSTS, "dollars"], _costs(first, second)),
    )
    return Section("The nightly audit", "python -m bench.audit", "\n\n".join(parts))


_TITLES = (
    "all changed; one segment is killed",
    "none changed",
    "all changed; one segment keeps failing",
    "the night after",
)

_INTRODUCTION = f"""
The first table shows four simulated nights. The functions run in this process, as the state machine
of the template invokes them. Their database is in memory: {COUNTERS:,} counters with {CHANGES}
changes each in the first two nights, and a hundredth of them in the last two nights. There are
{SEGMENTS} segments.

- An audit saves the progress of each counter that it has verified. The number of counters in the
  result is the number of different counters whose progress is saved. So no counter is missing, and
  none is counted twice.
- In the first night, the function of one segment is killed {len(KILLED_AFTER)} times. The state
  machine repeats the invocation, which audits some counters a second time, but counts them once.
- In the third night, the function of one segment is always killed. The counters of this segment are
  not in the result, and the execution fails. The next night covers the counters of all segments.
- The hours are simulated. A request takes {DATABASE_MS} ms, which is an assumption, plus the CPU
  time of the function for it, which is measured. Between two invocations for a segment, the state
  machine waits {PAUSE} seconds.
""".strip()

_PER_COUNTER = f"""
The next table shows the requests for each changed counter in the first night. The function takes
{{cpu:.2f}} ms of CPU time for them. This was measured with the SDK for {SDK_COUNTERS} counters,
without the CPU time of the emulated database. AuditHistory has {MEMORY:,} MB, which gives it
{CPU_SHARE:.2f} of a CPU.
""".strip()

_COMPUTED = f"""
So a changed counter takes {{ms:.0f}} ms of an invocation. A counter that did not change takes only
its part of the scan: {{scan:.3f}} read units. The next table is computed from the first two nights,
for {SEGMENTS} segments. With twice as many segments, the night takes half the time and costs the
same. [Operations](operations.md#run-an-audit) says how many segments there can be.
""".strip()


def check(night: Night, counters: int, changed: int) -> None:
    """Check that the result of a night has each changed counter once.

    Raises:
        RuntimeError: if it does not.
    """
    wanted = {"counters": changed, "findings": 0, "finished": True}
    found = {name: night.result[name] for name in wanted}
    if not night.finished or night.verified != counters or found != wanted:
        detail = f"{night.result} of {night.verified} counters, expected {wanted}"
        raise RuntimeError(detail)


def cpu_of_a_counter(session: botocore.session.Session) -> tuple[float, float]:
    """Measure an audit with the SDK.

    Returns:
        For one counter, the CPU time in seconds without that of the emulated database, and the
        number of requests.
    """
    with running(session) as stack:
        names = [f"counter{number:09}" for number in range(SDK_COUNTERS)]
        with patch.object(clock, "now", lambda: BEGAN + DAY):
            for name in names:
                _past(name).record(stack)
            in_database = [0.0, 0]

            def answer(request: Any, event_name: str, **_: object) -> Any:  # noqa: ANN401
                began = time.thread_time()
                response = botocore_stubber(event_name, request)
                in_database[0] += time.thread_time() - began
                in_database[1] += 1
                return response

            segment = {"number": 0, "segments": 1, "since": clock.timestamp(BEGAN)}
            event = {"step": "audit", "segment": segment}
            events, moto = clients.dynamodb().meta.events, botocore_stubber
            events.unregister("before-send", moto)
            events.register("before-send", answer)
            try:
                stack.invoke("AuditHistory", {"counter_id": names[0]})  # the first one takes longer
                in_database[:] = [0.0, 0]
                began = time.thread_time()
                stack.invoke("AuditHistory", event)
                took = time.thread_time() - began - in_database[0]
            finally:
                events.unregister("before-send", answer)
                events.register("before-send", moto)
    return took / SDK_COUNTERS, in_database[1] / SDK_COUNTERS


def _past(name: str) -> Past:
    past = Past(name)
    for number in range(CHANGES):
        past.change(BEGAN + 60 * number, 1)
    return past


def _nights(*nights: Night) -> list[list[object]]:
    rows: dict[str, list[object]] = {
        "counters": [f"{night.counters:,}" for night in nights],
        "counters in the result": [f"{night.result['counters']:,}" for night in nights],
        "different counters with a saved progress": [f"{night.verified:,}" for night in nights],
        "audits of a counter that were repeated": [f"{night.repeated:,}" for night in nights],
        "the execution": ["succeeded" if night.finished else "failed" for night in nights],
        "invocations for segments": [night.tried for night in nights],
        "… in which the function was killed": [night.killed for night in nights],
        "state transitions": [night.transitions for night in nights],
        "read units": [f"{night.reads:,.0f}" for night in nights],
        "write units": [f"{night.writes:,.0f}" for night in nights],
        "hours": [f"{night.hours:.2f}" for night in nights],
    }
    return [[name, *values] for name, values in rows.items()]


def _requests(night: Night) -> list[list[object]]:
    rows: list[list[object]] = []
    for (operation, name), count in sorted(night.requests.items()):
        units = night.units[operation, name] / COUNTERS
        reads, writes = (0.0, units) if operation == "PutItem" else (units, 0.0)
        title = f"`{operation}` {name}"
        rows.append([title, f"{count / COUNTERS:.3f}", f"{reads:.3f}", f"{writes:.3f}"])
    return rows


def _scanned(night: Night) -> float:
    return night.units["Scan", "CounterTable"] / COUNTERS


_COSTS = ("DynamoDB", "Lambda", "Step Functions")


def _costs(changed: Night, unchanged: Night) -> list[list[object]]:
    rows: list[list[object]] = []
    dollars: list[float]
    for share, title in (
        (1, "all changed"),
        (0.01, "one in a hundred changed"),
        (0, "none changed"),
    ):
        few, many = (1 - share) * TEN_MILLION / COUNTERS, share * TEN_MILLION / COUNTERS

        def mixed(name: str, few: float = few, many: float = many) -> float:
            return float(few * getattr(unchanged, name) + many * getattr(changed, name))

        dollars = [
            mixed("reads") * prices.READ_UNIT.dollars + mixed("writes") * prices.WRITE_UNIT.dollars,
            mixed("work") * MEMORY / 1024 * prices.LAMBDA_TIME.dollars
            + mixed("tried") * prices.LAMBDA_REQUEST.dollars,
            mixed("transitions") * prices.TRANSITION.dollars,
        ]
        total = sum(dollars)
        rows.append(
            [title, f"{mixed('hours'):.2f}", *(cents(each) for each in dollars), cents(total)]
        )
    return rows


if __name__ == "__main__":
    print(measure().markdown())
