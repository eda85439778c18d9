"""Two stacks in one account have nothing to do with each other."""

from collections.abc import Iterator

import pytest
from tests.e2e.service import Caller, token_for

from local_stack import Emulator, Stack, deploy


@pytest.fixture(scope="module")
def other(emulator: Emulator, stack: Stack) -> Stack:
    other = deploy(emulator, "tally-other")
    assert other.endpoint_url == stack.endpoint_url
    return other


@pytest.fixture(scope="module")
def other_caller(other: Stack) -> Iterator[Caller]:
    with Caller(other.url, token_for(other, other.scopes)) as caller:
        yield caller


def test_each_has_its_own_resources(stack: Stack, other: Stack) -> None:
    assert stack.outputs.keys() == other.outputs.keys()
    assert set(stack.outputs.values()).isdisjoint(other.outputs.values())


def test_a_counter_of_one_is_not_in_the_other(
    caller: Caller, other_caller: Caller, counter: str
) -> None:
    caller.put(counter, value=10)
    assert other_caller.get(counter).body["version"] == 0
    other_caller.post(counter)
    assert caller.get(counter).body["value"] == 10
    assert other_caller.get(counter).body["value"] == 1


def test_a_change_of_one_is_in_its_own_history_only(
    caller: Caller, other_caller: Caller, counter: str
) -> None:
    caller.post(counter, by=3)
    other_caller.post(counter, by=5)
    assert [entry["by"] for entry in caller.history(counter, entries=1)] == [3]
    assert [entry["by"] for entry in other_caller.history(counter, entries=1)] == [5]


def test_a_token_of_one_is_refused_by_the_other(stack: Stack, other: Stack, counter: str) -> None:
    for here, there in ((stack, other), (other, stack)):
        with Caller(there.url, token_for(here, here.scopes)) as stranger:
            assert stranger.post(counter).status in {401, 403}
            assert stranger.get(counter).status in {401, 403}
