"""If the trigger IssueToken fails in any way, nobody gets a token. No fault gives more rights."""

import io
import json
import os
import signal
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from tests.e2e.dynamodb_proxy import Reply
from tests.e2e.fault_proxy import Fault, serving, throttled
from tests.e2e.function_pids import function_pids, needs_proc
from tests.e2e.granted import created_groups, delete_grants, put_grants
from tests.e2e.people import Browser, allowed, claims_of, created_person
from tests.e2e.service import Caller, client, cognito, extra_variables, physical_name

from deployment import RUNTIME, Stack
from emulator_process import Emulator
from tally_client.access.grants import MOST_PREFIXES

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = dict[str, AttributeValueTypeDef]

SCOPES = ["counters/increment", "counters/read", "counters/set"]
READ: Any = {"SS": ["read"]}
MOST_GROUPS = 100  # of a person, a limit of Cognito


class Program:
    """An app client for programs, and its grant."""

    def __init__(self, stack: Stack, pool_id: str) -> None:
        self._stack = stack
        app_client = cognito(stack).create_user_pool_client(
            UserPoolId=pool_id,
            ClientName="made-by-a-test",
            GenerateSecret=True,
            AllowedOAuthFlowsUserPoolClient=True,
            AllowedOAuthFlows=["client_credentials"],
            AllowedOAuthScopes=SCOPES,
        )["UserPoolClient"]
        self.client_id = app_client["ClientId"]
        self._secret = app_client["ClientSecret"]

    def token(self, answer: str = "") -> str | None:
        """Ask for a token. Return None if Cognito refuses.

        Args:
            answer: the answer of the trigger, if the trigger is TRIGGER.
        """
        with urllib3.PoolManager(retries=False) as http:
            response = http.request(
                "POST",
                self._stack.token_url,
                fields={
                    "grant_type": "client_credentials",
                    "aws_client_metadata": json.dumps({"answer": answer}),
                },
                headers=urllib3.make_headers(basic_auth=f"{self.client_id}:{self._secret}"),
                encode_multipart=False,
            )
        if response.status == 200:
            token: str = response.json()["access_token"]
            return token
        assert response.status == 400, response.data
        assert response.json().keys() == {"error", "error_description"}
        return None

    def grant(self, **attributes: Any) -> None:  # noqa: ANN401  attributes of DynamoDB
        put_grants(self._stack, [{"principal": {"S": f"client:{self.client_id}"}, **attributes}])


@pytest.fixture
def program(stack: Stack) -> Iterator[Program]:
    """An app client of the stack's user pool. Its grant is deleted after the test."""
    pool_id = stack.outputs["UserPoolId"]
    program = Program(stack, pool_id)
    try:
        yield program
    finally:
        cognito(stack).delete_user_pool_client(UserPoolId=pool_id, ClientId=program.client_id)
        delete_grants(stack, [f"client:{program.client_id}"])


# --- The trigger fails ---------------------------------------------------------------------------


def hangs(_forward: Callable[[], Reply]) -> None:
    """Give no answer for longer than the function waits for DynamoDB."""
    time.sleep(3)


def kills_the_function(emulator: Emulator, function: str) -> Fault:
    """Return a fault that kills the processes of the function in the middle of their work."""

    def fault(_forward: Callable[[], Reply]) -> None:
        found = function_pids(emulator, function)
        assert found
        for pid in found:
            os.kill(pid, signal.SIGKILL)

    return fault


@needs_proc
def test_nobody_gets_a_token_while_grants_cannot_be_read(
    emulator: Emulator, stack: Stack, program: Program
) -> None:
    program.grant(scopes=READ)
    killed = kills_the_function(emulator, physical_name(stack, "IssueToken"))
    with (
        serving(stack.endpoint_url) as (proxy, url),
        extra_variables(stack, "IssueToken", AWS_ENDPOINT_URL_DYNAMODB=url),
        created_person(stack, "editors") as person,
        Browser(stack) as browser,
    ):
        tokens = browser.sign_in(person)
        for fault in (throttled, hangs, killed):
            with proxy.failing(stack.outputs["GrantTable"], fault, {"BatchGetItem"}):
                assert program.token() is None, fault
                assert not browser.has_renewed(tokens["refresh_token"]), fault
            assert proxy.has_injected(fault), fault

            token = program.token()
            assert token
            assert claims_of(token)["scope"] == "counters/read"
            tokens = browser.refresh(tokens["refresh_token"])


def test_nobody_gets_a_token_while_lambda_throttles_the_trigger(
    stack: Stack, program: Program
) -> None:
    lambda_, name = client(stack, "lambda"), physical_name(stack, "IssueToken")
    with created_person(stack, "editors") as person, Browser(stack) as browser:
        tokens = browser.sign_in(person)
        lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        try:
            assert program.token() is None
            assert not browser.has_renewed(tokens["refresh_token"])
        finally:
            lambda_.delete_function_concurrency(FunctionName=name)
        assert program.token()
        assert browser.has_renewed(tokens["refresh_token"])


# A trigger whose answer is the value of a Python expression in the request for a token.
TRIGGER = """
import os, time

def handler(event, context):
    return eval(event["request"]["clientMetadata"]["answer"])
"""


@contextmanager
def pool_with_another_trigger(stack: Stack) -> Iterator[Program]:
    """Create a user pool with TRIGGER, and yield a program of this user pool."""
    lambda_, pool, name = client(stack, "lambda"), cognito(stack), f"trigger-{uuid.uuid4()}"
    artifact = io.BytesIO()
    with zipfile.ZipFile(artifact, "w") as file:
        file.writestr("index.py", TRIGGER)
    function = lambda_.create_function(
        FunctionName=name,
        Runtime=RUNTIME,
        Role="arn:aws:iam::000000000000:role/any",
        Handler="index.handler",
        Code={"ZipFile": artifact.getvalue()},
        Timeout=1,
    )
    config: Any = {"LambdaArn": function["FunctionArn"], "LambdaVersion": "V3_0"}
    pool_id = pool.create_user_pool(
        PoolName=name, LambdaConfig={"PreTokenGenerationConfig": config}
    )["UserPool"]["Id"]
    scopes: Any = [
        {"ScopeName": each.removeprefix("counters/"), "ScopeDescription": each} for each in SCOPES
    ]
    pool.create_resource_server(
        UserPoolId=pool_id, Identifier="counters", Name="counters", Scopes=scopes
    )
    try:
        yield Program(stack, pool_id)
    finally:
        pool.delete_user_pool(UserPoolId=pool_id)
        lambda_.delete_function(FunctionName=name)


def test_the_corrected_emulator_issues_no_token_if_a_trigger_fails(stack: Stack) -> None:
    # This says nothing about Cognito. Without scripts/cognito_corrections.py, the emulator would
    # issue tokens after some of these answers, and the tests above would prove nothing.
    with pool_with_another_trigger(stack) as program:
        for answer in (
            "1 / 0",
            "os._exit(1)",
            "time.sleep(3)",
            "None",
            "{}",
            "'text'",
            "{**event, 'response': None}",
            "{**event, 'response': {'claimsAndScopeOverrideDetails': 'text'}}",
        ):
            assert program.token(answer) is None, answer
        assert program.token("event")


# --- Grants --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grant",
    [
        {"scopes": READ, "prefix": {"SS": ["shop:"]}},
        {"scopes": {"SS": ["read", "write"]}},
        {"scopes": READ, "prefixes": {"L": []}},
    ],
    ids=str,
)
def test_a_malformed_grant_gives_no_token(
    stack: Stack, program: Program, grant: dict[str, Any]
) -> None:
    program.grant(**grant)
    assert program.token() is None

    program.grant(scopes=READ, prefixes={"SS": ["shop:"]})
    token = program.token()
    assert token
    assert allowed(stack, token, "/counters/shop:1") == {"read"}
    assert allowed(stack, token, "/counters/other") == set()


@pytest.fixture(scope="module")
def others(stack: Stack) -> Iterator[None]:
    """A thousand grants of other programs and groups, with all scopes for all counters."""
    others = [f"{kind}:other-{number}" for kind in ("client", "group") for number in range(500)]
    every: Any = {"SS": ["read", "increment", "set"]}
    put_grants(stack, [{"principal": {"S": other}, "scopes": every} for other in others])
    try:
        yield
    finally:
        delete_grants(stack, others)


@pytest.mark.usefixtures("others")
def test_a_program_with_the_most_prefixes_has_exactly_these_rights(
    stack: Stack, caller: Caller, program: Program
) -> None:
    prefixes = [f"most-{number:03}:" for number in range(MOST_PREFIXES)]
    inside = [f"{prefixes[0]}a", f"{prefixes[50]}a", f"{prefixes[-1]}a"]
    for name in (*inside, "most-", f"most-{MOST_PREFIXES}:a"):
        assert caller.post(f"/counters/{name}").status == 200
    program.grant(scopes=READ, prefixes={"SS": prefixes})

    token = program.token()

    assert token
    assert rights_in(token) == {"read": prefixes, "increment": ["-"], "set": ["-"]}
    assert allowed(stack, token, f"/counters/{inside[-1]}") == {"read"}
    assert allowed(stack, token, f"/counters/most-{MOST_PREFIXES}:a") == set()
    with Caller(stack.url, token) as limited:
        assert limited.get("/counters").body == inside


def rights_in(token: str) -> dict[str, list[str]]:
    """Return the words in the claims of IssueToken, by scope."""
    claims = claims_of(token)
    return {scope: claims[f"tally:{scope}"].split() for scope in ("read", "increment", "set")}


@pytest.mark.usefixtures("others")
def test_a_person_in_the_most_groups_has_the_rights_of_each(stack: Stack) -> None:
    grants: Any = {
        f"team-{number:02}": {
            "scopes": {"SS": ["read", "set"] if number % 2 else ["read", "increment"]},
            "prefixes": {"SS": [f"team-{number:02}:"]},
        }
        for number in range(MOST_GROUPS)
    }
    teams = [f"{team}:" for team in grants]
    rights = {"read": teams, "increment": teams[::2], "set": teams[1::2]}
    with (
        created_groups(stack, grants),
        created_person(stack, *grants) as person,
        Browser(stack) as browser,
    ):
        tokens = browser.sign_in(person)
        for token in (tokens, browser.refresh(tokens["refresh_token"])):
            access = token["access_token"]
            assert rights_in(access) == rights
            assert allowed(stack, access, "/counters/team-01:a") == {"read", "set"}
            assert allowed(stack, access, "/counters/team-98:a") == {"read", "increment"}
            assert allowed(stack, access, "/counters/team-0") == set()


def test_rights_that_do_not_fit_into_a_token_give_no_token(stack: Stack, program: Program) -> None:
    # Each prefix has 99 characters, and a space separates two. The claim `*` does not appear.
    prefixes = [f"{number:02}:".ljust(99, "x") for number in range(40)]
    program.grant(scopes=READ, prefixes={"SS": [*prefixes, "more"]})
    assert program.token() is None

    program.grant(scopes=READ, prefixes={"SS": prefixes})
    token = program.token()
    assert token
    with Caller(stack.url, token) as caller:
        assert caller.get(f"/counters/{prefixes[-1]}").status == 200
        assert caller.get("/counters/more").status == 403
