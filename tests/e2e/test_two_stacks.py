"""Two stacks in one account have nothing to do with each other."""

from collections.abc import Iterator

import pytest
from tests.e2e.service import Caller, client, token_for

from deployment import Stack, deploy, describe
from emulator_process import Emulator
from import_tables import import_tables
from local_settings import CREDENTIALS, STACK_NAME

OTHER = "tally-other"


@pytest.fixture(scope="module")
def other(emulator: Emulator, stack: Stack) -> Stack:
    """A second stack of the template that `sam deploy` made the first one of."""
    cloudformation = client(stack, "cloudformation")
    (first,) = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"]
    template = cloudformation.get_template(StackName=STACK_NAME, TemplateStage="Original")
    # It is too long to be sent with the request.
    s3 = client(stack, "s3")
    s3.create_bucket(Bucket=OTHER)
    s3.put_object(Bucket=OTHER, Key="template", Body=template["TemplateBody"].encode())
    cloudformation.create_stack(
        StackName=OTHER,
        TemplateURL=f"https://s3.amazonaws.com/{OTHER}/template",
        Parameters=first["Parameters"],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName=OTHER, WaiterConfig={"Delay": 1}
    )
    return describe(emulator, OTHER)


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


def test_a_deleted_stack_comes_back_with_its_counters(
    emulator: Emulator,
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
    again = deploy(emulator, OTHER)

    assert {name: again.outputs[name] for name in imported} == imported
    assert imported == {name: other.outputs[name] for name in imported}
    with Caller(again.url, token_for(again, again.scopes)) as caller:
        assert caller.get(counter).body["value"] == 10
        caller.post(counter)
        entries = caller.history(counter, entries=2)
    assert entries[:1] == before
    assert [entry["value"] for entry in entries] == [10, 11]
