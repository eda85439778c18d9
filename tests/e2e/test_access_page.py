"""The commands in docs/access.md work, and do what the page says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests import documents
from tests.e2e import loaded_commands
from tests.e2e.service import client

from deployment import Stack
from local_settings import STACK_NAME

COMMAND_SECONDS = 120
TESTED = 10  # blocks of commands
# The emulator does not have these operations. So the AWS command line only checks their options.
NOT_EMULATED = re.compile(r"aws cognito-idp \S+-user-pool-client-secrets? (?:\\\n|.)*")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The blocks of commands. Blocks of other kinds have a language.
BLOCKS = [text for language, text in _BLOCK.findall(documents.read("access.md")) if not language]


@pytest.fixture(scope="module")
def clone(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with what `make run` puts into a clone while it runs, and the commands."""
    clone = tmp_path_factory.mktemp("clone")
    (clone / ".local").mkdir()
    (clone / ".local" / "stack.json").write_text(json.dumps(asdict(stack)))
    with loaded_commands.installed(clone, "aws", "tally"):
        yield clone


@pytest.fixture(autouse=True)
def no_grants(stack: Stack) -> Iterator[None]:
    """Delete all grants after the test."""
    yield
    for principal in grants(stack):
        key = {"principal": {"S": principal}}
        client(stack, "dynamodb").delete_item(TableName=stack.outputs["GrantTable"], Key=key)


def grants(stack: Stack) -> dict[str, dict[str, set[str]]]:
    """Return the sets in each grant, by principal."""
    items = client(stack, "dynamodb").scan(TableName=stack.outputs["GrantTable"])["Items"]
    return {
        item["principal"]["S"]: {
            name: set(value["SS"]) for name, value in item.items() if "SS" in value
        }
        for item in items
    }


def run(stack: Stack, clone: Path, commands: str) -> str:
    """Run commands one after the other, up to the first that fails. Return what they print."""
    settings = {
        "AWS_ENDPOINT_URL": stack.endpoint_url,
        "AWS_DEFAULT_REGION": stack.region,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "PATH": f"{clone}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "OldSecretId": "an-id",
        "OrdersClientId": stack.client_id,
        "SenderRoleArn": "arn:aws:iam::000000000000:role/sender",
        "StackName": STACK_NAME,
        **stack.outputs,
        "TokenUrl": stack.token_url,
    }
    commands = NOT_EMULATED.sub(lambda command: f"{command[0]} --generate-cli-skeleton", commands)
    done = subprocess.run(
        ["/bin/bash", "-ec", commands],
        cwd=clone,
        env=settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


def blocks(command: str) -> list[str]:
    """Return the blocks of commands on the page that contain a command."""
    return [block for block in BLOCKS if command in block]


@pytest.mark.parametrize("command", ["add-user-pool-client-secret", "--client-name my-page"])
def test_app_clients_are_created_and_changed(stack: Stack, clone: Path, command: str) -> None:
    (block,) = blocks(command)

    assert run(stack, clone, block)


def test_a_program_gets_an_app_client_with_a_grant_and_loses_both(
    stack: Stack, clone: Path
) -> None:
    (create,) = blocks("--client-name orders")
    (delete,) = blocks("delete-user-pool-client --user-pool-id")

    output = run(stack, clone, f"{create}echo $OrdersClientId\n")

    client_id = output.split()[-1]
    expected = {"scopes": {"increment"}, "prefixes": {"orders:"}}
    assert grants(stack) == {f"client:{client_id}": expected}

    run(stack, clone, f"OrdersClientId={client_id}\n{delete}")

    assert grants(stack) == {}


def test_a_program_gets_a_token(stack: Stack, clone: Path) -> None:
    (block,) = blocks("grant_type=client_credentials")

    assert json.loads(run(stack, clone, block))["access_token"]


@pytest.mark.parametrize("command", ["tally people add", "aws cognito-idp admin-create-user"])
def test_a_person_is_added_listed_and_removed(stack: Stack, clone: Path, command: str) -> None:
    (block,) = blocks(command)

    assert "alice@example.com" in run(stack, clone, block)


@pytest.mark.parametrize(
    ("command", "last", "others"),
    [
        ("tally grants list", "tally grants remove", {"group:writers"}),
        ("aws dynamodb put-item", "aws dynamodb delete-item", {"group:support"}),
    ],
)
def test_a_grant_is_set_and_removed(
    stack: Stack, clone: Path, command: str, last: str, others: set[str]
) -> None:
    (block,) = blocks(command)
    position = block.index(last)
    principal = f"client:{stack.client_id}"

    run(stack, clone, block[:position])

    found = grants(stack)
    assert found[principal] == {"scopes": {"read", "increment"}, "prefixes": {"orders:"}}
    assert found.keys() == {principal, *others}

    run(stack, clone, block[position:])

    assert principal not in grants(stack)


def test_a_policy_of_the_queue_names_who_may_send(stack: Stack, clone: Path) -> None:
    (block,) = blocks("set-queue-attributes")
    queue: Any = {"QueueUrl": stack.outputs["IncrementQueueUrl"]}

    run(stack, clone, block)

    sqs = client(stack, "sqs")
    attributes = sqs.get_queue_attributes(**queue, AttributeNames=["Policy"])["Attributes"]
    (statement,) = json.loads(attributes["Policy"])["Statement"]
    forwarder, sender = statement["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]
    assert "ForwardEventsRole" in forwarder
    assert sender == "arn:aws:iam::000000000000:role/sender"
    sqs.set_queue_attributes(**queue, Attributes={"Policy": ""})


def test_every_block_of_commands_on_the_page_has_a_test() -> None:
    assert len(BLOCKS) == TESTED
