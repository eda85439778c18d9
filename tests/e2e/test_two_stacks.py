"""Two stacks in one account share nothing."""

from collections.abc import Iterator

import pytest
from tests.e2e import second_stack
from tests.e2e.service import Caller, client, token_for
from tests.sizes import FULL

import deployment
from deployment import Stack, deploy, is_deployed
from emulator_process import Emulator
from import_tables import import_tables
from local_settings import CREDENTIALS

OTHER = "tally-other"


@pytest.fixture(scope="module")
def other(emulator: Emulator, stack: Stack) -> Stack:
    return second_stack.create(emulator, stack, OTHER)


@pytest.fixture(scope="module")
def other_caller(other: Stack) -> Iterator[Caller]:
    with Caller(other.url, token_for(other, other.scopes)) as caller:
        yield caller


def test_stacks_share_no_resources(stack: Stack, other: Stack) -> None:
    assert stack.outputs.keys() == other.outputs.keys()
    assert set(stack.outputs.values()).isdisjoint(other.outputs.values())


def test_stacks_share_no_counters(caller: Caller, other_caller: Caller, counter: str) -> None:
    caller.put(counter, value=10)
    assert other_caller.get(counter).body["version"] == 0
    other_caller.post(counter)
    assert caller.get(counter).body["value"] == 10
    assert other_caller.get(counter).body["value"] == 1


def test_change_is_only_in_the_history_of_its_own_stack(
    caller: Caller, other_caller: Caller, counter: str
) -> None:
    caller.post(counter, by=3)
    other_caller.post(counter, by=5)
    assert [entry["by"] for entry in caller.history(counter, entries=1)] == [3]
    assert [entry["by"] for entry in other_caller.history(counter, entries=1)] == [5]


def test_stack_refuses_a_token_of_the_other_stack(stack: Stack, other: Stack, counter: str) -> None:
    for own, foreign in ((stack, other), (other, stack)):
        with Caller(foreign.url, token_for(own, own.scopes)) as stranger:
            assert stranger.post(counter).status in {401, 403}
            assert stranger.get(counter).status in {401, 403}


def test_deleted_stack_can_be_recreated_with_its_counters(  # noqa: PLR0913, PLR0917
    emulator: Emulator,
    stack: Stack,
    other: Stack,
    other_caller: Caller,
    counter: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other_caller.put(counter, value=10)
    before = other_caller.history(counter, entries=1)
    cloudformation = client(other, "cloudformation")
    cloudformation.delete_stack(StackName=OTHER)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=OTHER, WaiterConfig={"Delay": 1}
    )
    for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": other.region}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", other.endpoint_url)

    imported = import_tables(OTHER, "dev")
    # `sam deploy` updates the stack, too, but takes longer.
    recreated = deploy(emulator, OTHER) if FULL else second_stack.update(emulator, stack, OTHER)

    assert {name: recreated.outputs[name] for name in imported} == imported
    assert imported == {name: other.outputs[name] for name in imported}
    with Caller(recreated.url, token_for(recreated, recreated.scopes)) as caller:
        assert caller.get(counter).body["value"] == 10
        caller.post(counter)
        entries = caller.history(counter, entries=2)
    assert entries[:1] == before
    assert [entry["value"] for entry in entries] == [10, 11]


def test_stack_is_deployed_again_only_if_its_sources_have_changed(
    emulator: Emulator, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack.endpoint_url == emulator.endpoint_url
    assert is_deployed(emulator)
    assert not is_deployed(emulator, "missing")

    monkeypatch.setattr(deployment, "PARAMETERS", "Stage=prod")

    assert not is_deployed(emulator)
