"""Counts a million through the buffer of tally_client, and calculates what that costs.

`python -m bench.buffer` prints the section.
"""

import math
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
from tests.e2e.service import tally_of

from bench.cost import BATCH
from bench.report import Section, table
from bench.service import Service, running
from bench.usage import Operation
from emulator_process import free_port
from local_stack import local_stack

INCREMENTS = 1_000_000
THREADS = 8
COUNTERS = BATCH  # the increments are spread evenly over these counters
INTERVAL = 1.0  # seconds between two requests of the buffer
MILLION = 1_000_000

_TEXT = f"""
The buffer of the [Python client](client.md#count-often-with-a-buffer) adds up increments in the
process, and sends the sums every second. So the number of requests depends on the time and on the
number of counters. More increments of the same counters do not make more requests.

- Measured: {THREADS} threads make {INCREMENTS:,} increments of {COUNTERS} counters, as fast as they
  can, on the local stack. At the end, the values of the counters add up to {INCREMENTS:,}.
- Calculated: the increments are additions. They are spread evenly over the time and the counters,
  so there is one request each second. A request has one sum for each counter that changed in its
  second, so it has at most as many sums as there were increments.
- The price of a request is calculated as in [What does a million cost?](#what-does-a-million-cost).
  It includes the `Idempotency-Key` and the history. The changes of a request are recorded together.
""".strip()


class _Counting(httpx2.BaseTransport):
    """Sends requests over the network, and counts those that change counters."""

    def __init__(self) -> None:
        self.requests = 0
        self._lock = threading.Lock()
        self._network = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/increments"):
            with self._lock:
                self.requests += 1
        return self._network.handle_request(request)

    def close(self) -> None:
        self._network.close()


def count(increments: int = INCREMENTS) -> tuple[int, float]:
    """Count through a buffer on a local stack.

    Args:
        increments: the number of increments. Each thread makes an equal part of them.

    Returns:
        The number of requests, and the seconds until all increments were applied.

    Raises:
        RuntimeError: if the counters do not add up to the number of increments.
    """
    names = [f"views:{uuid.uuid4()}" for _ in range(COUNTERS)]
    transport = _Counting()
    with (
        tempfile.TemporaryDirectory() as directory,
        local_stack(Path(directory), free_port()) as stack,
        tally_of(stack, transport=transport) as tally,
    ):
        began = time.perf_counter()
        with tally.buffer(interval=INTERVAL) as counts, ThreadPoolExecutor(THREADS) as pool:

            def count_part(_thread: int) -> None:
                for number in range(increments // THREADS):
                    counts.increment(names[number % COUNTERS])

            list(pool.map(count_part, range(THREADS)))
        seconds = time.perf_counter() - began
        total = sum(counter.value for counter in tally.get_many(names))
        if total != increments:
            raise RuntimeError(total)
    return transport.requests, seconds


def sums_per_request(counters: int, requests: int) -> int:
    """Return how many sums a request has at most, if a million increments are spread evenly.

    A request has one sum for each counter that changed since the last request, so it has no more
    sums than there were increments.

    Args:
        counters: the number of counters; at most 100, so that one request has all sums.
        requests: the number of requests.
    """
    return min(counters, math.ceil(MILLION / requests))


def price_of_batch(service: Service, sums: int) -> float:
    """Return the price of one request of the buffer in US dollars.

    Args:
        service: runs the functions.
        sums: the number of sums in the request.
    """
    increments = [{"counter_id": f"views:{number:03}", "by": 7} for number in range(sums)]
    return _price(service, "/increments", {"increments": increments}, changes=sums)


def _price(service: Service, path: str, body: dict[str, object], changes: int) -> float:
    for _ in range(2):  # the first change of a counter costs more
        key = {"Idempotency-Key": str(uuid.uuid4())}
        usage = service.request("POST", path, headers=key, body=body)
        recorded = service.record().times(changes)
    return Operation("a request", usage).total(recorded) / MILLION


def measure() -> Section:
    """Measure, and return the section of docs/benchmarks.md. This takes about a minute."""
    requests, seconds = count()
    calculated = [
        (counters, sums_per_request(counters, length), length, title)
        for title, length in (("a minute", 60), ("an hour", 3600), ("a day", 86_400))
        for counters in (1, COUNTERS)
    ]
    with running() as service:
        prices = {
            sums: price_of_batch(service, sums)
            for sums in sorted({COUNTERS, *(sums for _, sums, *_ in calculated)})
        }
        single = _price(service, "/counters/views:000", {"by": 1}, changes=1)
    measured = f"{requests * prices[COUNTERS]:.4f}"
    rows: list[list[object]] = [
        ["measured", COUNTERS, COUNTERS, requests, f"{seconds:.1f} s", measured],
        *(
            ["calculated", counters, sums, f"{length:,}", title, f"{length * prices[sums]:.4f}"]
            for counters, sums, length, title in calculated
        ),
        ["without a buffer", 1, 1, f"{MILLION:,}", "any", f"{MILLION * single:.2f}"],
    ]
    columns = [
        "a million increments",
        "counters",
        "sums in a request",
        "requests",
        "time",
        "US dollars",
    ]
    return Section(
        "A million increments through a buffer",
        "python -m bench.buffer",
        "\n\n".join([_TEXT, table(columns, rows)]),
    )


if __name__ == "__main__":
    print(measure().markdown())
