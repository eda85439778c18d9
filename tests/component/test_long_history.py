"""Reads and audits of a long history. A read costs the same at the start and at the end."""

from collections.abc import Iterator
from urllib.parse import quote

import botocore.session
import pytest
from tests.component.output import silence
from tests.meter import FACTORIES, Meter
from tests.past import BATCH, Past
from tests.sizes import cases
from tests.stack import Stack, running

from counters import clock

COUNT = cases(100_000, part=1_100)  # more than one page of an audit
FIRST = 1_790_000_000.0  # seconds since the epoch
INTERVAL = 7.0  # seconds

MAX_SEARCH_READS = 25


@pytest.fixture(scope="module")
def stack(session: botocore.session.Session) -> Iterator[Stack]:
    """A stack with a counter that was changed COUNT times, and its complete history and trend."""
    with running(session) as stack:
        past = Past("long")
        with silence():
            for number in range(COUNT):
                past.change(FIRST + INTERVAL * number, 1 if number % 3 else -1)
                if len(past.records) == BATCH:
                    past.record(stack)
                    past.records.clear()
        yield stack


@pytest.fixture
def meter(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:  # noqa: ARG001
    """A meter of the functions' requests. moto (in `stack`) must start before the meter."""
    for factory in FACTORIES:
        factory.cache_clear()
    # moto scans the whole history for each read. That can take longer than the function's timeout.
    # Stop the clock, so that the function does not notice.
    monkeypatch.setattr(clock, "now", lambda: FIRST + INTERVAL * COUNT + 3600)
    with Meter() as meter:
        yield meter


def at(number: float) -> str:
    """Return the time of a change, URL-encoded as a query parameter."""
    return quote(clock.timestamp(FIRST + INTERVAL * number))


def test_a_read_of_a_long_history_costs_the_same_anywhere(stack: Stack, meter: Meter) -> None:
    middle = COUNT // 2
    pages = {
        "history, first page": "",
        "history, page in the middle": f"after={middle}",
        "history, newest first": "order=desc",
        "history from the first change": f"from={at(0)}",
        "history from the middle": f"from={at(middle)}",
        "history from the middle, 2nd page": f"from={at(middle)}&after={middle + 100}",
        "history to the middle, newest first": f"to={at(middle)}&order=desc",
        "history from the 100th last change": f"from={at(COUNT - 100)}",
        "history from the 100th last change, after=1": f"from={at(COUNT - 100)}&after=1",
    }
    counters = {
        "counter": "",
        "counter before its first change": f"at={at(-1)}",
        "counter after a third of its changes": f"at={at(COUNT / 3)}",
        "counter in the middle": f"at={at(middle)}",
        "counter 10 changes before the last": f"at={at(COUNT - 11)}",
        "counter at the middle version": f"version={middle}",
    }
    reads, charged = {}, {}
    print(f"{COUNT} changes | reads | reported units | entries | units by size")
    for name, query in {**pages, **counters}.items():
        meter.clear()
        path = "/counters/long" if name in counters else "/counters/long/history"
        reply = stack.request("GET", path, query=query)
        reads[name], charged[name] = meter.requests.total(), meter.charged
        assert reply.status == 200, reply
        row = [reads[name], f"{meter.units['read']:g}", meter.items, f"{meter.charged:g}"]
        print(name, *row, sep=" | ")
        if name in pages:
            assert len(reply.body) == 100
    start, center, end = list(pages)[:3]
    assert reads[start] == reads[center] == reads[end] == 1
    # A later entry is larger, because its version and its value have more digits. Each digit takes
    # a byte.
    assert charged[end] - 0.5 <= charged[start] <= charged[center] <= charged[end] + 0.5
    assert reads["history from the middle, 2nd page"] == 2
    for name in pages:
        assert reads[name] <= 1 + MAX_SEARCH_READS
    for name in counters:
        assert reads[name] <= 1 + MAX_SEARCH_READS


def test_a_second_audit_of_a_long_history_reads_only_new_entries(
    stack: Stack, meter: Meter
) -> None:
    first = stack.invoke("AuditHistory", {"counter_id": "long"})
    print(f"{first['entries']} entries, {dict(meter.requests)}, {meter.charged:g} read units")
    meter.clear()
    second = stack.invoke("AuditHistory", {"counter_id": "long"})

    print(f"second audit: {meter.items} entries, {dict(meter.requests)}")
    assert first == {"counters": 1, "entries": COUNT, "finished": True, "findings": []}
    assert second == {"counters": 1, "entries": 0, "finished": True, "findings": []}
    assert meter.requests.total() <= 5
