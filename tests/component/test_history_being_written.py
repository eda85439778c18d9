"""Reads of a history during writes to it: each read gets a complete result or a 503.

RecordHistory writes an entry to the history after the change. It writes several entries with one
BatchWriteItem, and a later version can arrive before an earlier version. A read must not skip a
version that is written during the read.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from tests.component.links import target
from tests.component.partial_history import (
    get_history,
    is_throttled,
    make_counter,
    only_written,
    versions,
)
from tests.past import START, Past
from tests.sizes import cases
from tests.stack import Stack
from tests.times import HOUR
from tests.wire import Fault, Wire, delivered, denied, meanwhile, processed

from counters import clock

APPLY_WINDOW = 20  # seconds

# Each case has three numbers: how many changes the counter has, the last version at the time that
# the test reads, and how many changes are recorded before the read.
RACES = [(30, 29, 20), (30, 29, 0), (30, 10, 20), (130, 70, 40)]


def races(
    stack: Stack, wire: Wire, count: int, recorded: int, interval: float
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield one counter for each Query that a read makes.

    The history of the n-th counter is incomplete until just before the n-th Query. At this moment,
    the missing entries are written.

    Args:
        stack: the stack.
        wire: carries the functions' requests, and lets them fail.
        count: the number of changes of each counter.
        recorded: the number of changes that are recorded before the read.
        interval: the time from one change to the next, in seconds.

    Yields:
        The counter's id, and a function. The test must call the function after the read. From then
        on, queries write nothing.
    """
    for number in itertools.count():
        past = make_counter(count, interval, f"orders{number}")
        past.record(stack, past.records[:recorded])
        done: list[int] = []

        def write(past: Past = past, done: list[int] = done) -> None:
            done.append(stack.record(past.records[recorded:]))

        wire.fail("Query", [*itertools.repeat(delivered, number), meanwhile(write)])
        yield past.counter_id, partial(wire.fail, "Query", [])
        if not done:
            assert number > 1, "the read made only one Query"
            return


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize(("count", "last", "recorded"), RACES)
@pytest.mark.parametrize("interval", [1, 25])
def test_a_read_at_a_time_during_writes_returns_the_right_version_or_is_throttled(  # noqa: PLR0913, PLR0917
    stack: Stack, wire: Wire, count: int, last: int, recorded: int, interval: int
) -> None:
    time = clock.timestamp(START + interval * (last - 0.5))
    for name, remove_fault in races(stack, wire, count, recorded, interval):
        reply = stack.request("GET", f"/counters/{name}", query=f"at={time}")
        remove_fault()

        assert is_throttled(reply) or reply.body["version"] == reply.body["value"] == last
        if recorded > last and interval > APPLY_WINDOW:
            assert reply.status == 200


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize(("count", "last", "recorded"), RACES)
def test_a_period_that_is_read_during_writes_has_no_gap(
    stack: Stack, wire: Wire, count: int, last: int, recorded: int
) -> None:
    limit = count // 3
    boundary = clock.timestamp(START + last - 0.5)
    for name, remove_fault in races(stack, wire, count, recorded, 1):
        listed: list[int] = []
        query = f"order=desc&limit={limit}&to={boundary}"
        while query:
            reply = get_history(stack, query, name)
            if not is_throttled(reply):
                listed += versions(reply)
                link = reply.headers.get("Link")
                query = target(link).removeprefix("?") if link else ""
        remove_fault()

        newest = listed[0] if listed else 0
        assert listed == list(range(newest, 0, -1))
        assert newest in {min(recorded, last), last}

    for name, remove_fault in races(stack, wire, count, recorded, 1):
        listed = []
        reply = get_history(stack, f"limit={limit}&from={boundary}", name)
        while versions(reply):
            listed += versions(reply)
            reply = get_history(stack, f"limit={limit}&from={boundary}&after={listed[-1]}", name)
        remove_fault()

        newest = max(last, listed[-1] if listed else 0)
        assert listed == list(range(last + 1, newest + 1))
        assert newest in {max(recorded, last), count}


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize(("count", "last", "recorded"), RACES)
def test_minutes_that_are_read_during_writes_include_all_of_them_or_none(
    stack: Stack, wire: Wire, count: int, last: int, recorded: int
) -> None:
    start = (START + 10 * last) // 60 * 60
    query = f"interval=minute&from={clock.timestamp(start)}&to={clock.timestamp(start + 120)}"

    def minutes(up_to: int) -> list[tuple[int, int]]:
        times = [START + 10 * number for number in range(up_to)]
        ends = [start + 60, start + 120]
        return [
            (sum(end - 60 <= time < end for time in times), sum(time < end for time in times))
            for end in ends
        ]

    for name, remove_fault in races(stack, wire, count, recorded, 10):
        reply = stack.request("GET", f"/counters/{name}/trend", query=query)
        remove_fault()

        buckets = [(bucket["changes"], bucket["close"]) for bucket in reply.body]
        assert buckets in [minutes(recorded), minutes(count)]


class Reader:
    """A caller that reads a history page by page, in ascending (`asc`) or descending order."""

    def __init__(self, stack: Stack, order: str, limit: int) -> None:
        self.versions: list[int] = []
        self.finished = False
        self._stack = stack
        self._order = order
        self._query = f"order={order}&limit={limit}"
        self._first_query = self._query

    def read_page(self) -> None:
        """Read a page, and choose the next page to read.

        A reader in ascending order never sets `finished`, because more changes may follow.
        """
        if self.finished:
            return
        reply = get_history(self._stack, self._query)
        if is_throttled(reply):
            assert self._order == "desc"
            return
        page = versions(reply)
        self.versions += page
        if link := reply.headers.get("Link"):
            self._query = target(link).removeprefix("?")
        elif self._order == "asc":
            # The page is the last page so far.
            query = self._first_query
            self._query = f"{query}&after={self.versions[-1]}" if self.versions else query
        else:
            self.finished = bool(page)


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize("seed", range(cases(full=200, part=3)))
def test_a_reader_gets_each_version_once_while_the_history_is_written(
    stack: Stack, wire: Wire, seed: int
) -> None:
    rng = random.Random(seed)
    count = cases(full=60, part=40)
    past = make_counter(count)
    past.store(stack)
    readers = [Reader(stack, order, rng.choice([1, 3, 10, 100])) for order in ("asc", "desc")]

    def read_some_pages() -> None:
        for reader in readers:
            for _ in range(rng.randint(0, 2)):
                reader.read_page()

    def faults() -> Iterator[Fault]:
        while True:
            fault = rng.choice([only_written(rng.sample(range(25), 9)), processed(5), delivered])
            yield meanwhile(read_some_pages, rng.choice([fault, fault, denied]))

    wire.fail("BatchWriteItem", faults())
    wire.fail("UpdateItem", (rng.choice([delivered, denied]) for _ in itertools.count()))
    done = 0
    while done < len(past.records):
        done += stack.record(past.records[done : done + rng.randint(1, 40)])
    ascending, descending = readers
    for _ in range(150):
        for reader in readers:
            reader.read_page()
        if descending.finished and len(ascending.versions) >= count:
            break
    ascending.read_page()  # this page must be empty

    assert ascending.versions == list(range(1, count + 1))
    assert descending.finished
    assert descending.versions == list(range(descending.versions[0], 0, -1))


def test_each_page_of_a_complete_history_takes_one_read(
    stack: Stack, wire: Wire, set_clock: Callable[[float], None]
) -> None:
    set_clock(START + HOUR)
    make_counter(20).record(stack)
    wire.sent.clear()

    for query in ("", "order=desc", "limit=5", "order=desc&limit=5&after=11", "after=5"):
        versions(get_history(stack, query))

    assert wire.operations() == ["Query"] * 5
