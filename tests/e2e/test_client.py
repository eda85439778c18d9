"""tally_client counts exactly, although replies are lost and connections are refused."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e import api_proxy
from tests.e2e.api_proxy import ApiProxy, Faults
from tests.e2e.service import Caller, wait_for
from tests.sizes import cases

from deployment import Stack
from tally_client import Increment, Tally

CHANGES = cases(5000, part=200)
THREADS = 8
DEADLINE = 120.0  # seconds; on a busy machine, a request can take seconds


@pytest.fixture
def proxy(stack: Stack) -> Iterator[ApiProxy]:
    with api_proxy.serving(stack, Faults(lost=0.2, refused=0.05, unavailable=0.05)) as proxy:
        yield proxy


@pytest.fixture
def tally(stack: Stack, proxy: ApiProxy) -> Iterator[Tally]:
    """A client that reaches the API through the proxy."""
    with Tally(
        proxy.url,
        token_url=stack.token_url,
        client_id=stack.client_id,
        client_secret=stack.client_secret,
        deadline=DEADLINE,
    ) as tally:
        yield tally


def in_threads(change: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(change, range(CHANGES)))


def report(name: str, proxy: ApiProxy, changes: int) -> None:
    """Print how many requests were sent, and check that each fault happened."""
    counts = proxy.counts
    sent = counts["connections"] + counts["refused"]
    print(f"\n{name}: {changes} changes, {sent / changes:.2f} requests per change, {dict(counts)}")


def test_each_increment_counts_once(tally: Tally, proxy: ApiProxy, caller: Caller) -> None:
    name = str(uuid.uuid4())

    in_threads(lambda _number: tally.increment(name, by=3))

    counter = caller.get(f"/counters/{name}").body
    assert (counter["value"], counter["version"]) == (3 * CHANGES, CHANGES)
    assert all(proxy.counts[fault] for fault in ("lost", "refused", "unavailable"))
    report("increment", proxy, CHANGES)


def test_each_group_of_increments_counts_once(
    tally: Tally, proxy: ApiProxy, caller: Caller
) -> None:
    stock, *sold = (str(uuid.uuid4()) for _ in range(3))

    def sell(number: int) -> None:
        counters = tally.increment_all([Increment(stock, -2), Increment(sold[number % 2], 2)])
        assert [each.counter_id for each in counters] == [stock, sold[number % 2]]

    in_threads(sell)

    left, *gone = (caller.get(f"/counters/{name}").body for name in (stock, *sold))
    assert (left["value"], left["version"]) == (-2 * CHANGES, CHANGES)
    assert sum(counter["value"] for counter in gone) == 2 * CHANGES
    assert all(proxy.counts[fault] for fault in ("lost", "refused", "unavailable"))
    report("increment_all", proxy, CHANGES)


def test_each_increment_through_a_buffer_counts_once(
    tally: Tally, proxy: ApiProxy, caller: Caller
) -> None:
    name = str(uuid.uuid4())
    rounds = cases(20, part=8)

    with tally.buffer(interval=0.05) as counts:
        for _ in range(rounds):  # several requests, so that faults meet some of them
            with ThreadPoolExecutor(THREADS) as pool:
                for number in range(CHANGES // rounds):
                    pool.submit(counts.increment, name, 5)
                    pool.submit(counts.increment, f"{name}:{number % 3}", -1)
            counts.flush()

    total = CHANGES // rounds * rounds
    counter = caller.get(f"/counters/{name}").body
    parts = [caller.get(f"/counters/{name}:{number}").body["value"] for number in range(3)]
    assert counter["value"] == 5 * total
    assert sum(parts) == -total
    entries = wait_for(
        lambda: caller.get(f"/counters/{name}/history?limit=1000").body,
        lambda entries: len(entries) == counter["version"],
    )
    assert sum(entry["increase"] for entry in entries) == 5 * total
    report("buffer", proxy, 2 * total)
