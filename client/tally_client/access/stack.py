"""The stack whose access is administered: its names, and clients for its AWS services."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tally_client import settings
from tally_client.access import faults
from tally_client.errors import InvalidRequest, NotFound, SettingsMissing

if TYPE_CHECKING:
    from collections.abc import Mapping

    import boto3
    from botocore.config import Config
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cognito_idp import CognitoIdentityProviderClient
    from mypy_boto3_dynamodb import DynamoDBClient

_LONGEST_CONNECT = 5.0  # seconds
_MISSING = (
    "No stack was chosen. Give its name with --stack or TALLY_STACK, or start a local stack with"
    f" make run, and work in its directory: there is no {settings.STACK_FILE} here or above."
)


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed stack.

    Attributes:
        grant_table: the name of the table with the grants.
        user_pool_id: the id of the user pool with the people, groups and app clients.
        dynamodb: a client for the table.
        cognito: a client for the user pool.
    """

    grant_table: str
    user_pool_id: str
    dynamodb: DynamoDBClient
    cognito: CognitoIdentityProviderClient


@dataclass(frozen=True, slots=True)
class _Local:
    """The members of `.local/stack.json` that the administration uses."""

    endpoint_url: str
    region: str
    outputs: Mapping[str, str]


def find(name: str | None, deadline: float) -> Stack:
    """Return a stack.

    Args:
        name: the name of a stack in the user's AWS account. None for the running local stack.
        deadline: how many seconds AWS may take to answer a request.

    Raises:
        SettingsMissing: there is no local stack, boto3 is not installed, or the user has no valid
            AWS settings.
        NotFound: the AWS account has no such stack.
        TallyError: AWS did not describe the stack.
    """
    _require_boto3()
    return _local(deadline) if name is None else _deployed(name, deadline)


def _deployed(name: str, deadline: float) -> Stack:
    import boto3  # noqa: PLC0415

    if not name:
        detail = "--stack is empty. Give the name of a stack."
        raise SettingsMissing(detail)
    config = _config(deadline)
    with faults.of_settings():
        session = boto3.Session()
        cloudformation = session.client("cloudformation", config=config)
    outputs = _outputs(cloudformation, name)
    return _stack(f"The stack {name}", outputs, session, config, None)


def _outputs(cloudformation: CloudFormationClient, name: str) -> dict[str, str]:
    try:
        with faults.reported(changes=False):
            answer = cloudformation.describe_stacks(StackName=name)
    except InvalidRequest as error:
        if "does not exist" not in str(error):
            raise
        detail = f"There is no stack {name} in the region {cloudformation.meta.region_name}."
        raise NotFound(detail, status=404, kind=error.kind) from error
    (stack,) = answer["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}


def _local(deadline: float) -> Stack:
    import boto3  # noqa: PLC0415
    import botocore.session  # noqa: PLC0415

    local = settings.from_stack_file(_take, _MISSING)
    config = _config(deadline, proxies={})  # no proxy of the environment may see the requests
    with faults.of_settings():
        # This session ignores AWS_PROFILE and the user's configuration files.
        bare = botocore.session.Session(
            {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
        )
        session = boto3.Session(
            botocore_session=bare,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106  the emulator accepts any secret
            region_name=local.region,
        )
    return _stack("The local stack", local.outputs, session, config, local.endpoint_url)


def _take(stack: Any) -> _Local:  # noqa: ANN401  content of a JSON file
    """Take the local stack out of the content of its file.

    Raises:
        SettingsMissing: the endpoint is not on this machine, so it could be AWS. Or there is no
            region, so that of the user's AWS settings would be used.
    """
    local = _Local(stack["endpoint_url"], stack["region"], dict(stack["outputs"]))
    if not settings.is_this_machine(urlsplit(local.endpoint_url).hostname):
        detail = "endpoint_url must be a URL of this machine"
        raise SettingsMissing(detail)
    if not local.region:
        detail = "region must not be empty"
        raise SettingsMissing(detail)
    return local


def _stack(
    which: str,
    outputs: Mapping[str, str],
    session: boto3.Session,
    config: Config,
    endpoint_url: str | None,
) -> Stack:
    """Return the stack with these outputs.

    Raises:
        SettingsMissing: it lacks an output.
    """
    for name in ("GrantTable", "UserPoolId"):
        if not outputs.get(name):
            detail = f"{which} has no output {name}. Deploy the current version of Tally to it."
            raise SettingsMissing(detail)
    with faults.of_settings():
        return Stack(
            outputs["GrantTable"],
            outputs["UserPoolId"],
            session.client("dynamodb", config=config, endpoint_url=endpoint_url),
            session.client("cognito-idp", config=config, endpoint_url=endpoint_url),
        )


def _config(deadline: float, **more: Any) -> Config:  # noqa: ANN401  options of any type
    from botocore.config import Config  # noqa: PLC0415

    return Config(
        connect_timeout=min(deadline, _LONGEST_CONNECT),
        read_timeout=deadline,
        # If AWS repeats a request whose answer was lost, the second answer is misleading: that the
        # person exists already, or does not exist.
        retries={"mode": "standard", "total_max_attempts": 1},
        **more,
    )


def _require_boto3() -> None:
    try:
        import boto3  # noqa: F401, PLC0415
    except ImportError:
        detail = 'boto3 is not installed. Install it with: pip install "tally-client[aws]"'
        raise SettingsMissing(detail) from None
