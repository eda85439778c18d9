"""The linearizability checker finds every wrong read of counters, history and trend."""

from dataclasses import replace
from typing import Any

import pytest
from tests.e2e.recorded_run import Answer, Call, Entry
from tests.unit.sample_run import (
    AT,
    BEGAN,
    GET,
    GOOD,
    LAST_PAGE,
    PAGE,
    SET,
    TREND,
    VERSION,
    A,
    bucket,
    counter,
    page_entry,
    problem,
    run,
    run_with,
    time_of,
    violations,
)


@pytest.mark.parametrize("changed", [{"value": 3}, {"version": 5}, {"updated_at": BEGAN}])
def test_finds_wrong_counter(changed: dict[str, Any]) -> None:
    wrong = Answer(200, counter("a", A[3]) | changed)
    assert violations(run_with(GET, answer=wrong)) == {"wrong counter"}


def test_finds_wrong_counter_at_a_version() -> None:
    expected = {"wrong counter at a version"}
    assert violations(run_with(VERSION, answer=Answer(200, counter("a", A[2])))) == expected
    assert violations(run_with(VERSION, query={"version": 5})) == expected
    assert violations(run_with(VERSION, query={"version": 0})) == expected


def test_finds_existing_version_that_a_read_did_not_find() -> None:
    denied = replace(VERSION, answer=problem(404, "not-found"))
    assert violations(run([*GOOD, denied])) == {"existing version not found"}
    early = replace(denied, invoked=2.5)
    assert violations(run([*GOOD, early])) == set()


def test_finds_wrong_counter_at_a_time() -> None:
    assert violations(run_with(AT, query={"at": "2026-11-22T10:00:03.999Z"})) == set()
    for time in (time_of(2), time_of(4), "2026-11-22T10:00:00.999Z"):
        assert violations(run_with(AT, query={"at": time})) == {"wrong counter at a time"}


def test_counter_at_a_time_is_the_highest_version_created_by_then() -> None:
    # The third change began before the second, but was applied after it.
    a = [A[0], A[1]._replace(created_at=time_of(5)), A[2], A[3]]
    calls = [AT, *[call for call in GOOD if call.updates and call is not SET]]
    answered_set = replace(SET, answer=Answer(200, counter("a", a[1])))

    assert violations(run([*calls, answered_set], a=a)) == set()
    at = replace(AT, query={"at": time_of(5)})
    assert violations(run([*calls, answered_set, at], a=a)) == {"wrong counter at a time"}


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
    answer = Answer(200, [page_entry(each) for each in entries], headers)
    assert violations(run_with(page, answer=answer)) == {"page skips an entry"}


def test_page_may_end_anywhere_and_start_at_the_newest_entry() -> None:
    assert violations(run_with(PAGE, answer=Answer(200, []))) == set()
    assert violations(run_with(PAGE, answer=Answer(200, [page_entry(A[1])]))) == set()
    newest = replace(LAST_PAGE, query={"order": "desc"})
    assert violations(run([*GOOD, newest])) == set()


@pytest.mark.parametrize(
    "changed", [{"value": 3}, {"by": 9}, {"actor": "you"}, {"increase": 9}, {"decrease": 1}]
)
def test_finds_wrong_entry_on_a_page(changed: dict[str, Any]) -> None:
    answer = Answer(200, [page_entry(A[1]) | changed, page_entry(A[2])])
    assert violations(run_with(PAGE, answer=answer)) == {"wrong entry on a page"}


@pytest.mark.parametrize(
    "changed",
    [{"changes": 3}, {"increase": 14}, {"decrease": 0}, {"first_version": 2}, {"last_version": 3}],
)
def test_finds_wrong_trend(changed: dict[str, object]) -> None:
    wrong = Answer(200, [bucket(**changed)])
    assert violations(run_with(TREND, answer=wrong)) == {"wrong trend by hour"}
    minutes = replace(TREND, answer=wrong, query={"interval": "minute"})
    assert violations(run([*GOOD, minutes])) == {"wrong trend by minute"}


def test_trend_may_lag_behind_the_history() -> None:
    behind = bucket(changes=2, increase=10, decrease=0, last_version=2, close=10)
    assert violations(run_with(TREND, answer=Answer(200, [behind]))) == set()
