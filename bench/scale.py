"""What each operation takes against histories of 1 to a million changes, and 1 to 10,000 counters.

The functions run in this process, against a database that answers from a formula
(bench/long_history.py), so that no emulator's own slowness is measured. `python -m bench.scale`
prints the section.
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
    value,
)
from bench.output import captured
from bench.report import Section, lines, median, table
from bench.rounds import interleaved
from counters import clock

CHANGES = (1, 100, 10_000, 1_000_000)
COUNTERS = (1, 100, 10_000)
ROUNDS = 3  # with each size once
TIMES = 7  # how often each operation is made in a round, for the median of its time
MOST_COPIED = 1000  # counters: for a transaction the emulator copies all of its tables
CHECKED = 600  # changes that the formula is compared with: more than an hour of them
PAGE = 100  # entries, or names, if no limit is given
DAY = 24  # hours
TOGETHER = 10  # increments of a POST /increments, messages of a batch

PATH = f"/counters/{NAME}"
TRANSACTION = f"`POST /increments` of {TOGETHER}"
DRAWN = ("increment", "newest page", "page from a time", "`GET` at a time")


@dataclass(frozen=True)
class Taken:
    """What one operation takes: `requests` to the database, `entries` read by queries.

    `milliseconds` is the processor time of the function, without the database's.
    """

    requests: int
    entries: int
    units: float
    milliseconds: float


@dataclass(frozen=True)
class Operation:
    """An operation, and what makes it; that returns whether the answer is right."""

    name: str
    make: Callable[[], bool]


class History:
    """A counter with so many changes, in the stack, and every operation on it."""

    def __init__(self, stack: Stack, changes: int, names: Sequence[str] = (NAME,)) -> None:
        """Take the stack, how many changes its counter has had, and all counters' names."""
        self._stack = stack
        self._changes = changes
        self._names = sorted(names)
        self._middle = (changes + 1) // 2
        self._version = changes  # that the counter has by now
        self._recorded = changes
        self._messages = 0

    def reads(self) -> list[Operation]:
        """Return the operations that change nothing; they are made first."""
        n, middle = self._changes, self._middle
        at_middle = quote(moment(middle))
        page = f"{PATH}/history"
        newest = range(n, max(0, n - PAGE), -1)
        after = range(middle + 1, min(n, middle + PAGE) + 1)
        since = range(middle, min(n, middle + PAGE - 1) + 1)
        end = quote(moment(n))
        day = quote(clock.timestamp(FIRST + INTERVAL * (n - 1) - (DAY - 1) * 3600))
        half = (len(self._names) + 1) // 2
        return [
            Operation("`GET`", lambda: self._is(n, "")),
            Operation("`GET` at a version", lambda: self._is(middle, f"version={middle}")),
            Operation("`GET` at a time", lambda: self._is(middle, f"at={at_middle}")),
            Operation("newest page", lambda: self._lists(page, "order=desc", newest)),
            Operation("page from the middle", lambda: self._lists(page, f"after={middle}", after)),
            Operation("page from a time", lambda: self._lists(page, f"from={at_middle}", since)),
            Operation("trend, a day by hour", lambda: self._adds_up(f"from={day}&to={end}")),
            Operation("names, the first page", lambda: self._names_from(0, "")),
            Operation(
                "names, from the middle",
                lambda: self._names_from(half, f"after={self._names[half - 1]}"),
            ),
        ]

    def writes(self) -> list[Operation]:
        """Return the operations that change the counter; each is made once beforehand."""
        return [
            Operation("record_history, 1 change", self._record),
            Operation("increment", lambda: self._increment(None)),
            Operation("increment with a key", lambda: self._increment(str(time.monotonic_ns()))),
            Operation("set", self._set),
            Operation(TRANSACTION, self._increment_all),
            Operation(f"queue, a batch of {TOGETHER}", self._ingest),
        ]

    def _get(self, path: str, query: str) -> Any:  # noqa: ANN401
        return self._stack.request("GET", path, query=query).body

    def _is(self, version: int, query: str) -> bool:
        body = self._get(PATH, query)
        expected = (version, value(version), moment(version))
        return (body["version"], body["value"], body["updated_at"]) == expected

    def _lists(self, path: str, query: str, versions: Sequence[int]) -> bool:
        found = [(each["version"], each["value"]) for each in self._get(path, query)]
        return found == [(version, value(version)) for version in versions]

    def _adds_up(self, query: str) -> bool:
        buckets = self._get(f"{PATH}/trend", f"interval=hour&{query}")
        expected = min(self._changes, _changes_from(buckets[0]["start"], self._changes))
        last = buckets[-1]
        closed = (last["last_version"], last["close"]) == (self._changes, value(self._changes))
        total = sum(bucket["changes"] for bucket in buckets)
        return len(buckets) == DAY and closed and total == expected

    def _names_from(self, first: int, query: str) -> bool:
        return bool(self._get("/counters", query) == self._names[first : first + PAGE])

    def _changed(self, body: dict[str, Any]) -> bool:
        self._version += 1
        return bool(body["version"] == self._version)

    def _increment(self, key: str | None) -> bool:
        headers = {"Idempotency-Key": key} if key else {}
        return self._changed(self._stack.request("POST", PATH, headers=headers).body)

    def _set(self) -> bool:
        body = self._stack.request("PUT", PATH, body={"value": self._version}).body
        return bool(body["value"] == self._version) and self._changed(body)

    def _increment_all(self) -> bool:
        names = [NAME, *(f"other:{number}" for number in range(1, TOGETHER))]
        body = {"increments": [{"counter_id": name} for name in names]}
        answer = self._stack.request("POST", "/increments", body=body).body
        return [each["counter_id"] for each in answer] == names and self._changed(answer[0])

    def _ingest(self) -> bool:
        records = []
        for _ in range(TOGETHER):
            self._messages += 1
            records.append(
                {
                    "messageId": f"00000000-0000-4000-8000-{self._messages:012}",
                    "body": json.dumps({"counter_id": NAME}),
                    "attributes": {
                        "SequenceNumber": str(18849496460467696128 + 256 * self._messages),
                        "MessageGroupId": NAME,
                        "SenderId": "AROAEXAMPLE12345678AB:checkout",
                    },
                    "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:queue.fifo",
                }
            )
        reply = self._stack.invoke("IngestIncrements", {"Records": records})
        self._version += 1
        return bool(reply == {"batchItemFailures": []})

    def _record(self) -> bool:
        self._recorded += 1
        return self._stack.record([change(self._recorded)]) == 1


def measure() -> Section:
    """Return what each operation takes as the history, and the number of counters, grows.

    Raises:
        RuntimeError: an answer is wrong, so that what it takes says nothing.
    """
    session = botocore.session.get_session()
    with captured():
        _check(session)
        by_changes = _at_each(CHANGES, lambda changes: _taken(session, changes, 1))
        by_counters = _at_each(COUNTERS, lambda count: _taken(session, PAGE, count))
    drawn = [[taken[name].milliseconds for taken in by_changes] for name in DRAWN]
    parts = (
        _HISTORY,
        table(["requests / units", *map(_power, CHANGES)], _rows(by_changes, _charged)),
        _TIMES,
        table(["milliseconds", *map(_power, CHANGES)], _rows(by_changes, _time)),
        lines(
            f"Processor time by changes of history: {', '.join(DRAWN)}".replace("`", ""),
            "milliseconds",
            [_power(changes) for changes in CHANGES],
            drawn,
        ),
        _COUNTERS,
        table(
            ["requests / units / ms", *map(_power, COUNTERS)],
            _rows(by_counters, lambda each: f"{_charged(each)} / {_time(each)}"),
        ),
    )
    return Section(
        "Does it stay flat as the history grows?", "python -m bench.scale", "\n\n".join(parts)
    )


_HISTORY = f"""
Requests to the database, and the read or write units that DynamoDB charges for them by the size of
the items, of each operation on one counter with 1 to a million changes, one every {INTERVAL}
seconds. The history is computed when it is asked for: no emulator's scan is measured. The answers
are checked, and for {CHECKED:,} changes the formula is compared with what `record_history` writes,
and every answer with that of an ordinary emulated database. A time is looked up in the trend's
hours and then among the changes of one hour: from the first full hour on that is flat, too. Of a
number in an item, a digit more is half a byte more.
""".strip()

_TIMES = f"""
Processor time of the function, without the database: the median of {ROUNDS} rounds, each with every
length in turn, of which the median of {TIMES} is taken.
""".strip()

_COUNTERS = f"""
The same among so many counters, of which one has {PAGE} changes. The names come from an index, and
a page of them reads its own and one more. For a transaction the emulator copies all of its tables,
so with more than {MOST_COPIED:,} counters there is none here.
""".strip()


def _check(session: botocore.session.Session) -> None:
    """Compare the formula with what the functions themselves write into an emulated database.

    Raises:
        RuntimeError: they differ.
    """
    with _stack(session, CHECKED) as stack:
        for first in range(1, CHECKED + 1, PAGE):
            stack.record([change(version) for version in range(first, first + PAGE)])
        stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=counter(CHECKED))
        written = stack.items("HistoryTable"), stack.items("TrendTable")
        answers = _answers(stack)
        meter = Meter()
        for operation in History(stack, CHECKED).reads():
            _made(operation)
        requests = meter.requests.total(), meter.items
    entries = [entry(version) for version in range(1, CHECKED + 1)]
    trend = [hour(number, CHECKED) for number in range(hours(CHECKED))]
    if (_sorted(written[0]), _sorted(written[1])) != (_sorted(entries), _sorted(trend)):
        detail = "the formula is not what record_history writes"
        raise RuntimeError(detail)
    with _stack(session, CHECKED) as stack:
        Database(stack, CHECKED)
        meter = Meter()
        for operation in History(stack, CHECKED).reads():
            _made(operation)
        if (meter.requests.total(), meter.items) != requests or _answers(stack) != answers:
            detail = "the formula does not answer as the emulated database"
            raise RuntimeError(detail)


def _answers(stack: Stack) -> list[object]:
    """Return what the stack answers to a look at each place of the history that is special."""
    places = [0.5, 1, 3.5, CHECKED / 2, CHECKED - 11.5, CHECKED]
    asked = [("", "")]
    for place in places:
        time_of, version = quote(moment(place)), int(place)
        asked += [("", f"at={time_of}"), ("", f"version={version}")]
        asked += [("/history", f"from={time_of}&limit=7"), ("/history", f"after={version}")]
        asked += [("/history", f"to={time_of}&order=desc&limit=7")]
        asked += [("/trend", f"to={time_of}"), ("/trend", f"interval=day&from={time_of}")]
        asked += [("/trend", f"interval=minute&to={time_of}")]
    return [stack.request("GET", f"{PATH}{path}", query=query) for path, query in asked]


def _sorted(items: Sequence[Any]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


@contextlib.contextmanager
def _stack(session: botocore.session.Session, changes: int) -> Iterator[Stack]:
    """Start a stack an hour after the last of so many changes."""
    now = FIRST + INTERVAL * changes + 3600.0
    with patch.object(clock, "now", lambda: now), running(session) as stack:
        yield stack


def _at_each(
    sizes: Sequence[int], take: Callable[[int], dict[str, Taken]]
) -> list[dict[str, Taken]]:
    """Return what each operation takes at each size: its time is the median of the rounds."""
    rounds = interleaved({str(size): partial(take, size) for size in sizes}, ROUNDS)
    return [
        {
            name: replace(taken, milliseconds=median([each[name].milliseconds for each in all_]))
            for name, taken in all_[0].items()
        }
        for all_ in rounds.values()
    ]


def _taken(session: botocore.session.Session, changes: int, count: int) -> dict[str, Taken]:
    """Return what each operation takes on a counter with so many changes, one of so many."""
    others = [f"many:{number:05}" for number in range(1, count)]
    with _stack(session, changes) as stack:
        database = Database(stack, changes)
        for first in range(0, len(others), 25):  # as many as one request takes
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
        _made(operation)  # what is new costs more, once; and so does the first time in a process
        took = []
        for _ in range(TIMES):
            meter.clear()
            before, began = database.seconds, time.thread_time()
            _made(operation)
            took.append(time.thread_time() - began - (database.seconds - before))
        units = meter.units.total()
        requests = meter.requests.total()
        found[operation.name] = Taken(requests, meter.items, units, 1000 * median(took))
    return found


def _made(operation: Operation) -> None:
    if not operation.make():
        detail = f"a wrong answer: {operation.name}"
        raise RuntimeError(detail)


def _changes_from(start: str, changes: int) -> int:
    """Return how many of the changes are not before a time."""
    before = (clock.seconds(start) - FIRST + INTERVAL - 1) // INTERVAL
    return changes - max(0, int(before))


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


def _power(number: int) -> str:
    return f"{number:,}"


if __name__ == "__main__":
    print(measure().markdown())
