"""What a reader is told while the history is being written: never less than is there, or a 503.

The history follows the counters, and a BatchWriteItem may write a later version before an earlier
one. No answer may depend on what was not there yet when a look-up began.
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
from tests.contents import delete_entries, prepare_once
from tests.past import Past
from tests.proxy import Reply
from tests.sizes import cases
from tests.stack import Item, Stack
from tests.wire import Fault, Wire, answered, delivered, denied, meanwhile, processed

from counters import clock

BEGINNING = 1_736_928_000  # 2025-01-15T08:00:00Z, in seconds since the epoch
HOUR, DAY = 3600, 24 * 3600
APPLY_WINDOW = 20
MOST = 2**53 - 1


@pytest.fixture
def now(
    wire: Wire,  # noqa: ARG001  it sets the time too
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[float], None]:
    """Sets the time, which stands still: an hour after BEGINNING at first."""
    times: list[float] = [BEGINNING + HOUR]
    monkeypatch.setattr(clock, "now", lambda: times[0])

    def let_it_be(time: float) -> None:
        times[0] = time

    return let_it_be


def past(count: int, interval: float = 1, name: str = "orders") -> Past:
    """Return a counter that was changed by 1 so many times, at this interval in seconds."""
    made = Past(name)
    for number in range(count):
        made.change(BEGINNING + interval * number, 1)
    return made


def written(positions: Collection[int]) -> Fault:
    """Return the fault of a BatchWriteItem that takes the items at these positions only."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        ((table, writes),) = json.loads(request.body)["RequestItems"].items()
        taken = [write for place, write in enumerate(writes) if place in positions]
        left = [write for place, write in enumerate(writes) if place not in positions]
        if taken:
            request.body = json.dumps({"RequestItems": {table: taken}}).encode()
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


def record_without_trend(stack: Stack, wire: Wire, made: Past, first: int, last: int) -> None:
    """Bring the versions from `first` to `last` into the history, but not into the trend."""
    wire.fail("UpdateItem", itertools.repeat(denied))
    assert stack.record(made.records[first - 1 : last]) == 0
    wire.fail("UpdateItem", [])


# --- Written between two reads -------------------------------------------------------------------

# How many changes the counter had, which of them is the last of the time, how many are recorded.
RACES = [(30, 29, 20), (30, 29, 0), (30, 10, 20), (130, 70, 40)]


def races(
    stack: Stack, wire: Wire, count: int, recorded: int, interval: float
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield counters whose history is written up to the end before the n-th Query, for every n.

    With each comes a function to be called before it is asked for, and again when it was.
    """
    for number in itertools.count():
        made = past(count, interval, f"orders{number}")
        made.record(stack, made.records[:recorded])
        done: list[int] = []

        def write(made: Past = made, done: list[int] = done) -> None:
            done.append(stack.record(made.records[recorded:]))

        wire.fail("Query", [*itertools.repeat(delivered, number), meanwhile(write)])
        yield made.counter_id, partial(wire.fail, "Query", [])
        if not done:
            assert number > 1, "there was no second Query to write before"
            return


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(("count", "last", "recorded"), RACES)
@pytest.mark.parametrize("interval", [1, 25])
def test_writes_during_a_read_of_a_time_do_not_make_it_wrong(  # noqa: PLR0913, PLR0917
    stack: Stack, wire: Wire, count: int, last: int, recorded: int, interval: int
) -> None:
    time = clock.timestamp(BEGINNING + interval * (last - 0.5))
    for name, stop in races(stack, wire, count, recorded, interval):
        reply = stack.request("GET", f"/counters/{name}", query=f"at={time}")
        stop()

        assert throttled(reply) or reply.body["version"] == reply.body["value"] == last
        if recorded > last and interval > APPLY_WINDOW:
            assert reply.status == 200


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(("count", "last", "recorded"), RACES)
def test_writes_during_a_read_of_a_period_make_no_gap_in_it(
    stack: Stack, wire: Wire, count: int, last: int, recorded: int
) -> None:
    limit = count // 3
    turn = clock.timestamp(BEGINNING + last - 0.5)
    for name, stop in races(stack, wire, count, recorded, 1):
        seen: list[int] = []
        query = f"order=desc&limit={limit}&to={turn}"
        while query:
            reply = history(stack, query, name)
            if not throttled(reply):
                seen += versions(reply)
                link = reply.headers.get("Link")
                query = target(link).removeprefix("?") if link else ""
        stop()

        newest = seen[0] if seen else 0
        assert seen == list(range(newest, 0, -1))
        assert newest in {min(recorded, last), last}

    for name, stop in races(stack, wire, count, recorded, 1):
        seen = []
        reply = history(stack, f"limit={limit}&from={turn}", name)
        while versions(reply):
            seen += versions(reply)
            reply = history(stack, f"limit={limit}&from={turn}&after={seen[-1]}", name)
        stop()

        newest = max(last, seen[-1] if seen else 0)
        assert seen == list(range(last + 1, newest + 1))
        assert newest in {max(recorded, last), count}


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(("count", "last", "recorded"), RACES)
def test_writes_during_a_read_of_minutes_are_all_in_them_or_none_is(
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

    for name, stop in races(stack, wire, count, recorded, 10):
        reply = stack.request("GET", f"/counters/{name}/trend", query=query)
        stop()

        given = [(bucket["changes"], bucket["close"]) for bucket in reply.body]
        assert given in [minutes(recorded), minutes(count)]


# --- Holes ---------------------------------------------------------------------------------------


@pytest.fixture
def holey(stack: Stack, wire: Wire, now: Callable[[float], None]) -> Past:
    """A counter whose versions 1 to 20 are recorded, but not 13; the trend has those up to 10."""
    now(BEGINNING + HOUR)
    made = past(20)

    def record() -> None:
        made.record(stack, made.records[:10])
        record_without_trend(stack, wire, made, 11, 20)
        delete_entries(stack, 13)

    prepare_once(stack, "orders without version 13", record)
    return made


@pytest.mark.usefixtures("holey")
@pytest.mark.parametrize("period", ["", "&from=2025-01-15T08:00:00Z"])
def test_an_ascending_page_ends_before_a_version_that_may_still_come(
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


@pytest.mark.usefixtures("holey")
@pytest.mark.parametrize("period", ["", "&to=2025-01-15T08:10:00Z"])
def test_a_descending_page_ends_before_a_version_that_may_still_come_and_links_to_more(
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
    """Return how many changes the minutes have, and the last version among them."""
    start, end = clock.timestamp(BEGINNING), clock.timestamp(BEGINNING + 600)
    query = f"interval=minute&from={start}&to={end}"
    reply = stack.request("GET", "/counters/orders/trend", query=query)
    assert reply.status == 200, reply.body
    changed = [bucket for bucket in reply.body if bucket["changes"]]
    return sum(bucket["changes"] for bucket in changed), changed[-1]["last_version"]


def test_minutes_end_before_a_version_that_may_still_come(
    stack: Stack, wire: Wire, holey: Past
) -> None:
    assert minutes(stack) == (12, 12)

    record_without_trend(stack, wire, holey, 13, 13)
    assert minutes(stack) == (20, 20)


def test_minutes_skip_a_version_that_will_not_come(stack: Stack, holey: Past) -> None:
    holey.record(stack, holey.records[13:])  # the trend has them now; 13 is parked, say

    assert minutes(stack) == (19, 20)


@pytest.mark.parametrize("position", range(8))
def test_minutes_have_no_gap_whenever_a_missing_version_arrives(
    stack: Stack, wire: Wire, holey: Past, position: int
) -> None:
    queries = itertools.count()

    def then_recorded(request: AWSPreparedRequest) -> AWSResponse:
        response = delivered(request)
        if next(queries) == position:
            holey.record(stack)
        return response

    wire.fail("Query", itertools.repeat(then_recorded))

    assert minutes(stack) in {(12, 12), (20, 20)}


def test_a_version_that_arrived_is_read_where_the_page_ended(
    stack: Stack, wire: Wire, holey: Past
) -> None:
    record_without_trend(stack, wire, holey, 13, 13)

    assert versions(history(stack, "after=12")) == list(range(13, 21))
    assert versions(history(stack, "order=desc&after=14")) == list(range(13, 0, -1))


def test_a_gap_below_the_last_version_in_the_trend_is_skipped(stack: Stack, holey: Past) -> None:
    without_13 = [*range(1, 13), *range(14, 21)]
    assert stack.record(holey.records[10:12] + holey.records[13:14]) == 3

    # The trend has version 14, so 13 was parked.
    assert versions(history(stack)) == without_13
    assert versions(history(stack, "order=desc")) == without_13[::-1]
    assert versions(history(stack, "order=desc&after=14")) == without_13[11::-1]


@pytest.mark.usefixtures("holey")
def test_a_gap_older_than_the_stream_is_skipped(stack: Stack, now: Callable[[float], None]) -> None:
    above = BEGINNING + 13  # when version 14 was made
    without_13 = [*range(1, 13), *range(14, 21)]

    now(above + DAY + APPLY_WINDOW)
    assert versions(history(stack)) == list(range(1, 13))
    assert throttled(history(stack, "order=desc&after=14"))
    now(above + DAY + APPLY_WINDOW + 0.001)
    assert versions(history(stack)) == without_13
    assert versions(history(stack, "order=desc&after=14")) == without_13[11::-1]


@pytest.mark.usefixtures("holey")
def test_a_descending_page_from_above_all_versions_begins_at_the_newest(stack: Stack) -> None:
    for after in (MOST, MOST - 1, 1000, 21):
        assert versions(history(stack, f"order=desc&limit=3&after={after}")) == [20, 19, 18]


@pytest.mark.usefixtures("holey")
@pytest.mark.parametrize("last_version", [None, {"S": "many"}, {"N": "0.5"}], ids=str)
def test_a_malformed_hour_of_the_trend_does_not_close_a_gap(
    stack: Stack, last_version: AttributeValueTypeDef | None
) -> None:
    item: Item = {"counter_id": {"S": "orders"}, "hour": {"S": clock.timestamp(BEGINNING + HOUR)}}
    if last_version:
        item["last_version"] = last_version
    stack.dynamodb.put_item(TableName=stack.refs["TrendTable"], Item=item)

    assert versions(history(stack)) == list(range(1, 13))


@pytest.mark.usefixtures("holey")
def test_a_first_version_that_may_still_come_is_waited_for(stack: Stack, wire: Wire) -> None:
    made = past(3, name="new")
    wire.fail("BatchWriteItem", [written({1, 2}), denied])
    assert stack.record(made.records) == 0

    assert versions(history(stack, name="new")) == []
    reply = history(stack, "order=desc", name="new")
    assert versions(reply) == [3, 2]
    assert "after=2" in target(reply.headers["Link"])
    assert throttled(history(stack, "order=desc&after=2", name="new"))

    made.record(stack)
    assert versions(history(stack, "order=desc&after=2", name="new")) == [1]


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("parked", [{1}, {1, 2, 3}, {5}, {4, 5, 9}, {19}, {10, 11, 12, 20}])
def test_parked_records_do_not_stop_a_reader(stack: Stack, parked: set[int]) -> None:
    made = past(20)
    for version in parked:
        del made.records[version - 1]["dynamodb"]["NewImage"]
    made.record(stack)
    there = [version for version in range(1, 21) if version not in parked]

    for limit in (1, 3, 1000):
        assert list(every_version(stack, f"limit={limit}")) == there
        assert list(every_version(stack, f"limit={limit}&order=desc")) == there[::-1]


def every_version(stack: Stack, query: str) -> Iterator[int]:
    """Yield what is on the pages, from one to the next."""
    while query:
        reply = history(stack, query)
        yield from versions(reply)
        link = reply.headers.get("Link")
        query = target(link).removeprefix("?") if link else ""


@pytest.mark.usefixtures("now")
def test_versions_above_a_parked_record_wait_until_the_trend_has_them(
    stack: Stack, wire: Wire
) -> None:
    made = past(9)
    del made.records[4]["dynamodb"]["NewImage"]
    made.record(stack, made.records[:5])
    record_without_trend(stack, wire, made, 6, 9)

    assert versions(history(stack)) == [1, 2, 3, 4]
    assert versions(history(stack, "order=desc")) == [9, 8, 7, 6]

    made.record(stack, made.records[5:])
    assert versions(history(stack)) == [1, 2, 3, 4, 6, 7, 8, 9]


class Reader:
    """Goes through the history in an order, at its own pace, and notes what it sees."""

    def __init__(self, stack: Stack, order: str, limit: int) -> None:
        self.seen: list[int] = []
        self.over = False
        self._stack = stack
        self._order = order
        self._query = f"order={order}&limit={limit}"
        self._begin = self._query

    def look(self) -> None:
        if self.over:
            return
        reply = history(self._stack, self._query)
        if throttled(reply):
            assert self._order == "desc"
            return
        found = versions(reply)
        self.seen += found
        if link := reply.headers.get("Link"):
            self._query = target(link).removeprefix("?")
        elif self._order == "asc":
            # The end of the history so far.
            self._query = f"{self._begin}&after={self.seen[-1]}" if self.seen else self._begin
        else:
            self.over = bool(found)


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("seed", range(cases(full=200, part=6)))
def test_a_reader_that_follows_the_writing_sees_each_version_once(
    stack: Stack, wire: Wire, seed: int
) -> None:
    chance = random.Random(seed)
    count = cases(full=60, part=40)
    made = past(count)
    made.store(stack)
    readers = [Reader(stack, order, chance.choice([1, 3, 10, 100])) for order in ("asc", "desc")]

    def look() -> None:
        for reader in readers:
            for _ in range(chance.randint(0, 2)):
                reader.look()

    def faults() -> Iterator[Fault]:
        while True:
            fault = chance.choice([written(chance.sample(range(25), 9)), processed(5), delivered])
            yield meanwhile(look, chance.choice([fault, fault, denied]))

    wire.fail("BatchWriteItem", faults())
    wire.fail("UpdateItem", (chance.choice([delivered, denied]) for _ in itertools.count()))
    done = 0
    while done < len(made.records):
        done += stack.record(made.records[done : done + chance.randint(1, 40)])
    ascending, descending = readers
    for _ in range(150):
        for reader in readers:
            reader.look()
        if descending.over and len(ascending.seen) >= count:
            break
    ascending.look()  # there is no more

    assert ascending.seen == list(range(1, count + 1))
    assert descending.over
    assert descending.seen == list(range(descending.seen[0], 0, -1))


def test_each_page_of_a_complete_history_takes_one_read(
    stack: Stack, wire: Wire, now: Callable[[float], None]
) -> None:
    now(BEGINNING + HOUR)
    past(20).record(stack)
    wire.sent.clear()

    for query in ("", "order=desc", "limit=5", "order=desc&limit=5&after=11", "after=5"):
        versions(history(stack, query))

    assert wire.operations() == ["Query"] * 5
