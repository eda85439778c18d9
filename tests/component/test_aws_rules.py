"""What AWS asks of the template, and the local stack does not check. Read after SAM translates."""

import json
from typing import Any

import pytest
from tests import sam_transform

RESOURCES: dict[str, dict[str, Any]] = sam_transform.template()["Resources"]
PARAMETERS: dict[str, dict[str, Any]] = sam_transform.template()["Parameters"]
TABLES = sam_transform.resources("AWS::DynamoDB::Table")
FUNCTIONS = sam_transform.resources("AWS::Lambda::Function")
EVENT_SOURCES = sam_transform.resources("AWS::Lambda::EventSourceMapping")
ALARMS = sam_transform.resources("AWS::CloudWatch::Alarm")
RESPONSES: dict[str, dict[str, Any]] = dict(
    RESOURCES["Api"]["Properties"]["Body"]["x-amazon-apigateway-gateway-responses"]
)

# Each type that API Gateway has, and its status:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
# Ours differ where AWS's would mislead: a route that does not exist is 404, and a 5xx means that
# nobody knows whether the function made the change.
STATUSES = {
    "ACCESS_DENIED": 403,
    "API_CONFIGURATION_ERROR": 503,
    "AUTHORIZER_CONFIGURATION_ERROR": 503,
    "AUTHORIZER_FAILURE": 503,
    "BAD_REQUEST_BODY": 400,
    "BAD_REQUEST_PARAMETERS": 400,
    "EXPIRED_TOKEN": 401,
    "INTEGRATION_FAILURE": 503,
    "INTEGRATION_TIMEOUT": 503,
    "INVALID_SIGNATURE": 404,
    "MISSING_AUTHENTICATION_TOKEN": 404,
    "QUOTA_EXCEEDED": 429,
    "REQUEST_TOO_LARGE": 413,
    "RESOURCE_NOT_FOUND": 404,
    "THROTTLED": 429,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "WAF_FILTERED": 403,
}
SERVER_ERRORS = {name for name, status in STATUSES.items() if status == 503}
PROBLEMS = {
    "invalid-request": {400, 413, 415},
    "unauthorized": {401},
    "forbidden": {403},
    "not-found": {404},
    "throttled": {429},
    "outcome-unknown": {503},
}

# The lowest quotas that a new account has, in any region.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
ACCOUNT_RATE = 2500  # requests per second
ACCOUNT_BURST = 1250  # requests
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ACCOUNT_CONCURRENCY = 1000
SHARDS_OF_A_NEW_TABLE = 4


WAITING = [
    ("IncrementsLateAlarm", {"Fn::GetAtt": ["IncrementQueue", "QueueName"]}),
    ("EventsLateAlarm", {"Fn::GetAtt": ["EventQueue", "QueueName"]}),
]
PARKED = [
    ("HistoryParkedAlarm", {"Fn::GetAtt": ["HistoryDeadLetterQueue", "QueueName"]}),
    ("IncrementParkedAlarm", {"Fn::GetAtt": ["IncrementDeadLetterQueue", "QueueName"]}),
    ("EventUndeliveredAlarm", {"Fn::GetAtt": ["EventDeadLetterQueue", "QueueName"]}),
]


def response(kind: str) -> dict[str, Any]:
    """Return what API Gateway answers: without a response of its own, a type has the default."""
    return (
        RESPONSES.get(kind) or RESPONSES["DEFAULT_5XX" if kind in SERVER_ERRORS else "DEFAULT_4XX"]
    )


@pytest.mark.parametrize(("kind", "status"), STATUSES.items(), ids=STATUSES)
def test_an_error_of_the_gateway_is_a_problem_with_its_own_status(kind: str, status: int) -> None:
    given = response(kind)
    headers = given["responseParameters"]
    text = given["responseTemplates"]["application/json"]
    problem = json.loads(text)

    assert given["statusCode"] == str(status)
    assert problem["status"] == status
    assert problem.keys() == {"type", "title", "status", "detail", "instance"}
    assert problem["instance"] == "urn:uuid:$context.requestId"
    assert text.count("$") == 1, "API Gateway's own texts may repeat the caller's token"
    name = problem["type"].removeprefix("urn:tally:problem:")
    assert status in PROBLEMS[name]
    assert headers["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
    assert ("gatewayresponse.header.Retry-After" in headers) == (name == "throttled")


def test_every_response_of_the_gateway_is_of_a_type_that_exists() -> None:
    assert RESPONSES.keys() <= STATUSES.keys() | {"DEFAULT_4XX", "DEFAULT_5XX"}


@pytest.mark.parametrize("policy", sam_transform.resources("AWS::SQS::QueuePolicy").items())
def test_a_policy_of_a_queue_names_that_queue_and_no_other(
    policy: tuple[str, dict[str, Any]],
) -> None:
    # SQS rejects a policy that names another queue.
    name, resource = policy
    queue = name.removesuffix("Policy")
    (statement,) = resource["Properties"]["PolicyDocument"]["Statement"]

    assert resource["Properties"]["Queues"] == [{"Ref": queue}]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": {"Fn::GetAtt": [queue, "Arn"]},
        "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
    }


def test_the_queues_that_eventbridge_sends_to_have_a_policy() -> None:
    (target,) = RESOURCES["CountRule"]["Properties"]["Targets"]
    queues = [arn["Fn::GetAtt"][0] for arn in (target["Arn"], target["DeadLetterConfig"]["Arn"])]

    assert {f"{queue}Policy" for queue in queues} == sam_transform.resources(
        "AWS::SQS::QueuePolicy"
    ).keys()


def test_tables_outlive_the_stack_but_not_a_first_deployment_that_failed() -> None:
    kept = {
        name: resource["DeletionPolicy"]
        for name, resource in RESOURCES.items()
        if "DeletionPolicy" in resource
    }

    assert kept == {
        **dict.fromkeys(TABLES, "RetainExceptOnCreate"),
        # The account's setting: other APIs need it, whatever becomes of this stack.
        "ApiAccount": "Retain",
        "ApiAccountRole": "Retain",
    }
    assert all(RESOURCES[name]["UpdateReplacePolicy"] == "Retain" for name in kept)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_protected_in_prod_and_can_be_put_back(table: dict[str, Any]) -> None:
    properties = table["Properties"]

    assert properties["DeletionProtectionEnabled"] == {"Fn::If": ["IsProd", True, False]}
    assert properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert properties["BillingMode"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_encrypted_with_a_key_that_costs_nothing(table: dict[str, Any]) -> None:
    # Without this property, DynamoDB encrypts with a key that AWS owns; with it, KMS charges apply.
    # https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_SSESpecification.html
    assert "SSESpecification" not in table["Properties"]


def test_the_user_pool_is_protected_in_prod() -> None:
    (pool,) = sam_transform.resources("AWS::Cognito::UserPool").values()

    assert pool["Properties"]["DeletionProtection"] == {"Fn::If": ["IsProd", "ACTIVE", "INACTIVE"]}
    assert sam_transform.template()["Conditions"]["IsProd"] == {
        "Fn::Equals": [{"Ref": "Stage"}, "prod"]
    }


def test_the_accounts_role_for_access_logs_is_optional() -> None:
    conditions = sam_transform.template()["Conditions"]
    (stage,) = sam_transform.resources("AWS::ApiGateway::Stage").values()

    assert conditions["SetsApiGatewayLogRole"] == {
        "Fn::Equals": [{"Ref": "ApiGatewayLogRole"}, "set"]
    }
    for name in ("ApiAccount", "ApiAccountRole"):
        assert RESOURCES[name]["Condition"] == "SetsApiGatewayLogRole"
    # The stage comes after the role, if the stack sets it.
    assert {
        "Key": "ApiGatewayLogRole",
        "Value": {"Fn::If": ["SetsApiGatewayLogRole", {"Ref": "ApiAccount"}, "keep"]},
    } in stage["Properties"]["Tags"]


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_lambda_drops_no_metric(function: dict[str, Any]) -> None:
    # A line without a level, as metrics are, has the level INFO:
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
    logging = function["Properties"]["LoggingConfig"]

    assert logging["LogFormat"] == "JSON"
    assert logging["ApplicationLogLevel"] == "INFO"


def test_a_queue_and_the_stream_leave_concurrency_for_the_http_api() -> None:
    limits = {}
    for source in EVENT_SOURCES.values():
        properties = source["Properties"]
        function = properties["FunctionName"]["Ref"]
        if "StartingPosition" in properties:
            limits[function] = properties["ParallelizationFactor"]
        else:
            limits[function] = properties["ScalingConfig"]["MaximumConcurrency"]

    assert limits == {
        "IngestIncrements": {"Ref": "QueueConcurrency"},
        "ForwardEvents": {"Ref": "QueueConcurrency"},
        "RecordHistory": {"Ref": "StreamConcurrency"},
    }
    at_most = 2 * PARAMETERS["QueueConcurrency"]["Default"]
    at_most += SHARDS_OF_A_NEW_TABLE * PARAMETERS["StreamConcurrency"]["Default"]
    assert at_most <= ACCOUNT_CONCURRENCY / 10


def test_the_throttle_of_the_api_is_a_parameter_and_leaves_part_of_a_new_accounts_quota() -> None:
    (stage,) = sam_transform.resources("AWS::ApiGateway::Stage").values()
    (settings,) = stage["Properties"]["MethodSettings"]

    assert settings["ThrottlingRateLimit"] == {"Ref": "ThrottlingRate"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "ThrottlingBurst"}
    assert PARAMETERS["ThrottlingRate"]["Default"] <= ACCOUNT_RATE / 2
    assert PARAMETERS["ThrottlingBurst"]["Default"] <= ACCOUNT_BURST / 2


def watched(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics that an alarm looks at."""
    properties = alarm["Properties"]
    if "Metrics" not in properties:
        return [properties]
    return [each["MetricStat"]["Metric"] for each in properties["Metrics"] if "MetricStat" in each]


def dimensions(metric: dict[str, Any]) -> dict[str, Any]:
    return {each["Name"]: each["Value"] for each in metric["Dimensions"]}


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_an_alarm_notifies_somebody_and_watches_this_stack(alarm: dict[str, Any]) -> None:
    assert alarm["Properties"]["AlarmActions"] == [{"Ref": "AlarmTopic"}]
    for metric in watched(alarm):
        # A dimension of each metric is of this stack: its name, or the name of a part of it.
        assert any(
            value.keys() <= {"Ref", "Fn::GetAtt"}
            for value in dimensions(metric).values()
            if isinstance(value, dict)
        )


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_an_alarm_looks_at_no_more_metrics_than_cloudwatch_allows(alarm: dict[str, Any]) -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    assert len(watched(alarm)) <= 10
    if "Metrics" in alarm["Properties"]:
        assert sum(each.get("ReturnData", True) for each in alarm["Properties"]["Metrics"]) == 1


@pytest.mark.parametrize("metric", ["Errors", "Throttles"])
def test_errors_and_throttles_of_every_function_are_watched_once(metric: str) -> None:
    functions = [
        dimensions(each)["FunctionName"]["Ref"]
        for alarm in ALARMS.values()
        for each in watched(alarm)
        if each["MetricName"] == metric
    ]

    assert sorted(functions) == sorted(FUNCTIONS)


@pytest.mark.parametrize(
    ("name", "namespace", "metric", "of"),
    [
        ("ApiErrorsAlarm", "AWS/ApiGateway", "5XXError", {"Ref": "AWS::StackName"}),
        ("ApiSlowAlarm", "AWS/ApiGateway", "Latency", {"Ref": "AWS::StackName"}),
        ("AuditFindingAlarm", "Tally", "AuditFindings", {"Ref": "AWS::StackName"}),
        ("HistoryLateAlarm", "AWS/Lambda", "IteratorAge", {"Ref": "RecordHistory"}),
        *((name, "AWS/SQS", "ApproximateAgeOfOldestMessage", queue) for name, queue in WAITING),
        *((name, "AWS/SQS", "ApproximateNumberOfMessagesVisible", queue) for name, queue in PARKED),
    ],
)
def test_an_alarm_watches_what_it_is_named_after(
    name: str, namespace: str, metric: str, of: dict[str, Any]
) -> None:
    properties = ALARMS[name]["Properties"]

    assert (properties["Namespace"], properties["MetricName"]) == (namespace, metric)
    assert of in dimensions(properties).values()


def test_the_metrics_of_the_api_have_the_name_that_sam_gives_it() -> None:
    title = RESOURCES["Api"]["Properties"]["Body"]["info"]["title"]
    (stage,) = sam_transform.resources("AWS::ApiGateway::Stage").values()

    for name in ("ApiErrorsAlarm", "ApiSlowAlarm"):
        assert dimensions(ALARMS[name]["Properties"]) == {
            "ApiName": title,
            "Stage": stage["Properties"]["StageName"],
        }


def test_a_stream_that_nothing_reads_raises_an_alarm() -> None:
    properties = ALARMS["HistoryStalledAlarm"]["Properties"]
    metrics = {each["Id"]: each for each in properties["Metrics"]}
    changes = [metrics["updates"]["MetricStat"], metrics["transactions"]["MetricStat"]]

    for stat, operation in zip(changes, ["UpdateItem", "TransactWriteItems"], strict=True):
        assert stat["Stat"] == "SampleCount"
        assert stat["Metric"]["MetricName"] == "SuccessfulRequestLatency"
        assert dimensions(stat["Metric"]) == {
            "TableName": {"Ref": "CounterTable"},
            "Operation": operation,
        }
    invocations = metrics["invocations"]["MetricStat"]["Metric"]
    assert dimensions(invocations) == {"FunctionName": {"Ref": "RecordHistory"}}
    assert {metrics[name]["MetricStat"]["Period"] for name in metrics if name != "stalled"} == {300}
    # Without data it is quiet: nothing changes.
    assert properties["TreatMissingData"] == "notBreaching"
