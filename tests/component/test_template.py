"""The template matches the code, and has the settings on which Tally depends."""

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from tests import aws_template, call_graph
from tests.aws_template import ROOT, TEMPLATE, Function
from tests.routes import ROUTES, documented_routes, documented_scopes
from tests.stack import running

from counters import clients, gateway

FUNCTIONS = aws_template.functions()
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)

API_GATEWAY_SECONDS = 29
# How long Cognito waits for a trigger:
# https://docs.aws.amazon.com/cognito/latest/developerguide/cognito-user-pools-working-with-lambda-triggers.html
COGNITO_SECONDS = 5


def test_every_module_is_the_handler_of_one_function() -> None:
    modules = {path.stem for path in (ROOT / "functions").glob("*.py")}

    assert {function.module for function in FUNCTIONS.values()} == modules
    for function in FUNCTIONS.values():
        assert function.handler == f"{function.module}.handler"
        assert callable(importlib.import_module(function.module).handler)


@every_function
def test_a_function_is_named_after_its_handler(function: Function) -> None:
    assert function.name == function.module.title().replace("_", "")


@every_function
def test_a_function_has_exactly_the_environment_variables_that_its_code_reads(
    function: Function,
) -> None:
    assert set(function.environment) == call_graph.uses(function.module).environment


def test_every_route_has_an_authorizer_and_its_scope_unless_it_is_documented_as_public() -> None:
    api = TEMPLATE["Resources"]["Api"]["Properties"]
    scopes: dict[tuple[str, str], str | None] = {}
    for _, route in ROUTES:
        if route.public:
            scopes[route.method, route.path] = None
            continue
        assert route.auth["Authorizer"] in api["Auth"]["Authorizers"]
        (scopes[route.method, route.path],) = route.auth["AuthorizationScopes"]

    assert scopes == documented_routes()
    assert api["Auth"]["DefaultAuthorizer"] in api["Auth"]["Authorizers"]


def test_the_app_client_may_request_every_scope_and_no_other() -> None:
    (server,) = aws_template.resources("AWS::Cognito::UserPoolResourceServer").values()
    client = TEMPLATE["Resources"]["Client"]
    identifier = server["Properties"]["Identifier"]

    offered = {f"{identifier}/{scope['ScopeName']}" for scope in server["Properties"]["Scopes"]}

    assert offered == set(documented_scopes().values())
    assert set(client["Properties"]["AllowedOAuthScopes"]) == offered
    assert client["Properties"]["AllowedOAuthFlows"] == ["client_credentials"]


def test_nobody_can_sign_up() -> None:
    (pool,) = aws_template.resources("AWS::Cognito::UserPool").values()

    assert pool["Properties"]["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}


def test_two_stacks_fit_in_an_account_because_no_resource_has_a_fixed_name() -> None:
    # These names may be fixed. The name of a stage must be unique only within an API, the names of
    # a resource server and of a group only within a user pool, and the name of a policy only within
    # its role.
    allowed = {("Api", "StageName"), ("ResourceServer", "Name")}
    allowed |= {("NightlyAuditSegments", "PolicyName")}
    allowed |= {
        (group, "GroupName") for group in aws_template.resources("AWS::Cognito::UserPoolGroup")
    }

    names = {
        (logical_id, key)
        for logical_id, resource in TEMPLATE["Resources"].items()
        for key, value in resource.get("Properties", {}).items()
        if key.endswith("Name") and key != "MetricName"
        # These values are not fixed names. The event bus must have a name, and gets the name of the
        # stack. The name of a parameter contains the name of the stack. The other values refer to
        # resources.
        if value not in ({"Ref": "AWS::StackName"}, {"Ref": "EventBus"}, {"Ref": "IssueToken"})
        and "${AWS::StackName}" not in str(value)
    }

    assert names <= allowed


@pytest.mark.parametrize("table", aws_template.tables())
def test_an_index_holds_only_keys_so_that_changes_do_not_write_to_it(table: str) -> None:
    for index in TEMPLATE["Resources"][table]["Properties"].get("GlobalSecondaryIndexes", []):
        assert index["Projection"] == {"ProjectionType": "KEYS_ONLY"}


@every_function
def test_a_function_has_its_own_log_group_with_a_retention(function: Function) -> None:
    properties = TEMPLATE["Resources"][function.name]["Properties"]
    group = properties["LoggingConfig"]["LogGroup"]["Ref"]

    assert group == f"{function.name}LogGroup"
    assert TEMPLATE["Resources"][group]["Properties"]["RetentionInDays"]


@pytest.fixture(scope="module")
def aws(session: botocore.session.Session) -> Iterator[None]:
    """Start a stack, so that the tests can create the functions' AWS clients."""
    with running(session):
        yield


@every_function
@pytest.mark.usefixtures("aws")
def test_a_function_ends_after_its_calls_to_aws_and_before_api_gateway_gives_up(
    function: Function,
) -> None:
    for factory, _ in call_graph.uses(function.module).calls:
        config: Any = getattr(clients, factory)().meta.config  # the type stubs lack these
        seconds = config.connect_timeout + config.read_timeout
        assert config.retries["total_max_attempts"] * seconds < function.timeout

    if function.routes:
        assert function.timeout < API_GATEWAY_SECONDS


def stream_sources() -> list[dict[str, Any]]:
    return [
        event["Properties"]
        for function in aws_template.resources("AWS::Serverless::Function").values()
        for event in function["Properties"].get("Events", {}).values()
        if event["Type"] == "DynamoDB"
    ]


@pytest.mark.parametrize("stream", stream_sources())
def test_a_stream_skips_no_record_and_resumes_at_the_failed_one(
    stream: dict[str, Any],
) -> None:
    assert stream["StartingPosition"] == "TRIM_HORIZON"
    assert stream["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert stream["MaximumRetryAttempts"] == stream["MaximumRecordAgeInSeconds"] == -1
    table = stream["Stream"]["Fn::GetAtt"].removesuffix(".StreamArn")
    specification = TEMPLATE["Resources"][table]["Properties"]["StreamSpecification"]
    assert specification["StreamViewType"] == "NEW_AND_OLD_IMAGES"


@pytest.mark.parametrize("queue", aws_template.queues().values(), ids=aws_template.queues())
def test_a_queue_is_encrypted_and_keeps_messages_for_14_days(queue: dict[str, str]) -> None:
    assert queue["SqsManagedSseEnabled"] == "true"
    assert queue["MessageRetentionPeriod"] == str(14 * 24 * 60 * 60)


def test_the_rule_sends_count_events_to_the_event_queue_except_replays() -> None:
    (rule,) = aws_template.resources("AWS::Events::Rule").values()
    (target,) = rule["Properties"]["Targets"]

    assert rule["Properties"]["EventBusName"] == {"Ref": "EventBus"}
    assert rule["Properties"]["EventPattern"] == {
        "detail-type": ["Count"],
        "replay-name": [{"exists": False}],
    }
    assert target["Arn"] == {"Fn::GetAtt": "EventQueue.Arn"}
    assert target["DeadLetterConfig"]["Arn"] == {"Fn::GetAtt": "EventDeadLetterQueue.Arn"}
    assert target.keys() == {"Id", "Arn", "DeadLetterConfig"}, (
        "the whole event, and no fixed message group"
    )


def queue_sources() -> dict[str, dict[str, Any]]:
    return {
        name: event["Properties"]
        for name, function in aws_template.resources("AWS::Serverless::Function").items()
        for event in function["Properties"].get("Events", {}).values()
        if event["Type"] == "SQS"
    }


@pytest.mark.parametrize("source", queue_sources().values(), ids=queue_sources())
def test_a_function_reports_which_messages_of_a_batch_failed(source: dict[str, Any]) -> None:
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["BatchSize"] == 10


@pytest.mark.parametrize("function", queue_sources())
def test_a_message_is_not_delivered_again_while_its_function_runs(function: str) -> None:
    queue = queue_sources()[function]["Queue"]["Fn::GetAtt"].removesuffix(".Arn")
    properties = TEMPLATE["Resources"][queue]["Properties"]

    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    assert properties["VisibilityTimeout"] >= 6 * FUNCTIONS[function].timeout


@pytest.mark.parametrize(
    ("queue", "dead_letter_queue"),
    [("IncrementQueue", "IncrementDeadLetterQueue"), ("EventQueue", "EventDeadLetterQueue")],
)
def test_sqs_retries_a_message_as_often_as_possible_before_the_dead_letter_queue(
    queue: str, dead_letter_queue: str
) -> None:
    resources = TEMPLATE["Resources"]
    properties = resources[queue]["Properties"]

    assert properties["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": f"{dead_letter_queue}.Arn"},
        "maxReceiveCount": 1000,
    }
    # A FIFO queue needs a FIFO queue as its dead-letter queue. A standard queue needs a standard
    # queue.
    target = resources[dead_letter_queue]["Properties"]
    assert properties.get("FifoQueue") == target.get("FifoQueue")


def test_the_history_is_kept_at_least_a_day_longer_than_any_receipt() -> None:
    parameters = TEMPLATE["Parameters"]
    allowed = re.compile(parameters["HistoryDays"]["AllowedPattern"])

    shortest = min(days for days in range(1, 10_000) if allowed.fullmatch(str(days)))

    assert allowed.fullmatch("0"), "0 means forever"
    assert parameters["ReceiptHours"]["MaxValue"] + 24 <= shortest * 24


def test_a_timeout_leaves_time_for_two_attempts_and_the_response() -> None:
    for function in FUNCTIONS.values():
        if function.routes:
            assert function.timeout > 2 * clients.ATTEMPT


def test_a_token_over_its_limit_gets_a_problem_that_browsers_can_read() -> None:
    acl = TEMPLATE["Resources"]["CallerLimitAcl"]["Properties"]
    (rule,) = acl["Rules"]
    response = rule["Action"]["Block"]["CustomResponse"]
    headers = {header["Name"]: header["Value"] for header in response["ResponseHeaders"]}
    problem = json.loads(acl["CustomResponseBodies"][response["CustomResponseBodyKey"]]["Content"])

    assert response["ResponseCode"] == problem["status"] == 429
    assert problem["type"] == "urn:tally:problem:throttled"
    assert headers["Retry-After"].isdigit()
    assert headers["Access-Control-Allow-Origin"] == {"Ref": "AllowedOrigin"}
    assert headers["Access-Control-Expose-Headers"] == gateway.EXPOSED_HEADERS


def test_a_limit_counts_the_requests_of_each_token_and_is_off_by_default() -> None:
    acl = TEMPLATE["Resources"]["CallerLimitAcl"]
    (rule,) = acl["Properties"]["Rules"]
    statement = rule["Statement"]["RateBasedStatement"]

    assert statement["AggregateKeyType"] == "CUSTOM_KEYS"
    assert [key["Header"]["Name"] for key in statement["CustomKeys"]] == ["authorization"]
    assert statement["Limit"] == {"Ref": "CallerLimit"}
    for name in ("CallerLimitAcl", "CallerLimitOfApi"):
        assert TEMPLATE["Resources"][name]["Condition"] == "HasCallerLimit"
    assert aws_template.parameter("CallerLimit") == "0"


def test_people_sign_in_without_a_secret_and_with_a_refresh_token_that_rotates() -> None:
    client = TEMPLATE["Resources"]["DashboardClient"]["Properties"]

    assert client["GenerateSecret"] is False
    assert client["AllowedOAuthFlows"] == ["code"]
    assert client["AllowedOAuthScopes"] == ["openid"]  # IssueToken adds the scopes of counters
    assert client["RefreshTokenRotation"]["Feature"] == "ENABLED"
    # Cognito refuses this flow together with rotation, and allows it if the list is missing:
    # https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-refresh-token.html
    assert client["ExplicitAuthFlows"]
    assert "ALLOW_REFRESH_TOKEN_AUTH" not in client["ExplicitAuthFlows"]
    assert client["EnableTokenRevocation"] is True
    assert client["PreventUserExistenceErrors"] == "ENABLED"


def test_people_cannot_sign_in_with_the_app_client_for_programs() -> None:
    client = TEMPLATE["Resources"]["Client"]["Properties"]
    triggers = TEMPLATE["Resources"]["UserPool"]["Properties"]["LambdaConfig"]

    # Custom authentication needs three triggers, and a refresh token comes from a sign-in.
    assert set(client["ExplicitAuthFlows"]) == {"ALLOW_CUSTOM_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}
    assert triggers.keys() == {"PreTokenGenerationConfig"}
    assert client["AllowedOAuthFlows"] == ["client_credentials"]


def test_people_need_a_second_factor_only_if_the_parameter_says_so() -> None:
    pool = TEMPLATE["Resources"]["UserPool"]["Properties"]
    no_value = {"Ref": "AWS::NoValue"}

    assert pool["MfaConfiguration"] == {"Ref": "Mfa"}
    # Cognito refuses a list of factors together with OFF.
    assert pool["EnabledMfas"] == {"Fn::If": ["HasMfa", ["SOFTWARE_TOKEN_MFA"], no_value]}
    assert TEMPLATE["Conditions"]["HasMfa"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "Mfa"}, "OFF"]}]
    }
    assert aws_template.parameter("Mfa") == "OFF"


def test_the_dashboard_reads_the_parameter_with_the_client_and_the_page_for_signing_in() -> None:
    settings = TEMPLATE["Resources"]["DashboardSettings"]["Properties"]
    outputs = TEMPLATE["Outputs"]

    assert FUNCTIONS["ShowDashboard"].environment["DASHBOARD_PARAMETER"] == settings["Name"]
    assert json.loads(settings["Value"]["Fn::Sub"]) == {
        "client_id": "${DashboardClient}",
        "sign_in": outputs["SignInUrl"]["Value"]["Fn::Sub"],
    }


def test_people_return_to_the_dashboard_after_signing_in_and_out() -> None:
    client = TEMPLATE["Resources"]["DashboardClient"]["Properties"]

    url = TEMPLATE["Outputs"]["DashboardUrl"]["Value"]
    assert client["CallbackURLs"] == client["LogoutURLs"] == [url]
    assert url["Fn::Sub"].endswith("/"), "the page's links are relative"


def test_people_stay_signed_in_for_longer_than_an_access_token_is_valid() -> None:
    parameters = TEMPLATE["Parameters"]

    longest = parameters["AccessTokenMinutes"]["MaxValue"]
    assert longest < 60 * parameters["SignInHours"]["MinValue"]  # Cognito refuses it otherwise


def test_cognito_calls_issue_token_for_people_and_for_programs() -> None:
    pool = TEMPLATE["Resources"]["UserPool"]["Properties"]
    permission = TEMPLATE["Resources"]["IssueTokenPermission"]["Properties"]

    trigger = pool["LambdaConfig"]["PreTokenGenerationConfig"]
    assert trigger["LambdaArn"] == {"Fn::GetAtt": "IssueToken.Arn"}
    assert trigger["LambdaVersion"] == "V3_0"  # earlier versions skip client credentials
    assert pool["UserPoolTier"] in {"ESSENTIALS", "PLUS"}  # LITE does not have this version
    assert permission["SourceArn"] == {"Fn::GetAtt": "UserPool.Arn"}
    assert FUNCTIONS["IssueToken"].timeout <= COGNITO_SECONDS
