"""The commands in docs/access.md work, and do what the page says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from tests import documents
from tests.e2e.service import client

from deployment import Stack

COMMAND_SECONDS = 120
# The emulator does not have these operations. So the AWS command line only checks their options.
NOT_EMULATED = re.compile(r"aws cognito-idp \S+-user-pool-client-secrets? (?:\\\n|.)*")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The blocks of commands. Blocks of other kinds have a language.
BLOCKS = [text for language, text in _BLOCK.findall(documents.read("access.md")) if not language]


@pytest.fixture(scope="module")
def clone(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what `make run` puts into a clone while it runs."""
    clone = tmp_path_factory.mktemp("clone")
    (clone / ".local").mkdir()
    (clone / ".local" / "stack.json").write_text(json.dumps(asdict(stack)))
    return clone


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
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "OldSecretId": "an-id",
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


def up_to(block: str, command: str) -> str:
    """Return the part of a block before the first line that begins with a command."""
    return block[: block.index(command)]


@pytest.mark.parametrize("block", BLOCKS)
def test_all_commands_in_a_block_succeed(stack: Stack, clone: Path, block: str) -> None:
    run(stack, clone, block)


def test_the_page_shows_how_to_get_a_token(stack: Stack, clone: Path) -> None:
    (block,) = blocks("grant_type=client_credentials")

    assert json.loads(run(stack, clone, block))["access_token"]


def test_both_ways_of_setting_a_grant_store_the_same(stack: Stack, clone: Path) -> None:
    (with_tally,) = blocks("tally grants set")
    (with_aws,) = blocks("aws dynamodb put-item")
    principal = f"client:{stack.client_id}"

    run(stack, clone, up_to(with_tally, "tally grants remove"))
    first = grants(stack)[principal]
    run(stack, clone, up_to(with_aws, "aws dynamodb delete-item"))

    assert grants(stack)[principal] == first
    assert first == {"scopes": {"read", "increment"}, "prefixes": {"orders:"}}
