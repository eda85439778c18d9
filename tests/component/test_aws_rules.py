"""Rules of AWS that the local stack does not check.

The tests check the CloudFormation template that SAM generates from Tally's template.
"""

import json
from typing import Any

import pytest
from tests import sam_transform

from counters import attempt, idempotency

RESOURCES: dict[str, dict[str, Any]] = sam_transform.template()["Resources"]
PARAMETERS: dict[str, dict[str, Any]] = sam_transform.template()["Parameters"]
TABLES = sam_transform.resources("AWS::DynamoDB::Table")
FUNCTIONS = sam_transform.resources("AWS::Lambda::Function")
EVENT_SOURCES = sam_transform.resources("AWS::Lambda::EventSourceMapping")
ALARMS = sam_transform.resources("AWS::CloudWatch::Alarm")
RESPONSES: dict[str, dict[str, Any]] = dict(
    RESOURCES["Api"]["Properties"]["Body"]["x-amazon-apigateway-gateway-responses"]
)

# The types of errors that API Gateway itself returns, and the status that each error must have:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
# Two statuses differ from AWS's defaults:
# - An unknown route gets 404.
# - Each 5xx becomes 503 `outcome-unknown`, because the function may have made the change.
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

# The quotas of a new AWS account, in the region with the lowest quotas.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
ACCOUNT_RATE = 2500  # requests per second
ACCOUNT_BURST = 1250  # requests
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ACCOUNT_CONCURRENCY = 1000
SHARDS_OF_A_NEW_TABLE = 4

OLDEST_MESSAGE_ALARMS = [
    ("IncrementsLateAlarm", {"Fn::GetAtt": ["IncrementQueue", "QueueName"]}),
    ("EventsLateAlarm", {"Fn::GetAtt": ["EventQueue", "QueueName"]}),
]
DEAD_LETTER_ALARMS = [
    ("HistoryParkedAlarm", {"Fn::GetAtt": ["HistoryDeadLetterQueue", "QueueName"]}),
    ("IncrementParkedAlarm", {"Fn::GetAtt": ["IncrementDeadLetterQueue", "QueueName"]}),
    ("EventUndeliveredAlarm", {"Fn::GetAtt": ["EventDeadLetterQueue", "QueueName"]}),
]


def response(error_type: str) -> dict[str, Any]:
    """Return the gateway response for an error type. If the type has none, return the default."""
    default = "DEFAULT_5XX" if error_type in SERVER_ERRORS else "DEFAULT_4XX"
    return RESPONSES.get(error_type) or RESPONSES[default]


@pytest.mark.parametrize(("error_type", "status"), STATUSES.items(), ids=STATUSES)
def test_an_error_of_api_gateway_is_a_problem_document_with_the_same_status(
    error_type: str, status: int
) -> None:
    properties = response(error_type)
    headers = properties["responseParameters"]
    text = properties["responseTemplates"]["application/json"]
    problem = json.loads(text)

    assert properties["statusCode"] == str(status)
    assert problem["status"] == status
    assert problem.keys() == {"type", "title", "status", "detail", "instance"}
    assert problem["instance"] == "urn:uuid:$context.requestId"
    assert text.count("$") == 1, (
        "only the request id: a message of API Gateway can repeat the caller's token"
    )
    name = problem["type"].removeprefix("urn:tally:problem:")
    assert status in PROBLEMS[name]
    assert headers["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
    assert ("gatewayresponse.header.Retry-After" in headers) == (name == "throttled")


def test_the_template_has_only_gateway_responses_that_exist() -> None:
    assert RESPONSES.keys() <= STATUSES.keys() | {"DEFAULT_4XX", "DEFAULT_5XX"}


@pytest.mark.parametrize("policy", sam_transform.resources("AWS::SQS::QueuePolicy").items())
def test_a_queue_policy_names_its_own_queue_and_no_other(
    policy: tuple[str, dict[str, Any]],
) -> None:
    # SQS rejects the policy of a queue if the policy names another queue.
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


def test_exactly_the_queues_that_eventbridge_sends_to_have_a_policy() -> None:
    (target,) = RESOURCES["CountRule"]["Properties"]["Targets"]
    queues = [arn["Fn::GetAtt"][0] for arn in (target["Arn"], target["DeadLetterConfig"]["Arn"])]

    assert {f"{queue}Policy" for queue in queues} == sam_transform.resources(
        "AWS::SQS::QueuePolicy"
    ).keys()


def test_tables_stay_when_the_stack_is_deleted_but_not_when_its_first_deployment_fails() -> None:
    kept = {
        name: resource["DeletionPolicy"]
        for name, resource in RESOURCES.items()
        # Old versions of functions stay until their function is deleted.
        if "DeletionPolicy" in resource and resource["Type"] != "AWS::Lambda::Version"
    }

    assert kept == {
        **dict.fromkeys(TABLES, "RetainExceptOnCreate"),
        # ApiAccount is a setting of the whole AWS account. Other APIs may need it.
        "ApiAccount": "Retain",
        "ApiAccountRole": "Retain",
    }
    assert all(RESOURCES[name]["UpdateReplacePolicy"] == "Retain" for name in kept)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_protected_in_prod_and_can_be_restored(table: dict[str, Any]) -> None:
    properties = table["Properties"]

    assert properties["DeletionProtectionEnabled"] == {"Fn::If": ["IsProd", True, False]}
    assert properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert properties["BillingMode"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_encrypted_with_the_free_key(table: dict[str, Any]) -> None:
    # Without SSESpecification, DynamoDB encrypts a table with a key that AWS owns. That is free.
    # With SSESpecification, AWS charges for the use of KMS.
    # https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_SSESpecification.html
    assert "SSESpecification" not in table["Properties"]


def test_the_user_pool_is_protected_in_prod() -> None:
    (pool,) = sam_transform.resources("AWS::Cognito::UserPool").values()

    assert pool["Properties"]["DeletionProtection"] == {"Fn::If": ["IsProd", "ACTIVE", "INACTIVE"]}
    assert sam_transform.template()["Conditions"]["IsProd"] == {
        "Fn::Equals": [{"Ref": "Stage"}, "prod"]
    }


def test_setting_the_accounts_role_for_access_logs_is_optional() -> None:
    conditions = sam_transform.template()["Conditions"]
    (stage,) = sam_transform.resources("AWS::ApiGateway::Stage").values()

    assert conditions["SetsApiGatewayLogRole"] == {
        "Fn::Equals": [{"Ref": "ApiGatewayLogRole"}, "set"]
    }
    for name in ("ApiAccount", "ApiAccountRole"):
        assert RESOURCES[name]["Condition"] == "SetsApiGatewayLogRole"
    # If the stack sets the account's role, this tag makes CloudFormation set it before it creates
    # the stage.
    assert {
        "Key": "ApiGatewayLogRole",
        "Value": {"Fn::If": ["SetsApiGatewayLogRole", {"Ref": "ApiAccount"}, "keep"]},
    } in stage["Properties"]["Tags"]


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_log_level_keeps_metrics(function: dict[str, Any]) -> None:
    # Metrics are log lines without a level. Lambda treats log lines without a level as INFO:
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
    logging = function["Properties"]["LoggingConfig"]

    assert logging["LogFormat"] == "JSON"
    assert logging["ApplicationLogLevel"] == "INFO"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lambdas_own_log_lines_and_traces_are_parameters(name: str) -> None:
    (stage,) = sam_transform.resources("AWS::ApiGateway::Stage").values()
    disabled = FUNCTIONS[name]["Properties"]
    active = sam_transform.template(tracing="Active")["Resources"][name]["Properties"]

    assert disabled["LoggingConfig"]["SystemLogLevel"] == {"Ref": "SystemLogLevel"}
    assert "TracingConfig" not in disabled, "Lambda knows only Active and PassThrough"
    assert active["TracingConfig"] == {"Mode": {"Ref": "Tracing"}}
    assert PARAMETERS["Tracing"]["AllowedValues"] == ["Active", "Disabled"]
    assert stage["Properties"]["TracingEnabled"] == {"Fn::If": ["HasTracing", True, False]}


def test_the_access_log_has_all_that_an_operator_needs_to_know_about_a_success() -> None:
    # The functions write no line about a request that succeeds.
    (stage,) = sam_transform.resources("AWS::ApiGateway::Stage").values()
    line = json.loads(stage["Properties"]["AccessLogSetting"]["Format"])

    assert line["request_id"] == "$context.requestId"
    assert line["invocation_id"] == "$context.awsEndpointRequestId"
    assert {"time", "method", "path", "status", "caller", "latency_ms", "error"} <= line.keys()


def test_changes_wait_less_for_their_batch_than_a_request_looks_for_its_change() -> None:
    (stream,) = (
        source["Properties"]
        for source in EVENT_SOURCES.values()
        if "StartingPosition" in source["Properties"]
    )
    name = stream["MaximumBatchingWindowInSeconds"]["Ref"]

    assert PARAMETERS[name]["MaxValue"] <= min(attempt.PATIENCE, idempotency.PATIENCE) - 1
    assert PARAMETERS[name]["Default"] == 0, "the history is late only if somebody wants it"


def test_queues_the_stream_and_the_audit_leave_most_concurrency_to_the_http_api() -> None:
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
    most_concurrent = 2 * PARAMETERS["QueueConcurrency"]["Default"]
    most_concurrent += SHARDS_OF_A_NEW_TABLE * PARAMETERS["StreamConcurrency"]["Default"]
    most_concurrent += PARAMETERS["AuditSegments"]["Default"]
    assert most_concurrent <= ACCOUNT_CONCURRENCY / 10


def test_throttling_is_a_parameter_and_uses_at_most_half_of_a_new_accounts_quota() -> None:
    (stage,) = sam_transform.resources("AWS::ApiGateway::Stage").values()
    (settings,) = stage["Properties"]["MethodSettings"]

    assert settings["ThrottlingRateLimit"] == {"Ref": "ThrottlingRate"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "ThrottlingBurst"}
    assert PARAMETERS["ThrottlingRate"]["Default"] <= ACCOUNT_RATE / 2
    assert PARAMETERS["ThrottlingBurst"]["Default"] <= ACCOUNT_BURST / 2


def watched(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics that an alarm watches."""
    properties = alarm["Properties"]
    if "Metrics" not in properties:
        return [properties]
    return [each["MetricStat"]["Metric"] for each in properties["Metrics"] if "MetricStat" in each]


def dimensions(metric: dict[str, Any]) -> dict[str, Any]:
    return {each["Name"]: each["Value"] for each in metric["Dimensions"]}


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_an_alarm_notifies_the_topic_and_watches_only_this_stack(alarm: dict[str, Any]) -> None:
    assert alarm["Properties"]["AlarmActions"] == [{"Ref": "AlarmTopic"}]
    assert "TreatMissingData" in alarm["Properties"], (
        "the default depends on the state of the alarm"
    )
    for metric in watched(alarm):
        # Each metric has a dimension that refers to this stack or to one of the stack's resources.
        assert any(
            value.keys() <= {"Ref", "Fn::GetAtt"}
            for value in dimensions(metric).values()
            if isinstance(value, dict)
        )


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_an_alarm_watches_at_most_as_many_metrics_as_cloudwatch_allows(
    alarm: dict[str, Any],
) -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    assert len(watched(alarm)) <= 10
    if "Metrics" in alarm["Properties"]:
        assert sum(each.get("ReturnData", True) for each in alarm["Properties"]["Metrics"]) == 1


@pytest.mark.parametrize("metric", ["Errors", "Throttles"])
def test_exactly_one_alarm_watches_the_errors_and_one_the_throttles_of_each_function(
    metric: str,
) -> None:
    functions = [
        dimensions(each)["FunctionName"]["Ref"]
        for alarm in ALARMS.values()
        for each in watched(alarm)
        if each["MetricName"] == metric
    ]

    # NightlyAudit repeats AuditHistory after an error, and fails if that does not help.
    expected = set(FUNCTIONS) - ({"AuditHistory"} if metric == "Errors" else set())
    assert sorted(functions) == sorted(expected)


def test_an_alarm_watches_whether_the_nightly_audit_fails_takes_too_long_or_is_stopped() -> None:
    of_state_machine = {
        (metric["MetricName"], dimensions(metric)["StateMachineArn"]["Ref"])
        for metric in watched(ALARMS["MaintenanceFailedAlarm"])
        if metric["Namespace"] == "AWS/States"
    }

    assert of_state_machine == {
        ("ExecutionsFailed", "NightlyAudit"),
        ("ExecutionsTimedOut", "NightlyAudit"),
        ("ExecutionsAborted", "NightlyAudit"),
    }


@pytest.mark.parametrize(
    ("name", "namespace", "metric", "dimension"),
    [
        ("ApiErrorsAlarm", "AWS/ApiGateway", "5XXError", {"Ref": "AWS::StackName"}),
        ("ApiSlowAlarm", "AWS/ApiGateway", "Latency", {"Ref": "AWS::StackName"}),
        ("AuditFindingAlarm", "Tally", "AuditFindings", {"Ref": "AWS::StackName"}),
        ("HistoryLateAlarm", "AWS/Lambda", "IteratorAge", {"Ref": "RecordHistory"}),
        *(
            (name, "AWS/SQS", "ApproximateAgeOfOldestMessage", queue)
            for name, queue in OLDEST_MESSAGE_ALARMS
        ),
        *(
            (name, "AWS/SQS", "ApproximateNumberOfMessagesVisible", queue)
            for name, queue in DEAD_LETTER_ALARMS
        ),
    ],
)
def test_an_alarm_watches_the_metric_that_its_name_promises(
    name: str, namespace: str, metric: str, dimension: dict[str, Any]
) -> None:
    properties = ALARMS[name]["Properties"]

    assert (properties["Namespace"], properties["MetricName"]) == (namespace, metric)
    assert dimension in dimensions(properties).values()


def test_the_alarms_of_the_api_use_the_name_that_sam_gives_the_api() -> None:
    title = RESOURCES["Api"]["Properties"]["Body"]["info"]["title"]
    (stage,) = sam_transform.resources("AWS::ApiGateway::Stage").values()

    for name in ("ApiErrorsAlarm", "ApiSlowAlarm"):
        assert dimensions(ALARMS[name]["Properties"]) == {
            "ApiName": title,
            "Stage": stage["Properties"]["StageName"],
        }


def test_an_alarm_fires_if_counters_change_but_nothing_reads_the_stream() -> None:
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
