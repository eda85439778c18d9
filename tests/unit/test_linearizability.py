"""The linearizability checker finds every wrong change, wrong answer and wrong order of changes."""

import math
from dataclasses import replace
from typing import Any

import pytest
from tests.e2e.linearizability import check
from tests.e2e.recorded_run import Answer, CounterState, Update
from tests.unit.sample_run import (
    BEGAN,
    FIRST,
    GET,
    GOOD,
    KEYED,
    LOST,
    MISMATCH,
    MOVE,
    REFUSED,
    REPEATED,
    SET,
    A,
    B,
    counter,
    entry,
    problem,
    run,
    run_with,
    violations,
)


def test_correct_run_has_no_violations() -> None:
    assert check(run()) == []


def test_finds_gap_in_a_history() -> None:
    assert "gap in a history" in violations(run(a=[A[0], A[1], A[3]]))
    assert "gap in a history" in violations(run(a=[*A, A[3]]))


def test_finds_history_that_does_not_add_up() -> None:
    assert "history does not add up" in violations(run(a=[*A[:3], A[3]._replace(previous_value=8)]))
    assert "history does not add up" in violations(run(a=[*A[:3], A[3]._replace(value=15)]))


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

    assert violations(replace(good, states=stored)) == {"history does not match the counter"}


def test_finds_change_without_a_request() -> None:
    assert violations(run(a=[*A, entry(5, 14, 15, "nobody")])) == {"change without a request"}


def test_finds_change_that_was_applied_twice() -> None:
    assert "change applied twice" in violations(run(a=[*A, entry(5, 14, 16, "first")]))


def test_finds_transaction_in_only_one_of_two_histories() -> None:
    assert "incomplete transaction" in violations(run(a=A[:3]))
    assert "incomplete transaction" in violations(run(b=[]))


def test_finds_change_that_differs_from_the_request() -> None:
    expected = {"wrong change"}
    assert violations(run_with(KEYED, updates=(Update(by=-2),))) == expected
    assert violations(run_with(SET, updates=(Update(value=11, expected=1),))) == expected


def test_finds_violated_bound() -> None:
    updates = (Update(by=-5, low=-4), Update(by=5))
    assert violations(run_with(MOVE, updates=updates)) == {"bound violated"}
    updates = (Update(by=-5), Update(by=5, high=13))
    assert violations(run_with(MOVE, updates=updates)) == {"bound violated"}


def test_finds_violated_condition() -> None:
    assert violations(run_with(SET, updates=(Update(value=10, expected=0),))) == {
        "condition violated"
    }


def test_finds_lost_change() -> None:
    lost = replace(LOST, answer=Answer(200, {**counter("b", B[0]), "version": 2}))
    assert violations(run([*GOOD, replace(lost, request_id="other")])) == {"change lost"}
    keyed = replace(lost, request_id="other", key="other-key")
    assert violations(run([*GOOD, keyed])) == {"change lost"}


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
    assert violations(run_with(FIRST, answer=answer)) <= {
        "applied, but reported as not applied",
        "refused without a reason",
    }
    assert "applied, but reported as not applied" in violations(run_with(FIRST, answer=answer))


@pytest.mark.parametrize("answer", [None, problem(503, "outcome-unknown")])
def test_change_with_unknown_outcome_may_be_applied_or_not(answer: Answer | None) -> None:
    assert violations(run_with(FIRST, answer=answer)) == set()
    assert violations(run_with(LOST, answer=answer)) == set()


def test_finds_confirmed_change_that_was_not_reported_to_the_caller() -> None:
    unknown = problem(503, "outcome-unknown")
    assert violations(run_with(MOVE, answer=unknown)) == {"applied, but not reported to the caller"}
    assert violations(run_with(MOVE, answer=None)) == set(), "the function was killed"


def test_finds_internal_error() -> None:
    assert violations(run_with(LOST, answer=problem(500, "internal-error"))) == {"internal error"}


def test_finds_refusal_without_a_reason() -> None:
    expected = {"refused without a reason"}
    assert (
        violations(run_with(REFUSED, answer=problem(409, "bound-exceeded", value=-4))) == expected
    )
    answer = problem(412, "version-mismatch")._replace(headers={"ETag": '"3"'})
    assert "refused without a reason" in violations(run_with(MISMATCH, answer=answer))


@pytest.mark.parametrize(
    "changed", [{"value": 3}, {"version": 2}, {"updated_at": BEGAN[:-2]}, {"value": None}]
)
def test_finds_wrong_answer(changed: dict[str, Any]) -> None:
    assert violations(run_with(FIRST, answer=Answer(200, counter("a", A[0]) | changed))) == {
        "wrong answer"
    }
    assert violations(run_with(REPEATED, answer=Answer(200, counter("a", A[2]) | changed))) == {
        "wrong answer"
    }
    body = [counter("b", B[0]) | changed, counter("a", A[3])]
    assert violations(run_with(MOVE, answer=Answer(200, body))) == {"wrong answer"}


def test_finds_answer_with_counters_in_the_wrong_order() -> None:
    body = [counter("a", A[3]), counter("b", B[0])]
    assert violations(run_with(MOVE, answer=Answer(200, body))) == {"wrong answer"}


def test_finds_key_that_was_applied_twice() -> None:
    assert "key applied twice" in violations(run(a=[*A, entry(5, 14, 13, "repeated")]))


def test_finds_refusal_of_a_key_that_was_already_applied() -> None:
    refused = problem(409, "bound-exceeded", value=-math.inf)
    late = replace(REPEATED, answer=refused, invoked=6.5, returned=6.7, request_id="refused")
    assert "applied, but reported as not applied" in violations(run([*GOOD, late]))
    concurrent = replace(late, invoked=5.5)
    assert "applied, but reported as not applied" not in violations(run([*GOOD, concurrent]))
    throttled = replace(late, answer=problem(503, "throttled"))
    assert "applied, but reported as not applied" in violations(run([*GOOD, throttled]))


def test_finds_changes_that_contradict_real_time() -> None:
    assert violations(run_with(SET, invoked=0, returned=0.5)) == {"order contradicts real time"}
    assert violations(run_with(SET, invoked=0, returned=1.5)) == set(), "they overlap"


def test_change_without_an_answer_must_follow_requests_that_ended_before_it() -> None:
    early = run_with(FIRST, invoked=20, returned=21, answer=None)
    assert violations(early) == {"order contradicts real time"}


def test_finds_read_that_contradicts_real_time() -> None:
    stale = Answer(200, counter("a", A[2]))
    assert violations(run_with(GET, answer=stale)) == {"order contradicts real time"}
    future = replace(GET, invoked=1, returned=2)
    assert violations(run([*GOOD, future])) == {"order contradicts real time"}
    concurrent = replace(GET, invoked=9.5, answer=stale)
    assert violations(run([*GOOD, concurrent])) == set()
    empty = {**counter("a", A[0]), "value": 0, "version": 0}
    never = Answer(200, empty | {"created_at": None, "updated_at": None})
    assert violations(run_with(GET, answer=never)) == {"order contradicts real time"}


def test_finds_stale_version_in_a_refusal() -> None:
    answer = problem(412, "version-mismatch")._replace(headers={"ETag": '"2"'})
    assert violations(run_with(MISMATCH, answer=answer)) == {"order contradicts real time"}
