"""The role of a function permits exactly the AWS calls in the function's code.

SAM translates the template into a CloudFormation template. The tests read the roles in the
translated template, because SAM generates most roles and can add permissions to a role.
"""

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from tests import aws_template, call_graph, released, sam_transform
from tests.aws_template import Function
from tests.stack import running

from counters import clients, clock

FUNCTIONS = aws_template.functions()
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
ROLES = sam_transform.resources("AWS::IAM::Role")
PARAMETERS = sam_transform.template()["Parameters"]
EVENT_SOURCES = sam_transform.resources("AWS::Lambda::EventSourceMapping")

# Operations whose IAM action has a different name. A transaction needs the permissions of the
# writes in it. In Tally, these writes are updates. A batch of messages needs the permission for one
# message:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-batch-api.html
ACTIONS = {
    "dynamodb:TransactWriteItems": "dynamodb:UpdateItem",
    "sqs:SendMessageBatch": "sqs:SendMessage",
}

# The ARN of a parameter in Parameter Store, without its name.
PARAMETER = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter"

# Lambda reads the queue or the stream for a function, with the permissions of the function's role.
# These are the actions that the role must permit.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/iam-policy-example-lamda-process-dynamodb-streams.html
READS_QUEUE = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
READS_STREAM = {
    "dynamodb:DescribeStream",
    "dynamodb:GetRecords",
    "dynamodb:GetShardIterator",
    "dynamodb:ListStreams",
}

# Lambda also writes the logs and the traces of a function with the permissions of the function's
# role. These are the actions that the role must permit.
LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}
TRACES = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
# The managed policies of AWS for logs and traces. They permit the actions on every resource. SAM
# adds these policies to each role that it generates. A role that the template defines can permit
# less.
MANAGED_LOGS = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
MANAGED_TRACES = "arn:aws:iam::aws:policy/AWSXrayWriteOnlyAccess"

# Permissions that a release uses, but the current code does not, by release and function. During a
# deployment, the last release runs with the same roles. After the next release, the entry has no
# effect, and the permission must go. For example: {"0.1.0": {"GetCounter": {"dynamodb:Query"}}}
STILL_USED: dict[str, dict[str, set[str]]] = {}

# After the timeout of a function, this much time must be left in the apply window. A request of a
# killed function can arrive 5 s late, and the clocks of two functions may differ by 5 s.
MARGIN_SECONDS = 10


def role(function: Function, tracing: str = "Disabled") -> dict[str, Any]:
    """Return the role of a function, for a value of the parameter Tracing."""
    resources = sam_transform.template(tracing=tracing)["Resources"]
    name, attribute = resources[function.name]["Properties"]["Role"]["Fn::GetAtt"]
    assert (name, attribute) == (f"{function.name}Role", "Arn"), "each function has its own role"
    properties: dict[str, Any] = resources[name]["Properties"]
    return properties


def permissions(function: Function, tracing: str = "Disabled") -> dict[str, set[str]]:
    """Return the actions that the role of a function permits, by resource."""
    permitted: dict[str, set[str]] = {}
    for policy in role(function, tracing).get("Policies", []):
        for entry in policy["PolicyDocument"]["Statement"]:
            statement = entry
            if "Fn::If" in entry:
                condition, statement, otherwise = entry["Fn::If"]
                assert (condition, otherwise) == ("HasTracing", {"Ref": "AWS::NoValue"})
                if tracing != "Active":
                    continue
            assert statement.keys() == {"Effect", "Action", "Resource"}
            assert statement["Effect"] == "Allow"
            actions = statement["Action"]
            assert not isinstance(statement["Resource"], list), "a statement has one resource"
            permitted.setdefault(resource(statement["Resource"]), set()).update(
                actions if isinstance(actions, list) else [actions]
            )
    return permitted


def resource(value: str | dict[str, Any]) -> str:
    """Return the name of a resource in a policy.

    Returns:
        `<logical id>.<attribute>`. For every resource, `*`. For an index, the text in `Fn::Sub`.
    """
    match value:
        case "*":
            return "*"
        case {"Fn::GetAtt": [logical_id, attribute]}:
            return f"{logical_id}.{attribute}"
        case {"Fn::Sub": str(text)}:
            return text
    raise AssertionError(value)


def event_source(function: Function) -> dict[str, set[str]]:
    """Return the IAM actions that Lambda needs to read the event sources of a function.

    The keys are the event sources: queues and streams.
    """
    return {
        resource(source["Properties"]["EventSourceArn"]): READS_STREAM
        if resource(source["Properties"]["EventSourceArn"]).endswith(".StreamArn")
        else READS_QUEUE
        for source in EVENT_SOURCES.values()
        if source["Properties"]["FunctionName"] == {"Ref": function.name}
    }


def permissions_of_code(function: Function) -> dict[str, set[str]]:
    """Return the permissions of a function's role that the function's code needs.

    Omit the permissions that Lambda needs for the event source and the logs.
    """
    for_lambda = event_source(function) | {f"{function.name}LogGroup.Arn": LOGS}
    return {
        name: actions for name, actions in permissions(function).items() if name not in for_lambda
    }


def still_used() -> dict[str, set[str]]:
    """Return the permissions that only the last release uses, by function."""
    return STILL_USED.get(released.RELEASE[0], {})


def action(factory: str, method: str) -> str:
    """Return the IAM action for a call of a client.

    Args:
        factory: the name of the function that returns the client.
        method: the method of the client.
    """
    meta = getattr(clients, factory)().meta
    name = f"{meta.service_model.signing_name}:{meta.method_to_api_mapping[method]}"
    return ACTIONS.get(name, name)


@pytest.fixture(scope="module")
def aws(session: botocore.session.Session) -> Iterator[None]:
    """Start a stack, so that the tests can create the functions' AWS clients."""
    with running(session):
        yield


@every_function
@pytest.mark.usefixtures("aws")
def test_a_role_permits_exactly_the_calls_in_the_code(function: Function) -> None:
    used = {action(*call) for call in call_graph.uses(function.module).calls}

    permitted = set().union(*permissions_of_code(function).values())
    assert permitted == used | still_used().get(function.name, set())


@every_function
def test_a_role_permits_calls_only_on_resources_that_the_environment_names(
    function: Function,
) -> None:
    resources = sam_transform.template()["Resources"]
    named = resources.keys() & {
        value["Ref"] for value in function.environment.values() if "Ref" in value
    }
    services = {"AWS::DynamoDB::Table": "dynamodb", "AWS::SQS::Queue": "sqs"}

    owners = set()
    for name, actions in permissions_of_code(function).items():
        if name.startswith(PARAMETER):
            # The environment has the name of the parameter, which begins with a slash.
            assert {"Fn::Sub": name.removeprefix(PARAMETER)} in function.environment.values()
            assert actions == {"ssm:GetParameter"}
            continue
        owner, _, attribute = name.removeprefix("${").partition(".")
        owners.add(owner)
        service = services[resources[owner]["Type"]]
        assert {each.partition(":")[0] for each in actions} == {service}
        if name.startswith("${"):
            indexes = resources[owner]["Properties"]["GlobalSecondaryIndexes"]
            assert attribute in {f"Arn}}/index/{index['IndexName']}" for index in indexes}
        else:
            assert attribute == "Arn"
    assert owners == named or (function.name in still_used() and owners > named)


@every_function
def test_a_function_may_read_its_own_event_source_and_no_other(function: Function) -> None:
    permitted = permissions(function)

    for source, actions in event_source(function).items():
        assert permitted[source] == actions
    readable = sum(
        actions & (READS_QUEUE | READS_STREAM) != set() for actions in permitted.values()
    )
    reads_a_queue_itself = function.name == "RedriveHistory"
    assert readable == len(event_source(function)) + reads_a_queue_itself


@every_function
def test_a_role_permits_logs_and_has_no_other_managed_policy(function: Function) -> None:
    managed = role(function).get("ManagedPolicyArns", [])

    if managed:
        assert managed == [MANAGED_LOGS]
    else:
        assert permissions(function)[f"{function.name}LogGroup.Arn"] == LOGS


@every_function
def test_a_role_permits_traces_only_if_the_parameter_says_so(function: Function) -> None:
    managed = role(function).get("ManagedPolicyArns", [])
    active = permissions(function, "Active")

    if managed:
        assert role(function, "Active")["ManagedPolicyArns"] == [*managed, MANAGED_TRACES]
    else:
        assert active.pop("*") == TRACES
    assert active == permissions(function)
    assert sam_transform.template()["Conditions"]["HasTracing"] == {
        "Fn::Equals": [{"Ref": "Tracing"}, "Active"]
    }
    assert PARAMETERS["Tracing"]["Default"] == "Disabled"


def test_the_nightly_audit_may_only_invoke_its_function_and_run_its_segments() -> None:
    # https://docs.aws.amazon.com/step-functions/latest/dg/iam-policies-eg-dist-map.html
    own = ROLES["NightlyAuditRole"]["Properties"]
    added = sam_transform.resources("AWS::IAM::Policy")["NightlyAuditSegments"]["Properties"]
    documents = [own["Policies"][0]["PolicyDocument"], added["PolicyDocument"]]
    execution = "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:execution"

    assert (len(own["Policies"]), own["ManagedPolicyArns"]) == (1, [])
    assert added["Roles"] == [{"Ref": "NightlyAuditRole"}]
    assert [
        (statement["Action"], statement["Resource"])
        for document in documents
        for statement in document["Statement"]
    ] == [
        ("lambda:InvokeFunction", {"Fn::GetAtt": ["AuditHistory", "Arn"]}),
        ("states:StartExecution", {"Ref": "NightlyAudit"}),
        (
            ["states:DescribeExecution", "states:StopExecution"],
            {"Fn::Sub": f"{execution}:${{NightlyAudit.Name}}:*"},
        ),
    ]


def test_a_function_with_an_event_source_has_no_managed_policy() -> None:
    # If SAM generated these roles, it would add a managed policy. That policy permits reading every
    # queue or every stream of the account.
    readers = {source["Properties"]["FunctionName"]["Ref"] for source in EVENT_SOURCES.values()}

    assert readers == {"IngestIncrements", "ForwardEvents", "RecordHistory"}
    assert not any("ManagedPolicyArns" in role(FUNCTIONS[name]) for name in readers)


def test_no_change_is_applied_after_the_apply_window() -> None:
    changing = [
        function
        for function in FUNCTIONS.values()
        if "dynamodb:UpdateItem" in permissions(function).get("CounterTable.Arn", set())
    ]

    assert {function.name for function in changing} == {
        function.name
        for function in FUNCTIONS.values()
        if "IncrementQueue.Arn" in event_source(function)
        or any(route.method != "GET" for route in function.routes)
    }
    for function in changing:
        assert function.timeout + MARGIN_SECONDS <= clock.APPLY_WINDOW
