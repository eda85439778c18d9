"""A correct run for the tests of tests/e2e/linearizability.py, the linearizability checker.

A run has the calls of all callers, and the resulting histories of two counters.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.e2e.linearizability import check
from tests.e2e.recorded_run import Answer, Call, CounterState, Entry, Run, Update

BEGAN = "2026-11-22T10:00:01.000Z"


def time_of(version: int) -> str:
    return f"2026-11-22T10:00:0{version}.000Z"


def entry(version: int, previous: int, value: int, request_id: str, **changed: Any) -> Entry:  # noqa: ANN401
    by = value - previous
    new = Entry(
        version, value, previous, by, "increment", "me", time_of(version), BEGAN, request_id
    )
    return new._replace(**changed)


# The histories of the counters a and b.
A = [
    entry(1, 0, 2, "first"),
    entry(2, 2, 10, "set", operation="set"),
    entry(3, 10, 9, "keyed"),
    entry(4, 9, 14, "move"),
]
B = [entry(1, 0, -5, "move")]


def counter(name: str, last: Entry) -> dict[str, Any]:
    """Return a counter after its last change, `last`, as the API shows the counter."""
    return {
        "counter_id": name,
        "value": last.value,
        "version": last.version,
        "created_at": last.counter_created_at,
        "updated_at": last.created_at,
    }


def page_entry(stored: Entry) -> dict[str, Any]:
    """Return an entry as the API shows it on a page of history."""
    names = ("version", "value", "previous_value", "by", "operation", "actor", "created_at")
    parts = {"increase": max(stored.by, 0), "decrease": max(-stored.by, 0)}
    return {name: getattr(stored, name) for name in names} | parts


def problem(status: int, kind: str, **members: object) -> Answer:
    return Answer(status, {"type": f"urn:tally:problem:{kind}", **members})


def bucket(**changed: object) -> dict[str, object]:
    sums = {"changes": 4, "increase": 15, "decrease": 1, "first_version": 1, "last_version": 4}
    return {"start": "2026-11-22T10:00:00.000Z", **sums, "close": 14, **changed}


FIRST = Call(
    "increment", ("a",), 1, 2, Answer(200, counter("a", A[0])), "first", updates=(Update(by=2),)
)
SET = Call(
    "set",
    ("a",),
    3,
    4,
    Answer(200, counter("a", A[1])),
    "set",
    updates=(Update(value=10, expected=1),),
)
# The function of the first call was killed after it had made the change. The function of the second
# call found the change.
KEYED = Call("increment", ("a",), 5, 6, None, "keyed", "key", (Update(by=-1),))
REPEATED = replace(
    KEYED, invoked=7, returned=8, answer=Answer(200, counter("a", A[2])), request_id="repeated"
)
MOVE = Call(
    "increments",
    ("b", "a"),
    9,
    10,
    Answer(200, [counter("b", B[0]), {**counter("a", A[3]), "value": None, "version": None}]),
    "move",
    updates=(Update(by=-5, low=-5), Update(by=5)),
)
REFUSED = Call(
    "increment",
    ("b",),
    11,
    12,
    problem(409, "bound-exceeded", value=-5),
    "refused",
    updates=(Update(by=-1, low=-5),),
)
MISMATCH = Call(
    "set",
    ("a",),
    11,
    12,
    problem(412, "version-mismatch")._replace(headers={"ETag": '"4"'}),
    "mismatch",
    updates=(Update(value=1, expected=3),),
)
LOST = Call("increment", ("b",), 11, 12, None, "lost", updates=(Update(by=1),))
GET = Call("get", ("a",), 13, 14, Answer(200, counter("a", A[3])))
VERSION = Call("version", ("a",), 13, 14, Answer(200, counter("a", A[1])), query={"version": 2})
AT = Call("at", ("a",), 13, 14, Answer(200, counter("a", A[2])), query={"at": time_of(3)})
PAGE = Call(
    "page",
    ("a",),
    13,
    14,
    Answer(200, [page_entry(A[1]), page_entry(A[2])], {"Link": "<?after=3>"}),
    query={"after": 1, "limit": 2},
)
LAST_PAGE = replace(
    PAGE,
    answer=Answer(200, [page_entry(A[1]), page_entry(A[0])], {}),
    query={"after": 3, "order": "desc", "limit": 2},
)
TREND = Call("trend", ("a",), 13, 14, Answer(200, [bucket()]), query={"interval": "hour"})
GOOD = [
    *(FIRST, SET, KEYED, REPEATED, MOVE, REFUSED, MISMATCH, LOST),
    *(GET, VERSION, AT, PAGE, LAST_PAGE, TREND),
]


def run(calls: Sequence[Call] = GOOD, a: Sequence[Entry] = A, b: Sequence[Entry] = B) -> Run:
    """Return a run in which the state of each counter matches the counter's last history entry."""
    histories = {name: entries for name, entries in (("a", a), ("b", b)) if entries}
    states = {
        name: CounterState(entries[-1].value, entries[-1].version, entries[-1].request_id)
        for name, entries in histories.items()
    }
    return Run(calls, histories, states, frozenset({"move"}))


def violations(checked: Run) -> set[str]:
    return {violation.kind for violation in check(checked)}


def run_with(old: Call, **changed: Any) -> Run:  # noqa: ANN401
    """Return a run of the calls in GOOD, but with new values for some fields of the call `old`."""
    return run([replace(call, **changed) if call is old else call for call in GOOD])
