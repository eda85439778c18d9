"""Measures operations on histories of up to a million changes, and in tables of many counters.

The functions run in this process. They use a database that computes the history with formulas
(bench/long_history.py). So the measured times do not include a slow emulator.
`python -m bench.scale` prints the section.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import botocore.session
from tests.meter import Meter
from tests.stack import Stack, running

from bench.history_operations import PAGE, PATH, TRANSACTION, History, Operation
from bench.long_history import (
    FIRST,
    INTERVAL,
    NAME,
    Database,
    change,
    counter,
    entry,
    hour,
    hours,
    moment,
)
from bench.output import captured
from bench.report import Section, lines, median, table
from bench.rounds import interleaved
from counters import clock

CHANGES = (1, 100, 10_000, 1_000_000)
COUNTERS = (1, 100, 10_000)
ROUNDS = 3  # each round measures every number of changes or counters once
TIMES = 7  # calls of each operation in a round; their median is the result of the round
MOST_COPIED = 1000  # counters; with more, a transaction is slow, because moto copies all tables
CHECKED = 600  # changes with which the formulas are checked: more than an hour of them
DRAWN = ("increment", "newest page", "page from a time", "`GET` at a time")


@dataclass(frozen=True)
class Taken:
    """What one operation takes.

    Attributes:
        requests: the number of requests to the database.
        entries: the number of history entries that the operation reads.
        units: the read and write units that DynamoDB charges.
        milliseconds: the CPU time of the function, without the CPU time of the database.
    """

    requests: int
    entries: int
    units: float
    milliseconds: float


def measure() -> Section:
    """Measure each operation with more and more changes, then with more and more counters.

    Returns:
        The section of docs/benchmarks.md.

    Raises:
        RuntimeError: if an operation has a wrong result.
    """
    session = botocore.session.get_session()
    with captured():
        _check(session)
        by_changes = _at_each(CHANGES, lambda changes: _taken(session, changes, 1))
        by_counters = _at_each(COUNTERS, lambda count: _taken(session, PAGE, count))
    drawn = [[taken[name].milliseconds for taken in by_changes] for name in DRAWN]
    parts = (
        _HISTORY,
        table(
            ["requests / units, by number of changes", *map(_number, CHANGES)],
            _rows(by_changes, _charged),
        ),
        _TIMES,
        table(
            ["milliseconds, by number of changes", *map(_number, CHANGES)],
            _rows(by_changes, _time),
        ),
        lines(
            f"CPU time by number of changes: {', '.join(DRAWN)}".replace("`", ""),
            "milliseconds",
            [_number(changes) for changes in CHANGES],
            drawn,
        ),
        _COUNTERS,
        table(
            ["requests / units / ms, by number of counters", *map(_number, COUNTERS)],
            _rows(by_counters, lambda each: f"{_charged(each)} / {_time(each)}"),
        ),
    )
    return Section(
        "Does it stay flat as the history grows?", "python -m bench.scale", "\n\n".join(parts)
    )


_HISTORY = f"""
The table has two numbers for each operation on one counter. The first is the number of requests to
the database. The second is the read or write units that DynamoDB charges for items of this size.
The counter has 1 to a million changes, one every {INTERVAL} seconds.

- The history is not stored. When a function reads entries, formulas compute them. So the times do
  not include the slow scans of an emulator.
- Every response is checked. The formulas are checked with a history of {CHECKED:,} changes: the
  computed history must equal the history that `record_history` writes, and every response must
  equal the response of an ordinary emulated database.
- A look-up by time finds the hour in the trend, and then searches only the changes of that hour. So
  the number of requests is the same for all histories that are longer than an hour.
- An item grows slightly with the version: each additional digit of a number takes half a byte.
""".strip()

_TIMES = f"""
The next table shows the CPU time of the function, without the CPU time of the database. There are
{ROUNDS} rounds. Each round calls the operation {TIMES} times at each length of history, and takes
the median. The table shows, for each length, the median of the {ROUNDS} rounds.
""".strip()

_COUNTERS = f"""
The next table shows the same operations on a counter with {PAGE} changes, in a table of 1 to
{COUNTERS[-1]:,} counters. A request for a page of counter names reads an index. It reads one item
more than the page has names. For each transaction, the emulator copies all of its tables. So
`POST /increments` is measured with at most {MOST_COPIED:,} counters.
""".strip()


def _check(session: botocore.session.Session) -> None:
    """Compare the computed history with what the functions write into an emulated database.

    Raises:
        RuntimeError: if the two histories, or the responses for them, differ.
    """
    with _stack(session, CHECKED) as stack:
        for first in range(1, CHECKED + 1, PAGE):
            stack.record([change(version) for version in range(first, first + PAGE)])
        stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=counter(CHECKED))
        written = stack.items("HistoryTable"), stack.items("TrendTable")
        answers = _answers(stack)
        meter = Meter()
        for operation in History(stack, CHECKED).reads():
            _run(operation)
        requests = meter.requests.total(), meter.items
    entries = [entry(version) for version in range(1, CHECKED + 1)]
    trend = [hour(number, CHECKED) for number in range(hours(CHECKED))]
    if (_sorted(written[0]), _sorted(written[1])) != (_sorted(entries), _sorted(trend)):
        detail = "the formula and record_history give different histories"
        raise RuntimeError(detail)
    with _stack(session, CHECKED) as stack:
        Database(stack, CHECKED)
        meter = Meter()
        for operation in History(stack, CHECKED).reads():
            _run(operation)
        if (meter.requests.total(), meter.items) != requests or _answers(stack) != answers:
            detail = "the formula and the emulated database give different responses"
            raise RuntimeError(detail)


def _answers(stack: Stack) -> list[object]:
    """Return responses for versions and times at the start, middle and end of the history."""
    places = [0.5, 1, 3.5, CHECKED / 2, CHECKED - 11.5, CHECKED]
    queries = [("", "")]
    for place in places:
        time_of, version = quote(moment(place)), int(place)
        queries += [("", f"at={time_of}"), ("", f"version={version}")]
        queries += [("/history", f"from={time_of}&limit=7"), ("/history", f"after={version}")]
        queries += [("/history", f"to={time_of}&order=desc&limit=7")]
        queries += [("/trend", f"to={time_of}"), ("/trend", f"interval=day&from={time_of}")]
        queries += [("/trend", f"interval=minute&to={time_of}")]
    return [stack.request("GET", f"{PATH}{path}", query=query) for path, query in queries]


def _sorted(items: Sequence[Any]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


@contextlib.contextmanager
def _stack(session: botocore.session.Session, changes: int) -> Iterator[Stack]:
    """Start a stack. Its clock shows an hour after the counter's last change."""
    now = FIRST + INTERVAL * changes + 3600.0
    with patch.object(clock, "now", lambda: now), running(session) as stack:
        yield stack


def _at_each(
    sizes: Sequence[int], take: Callable[[int], dict[str, Taken]]
) -> list[dict[str, Taken]]:
    """Return what each operation takes at each size. CPU times are the medians of all rounds."""
    rounds = interleaved({str(size): partial(take, size) for size in sizes}, ROUNDS)
    return [
        {
            name: replace(taken, milliseconds=median([each[name].milliseconds for each in all_]))
            for name, taken in all_[0].items()
        }
        for all_ in rounds.values()
    ]


def _taken(session: botocore.session.Session, changes: int, count: int) -> dict[str, Taken]:
    """Return what each operation takes on one counter.

    Args:
        session: creates the clients.
        changes: how many changes the counter has had.
        count: how many counters there are.
    """
    others = [f"many:{number:05}" for number in range(1, count)]
    with _stack(session, changes) as stack:
        database = Database(stack, changes)
        for first in range(0, len(others), 25):  # 25 items are the maximum for one request
            puts: list[Any] = [
                {"PutRequest": {"Item": {**counter(changes), "counter_id": {"S": name}}}}
                for name in others[first : first + 25]
            ]
            table_name = stack.refs["CounterTable"]
            stack.dynamodb.batch_write_item(RequestItems={table_name: puts})
        history = History(stack, changes, [NAME, *others])
        operations = [*history.reads(), *history.writes()]
        if count > MOST_COPIED:
            operations = [each for each in operations if each.name != TRANSACTION]
        return _measured(operations, database)


def _measured(operations: Sequence[Operation], database: Database) -> dict[str, Taken]:
    meter = Meter()
    found = {}
    for operation in operations:
        _run(operation)  # the first call costs more, because it may create items
        took = []
        for _ in range(TIMES):
            meter.clear()
            before, began = database.seconds, time.thread_time()
            _run(operation)
            took.append(time.thread_time() - began - (database.seconds - before))
        units = meter.units.total()
        requests = meter.requests.total()
        found[operation.name] = Taken(requests, meter.items, units, 1000 * median(took))
    return found


def _run(operation: Operation) -> None:
    if not operation.make():
        detail = f"wrong result: {operation.name}"
        raise RuntimeError(detail)


def _rows(
    measured: Sequence[dict[str, Taken]], shown: Callable[[Taken], str]
) -> list[list[object]]:
    return [
        [name, *(shown(taken[name]) if name in taken else "-" for taken in measured)]
        for name in measured[0]
    ]


def _charged(taken: Taken) -> str:
    return f"{taken.requests} / {taken.units:.1f}"


def _time(taken: Taken) -> str:
    return f"{taken.milliseconds:.2f}"


def _number(number: int) -> str:
    return f"{number:,}"


if __name__ == "__main__":
    print(measure().markdown())
