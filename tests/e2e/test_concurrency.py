"""Many clients increment one counter at the same time."""

import itertools
from typing import Any

import pytest
from tests.e2e.service import Answer, Caller, run_clients
from tests.sizes import cases

from deployment import Stack

CLIENTS = cases(32, part=4)  # each client occupies a process of the function
TIMES = cases(25, part=50)
TOTAL = CLIENTS * TIMES
COUNTER = "/counters/busy"


@pytest.fixture(scope="module")
def answers(stack: Stack) -> list[Answer]:
    def increment(caller: Caller, _number: int) -> list[Answer]:
        return [caller.post(COUNTER) for _ in range(TIMES)]

    return run_clients(stack, ["counters/increment"], CLIENTS, increment)


@pytest.fixture(scope="module")
def history(caller: Caller, answers: list[Answer]) -> list[Any]:
    return caller.history(COUNTER, entries=len(answers))


def test_every_increment_succeeds(answers: list[Answer]) -> None:
    assert [answer for answer in answers if answer.status != 200] == []


@pytest.mark.usefixtures("answers")
def test_every_increment_is_counted_once(caller: Caller) -> None:
    counter = caller.get(COUNTER).body
    assert (counter["value"], counter["version"]) == (TOTAL, TOTAL)


@pytest.mark.parametrize("member", ["value", "version"])
def test_each_answer_has_its_own_value_and_version(answers: list[Answer], member: str) -> None:
    assert sorted(answer.body[member] for answer in answers) == list(range(1, TOTAL + 1))


def test_history_has_every_version_once_in_order(history: list[Any]) -> None:
    assert [entry["version"] for entry in history] == list(range(1, TOTAL + 1))


def test_each_entry_starts_from_the_value_of_the_previous_one(history: list[Any]) -> None:
    assert history[0]["previous_value"] == 0
    assert all(entry["previous_value"] + entry["by"] == entry["value"] for entry in history)
    assert all(
        earlier["value"] == later["previous_value"]
        for earlier, later in itertools.pairwise(history)
    )


def test_page_links_lead_through_the_whole_history(caller: Caller, history: list[Any]) -> None:
    pages = list(caller.pages(f"{COUNTER}/history?limit={TOTAL // 8}"))
    assert [len(page) for page in pages] == [TOTAL // 8] * 8
    assert list(itertools.chain.from_iterable(pages)) == history


def test_descending_order_returns_the_same_history_in_reverse(
    caller: Caller, history: list[Any]
) -> None:
    pages = caller.pages(f"{COUNTER}/history?limit={TOTAL * 3 // 8}&order=desc")
    assert list(itertools.chain.from_iterable(pages)) == history[::-1]
