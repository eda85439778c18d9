"""The checker finds a planted violation of each kind, and none in a run without any."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.e2e.linearizability import Answer, Call, Entry, Run, Standing, Wish, check

BEGAN = "2026-11-22T10:00:01.000Z"


def time_of(version: int) -> str:
    return f"2026-11-22T10:00:0{version}.000Z"


def entry(version: int, previous: int, value: int, request_id: str, **changed: Any) -> Entry:  # noqa: ANN401
    by = value - previous
    made = Entry(
        version, value, previous, by, "increment", "me", time_of(version), BEGAN, request_id
    )
    return made._replace(**changed)


A = [
    entry(1, 0, 2, "first"),
    entry(2, 2, 10, "set", operation="set"),
    entry(3, 10, 9, "keyed"),
    entry(4, 9, 14, "move"),
]
B = [entry(1, 0, -5, "move")]


def counter(name: str, made: Entry) -> dict[str, Any]:
    return {
        "counter_id": name,
        "value": made.value,
        "version": made.version,
        "created_at": made.counter_created_at,
        "updated_at": made.created_at,
    }


def shown(made: Entry) -> dict[str, Any]:
    """Return an entry as a page shows it."""
    names = ("version", "value", "previous_value", "by", "operation", "actor", "created_at")
    parts = {"increase": max(made.by, 0), "decrease": max(-made.by, 0)}
    return {name: getattr(made, name) for name in names} | parts


def problem(status: int, kind: str, **members: object) -> Answer:
    return Answer(status, {"type": f"urn:tally:problem:{kind}", **members})


def bucket(**changed: object) -> dict[str, object]:
    sums = {"changes": 4, "increase": 15, "decrease": 1, "first_version": 1, "last_version": 4}
    return {"start": "2026-11-22T10:00:00.000Z", **sums, "close": 14, **changed}


FIRST = Call(
    "increment", ("a",), 1, 2, Answer(200, counter("a", A[0])), "first", wishes=(Wish(by=2),)
)
SET = Call(
    "set",
    ("a",),
    3,
    4,
    Answer(200, counter("a", A[1])),
    "set",
    wishes=(Wish(value=10, expected=1),),
)
# The first attempt was killed after the change; the second one found it.
KEYED = Call("increment", ("a",), 5, 6, None, "keyed", "key", (Wish(by=-1),))
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
    wishes=(Wish(by=-5, low=-5), Wish(by=5)),
)
REFUSED = Call(
    "increment",
    ("b",),
    11,
    12,
    problem(409, "bound-exceeded", value=-5),
    "refused",
    wishes=(Wish(by=-1, low=-5),),
)
MISMATCH = Call(
    "set",
    ("a",),
    11,
    12,
    problem(412, "version-mismatch")._replace(headers={"ETag": '"4"'}),
    "mismatch",
    wishes=(Wish(value=1, expected=3),),
)
LOST = Call("increment", ("b",), 11, 12, None, "lost", wishes=(Wish(by=1),))
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
    """Return a run whose counters stand where their histories end."""
    histories = {name: entries for name, entries in (("a", a), ("b", b)) if entries}
    standing = {
        name: Standing(entries[-1].value, entries[-1].version, entries[-1].request_id)
        for name, entries in histories.items()
    }
    return Run(calls, histories, standing, frozenset({"move"}))


def kinds(checked: Run) -> set[str]:
    return {violation.kind for violation in check(checked)}


def instead(old: Call, **changed: Any) -> list[Call]:  # noqa: ANN401
    """Return the good calls with one changed."""
    return [replace(call, **changed) if call is old else call for call in GOOD]


def answered(old: Call, answer: Answer) -> list[Call]:
    return instead(old, answer=answer)


def test_a_possible_history_has_no_violations() -> None:
    assert check(run()) == []


def test_a_gap_in_a_history_is_found() -> None:
    assert "gap in a history" in kinds(run(a=[A[0], A[1], A[3]]))
    assert "gap in a history" in kinds(run(a=[*A, A[3]]))


def test_a_history_that_does_not_add_up_is_found() -> None:
    assert "history does not add up" in kinds(run(a=[*A[:3], A[3]._replace(previous_value=8)]))
    assert "history does not add up" in kinds(run(a=[*A[:3], A[3]._replace(value=15)]))


@pytest.mark.parametrize(
    "standing",
    [None, Standing(15, 4, "move"), Standing(14, 5, "move"), Standing(14, 4, "another")],
)
def test_a_counter_that_differs_from_the_end_of_its_history_is_found(
    standing: Standing | None,
) -> None:
    good = run()
    stored = {**good.standing}
    del stored["a"]
    if standing:
        stored["a"] = standing

    assert kinds(replace(good, standing=stored)) == {"history does not end at the counter"}


def test_a_change_that_nobody_asked_for_is_found() -> None:
    assert kinds(run(a=[*A, entry(5, 14, 15, "nobody")])) == {"change that nobody asked for"}


def test_a_change_that_was_applied_twice_is_found() -> None:
    assert "change applied twice" in kinds(run(a=[*A, entry(5, 14, 16, "first")]))


def test_a_transaction_that_is_only_in_one_history_is_found() -> None:
    assert "transaction torn apart" in kinds(run(a=A[:3]))
    assert "transaction torn apart" in kinds(run(b=[]))


def test_another_change_than_was_asked_for_is_found() -> None:
    expected = {"another change than asked for"}
    assert kinds(run(instead(KEYED, wishes=(Wish(by=-2),)))) == expected
    assert kinds(run(instead(SET, wishes=(Wish(value=11, expected=1),)))) == expected


def test_a_violated_bound_is_found() -> None:
    wishes = (Wish(by=-5, low=-4), Wish(by=5))
    assert kinds(run(instead(MOVE, wishes=wishes))) == {"bound violated"}
    wishes = (Wish(by=-5), Wish(by=5, high=13))
    assert kinds(run(instead(MOVE, wishes=wishes))) == {"bound violated"}


def test_a_violated_condition_is_found() -> None:
    assert kinds(run(instead(SET, wishes=(Wish(value=10, expected=0),)))) == {"condition violated"}


def test_a_change_that_was_lost_is_found() -> None:
    lost = replace(LOST, answer=Answer(200, {**counter("b", B[0]), "version": 2}))
    assert kinds(run([*GOOD, replace(lost, request_id="other")])) == {"change lost"}
    keyed = replace(lost, request_id="other", key="other-key")
    assert kinds(run([*GOOD, keyed])) == {"change lost"}


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
def test_a_change_that_was_applied_although_answered_otherwise_is_found(answer: Answer) -> None:
    assert kinds(run(answered(FIRST, answer))) <= {
        "applied, though told not",
        "refused without a reason",
    }
    assert "applied, though told not" in kinds(run(answered(FIRST, answer)))


@pytest.mark.parametrize("answer", [None, problem(503, "outcome-unknown")])
def test_a_change_of_unknown_outcome_may_be_there_or_not(answer: Answer | None) -> None:
    assert kinds(run(instead(FIRST, answer=answer))) == set()
    assert kinds(run(instead(LOST, answer=answer))) == set()


def test_a_change_that_was_known_to_be_applied_but_not_answered_so_is_found() -> None:
    unknown = problem(503, "outcome-unknown")
    assert kinds(run(answered(MOVE, unknown))) == {"known to be applied, but not told so"}
    assert kinds(run(instead(MOVE, answer=None))) == set(), "the function was killed"


def test_an_internal_error_is_found() -> None:
    assert kinds(run(answered(LOST, problem(500, "internal-error")))) == {"internal error"}


def test_a_refusal_without_a_reason_is_found() -> None:
    expected = {"refused without a reason"}
    assert kinds(run(answered(REFUSED, problem(409, "bound-exceeded", value=-4)))) == expected
    answer = problem(412, "version-mismatch")._replace(headers={"ETag": '"3"'})
    assert "refused without a reason" in kinds(run(answered(MISMATCH, answer)))


@pytest.mark.parametrize(
    "changed", [{"value": 3}, {"version": 2}, {"updated_at": BEGAN[:-2]}, {"value": None}]
)
def test_a_wrong_answer_is_found(changed: dict[str, Any]) -> None:
    assert kinds(run(answered(FIRST, Answer(200, counter("a", A[0]) | changed)))) == {
        "wrong answer"
    }
    assert kinds(run(answered(REPEATED, Answer(200, counter("a", A[2]) | changed)))) == {
        "wrong answer"
    }
    body = [counter("b", B[0]) | changed, counter("a", A[3])]
    assert kinds(run(answered(MOVE, Answer(200, body)))) == {"wrong answer"}


def test_a_wrong_order_of_an_answer_is_found() -> None:
    body = [counter("a", A[3]), counter("b", B[0])]
    assert kinds(run(answered(MOVE, Answer(200, body)))) == {"wrong answer"}


def test_a_key_that_was_applied_twice_is_found() -> None:
    assert "key applied twice" in kinds(run(a=[*A, entry(5, 14, 13, "repeated")]))


def test_a_key_that_was_answered_as_free_too_early_is_found() -> None:
    refused = problem(409, "bound-exceeded", value=-math.inf)
    late = replace(REPEATED, answer=refused, invoked=6.5, returned=6.7, request_id="refused")
    assert "applied, though told not" in kinds(run([*GOOD, late]))
    at_once = replace(late, invoked=5.5)
    assert "applied, though told not" not in kinds(run([*GOOD, at_once]))
    throttled = replace(late, answer=problem(503, "throttled"))
    assert "applied, though told not" in kinds(run([*GOOD, throttled]))


def test_changes_against_real_time_are_found() -> None:
    assert kinds(run(instead(SET, invoked=0, returned=0.5))) == {"order against real time"}
    assert kinds(run(instead(SET, invoked=0, returned=1.5))) == set(), "they overlap"


def test_a_change_without_an_answer_comes_behind_the_requests_before_it() -> None:
    early = instead(FIRST, invoked=20, returned=21, answer=None)
    assert kinds(run(early)) == {"order against real time"}


def test_a_read_against_real_time_is_found() -> None:
    stale = Answer(200, counter("a", A[2]))
    assert kinds(run(answered(GET, stale))) == {"order against real time"}
    future = replace(GET, invoked=1, returned=2)
    assert kinds(run([*GOOD, future])) == {"order against real time"}
    at_once = replace(GET, invoked=9.5, answer=stale)
    assert kinds(run([*GOOD, at_once])) == set()
    empty = {**counter("a", A[0]), "value": 0, "version": 0}
    never = Answer(200, empty | {"created_at": None, "updated_at": None})
    assert kinds(run(answered(GET, never))) == {"order against real time"}


def test_a_stale_version_in_a_refusal_is_found() -> None:
    answer = problem(412, "version-mismatch")._replace(headers={"ETag": '"2"'})
    assert kinds(run(answered(MISMATCH, answer))) == {"order against real time"}


@pytest.mark.parametrize("changed", [{"value": 3}, {"version": 5}, {"updated_at": BEGAN}])
def test_a_wrong_counter_is_found(changed: dict[str, Any]) -> None:
    wrong = Answer(200, counter("a", A[3]) | changed)
    assert kinds(run(answered(GET, wrong))) == {"wrong counter"}


def test_a_wrong_counter_at_a_version_is_found() -> None:
    expected = {"wrong counter at a version"}
    assert kinds(run(answered(VERSION, Answer(200, counter("a", A[2]))))) == expected
    assert kinds(run(instead(VERSION, query={"version": 5}))) == expected
    assert kinds(run(instead(VERSION, query={"version": 0}))) == expected


def test_a_version_that_is_there_but_denied_is_found() -> None:
    denied = replace(VERSION, answer=problem(404, "not-found"))
    assert kinds(run([*GOOD, denied])) == {"version denied"}
    early = replace(denied, invoked=2.5)
    assert kinds(run([*GOOD, early])) == set()


def test_a_wrong_counter_at_a_time_is_found() -> None:
    assert kinds(run(instead(AT, query={"at": "2026-11-22T10:00:03.999Z"}))) == set()
    for time in (time_of(2), time_of(4), "2026-11-22T10:00:00.999Z"):
        assert kinds(run(instead(AT, query={"at": time}))) == {"wrong counter at a time"}


def test_the_counter_at_a_time_has_the_latest_version_of_that_time() -> None:
    # The third change began before the second, and was applied behind it.
    a = [A[0], A[1]._replace(created_at=time_of(5)), A[2], A[3]]
    calls = [AT, *[call for call in GOOD if call.wishes and call is not SET]]
    set_ = replace(SET, answer=Answer(200, counter("a", a[1])))

    assert kinds(run([*calls, set_], a=a)) == set()
    at = replace(AT, query={"at": time_of(5)})
    assert kinds(run([*calls, set_, at], a=a)) == {"wrong counter at a time"}


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
def test_a_page_with_a_hole_is_found(page: Call, entries: list[Entry], *, link: bool) -> None:
    headers = {"Link": "<?>"} if link else {}
    answer = Answer(200, [shown(each) for each in entries], headers)
    assert kinds(run(answered(page, answer))) == {"page with a hole"}


def test_a_page_may_end_anywhere_and_begin_at_the_newest() -> None:
    assert kinds(run(answered(PAGE, Answer(200, [])))) == set()
    assert kinds(run(answered(PAGE, Answer(200, [shown(A[1])])))) == set()
    newest = replace(LAST_PAGE, query={"order": "desc"})
    assert kinds(run([*GOOD, newest])) == set()


@pytest.mark.parametrize(
    "changed", [{"value": 3}, {"by": 9}, {"actor": "you"}, {"increase": 9}, {"decrease": 1}]
)
def test_a_wrong_entry_on_a_page_is_found(changed: dict[str, Any]) -> None:
    answer = Answer(200, [shown(A[1]) | changed, shown(A[2])])
    assert kinds(run(answered(PAGE, answer))) == {"wrong entry on a page"}


@pytest.mark.parametrize(
    "changed",
    [{"changes": 3}, {"increase": 14}, {"decrease": 0}, {"first_version": 2}, {"last_version": 3}],
)
def test_a_wrong_trend_is_found(changed: dict[str, object]) -> None:
    wrong = Answer(200, [bucket(**changed)])
    assert kinds(run(answered(TREND, wrong))) == {"wrong trend by the hour"}
    minutes = replace(TREND, answer=wrong, query={"interval": "minute"})
    assert kinds(run([*GOOD, minutes])) == {"wrong trend by the minute"}


def test_a_trend_may_be_behind() -> None:
    behind = bucket(changes=2, increase=10, decrease=0, last_version=2, close=10)
    assert kinds(run(answered(TREND, Answer(200, [behind])))) == set()
