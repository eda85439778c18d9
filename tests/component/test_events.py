import pytest
from tests import aws_template
from tests.component.samples import CHECKS, EVENTS, load, prepare
from tests.stack import Stack

FUNCTIONS = aws_template.functions()
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@every_function
def test_the_sample_event_runs_through_its_handler(
    stack: Stack, function: aws_template.Function
) -> None:
    if function.routes:
        prepare(stack)

    result = stack.invoke(function.name, load(function.module))

    CHECKS[function.module](stack, result)


def test_there_is_one_sample_event_a_function_named_after_it() -> None:
    modules = {function.module for function in FUNCTIONS.values()}

    assert {path.name for path in EVENTS.iterdir()} == {f"{module}.json" for module in modules}
    assert CHECKS.keys() == modules


@every_function
def test_a_sample_request_is_one_of_the_functions_routes(
    function: aws_template.Function,
) -> None:
    if not function.routes:
        return
    event = load(function.module)
    (route,) = [
        route
        for route in function.routes
        if (route.method, route.path) == (event["httpMethod"], event["resource"])
    ]

    claims = event["requestContext"]["authorizer"]["claims"]
    assert (event["pathParameters"] or {}) == route.match(event["path"])
    assert claims["scope"] in route.auth["AuthorizationScopes"]
    assert all(isinstance(claim, str) for claim in claims.values()), "as API Gateway hands them on"


def test_the_sample_stream_is_as_the_code_writes_counters(stack: Stack) -> None:
    stack.request("POST", "/counters/orders:eu")
    stack.request("POST", "/counters/orders:eu")
    insert, modify = stack.changes()
    written = {"INSERT": shape(insert["dynamodb"]), "MODIFY": shape(modify["dynamodb"])}

    for record in load("record_history")["Records"]:
        assert shape(record["dynamodb"]) == written[record["eventName"]]


def shape(value: object) -> object:
    """Return the value's keys and types, without what it says."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return type(value)
