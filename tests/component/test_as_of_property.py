"""Reads of counters with random histories. The expected answers come from a model in memory."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.component.links import follow
from tests.component.output import silence
from tests.component.reading import (
    BEGINNING,
    DAY,
    DELAYS,
    HOUR,
    MINUTE,
    SECOND,
    THROTTLED,
    problem,
    timestamp,
    version_at,
)
from tests.contents import delete_entries
from tests.past import Past
from tests.sizes import cases, examples
from tests.stack import Stack
from tests.wire import Wire

from counters import clock


@dataclass(frozen=True)
class Change:
    """A change of a counter in the model."""

    version: int
    time: int
    previous_value: int
    value: int
    operation: str

    @property
    def entry(self) -> dict[str, object]:
        return {
            "version": self.version,
            "value": self.value,
            "previous_value": self.previous_value,
            "by": self.value - self.previous_value,
            "increase": max(self.value - self.previous_value, 0),
            "decrease": max(self.previous_value - self.value, 0),
            "operation": self.operation,
            "actor": "somebody",
            "created_at": timestamp(self.time),
        }


def expected_state(changes: Sequence[Change], version: int) -> dict[str, object]:
    """Return the expected counter at a version, without `counter_id`."""
    if not version:
        return {"value": 0, "version": 0, "created_at": None, "updated_at": None}
    return {
        "value": changes[version - 1].value,
        "version": version,
        "created_at": timestamp(changes[0].time),
        "updated_at": timestamp(changes[version - 1].time),
    }


# Strategies for the time between two consecutive changes, in milliseconds. Each history uses one.
PACES = [
    st.integers(0, 40),
    st.integers(0, 3 * SECOND),
    st.integers(0, 30 * SECOND),
    st.integers(0, 2 * HOUR),
    st.one_of(st.just(0), st.integers(0, 20 * SECOND), st.integers(0, 3 * DAY)),
]


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    count = draw(st.integers(1, 60))
    pace = draw(st.sampled_from(PACES))
    delays = draw(st.sampled_from([st.just(0), DELAYS]))
    steps = st.tuples(pace, delays, st.integers(-9, 9), st.booleans())
    changes: list[Change] = []
    applied, value = BEGINNING, 0
    for gap, delay, by, is_set in draw(st.lists(steps, min_size=count, max_size=count)):
        applied += gap
        # Only a set can leave the value unchanged.
        operation = "set" if is_set or not by else "increment"
        changes.append(Change(len(changes) + 1, applied - delay, value, value + by, operation))
        value += by
    return changes


def times_to_check(times: Sequence[int]) -> list[int]:
    """Return the times at which to read a counter.

    These are:
    - the time of each change, one millisecond earlier, and one millisecond later;
    - two times before the first change, and one time after the last change.
    """
    around = {time + near for time in times for near in (-1, 0, 1)}
    outside = {min(times) - DAY, min(times) - 20 * SECOND, max(times) + DAY}
    return sorted(around | outside)


def sample(numbers: list[int], size: int, rng: random.Random) -> list[int]:
    return sorted(rng.sample(numbers, min(size, len(numbers))))


def periods(times: list[int], count: int, rng: random.Random) -> Iterator[Mapping[str, int]]:
    """Yield random periods: the parameters `from` and `to`, only `from`, only `to`, or neither."""
    for _ in range(count):
        start, end = sorted(rng.sample(times, 2))
        period = {"from": start, "to": end}
        for name in rng.choice([[], [], ["from"], ["to"], ["from", "to"]]):
            del period[name]
        yield period


def test_reads_of_random_histories_agree_with_the_model(stack: Stack) -> None:
    runs = itertools.count()
    requests = 0

    @examples(full=300, part=6)
    @given(histories(), st.integers(0, 2**32))
    def check(changes: list[Change], seed: int) -> None:
        nonlocal requests
        rng = random.Random(seed)
        name = f"run{next(runs)}"
        past = Past(name)
        for change in changes:
            past.change(change.time / 1000, change.value - change.previous_value, change.operation)
        past.record(stack)
        times = [change.time for change in changes]
        last = len(changes)

        def get(query: str) -> Any:  # noqa: ANN401
            nonlocal requests
            requests += 1
            reply = stack.request("GET", f"/counters/{name}", query=query)
            if reply.status != 200:
                return reply.status
            assert reply.headers["ETag"] == f'"{reply.body["version"]}"'
            return reply.body

        def expected(version: int) -> dict[str, object]:
            return {"counter_id": name, **expected_state(changes, version)}

        for version in sample(list(range(last + 1)), cases(full=61, part=6), rng):
            assert get(f"version={version}") == expected(version)
        assert get(f"version={last + 1}") == 404
        for time in sample(times_to_check(times), cases(full=30, part=5), rng):
            assert get(f"at={timestamp(time)}") == expected(version_at(times, time))
        for period in periods(times_to_check(times), cases(full=5, part=1), rng):
            start, end = period.get("from", times[0] - DAY), period.get("to", times[-1] + 2 * DAY)
            order = rng.choice(["asc", "desc"])
            limit = max(1, last // rng.randint(1, 5))
            query = "&".join(
                [f"order={order}&limit={limit}"]
                + [f"{name}={timestamp(time)}" for name, time in period.items()]
            )
            entries = [change.entry for change in changes if start <= change.time < end]
            pages = list(follow(stack, f"/counters/{name}/history", query))
            assert list(itertools.chain(*pages)) == entries[:: 1 if order == "asc" else -1]
            assert all(len(page) == limit for page in pages[:-1])
            assert pages[-1] or not entries
        # Delete the entries: moto scans the whole table for each Query.
        delete_entries(stack, *range(1, last + 1), counter_id=name)

    with silence():
        check()

    print(f"{requests} reads of {next(runs)} histories")
    assert requests > cases(full=300, part=6) * 5


def random_times(rng: random.Random) -> list[int]:
    """Return the times of 60 to 150 changes.

    In a history of this length, a read at a time also uses the trend.
    """
    applied, times = BEGINNING, []
    longest = rng.choice([MINUTE, 10 * MINUTE, 2 * HOUR])
    for _ in range(rng.randint(60, 150)):
        applied += rng.choice([0, rng.randint(0, 10 * SECOND), rng.randint(0, longest)])
        times.append(applied - rng.choice([0, rng.randint(0, 20 * SECOND - 1)]))
    return times


def corrupt_trend(stack: Stack, name: str, last: int, rng: random.Random) -> None:
    """Corrupt items of a counter's trend, each in one of these ways.

    - Delete the item.
    - Give the item a `last_version` that is too low.
    - Give the item random values of `first_version` and `last_version`.
    - Move the item to another hour.
    - Replace the item by a malformed item.
    """
    table = stack.refs["TrendTable"]
    share = rng.choice([0.2, 0.5, 1])
    for item in stack.items("TrendTable"):
        if item["counter_id"]["S"] != name or rng.random() > share:
            continue
        key = {"counter_id": item["counter_id"], "hour": item["hour"]}
        first, end = (int(item[version]["N"]) for version in ("first_version", "last_version"))
        stale = {"N": str(rng.randint(first, end))}
        false = [{"N": str(rng.randint(-1, last + 9))} for _ in range(2)]
        hour = clock.seconds(item["hour"]["S"]) + 3600 * rng.randint(-9, 9)
        wrong: list[Any] = [
            None,
            {**item, "last_version": stale},
            {**item, "first_version": false[0], "last_version": false[1]},
            {**item, "hour": {"S": clock.timestamp(hour)}},
            {**key, "first_version": {"N": "0.5"}, "last_version": {"S": "many"}},
        ]
        stack.dynamodb.delete_item(TableName=table, Key=key)
        if replacement := rng.choice(wrong):
            stack.dynamodb.put_item(TableName=table, Item=replacement)


def test_a_corrupt_trend_does_not_change_any_result(stack: Stack, wire: Wire) -> None:
    runs = itertools.count()

    @examples(full=300, part=3)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        name = f"run{next(runs)}"
        past = Past(name)
        times = random_times(rng)
        changes = [
            Change(version, time, version - 1, version, "increment")
            for version, time in enumerate(times, 1)
        ]
        for time in times:
            past.change(time / 1000, 1)
        past.record(stack)
        last = len(times)
        corrupt_trend(stack, name, last, rng)
        missing = rng.choice([[], rng.sample(range(1, last + 1), 9), range(1, last // 2)])
        delete_entries(stack, *missing, counter_id=name)

        for time in sample(times_to_check(times), cases(full=30, part=5), rng):
            reply = stack.request("GET", f"/counters/{name}", query=f"at={timestamp(time)}")
            if missing and reply.status != 200:
                assert problem(reply) == THROTTLED
            else:
                expected = {"counter_id": name, **expected_state(changes, version_at(times, time))}
                assert reply.body == expected
        for period in periods(times_to_check(times), cases(full=8, part=2), rng):
            start, end = period.get("from", times[0] - DAY), period.get("to", times[-1] + 2 * DAY)
            present = [change for change in changes if change.version not in missing]
            entries = [change.entry for change in present if start <= change.time < end]
            order = rng.choice(["asc", "desc"])
            query = "&".join(
                [f"order={order}&limit=40"]
                + [f"{name}={timestamp(time)}" for name, time in period.items()]
            )
            pages = list(follow(stack, f"/counters/{name}/history", query))
            assert list(itertools.chain(*pages)) == entries[:: 1 if order == "asc" else -1]
        if not missing:
            start = rng.choice(times) // MINUTE * MINUTE
            query = f"interval=minute&from={timestamp(start)}&to={timestamp(start + HOUR - 1)}"
            minutes = stack.request("GET", f"/counters/{name}/trend", query=query).body
            for bucket, begin in zip(minutes, range(start, start + HOUR, MINUTE), strict=True):
                end = begin + MINUTE
                assert bucket["changes"] == sum(begin <= time < end for time in times)
                assert (
                    bucket["close"] == expected_state(changes, version_at(times, end - 1))["value"]
                )
        delete_entries(stack, *range(1, last + 1), counter_id=name)

    with silence():
        check()

    tables = [sent.parameters.get("TableName") for sent in wire.sent if sent.operation == "Query"]
    trend_reads = tables.count(stack.refs["TrendTable"])
    print(f"{trend_reads} reads of the trends of {next(runs)} histories")
    assert trend_reads > cases(full=300, part=3) * 5
