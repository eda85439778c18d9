"""Reads of a history while it is being written: each returns a complete result or a 503.

Entries are written after their changes, and a BatchWriteItem can write a later version before an
earlier one. A read must not skip a version that is written while it runs.
"""

import itertools
import json
import random
from collections.abc import Callable, Collection, Iterator
from functools import partial
from http import HTTPStatus

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
from tests.component.links import target
from tests.contents import forget, prepare_once
from tests.past import Past
from tests.proxy import Reply
from tests.sizes import cases
from tests.stack import Item, Stack
from tests.wire import Fault, Wire, answered, delivered, denied, meanwhile, processed

from counters import clock

BEGINNING = 1_736_928_000  # 2025-01-15T08:00:00Z, in seconds since the epoch
HOUR, DAY = 3600, 24 * 3600
APPLY_WINDOW = 20  # seconds
MAX = 2**53 - 1


@pytest.fixture
def set_clock(
    wire: Wire,  # noqa: ARG001  it sets the clock too, so it comes first
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[float], None]:
    """A function that sets the clock. The clock is stopped, at first an hour after BEGINNING."""
    times: list[float] = [BEGINNING + HOUR]
    monkeypatch.setattr(clock, "now", lambda: times[0])

    def set_time(time: float) -> None:
        times[0] = time

    return set_time


def make_counter(count: int, interval: float = 1, name: str = "orders") -> Past:
    """Return a counter with `count` increments by 1, at an interval in seconds."""
    past = Past(name)
    for number in range(count):
        past.change(BEGINNING + interval * number, 1)
    return past


def only_written(positions: Collection[int]) -> Fault:
    """Return a fault that lets a BatchWriteItem write only the items at these positions."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        ((table, writes),) = json.loads(request.body)["RequestItems"].items()
        accepted = [write for place, write in enumerate(writes) if place in positions]
        left = [write for place, write in enumerate(writes) if place not in positions]
        if accepted:
            request.body = json.dumps({"RequestItems": {table: accepted}}).encode()
            delivered(request)
        unprocessed = {"UnprocessedItems": {table: left} if left else {}}
        return answered(request, HTTPStatus.OK, unprocessed)

    return fault


def history(stack: Stack, query: str = "", name: str = "orders") -> Reply:
    return stack.request("GET", f"/counters/{name}/history", query=query)


def versions(reply: Reply) -> list[int]:
    assert reply.status == 200, reply.body
    return [entry["version"] for entry in reply.body]


def throttled(reply: Reply) -> bool:
    return reply.status == 503 and reply.body["type"] == "urn:tally:problem:throttled"


def record_without_trend(stack: Stack, wire: Wire, past: Past, first: int, last: int) -> None:
    """Write the versions from `first` to `last` to the history, but not to the trend."""
    wire.fail("UpdateItem", itertools.repeat(denied))
    assert stack.record(past.records[first - 1 : last]) == 0
    wire.fail("UpdateItem", [])


# --- Writes between two queries ------------------------------------------------------------------

# The number of changes, the last version at the requested time, the number of recorded changes.
RACES = [(30, 29, 20), (30, 29, 0), (30, 10, 20), (130, 70, 40)]


def races(
    stack: Stack, wire: Wire, count: int, recorded: int, interval: float
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield a counter for each Query of a read: the rest of its history is written before that one.

    Args:
        stack: the stack.
        wire: the wire.
        count: the number of changes.
        recorded: the number of changes that are recorded before the read.
        interval: from one change to the next, in seconds.

    Yields:
        The counter's id, and a function to call after the read.
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
    time = clock.timestamp(BEGINNING + interval * (last - 0.5))
    for name, remove_fault in races(stack, wire, count, recorded, interval):
        reply = stack.request("GET", f"/counters/{name}", query=f"at={time}")
        remove_fault()

        assert throttled(reply) or reply.body["version"] == reply.body["value"] == last
        if recorded > last and interval > APPLY_WINDOW:
            assert reply.status == 200


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize(("count", "last", "recorded"), RACES)
def test_a_period_that_is_read_during_writes_has_no_gap(
    stack: Stack, wire: Wire, count: int, last: int, recorded: int
) -> None:
    limit = count // 3
    boundary = clock.timestamp(BEGINNING + last - 0.5)
    for name, remove_fault in races(stack, wire, count, recorded, 1):
        listed: list[int] = []
        query = f"order=desc&limit={limit}&to={boundary}"
        while query:
            reply = history(stack, query, name)
            if not throttled(reply):
                listed += versions(reply)
                link = reply.headers.get("Link")
                query = target(link).removeprefix("?") if link else ""
        remove_fault()

        newest = listed[0] if listed else 0
        assert listed == list(range(newest, 0, -1))
        assert newest in {min(recorded, last), last}

    for name, remove_fault in races(stack, wire, count, recorded, 1):
        listed = []
        reply = history(stack, f"limit={limit}&from={boundary}", name)
        while versions(reply):
            listed += versions(reply)
            reply = history(stack, f"limit={limit}&from={boundary}&after={listed[-1]}", name)
        remove_fault()

        newest = max(last, listed[-1] if listed else 0)
        assert listed == list(range(last + 1, newest + 1))
        assert newest in {max(recorded, last), count}


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize(("count", "last", "recorded"), RACES)
def test_minutes_that_are_read_during_writes_include_all_of_them_or_none(
    stack: Stack, wire: Wire, count: int, last: int, recorded: int
) -> None:
    start = (BEGINNING + 10 * last) // 60 * 60
    query = f"interval=minute&from={clock.timestamp(start)}&to={clock.timestamp(start + 120)}"

    def minutes(up_to: int) -> list[tuple[int, int]]:
        times = [BEGINNING + 10 * number for number in range(up_to)]
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


# --- Gaps ----------------------------------------------------------------------------------------


@pytest.fixture
def history_without_13(stack: Stack, wire: Wire, set_clock: Callable[[float], None]) -> Past:
    """A counter with versions 1 to 20, except 13, in the history, and 1 to 10 in the trend."""
    set_clock(BEGINNING + HOUR)
    past = make_counter(20)

    def record() -> None:
        past.record(stack, past.records[:10])
        record_without_trend(stack, wire, past, 11, 20)
        forget(stack, 13)

    prepare_once(stack, "orders without version 13", record)
    return past


@pytest.mark.usefixtures("history_without_13")
@pytest.mark.parametrize("period", ["", "&from=2025-01-15T08:00:00Z"])
def test_an_ascending_page_ends_before_a_version_that_can_still_be_recorded(
    stack: Stack, period: str
) -> None:
    for limit in (12, 13, 1000):
        reply = history(stack, f"limit={limit}{period}")
        assert versions(reply) == list(range(1, 13))
        assert "Link" not in reply.headers
    assert versions(history(stack, f"limit=11{period}")) == list(range(1, 12))
    assert "Link" in history(stack, f"limit=11{period}").headers
    assert versions(history(stack, f"after=12{period}")) == []
    assert versions(history(stack, f"after=13{period}")) == list(range(14, 21))


@pytest.mark.usefixtures("history_without_13")
@pytest.mark.parametrize("period", ["", "&to=2025-01-15T08:10:00Z"])
def test_a_descending_page_ends_before_a_version_that_can_still_be_recorded(
    stack: Stack, period: str
) -> None:
    for limit in (7, 8, 1000):
        reply = history(stack, f"order=desc&limit={limit}{period}")
        assert versions(reply) == list(range(20, 13, -1))
        assert "after=14" in target(reply.headers["Link"])
    reply = history(stack, f"order=desc&after=14{period}")
    assert throttled(reply)
    assert reply.headers["Retry-After"] == "1"
    assert versions(history(stack, f"order=desc&after=13{period}")) == list(range(12, 0, -1))


def minutes(stack: Stack) -> tuple[int, int | None]:
    """Return the number of changes in the trend by minute, and their last version."""
    start, end = clock.timestamp(BEGINNING), clock.timestamp(BEGINNING + 600)
    query = f"interval=minute&from={start}&to={end}"
    reply = stack.request("GET", "/counters/orders/trend", query=query)
    assert reply.status == 200, reply.body
    buckets = [bucket for bucket in reply.body if bucket["changes"]]
    return sum(bucket["changes"] for bucket in buckets), buckets[-1]["last_version"]


def test_minutes_end_before_a_version_that_can_still_be_recorded(
    stack: Stack, wire: Wire, history_without_13: Past
) -> None:
    assert minutes(stack) == (12, 12)

    record_without_trend(stack, wire, history_without_13, 13, 13)
    assert minutes(stack) == (20, 20)


def test_minutes_skip_a_version_that_was_parked(stack: Stack, history_without_13: Past) -> None:
    # When the trend has version 14, version 13 has been recorded or parked.
    history_without_13.record(stack, history_without_13.records[13:])

    assert minutes(stack) == (19, 20)


@pytest.mark.parametrize("position", range(8))
def test_minutes_have_no_gap_if_a_missing_version_is_recorded_during_the_read(
    stack: Stack, wire: Wire, history_without_13: Past, position: int
) -> None:
    queries = itertools.count()

    def then_recorded(request: AWSPreparedRequest) -> AWSResponse:
        response = delivered(request)
        if next(queries) == position:
            history_without_13.record(stack)
        return response

    wire.fail("Query", itertools.repeat(then_recorded))

    assert minutes(stack) in {(12, 12), (20, 20)}


def test_the_next_page_begins_with_a_version_that_was_missing_before(
    stack: Stack, wire: Wire, history_without_13: Past
) -> None:
    record_without_trend(stack, wire, history_without_13, 13, 13)

    assert versions(history(stack, "after=12")) == list(range(13, 21))
    assert versions(history(stack, "order=desc&after=14")) == list(range(13, 0, -1))


def test_a_gap_below_the_last_version_in_the_trend_is_skipped(
    stack: Stack, history_without_13: Past
) -> None:
    without_13 = [*range(1, 13), *range(14, 21)]
    assert stack.record(history_without_13.records[10:12] + history_without_13.records[13:14]) == 3

    # The trend has version 14, so version 13 was parked.
    assert versions(history(stack)) == without_13
    assert versions(history(stack, "order=desc")) == without_13[::-1]
    assert versions(history(stack, "order=desc&after=14")) == without_13[11::-1]


@pytest.mark.usefixtures("history_without_13")
def test_a_gap_older_than_the_stream_is_skipped(
    stack: Stack, set_clock: Callable[[float], None]
) -> None:
    next_change = BEGINNING + 13  # version 14
    without_13 = [*range(1, 13), *range(14, 21)]

    set_clock(next_change + DAY + APPLY_WINDOW)
    assert versions(history(stack)) == list(range(1, 13))
    assert throttled(history(stack, "order=desc&after=14"))
    set_clock(next_change + DAY + APPLY_WINDOW + 0.001)
    assert versions(history(stack)) == without_13
    assert versions(history(stack, "order=desc&after=14")) == without_13[11::-1]


@pytest.mark.usefixtures("history_without_13")
def test_a_descending_page_from_above_all_versions_begins_at_the_newest(stack: Stack) -> None:
    for after in (MAX, MAX - 1, 1000, 21):
        assert versions(history(stack, f"order=desc&limit=3&after={after}")) == [20, 19, 18]


@pytest.mark.usefixtures("history_without_13")
@pytest.mark.parametrize("last_version", [None, {"S": "many"}, {"N": "0.5"}], ids=str)
def test_a_malformed_hour_of_the_trend_does_not_close_a_gap(
    stack: Stack, last_version: AttributeValueTypeDef | None
) -> None:
    item: Item = {"counter_id": {"S": "orders"}, "hour": {"S": clock.timestamp(BEGINNING + HOUR)}}
    if last_version:
        item["last_version"] = last_version
    stack.dynamodb.put_item(TableName=stack.refs["TrendTable"], Item=item)

    assert versions(history(stack)) == list(range(1, 13))


@pytest.mark.usefixtures("history_without_13")
def test_no_page_skips_a_first_version_that_can_still_be_recorded(stack: Stack, wire: Wire) -> None:
    past = make_counter(3, name="new")
    wire.fail("BatchWriteItem", [only_written({1, 2}), denied])
    assert stack.record(past.records) == 0

    assert versions(history(stack, name="new")) == []
    reply = history(stack, "order=desc", name="new")
    assert versions(reply) == [3, 2]
    assert "after=2" in target(reply.headers["Link"])
    assert throttled(history(stack, "order=desc&after=2", name="new"))

    past.record(stack)
    assert versions(history(stack, "order=desc&after=2", name="new")) == [1]


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize("parked", [{1}, {1, 2, 3}, {5}, {4, 5, 9}, {19}, {10, 11, 12, 20}])
def test_pages_skip_the_versions_of_parked_records(stack: Stack, parked: set[int]) -> None:
    past = make_counter(20)
    for version in parked:
        del past.records[version - 1]["dynamodb"]["NewImage"]
    past.record(stack)
    present = [version for version in range(1, 21) if version not in parked]

    for limit in (1, 3, 1000):
        assert list(every_version(stack, f"limit={limit}")) == present
        assert list(every_version(stack, f"limit={limit}&order=desc")) == present[::-1]


def every_version(stack: Stack, query: str) -> Iterator[int]:
    """Yield the versions on all pages."""
    while query:
        reply = history(stack, query)
        yield from versions(reply)
        link = reply.headers.get("Link")
        query = target(link).removeprefix("?") if link else ""


@pytest.mark.usefixtures("set_clock")
def test_an_ascending_page_has_versions_above_a_parked_one_only_when_the_trend_has_them(
    stack: Stack, wire: Wire
) -> None:
    past = make_counter(9)
    del past.records[4]["dynamodb"]["NewImage"]
    past.record(stack, past.records[:5])
    record_without_trend(stack, wire, past, 6, 9)

    assert versions(history(stack)) == [1, 2, 3, 4]
    assert versions(history(stack, "order=desc")) == [9, 8, 7, 6]

    past.record(stack, past.records[5:])
    assert versions(history(stack)) == [1, 2, 3, 4, 6, 7, 8, 9]


class Reader:
    """Reads the history page by page, in one of the orders."""

    def __init__(self, stack: Stack, order: str, limit: int) -> None:
        self.versions: list[int] = []
        self.finished = False
        self._stack = stack
        self._order = order
        self._query = f"order={order}&limit={limit}"
        self._first_query = self._query

    def read_page(self) -> None:
        """Read a page, and choose the next one. An ascending reader never finishes."""
        if self.finished:
            return
        reply = history(self._stack, self._query)
        if throttled(reply):
            assert self._order == "desc"
            return
        page = versions(reply)
        self.versions += page
        if link := reply.headers.get("Link"):
            self._query = target(link).removeprefix("?")
        elif self._order == "asc":
            # This is the end of the history so far.
            query = self._first_query
            self._query = f"{query}&after={self.versions[-1]}" if self.versions else query
        else:
            self.finished = bool(page)


@pytest.mark.usefixtures("set_clock")
@pytest.mark.parametrize("seed", range(cases(full=200, part=6)))
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
    ascending.read_page()  # has no more versions

    assert ascending.versions == list(range(1, count + 1))
    assert descending.finished
    assert descending.versions == list(range(descending.versions[0], 0, -1))


def test_each_page_of_a_complete_history_takes_one_read(
    stack: Stack, wire: Wire, set_clock: Callable[[float], None]
) -> None:
    set_clock(BEGINNING + HOUR)
    make_counter(20).record(stack)
    wire.sent.clear()

    for query in ("", "order=desc", "limit=5", "order=desc&limit=5&after=11", "after=5"):
        versions(history(stack, query))

    assert wire.operations() == ["Query"] * 5
