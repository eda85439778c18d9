"""`POST /increments` changes all counters of a request, or none of them."""

import random
from typing import Any

import pytest
from tests.component.ledger import Entry, entries
from tests.component.simulation import BEGINNING
from tests.proxy import Reply
from tests.stack import CLIENT_ID, Stack

from counters import clock
from counters.model import MAX_INTEGER, MIN_INTEGER


def post(stack: Stack, increments: list[Entry]) -> Reply:
    return stack.request("POST", "/increments", body={"increments": increments})


def get(stack: Stack, counter: str) -> dict[str, Any]:
    return dict(stack.request("GET", f"/counters/{counter}").body)


def test_the_answer_has_all_changed_counters_in_the_order_of_the_increments(stack: Stack) -> None:
    stack.request("PUT", "/counters/stock", body={"value": 10})

    reply = post(stack, entries(stock=-3, default=2, Orders=1))

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert [
        (changed["counter_id"], changed["value"], changed["version"]) for changed in reply.body
    ] == [
        ("stock", 7, 2),
        ("default", 2, 1),
        ("Orders", 1, 1),
    ]
    assert len({changed["updated_at"] for changed in reply.body}) == 1
    assert reply.body == [get(stack, name) for name in ("stock", "default", "Orders")]
    assert stack.request("GET", "/counter").body == reply.body[1]


def test_each_increment_adds_1_by_default(stack: Stack) -> None:
    increments: list[Entry] = [{"counter_id": "a"}, {"counter_id": "b", "by": -1}]

    assert [changed["value"] for changed in post(stack, increments).body] == [1, -1]
    assert [changed["value"] for changed in post(stack, increments).body] == [2, -2]


def test_each_counter_has_its_own_entry_in_the_history(stack: Stack) -> None:
    stack.request("POST", "/counters/b", body={"by": 100})
    reply = post(stack, entries(a=1, b=-2))
    stack.record(stack.changes())

    for changed, by, previous in zip(reply.body, (1, -2), (0, 100), strict=True):
        history = stack.request("GET", f"/counters/{changed['counter_id']}/history").body
        assert history[-1] == {
            "version": changed["version"],
            "value": changed["value"],
            "previous_value": previous,
            "by": by,
            "increase": max(by, 0),
            "decrease": max(-by, 0),
            "operation": "increment",
            "actor": CLIENT_ID,
            "created_at": changed["updated_at"],
        }


@pytest.mark.parametrize(
    ("increments", "refused", "value"),
    [
        ([{"counter_id": "a", "max": 5}, {"counter_id": "b"}], 0, 5),
        ([{"counter_id": "b"}, {"counter_id": "a", "max": 5}], 1, 5),
        ([{"counter_id": "b"}, {"counter_id": "a", "by": -1, "min": 5}], 1, 5),
        ([{"counter_id": "new"}, {"counter_id": "newer", "by": 3, "max": 2}], 1, 0),
        (
            [
                {"counter_id": "b"},
                {"counter_id": "new", "min": 2},
                {"counter_id": "a", "max": 5},
                {"counter_id": "c", "max": 0},
            ],
            1,
            0,
        ),
    ],
    ids=["first", "last", "below", "never-written", "the-first-of-several"],
)
def test_a_result_outside_its_bounds_refuses_all_and_the_error_names_the_first(
    stack: Stack, increments: list[Entry], refused: int, value: int
) -> None:
    stack.request("PUT", "/counters/a", body={"value": 5})
    stack.request("PUT", "/counters/b", body={"value": 7})
    stack.record(stack.changes())
    before = stack.contents()

    reply = post(stack, increments)

    assert reply.status == 409
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.body["type"].endswith("bound-exceeded")
    assert reply.body["detail"].startswith(f"increments[{refused}].by: ")
    assert reply.body["value"] == value
    assert stack.contents() == before
    assert stack.changes() == []


def test_each_increment_has_its_own_inclusive_bounds(stack: Stack) -> None:
    increments: list[Entry] = [
        {"counter_id": "a", "by": 5, "min": 5, "max": 5},
        {"counter_id": "b", "by": -5, "min": -5},
        {"counter_id": "c", "by": 2, "max": 2},
    ]

    assert [changed["value"] for changed in post(stack, increments).body] == [5, -5, 2]
    assert post(stack, increments).status == 409
    assert [get(stack, counter)["version"] for counter in "abc"] == [1, 1, 1]


@pytest.mark.parametrize(("limit", "by"), [(MAX_INTEGER, 1), (MIN_INTEGER, -1)])
def test_a_value_can_reach_the_limit_of_integers_but_not_pass_it(
    stack: Stack, limit: int, by: int
) -> None:
    stack.request("PUT", "/counters/a", body={"value": limit - by})
    increments = entries(b=limit, a=by)

    reached = post(stack, increments)
    before = stack.contents()
    passed = post(stack, entries(c=1, a=by, b=by))

    assert [changed["value"] for changed in reached.body] == [limit, limit]
    assert (passed.status, passed.body["value"]) == (409, limit)
    assert passed.body["detail"].startswith("increments[1].by: ")
    assert stack.contents() == before


def test_1_to_100_counters_change_in_one_request(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.remove_stream()
    # On a busy machine, moto may take longer than the function's timeout. Stop the clock, so that
    # the function does not notice.
    monkeypatch.setattr(clock, "now", lambda: BEGINNING)
    names = [f"n{number}" for number in range(100)]
    random.Random(100).shuffle(names)

    alone = post(stack, entries(alone=4))
    every = post(stack, entries(**{name: number for number, name in enumerate(names, 1)}))
    before = stack.contents()
    too_many = post(stack, entries(**dict.fromkeys([*names, "one-more"], 1)))

    assert [(changed["counter_id"], changed["value"]) for changed in alone.body] == [("alone", 4)]
    assert [(changed["counter_id"], changed["value"]) for changed in every.body] == [
        (name, number) for number, name in enumerate(names, 1)
    ]
    assert {changed["version"] for changed in every.body} == {1}
    assert (too_many.status, stack.contents()) == (400, before)
