"""tally_client counts exactly, although replies are lost and connections are refused."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import httpx2
import pytest
from tests.e2e import api_proxy
from tests.e2e.api_proxy import ApiProxy, Deck
from tests.e2e.service import Caller, tally_of, wait_for
from tests.sizes import cases

from deployment import Stack
from local_settings import HOST
from tally_client import Increment, Tally

CHANGES = cases(5000, part=96)
THREADS = 8
# The more changes a counter has, the slower the emulator reads its history. So the changes are
# spread over several counters. Each counter is changed by several threads at once.
COUNTERS = cases(25, part=2)
FAULTS = ("lost", "refused", "unavailable", "throttled")  # each happens in each test
DEADLINE = 120.0  # seconds; on a busy machine, a request can take seconds


class Refusing(httpx2.BaseTransport):
    """The network of the client. It refuses 5 % of the connections to the proxy.

    For these connections, it uses a port on which nobody listens. The proxy counts them.
    """

    def __init__(self, proxy: ApiProxy, closed_port: int) -> None:
        self._proxy = proxy
        self._closed_port = closed_port
        self._deck = Deck(20, refused=1)
        self._network = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.port == self._proxy.server_port and self._deck.deal() == "refused":
            request.url = request.url.copy_with(port=self._closed_port)
        try:
            return self._network.handle_request(request)
        except httpx2.ConnectError:
            self._proxy.count("refused")
            raise

    def close(self) -> None:
        self._network.close()


@pytest.fixture
def proxy(stack: Stack) -> Iterator[ApiProxy]:
    """A proxy that loses 20 % of the replies, and answers 503 or 429 to 5 % of the requests."""
    deck = Deck(40, lost=8, unavailable=1, throttled=1)
    with api_proxy.serving(stack, lambda _method: deck.deal()) as proxy:
        yield proxy


@pytest.fixture
def tally(stack: Stack, proxy: ApiProxy) -> Iterator[Tally]:
    """A client that reaches the API through the proxy."""
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))  # no other process gets the port, and nobody listens on it
        transport = Refusing(proxy, nobody.getsockname()[1])
        through_proxy = replace(stack, url=proxy.stack.url)
        with tally_of(through_proxy, deadline=DEADLINE, transport=transport) as tally:
            yield tally


def in_threads(change: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(change, range(CHANGES)))


def new_names() -> list[str]:
    return [str(uuid.uuid4()) for _ in range(COUNTERS)]


def states(caller: Caller, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the value and the version of each counter."""
    counters = caller.get("/counters?" + "&".join(f"id={name}" for name in names)).body
    return [(counter["value"], counter["version"]) for counter in counters]


def report(name: str, proxy: ApiProxy, changes: int) -> None:
    """Print how many requests were sent, and check that each fault happened."""
    counts = proxy.counts
    assert all(counts[fault] for fault in FAULTS), counts
    sent = counts["requests"] + counts["refused"]
    print(f"\n{name}: {changes} changes, {sent / changes:.2f} requests per change, {dict(counts)}")


def test_each_increment_counts_once(tally: Tally, proxy: ApiProxy, caller: Caller) -> None:
    names = new_names()

    in_threads(lambda number: tally.increment(names[number % COUNTERS], by=3))

    each = CHANGES // COUNTERS
    assert states(caller, names) == [(3 * each, each)] * COUNTERS
    report("increment", proxy, CHANGES)


def test_each_group_of_increments_counts_once(
    tally: Tally, proxy: ApiProxy, caller: Caller
) -> None:
    stock, sold = new_names(), new_names()

    def sell(number: int) -> None:
        pair = stock[number % COUNTERS], sold[number % COUNTERS]
        counters = tally.increment_all([Increment(pair[0], -2), Increment(pair[1], 2)])
        assert [counter.counter_id for counter in counters] == list(pair)

    in_threads(sell)

    each = CHANGES // COUNTERS
    assert states(caller, stock) == [(-2 * each, each)] * COUNTERS
    assert states(caller, sold) == [(2 * each, each)] * COUNTERS
    report("increment_all", proxy, CHANGES)


def test_each_increment_through_a_buffer_counts_once(
    tally: Tally, proxy: ApiProxy, caller: Caller
) -> None:
    name = str(uuid.uuid4())
    # At least 32 requests succeed, so the proxy and the network have dealt all of their faults.
    rounds = cases(20, part=16)

    with tally.buffer(interval=0.05) as counts:
        for _ in range(rounds):  # each round sends additions and subtractions in two requests
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


def test_threads_share_one_token_until_it_expires(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = cases(1000, part=48)
    tokens: list[str] = []
    late = 0.0
    monotonic = time.monotonic
    clock = SimpleNamespace(monotonic=lambda: monotonic() + late)
    monkeypatch.setattr("tally_client.tokens.time", clock)

    class Counting(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            response = super().handle_request(request)
            if str(request.url) == stack.token_url:
                response.read()
                tokens.append(response.json()["access_token"])
            return response

    with (
        tally_of(stack, deadline=DEADLINE, transport=Counting()) as tally,
        ThreadPoolExecutor(16) as pool,
    ):
        list(pool.map(lambda _call: tally.get("never"), range(calls)))
        assert len(tokens) == 1
        late = 3600.0  # the life of a token
        list(pool.map(lambda _call: tally.get("never"), range(calls)))

    assert len(tokens) == 2
    print(
        f"\n{2 * calls} calls in 16 threads fetched {len(tokens)} tokens, one of them after expiry"
    )
