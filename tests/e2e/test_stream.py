"""HTTP requests that read the history and the list of counters."""

import itertools
import uuid

import pytest
from tests.e2e.service import Caller

from deployment import Stack


@pytest.mark.parametrize("counter", ["/counter", "/counters/recorded"])
def test_every_change_is_recorded_in_the_history(
    stack: Stack, caller: Caller, counter: str
) -> None:
    start = caller.get(counter).body
    caller.put(counter, value=0)
    answers = [
        caller.post(counter),
        caller.post(counter, by=-5),
        caller.put(counter, value=10),
        caller.post(counter, by=32),
    ]
    first, *entries = caller.history(counter, entries=5, after=start["version"])
    assert (first["previous_value"], first["value"]) == (start["value"], 0)
    assert first["operation"] == "set"
    assert entries == [
        {
            "version": answer.body["version"],
            "value": answer.body["value"],
            "previous_value": previous_value,
            "by": by,
            "increase": max(by, 0),
            "decrease": max(-by, 0),
            "operation": operation,
            "actor": stack.client_id,
            "created_at": answer.body["updated_at"],
        }
        for answer, previous_value, by, operation in zip(
            answers,
            [0, 1, -4, 10],
            [1, -5, 14, 32],
            ["increment", "increment", "set", "increment"],
            strict=True,
        )
    ]


def test_refused_increment_is_not_recorded(caller: Caller, counter: str) -> None:
    caller.put(counter, value=2**53 - 1)
    refused = caller.post(counter)
    assert (refused.status, refused.body["value"]) == (409, 2**53 - 1)
    caller.post(counter, by=-1)
    versions = [entry["version"] for entry in caller.history(counter, entries=2)]
    assert versions == [1, 2]


def test_new_counter_has_no_history(caller: Caller, counter: str) -> None:
    assert caller.get(f"{counter}/history").body == []


def test_counters_are_listed_by_prefix_in_order_page_by_page(caller: Caller) -> None:
    prefix = f"{uuid.uuid4()}:"
    names = [f"{prefix}{name}" for name in ("B", "a", "a.1", "b", "c")]
    for name in (*reversed(names), str(uuid.uuid4())):
        caller.post(f"/counters/{name}")
    pages = list(caller.pages(f"/counters?prefix={prefix}&limit=2"))
    assert [len(page) for page in pages] == [2, 2, 1]
    assert list(itertools.chain.from_iterable(pages)) == names


def test_percent_encoded_name_is_the_same_counter(caller: Caller, counter: str) -> None:
    assert caller.post(f"{counter}%3Ax").body["counter_id"].endswith(":x")
    assert caller.get(f"{counter}:x").body["value"] == 1
