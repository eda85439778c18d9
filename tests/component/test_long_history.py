"""That a long history costs no more to look into than a short one, and that it can be audited."""

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

COUNT = cases(100_000, part=1_200)
FIRST = 1_790_000_000.0  # seconds since the epoch
INTERVAL = 7.0  # seconds

MOST_READS_MORE = 25


@pytest.fixture(scope="module")
def stack(session: botocore.session.Session) -> Iterator[Stack]:
    """A stack with a counter of COUNT changes, in history and trend."""
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
def meter(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Meter:  # noqa: ARG001  moto first
    for factory in FACTORIES:
        factory.cache_clear()
    # moto goes through the whole history for each read: that is not to be a matter of time.
    monkeypatch.setattr(clock, "now", lambda: FIRST + INTERVAL * COUNT + 3600)
    return Meter()


def at(number: float) -> str:
    """Return the time of a change, as a parameter."""
    return quote(clock.timestamp(FIRST + INTERVAL * number))


def test_a_read_of_the_past_costs_the_same_anywhere(stack: Stack, meter: Meter) -> None:
    middle = COUNT // 2
    pages = {
        "a page from the start": "",
        "a page from the middle": f"after={middle}",
        "a page from the end": "order=desc",
        "... from=the first change": f"from={at(0)}",
        "... from=the middle one": f"from={at(middle)}",
        "... from=the middle, its 2nd page": f"from={at(middle)}&after={middle + 100}",
        "... to=the middle, newest first": f"to={at(middle)}&order=desc",
        "... from=the last but 99": f"from={at(COUNT - 100)}",
        "... from=the last but 99, after=1": f"from={at(COUNT - 100)}&after=1",
    }
    looks = {
        "GET": "",
        "GET at=before the first": f"at={at(-1)}",
        "GET at=a third": f"at={at(COUNT / 3)}",
        "GET at=the middle": f"at={at(middle)}",
        "GET at=the last but 10": f"at={at(COUNT - 11)}",
        "GET version=the middle": f"version={middle}",
    }
    reads, charged = {}, {}
    print(f"{COUNT} changes | reads | reported units | entries | units by size")
    for name, query in {**pages, **looks}.items():
        meter.clear()
        path = "/counters/long" if name in looks else "/counters/long/history"
        answer = stack.request("GET", path, query=query)
        reads[name], charged[name] = meter.requests.total(), meter.charged
        assert answer.status == 200, answer
        row = [reads[name], f"{meter.units['read']:g}", meter.items, f"{meter.charged:g}"]
        print(name, *row, sep=" | ")
        if name in pages:
            assert len(answer.body) == 100
    start, center, end = list(pages)[:3]
    assert reads[start] == reads[center] == reads[end] == 1
    # Of the version and the value, a digit more is a byte more.
    assert charged[end] - 0.5 <= charged[start] <= charged[center] <= charged[end] + 0.5
    assert reads["... from=the middle, its 2nd page"] == 2
    for name in pages:
        assert reads[name] <= 1 + MOST_READS_MORE
    for name in looks:
        assert reads[name] <= 1 + MOST_READS_MORE


def test_a_long_history_is_audited_once_and_then_only_new_entries(
    stack: Stack, meter: Meter
) -> None:
    first = stack.invoke("AuditHistory", {"counter_id": "long"})
    print(f"{first['entries']} entries, {dict(meter.requests)}, {meter.charged:g} read units")
    meter.clear()
    second = stack.invoke("AuditHistory", {"counter_id": "long"})

    print(f"then {meter.items} more, {dict(meter.requests)}")
    assert first == {"counters": 1, "entries": COUNT, "finished": True, "findings": []}
    assert second == {"counters": 1, "entries": 0, "finished": True, "findings": []}
    assert meter.requests.total() <= 5
