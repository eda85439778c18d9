"""The linearizability checker finds each kind of violation, and none in a correct run."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.e2e.linearizability import Answer, Call, CounterState, Entry, Run, Update, check

BEGAN = "2026-11-22T10:00:01.000Z"


def time_of(version: int) -> str:
    return f"2026-11-22T10:00:0{version}.000Z"


def entry(version: int, previous: int, value: int, request_id: str, **changed: Any) -> Entry:  # noqa: ANN401
    by = value - previous
    change = Entry(
        version, value, previous, by, "increment", "me", time_of(version), BEGAN, request_id
    )
    return change._replace(**changed)


A = [
    entry(1, 0, 2, "first"),
    entry(2, 2, 10, "set", operation="set"),
    entry(3, 10, 9, "keyed"),
    entry(4, 9, 14, "move"),
]
B = [entry(1, 0, -5, "move")]


def counter(name: str, change: Entry) -> dict[str, Any]:
    return {
        "counter_id": name,
        "value": change.value,
        "version": change.version,
        "created_at": change.counter_created_at,
        "updated_at": change.created_at,
    }


def shown(change: Entry) -> dict[str, Any]:
    """Return an entry as a page of history shows it."""
    names = ("version", "value", "previous_value", "by", "operation", "actor", "created_at")
    parts = {"increase": max(change.by, 0), "decrease": max(-change.by, 0)}
    return {name: getattr(change, name) for name in names} | parts


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
# The first attempt was killed after its change. The second attempt found the change.
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
    Answer(200, [shown(A[1]), shown(A[2])], {"Link": "<?after=3>"}),
    query={"after": 1, "limit": 2},
)
LAST_PAGE = replace(
    PAGE,
    answer=Answer(200, [shown(A[1]), shown(A[0])], {}),
    query={"after": 3, "order": "desc", "limit": 2},
)
TREND = Call("trend", ("a",), 13, 14, Answer(200, [bucket()]), query={"interval": "hour"})
GOOD = [
    *(FIRST, SET, KEYED, REPEATED, MOVE, REFUSED, MISMATCH, LOST),
    *(GET, VERSION, AT, PAGE, LAST_PAGE, TREND),
]


def run(calls: Sequence[Call] = GOOD, a: Sequence[Entry] = A, b: Sequence[Entry] = B) -> Run:
    """Return a run in which each counter matches its last entry."""
    histories = {name: entries for name, entries in (("a", a), ("b", b)) if entries}
    states = {
        name: CounterState(entries[-1].value, entries[-1].version, entries[-1].request_id)
        for name, entries in histories.items()
    }
    return Run(calls, histories, states, frozenset({"move"}))


def violation_kinds(checked: Run) -> set[str]:
    return {violation.kind for violation in check(checked)}


def calls_with(old: Call, **changed: Any) -> list[Call]:  # noqa: ANN401
    """Return the good calls, one of them with other fields."""
    return [replace(call, **changed) if call is old else call for call in GOOD]


def calls_with_answer(old: Call, answer: Answer) -> list[Call]:
    return calls_with(old, answer=answer)


def test_a_possible_history_has_no_violations() -> None:
    assert check(run()) == []


def test_finds_gap_in_a_history() -> None:
    assert "gap in a history" in violation_kinds(run(a=[A[0], A[1], A[3]]))
    assert "gap in a history" in violation_kinds(run(a=[*A, A[3]]))


def test_finds_history_that_does_not_add_up() -> None:
    assert "history does not add up" in violation_kinds(
        run(a=[*A[:3], A[3]._replace(previous_value=8)])
    )
    assert "history does not add up" in violation_kinds(run(a=[*A[:3], A[3]._replace(value=15)]))


@pytest.mark.parametrize(
    "state",
    [
        None,
        CounterState(15, 4, "move"),
        CounterState(14, 5, "move"),
        CounterState(14, 4, "another"),
    ],
)
def test_finds_counter_that_does_not_match_its_last_entry(
    state: CounterState | None,
) -> None:
    good = run()
    stored = {**good.states}
    del stored["a"]
    if state:
        stored["a"] = state

    assert violation_kinds(replace(good, states=stored)) == {"history does not match the counter"}


def test_finds_change_without_a_request() -> None:
    assert violation_kinds(run(a=[*A, entry(5, 14, 15, "nobody")])) == {"change without a request"}


def test_finds_change_that_was_applied_twice() -> None:
    assert "change applied twice" in violation_kinds(run(a=[*A, entry(5, 14, 16, "first")]))


def test_finds_transaction_in_only_one_of_two_histories() -> None:
    assert "incomplete transaction" in violation_kinds(run(a=A[:3]))
    assert "incomplete transaction" in violation_kinds(run(b=[]))


def test_finds_change_that_differs_from_the_request() -> None:
    expected = {"wrong change"}
    assert violation_kinds(run(calls_with(KEYED, updates=(Update(by=-2),)))) == expected
    assert (
        violation_kinds(run(calls_with(SET, updates=(Update(value=11, expected=1),)))) == expected
    )


def test_finds_violated_bound() -> None:
    updates = (Update(by=-5, low=-4), Update(by=5))
    assert violation_kinds(run(calls_with(MOVE, updates=updates))) == {"bound violated"}
    updates = (Update(by=-5), Update(by=5, high=13))
    assert violation_kinds(run(calls_with(MOVE, updates=updates))) == {"bound violated"}


def test_finds_violated_condition() -> None:
    assert violation_kinds(run(calls_with(SET, updates=(Update(value=10, expected=0),)))) == {
        "condition violated"
    }


def test_finds_lost_change() -> None:
    lost = replace(LOST, answer=Answer(200, {**counter("b", B[0]), "version": 2}))
    assert violation_kinds(run([*GOOD, replace(lost, request_id="other")])) == {"change lost"}
    keyed = replace(lost, request_id="other", key="other-key")
    assert violation_kinds(run([*GOOD, keyed])) == {"change lost"}


@pytest.mark.parametrize(
    "answer",
    [
        problem(503, "throttled"),
        problem(429, "throttled"),
        problem(409, "bound-exceeded", value=-math.inf),
        problem(400, "invalid-request"),
        problem(422, "idempotency-key-reused"),
    ],
)
def test_finds_change_that_was_applied_despite_a_refusal(answer: Answer) -> None:
    assert violation_kinds(run(calls_with_answer(FIRST, answer))) <= {
        "applied, but reported as not applied",
        "refused without a reason",
    }
    assert "applied, but reported as not applied" in violation_kinds(
        run(calls_with_answer(FIRST, answer))
    )


@pytest.mark.parametrize("answer", [None, problem(503, "outcome-unknown")])
def test_change_with_unknown_outcome_may_be_applied_or_not(answer: Answer | None) -> None:
    assert violation_kinds(run(calls_with(FIRST, answer=answer))) == set()
    assert violation_kinds(run(calls_with(LOST, answer=answer))) == set()


def test_finds_confirmed_change_that_was_not_reported_to_the_caller() -> None:
    unknown = problem(503, "outcome-unknown")
    assert violation_kinds(run(calls_with_answer(MOVE, unknown))) == {
        "applied, but not reported to the caller"
    }
    assert violation_kinds(run(calls_with(MOVE, answer=None))) == set(), "the function was killed"


def test_finds_internal_error() -> None:
    assert violation_kinds(run(calls_with_answer(LOST, problem(500, "internal-error")))) == {
        "internal error"
    }


def test_finds_refusal_without_a_reason() -> None:
    expected = {"refused without a reason"}
    assert (
        violation_kinds(run(calls_with_answer(REFUSED, problem(409, "bound-exceeded", value=-4))))
        == expected
    )
    answer = problem(412, "version-mismatch")._replace(headers={"ETag": '"3"'})
    assert "refused without a reason" in violation_kinds(run(calls_with_answer(MISMATCH, answer)))


@pytest.mark.parametrize(
    "changed", [{"value": 3}, {"version": 2}, {"updated_at": BEGAN[:-2]}, {"value": None}]
)
def test_finds_wrong_answer(changed: dict[str, Any]) -> None:
    assert violation_kinds(
        run(calls_with_answer(FIRST, Answer(200, counter("a", A[0]) | changed)))
    ) == {"wrong answer"}
    assert violation_kinds(
        run(calls_with_answer(REPEATED, Answer(200, counter("a", A[2]) | changed)))
    ) == {"wrong answer"}
    body = [counter("b", B[0]) | changed, counter("a", A[3])]
    assert violation_kinds(run(calls_with_answer(MOVE, Answer(200, body)))) == {"wrong answer"}


def test_finds_answer_with_counters_in_the_wrong_order() -> None:
    body = [counter("a", A[3]), counter("b", B[0])]
    assert violation_kinds(run(calls_with_answer(MOVE, Answer(200, body)))) == {"wrong answer"}


def test_finds_key_that_was_applied_twice() -> None:
    assert "key applied twice" in violation_kinds(run(a=[*A, entry(5, 14, 13, "repeated")]))


def test_finds_refusal_of_a_key_that_was_already_applied() -> None:
    refused = problem(409, "bound-exceeded", value=-math.inf)
    late = replace(REPEATED, answer=refused, invoked=6.5, returned=6.7, request_id="refused")
    assert "applied, but reported as not applied" in violation_kinds(run([*GOOD, late]))
    concurrent = replace(late, invoked=5.5)
    assert "applied, but reported as not applied" not in violation_kinds(run([*GOOD, concurrent]))
    throttled = replace(late, answer=problem(503, "throttled"))
    assert "applied, but reported as not applied" in violation_kinds(run([*GOOD, throttled]))


def test_finds_changes_that_contradict_real_time() -> None:
    assert violation_kinds(run(calls_with(SET, invoked=0, returned=0.5))) == {
        "order contradicts real time"
    }
    assert violation_kinds(run(calls_with(SET, invoked=0, returned=1.5))) == set(), "they overlap"


def test_change_without_an_answer_must_follow_requests_that_ended_before_it() -> None:
    early = calls_with(FIRST, invoked=20, returned=21, answer=None)
    assert violation_kinds(run(early)) == {"order contradicts real time"}


def test_finds_read_that_contradicts_real_time() -> None:
    stale = Answer(200, counter("a", A[2]))
    assert violation_kinds(run(calls_with_answer(GET, stale))) == {"order contradicts real time"}
    future = replace(GET, invoked=1, returned=2)
    assert violation_kinds(run([*GOOD, future])) == {"order contradicts real time"}
    concurrent = replace(GET, invoked=9.5, answer=stale)
    assert violation_kinds(run([*GOOD, concurrent])) == set()
    empty = {**counter("a", A[0]), "value": 0, "version": 0}
    never = Answer(200, empty | {"created_at": None, "updated_at": None})
    assert violation_kinds(run(calls_with_answer(GET, never))) == {"order contradicts real time"}


def test_finds_stale_version_in_a_refusal() -> None:
    answer = problem(412, "version-mismatch")._replace(headers={"ETag": '"2"'})
    assert violation_kinds(run(calls_with_answer(MISMATCH, answer))) == {
        "order contradicts real time"
    }


@pytest.mark.parametrize("changed", [{"value": 3}, {"version": 5}, {"updated_at": BEGAN}])
def test_finds_wrong_counter(changed: dict[str, Any]) -> None:
    wrong = Answer(200, counter("a", A[3]) | changed)
    assert violation_kinds(run(calls_with_answer(GET, wrong))) == {"wrong counter"}


def test_finds_wrong_counter_at_a_version() -> None:
    expected = {"wrong counter at a version"}
    assert (
        violation_kinds(run(calls_with_answer(VERSION, Answer(200, counter("a", A[2])))))
        == expected
    )
    assert violation_kinds(run(calls_with(VERSION, query={"version": 5}))) == expected
    assert violation_kinds(run(calls_with(VERSION, query={"version": 0}))) == expected


def test_finds_existing_version_that_a_read_did_not_find() -> None:
    denied = replace(VERSION, answer=problem(404, "not-found"))
    assert violation_kinds(run([*GOOD, denied])) == {"existing version not found"}
    early = replace(denied, invoked=2.5)
    assert violation_kinds(run([*GOOD, early])) == set()


def test_finds_wrong_counter_at_a_time() -> None:
    assert violation_kinds(run(calls_with(AT, query={"at": "2026-11-22T10:00:03.999Z"}))) == set()
    for time in (time_of(2), time_of(4), "2026-11-22T10:00:00.999Z"):
        assert violation_kinds(run(calls_with(AT, query={"at": time}))) == {
            "wrong counter at a time"
        }


def test_counter_at_a_time_is_the_highest_version_created_by_then() -> None:
    # The third change began before the second, but was applied after it.
    a = [A[0], A[1]._replace(created_at=time_of(5)), A[2], A[3]]
    calls = [AT, *[call for call in GOOD if call.updates and call is not SET]]
    answered_set = replace(SET, answer=Answer(200, counter("a", a[1])))

    assert violation_kinds(run([*calls, answered_set], a=a)) == set()
    at = replace(AT, query={"at": time_of(5)})
    assert violation_kinds(run([*calls, answered_set, at], a=a)) == {"wrong counter at a time"}


@pytest.mark.parametrize(
    ("page", "entries", "link"),
    [
        (PAGE, [A[1], A[3]], True),
        (PAGE, [A[2], A[3]], True),
        (PAGE, [A[1], A[1]], True),
        (PAGE, [], True),
        (LAST_PAGE, [A[1]], False),
        (LAST_PAGE, [A[0]], False),
        (LAST_PAGE, [], False),
    ],
)
def test_finds_page_that_skips_an_entry(page: Call, entries: list[Entry], *, link: bool) -> None:
    headers = {"Link": "<?>"} if link else {}
    answer = Answer(200, [shown(each) for each in entries], headers)
    assert violation_kinds(run(calls_with_answer(page, answer))) == {"page skips an entry"}


def test_page_may_end_anywhere_and_start_at_the_newest_entry() -> None:
    assert violation_kinds(run(calls_with_answer(PAGE, Answer(200, [])))) == set()
    assert violation_kinds(run(calls_with_answer(PAGE, Answer(200, [shown(A[1])])))) == set()
    newest = replace(LAST_PAGE, query={"order": "desc"})
    assert violation_kinds(run([*GOOD, newest])) == set()


@pytest.mark.parametrize(
    "changed", [{"value": 3}, {"by": 9}, {"actor": "you"}, {"increase": 9}, {"decrease": 1}]
)
def test_finds_wrong_entry_on_a_page(changed: dict[str, Any]) -> None:
    answer = Answer(200, [shown(A[1]) | changed, shown(A[2])])
    assert violation_kinds(run(calls_with_answer(PAGE, answer))) == {"wrong entry on a page"}


@pytest.mark.parametrize(
    "changed",
    [{"changes": 3}, {"increase": 14}, {"decrease": 0}, {"first_version": 2}, {"last_version": 3}],
)
def test_finds_wrong_trend(changed: dict[str, object]) -> None:
    wrong = Answer(200, [bucket(**changed)])
    assert violation_kinds(run(calls_with_answer(TREND, wrong))) == {"wrong trend by hour"}
    minutes = replace(TREND, answer=wrong, query={"interval": "minute"})
    assert violation_kinds(run([*GOOD, minutes])) == {"wrong trend by minute"}


def test_trend_may_lag_behind_the_history() -> None:
    behind = bucket(changes=2, increase=10, decrease=0, last_version=2, close=10)
    assert violation_kinds(run(calls_with_answer(TREND, Answer(200, [behind])))) == set()
