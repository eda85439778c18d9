"""A user pool and a table of grants in moto, and the commands of `tally` that administer them."""

import itertools
import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import boto3
import botocore.httpsession
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.client import BaseClient
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from joserfc import jwk
from tests import tally_command
from typer.testing import Result

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp import CognitoIdentityProviderClient
    from mypy_boto3_dynamodb import DynamoDBClient

REGION = "us-east-1"
GROUPS = ("readers", "writers", "editors")

# Sends a request with these parameters, and returns the answer.
Send = Callable[[dict[str, Any]], Any]
# Takes the place of AWS for a request: gets a function that sends it, and its parameters.
Fault = Callable[[Send, dict[str, Any]], Any]

_numbers = itertools.count(1)
_import_key: Any = jwk.RSAKey.import_key


class Administration:
    """Runs the command for a stack. A test can let requests to AWS fail.

    Attributes:
        sent: the operation and the parameters of each request that the command sent.
        faults: what happens to the requests of an operation.
        outputs: the outputs of the stack, as CloudFormation returns them. None if moto's
            CloudFormation answers, which takes seconds to import.
        pool: the id of the user pool.
        table: the name of the table of grants.
        client_id: the id of an app client for programs.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.faults: dict[str, Fault] = {}
        self.dynamodb: DynamoDBClient = _client("dynamodb")
        self.cognito: CognitoIdentityProviderClient = _client("cognito-idp")
        self.table = f"grants-{number}"
        self.dynamodb.create_table(
            TableName=self.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "principal", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "principal", "KeyType": "HASH"}],
        )
        pool = self.cognito.create_user_pool(PoolName=f"people-{number}")
        self.pool = pool["UserPool"]["Id"]
        for group in GROUPS:
            self.cognito.create_group(UserPoolId=self.pool, GroupName=group)
        self.client_id = self.created_client(AllowedOAuthFlows=["client_credentials"])
        self.outputs: dict[str, str] | None = {
            "GrantTable": self.table,
            "UserPoolId": self.pool,
        }

    def run(self, text: str) -> Result:
        """Run the command, with arguments as in a shell."""
        self.sent.clear()
        return tally_command.run(shlex.split(text))

    def __call__(self, text: str) -> str:
        result = self.run(text)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return result.stdout

    def json(self, text: str) -> Any:  # noqa: ANN401  the JSON that the command printed
        (line,) = self(f"{text} --json").splitlines()
        return json.loads(line)

    def error(self, text: str, code: int) -> dict[str, Any]:
        """Run a command that fails. Return its error, which is the same as text and as JSON."""
        shown = self.run(text)
        result = self.run(f"{text} --json")
        assert (shown.exit_code, result.exit_code) == (code, code), result.output
        error: dict[str, Any] = json.loads(result.stderr)
        assert shown.stderr.startswith(f"{error['error']}: ")
        assert "Traceback" not in shown.output
        return error

    def operations(self) -> list[str]:
        """Return the operations of the command's requests, without finding the stack."""
        return [name for name, _ in self.sent if name != "DescribeStacks"]

    def parameters(self, operation: str) -> dict[str, Any]:
        """Return the parameters of the only request of an operation."""
        (found,) = [parameters for name, parameters in self.sent if name == operation]
        return found

    def put(self, principal: str, **attributes: Any) -> None:  # noqa: ANN401  DynamoDB's attributes
        """Write an item into the table."""
        self.dynamodb.put_item(
            TableName=self.table, Item={"principal": {"S": principal}, **attributes}
        )

    def item(self, principal: str) -> dict[str, Any] | None:
        """Return an item of the table, with sorted sets. None if there is none."""
        answer = self.dynamodb.get_item(TableName=self.table, Key={"principal": {"S": principal}})
        if "Item" not in answer:
            return None
        return {name: _sorted(value) for name, value in answer["Item"].items()}

    def create(self, name: str) -> None:
        """Create a person in the user pool."""
        self.cognito.admin_create_user(
            UserPoolId=self.pool,
            Username=name,
            UserAttributes=[{"Name": "email", "Value": f"{name}@example.com"}],
        )

    def created_client(self, **settings: Any) -> str:  # noqa: ANN401  settings of Cognito
        """Create an app client with these settings. Return its id."""
        answer = self.cognito.create_user_pool_client(
            UserPoolId=self.pool, ClientName="made-by-a-test", **settings
        )
        return answer["UserPoolClient"]["ClientId"]

    def groups_of(self, name: str) -> set[str]:
        answer = self.cognito.admin_list_groups_for_user(UserPoolId=self.pool, Username=name)
        return {each["GroupName"] for each in answer["Groups"]}

    def sub_of(self, name: str) -> str:
        """Return the id of a person, which the history shows as the actor."""
        user = self.cognito.admin_get_user(UserPoolId=self.pool, Username=name)
        attributes = {each["Name"]: each["Value"] for each in user["UserAttributes"]}
        return attributes["sub"]

    def names(self) -> list[str]:
        """Return the names of all people."""
        users = self.cognito.list_users(UserPoolId=self.pool)["Users"]
        return sorted(user["Username"] for user in users)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Note the command's requests, and let those fail that a test plans, in the with block."""
        usual: Any = BaseClient._make_api_call  # type: ignore[attr-defined]  # noqa: SLF001

        def call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:  # noqa: ANN401
            if client in (self.dynamodb, self.cognito):  # the test itself
                return usual(client, operation, parameters)
            self.sent.append((operation, parameters))

            def send(parameters: dict[str, Any]) -> Any:  # noqa: ANN401
                if operation == "DescribeStacks" and self.outputs is not None:
                    return _described(self.outputs)
                return usual(client, operation, parameters)

            fault = self.faults.get(operation)
            return fault(send, parameters) if fault else send(parameters)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BaseClient, "_make_api_call", call)
            yield


@contextmanager
def isolated(directory: Path) -> Iterator[pytest.MonkeyPatch]:
    """Let no request leave this machine, and give the user no AWS settings, in the with block.

    The user chose the stack `tally`, and works in a directory without a local stack.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "TALLY_"))]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "of-the-user")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-user")
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        patch.setenv("TALLY_STACK", "tally")
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        patch.setattr(jwk.RSAKey, "import_key", lambda content: _signing_key(json.dumps(content)))
        patch.chdir(directory)
        send: Any = botocore.httpsession.URLLib3Session.send

        def guarded(session: object, request: AWSPreparedRequest) -> Any:  # noqa: ANN401
            # moto answers requests to AWS before they get here.
            assert request.url.startswith("http://127.0.0.1:"), request.url
            return send(session, request)

        patch.setattr(botocore.httpsession.URLLib3Session, "send", guarded)
        yield patch


def refusing(code: str, status: int = 400, message: str = "set by the test") -> Fault:
    """Return a fault that answers with an error, and changes nothing."""

    def fault(_send: Send, _parameters: dict[str, Any]) -> NoReturn:
        metadata: Any = {"HTTPStatusCode": status, "RequestId": "request-7"}
        error: Any = {"Code": code, "Message": message}
        raise ClientError({"Error": error, "ResponseMetadata": metadata}, "TheOperation")

    return fault


def never_connected(_send: Send, _parameters: dict[str, Any]) -> NoReturn:
    raise EndpointConnectionError(endpoint_url="https://aws.example")


def slow_to_connect(_send: Send, _parameters: dict[str, Any]) -> NoReturn:
    raise ConnectTimeoutError(endpoint_url="https://aws.example")


def losing_the_reply(send: Send, parameters: dict[str, Any]) -> NoReturn:
    send(parameters)
    raise ReadTimeoutError(endpoint_url="https://aws.example")


def interrupting(_send: Send, _parameters: dict[str, Any]) -> NoReturn:
    raise KeyboardInterrupt


def limited_to(count: int) -> Fault:
    """Return a fault that lets each page have at most so many items."""
    return lambda send, parameters: send({**parameters, "Limit": count})


# Each fault with the exit codes of a command that it stops: at a read, and at a change.
FAULTS: dict[str, tuple[Fault, int, int]] = {
    "denied": (refusing("AccessDeniedException"), 5, 5),
    "bad credentials": (refusing("UnrecognizedClientException"), 5, 5),
    "old credentials": (refusing("ExpiredTokenException"), 5, 5),
    "missing": (refusing("ResourceNotFoundException"), 6, 6),
    "invalid": (refusing("InvalidParameterException"), 4, 4),
    "another refusal": (refusing("LimitExceededException"), 4, 4),
    "throttled": (refusing("TooManyRequestsException"), 10, 10),
    "throttled by DynamoDB": (refusing("ThrottlingException"), 10, 10),
    "never connected": (never_connected, 10, 10),
    "slow to connect": (slow_to_connect, 10, 10),
    "internal error": (refusing("InternalErrorException", 500), 10, 11),
    "reply lost": (losing_the_reply, 10, 11),
}


@cache
def _client(service: str) -> Any:  # noqa: ANN401  depends on the service
    """Return a client for the test itself."""
    session = boto3.Session("test", "test", region_name=REGION)
    return session.client(service)  # type: ignore[call-overload]  # any service


@cache
def _signing_key(content: str) -> Any:  # noqa: ANN401  it has no types
    """Return moto's key for signing tokens. Importing it for each pool takes 0.1 s of CPU time."""
    return _import_key(json.loads(content))


def _described(outputs: dict[str, str]) -> Any:  # noqa: ANN401
    """Return an answer to DescribeStacks."""
    listed = [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]
    return {"Stacks": [{"StackName": "tally", "Outputs": listed}]}


def _sorted(value: Any) -> dict[str, Any]:  # noqa: ANN401  a DynamoDB attribute
    return {kind: sorted(each) if kind == "SS" else each for kind, each in value.items()}
