"""Each function handles its sample event, on a new stack and on a stack with data."""

import random

import pytest
from tests import aws_template
from tests.component.samples import CHECKS, EVENTS, load, prepare
from tests.proxy import reply
from tests.sizes import cases
from tests.stack import Stack

FUNCTIONS = aws_template.functions()
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@every_function
def test_the_sample_event_has_the_expected_result(
    stack: Stack, function: aws_template.Function
) -> None:
    if function.routes:
        prepare(stack)

    result = stack.invoke(function.name, load(function.module))

    CHECKS[function.module](stack, result)


@pytest.mark.parametrize("seed", [1, 0][: cases(full=2, part=1)])
@pytest.mark.usefixtures("public")
def test_sample_events_can_run_repeatedly_in_any_order_on_a_used_stack(
    stack: Stack, seed: int
) -> None:
    counter_ids = ["default", "orders:eu", "stock"]
    paths = [f"/counters/{path}" for path in counter_ids]
    used_paths = paths[seed % 2 :]  # with seed 1, leave out the first counter
    for path in used_paths:
        stack.request("POST", path)
    record_changes(stack)
    before = {path: stack.request("GET", path).body for path in paths}
    events = [function for function in FUNCTIONS.values() for _ in range(cases(full=3, part=2))]
    random.Random(seed).shuffle(events)

    for function in events:
        result = stack.invoke(function.name, load(function.module))
        record_changes(stack)
        if function.routes:
            assert reply(result).status == 200, (function.name, reply(result).body)
        assert not (result or {}).get("batchItemFailures"), function.name

    assert {path: stack.request("GET", path).body for path in paths} == before
    for path in paths:
        assert stack.request("POST", path).status == 200
    record_changes(stack)
    for counter_id in [
        *counter_ids,
        *stack.request("GET", "/counters", query="prefix=sample:").body,
    ]:
        counter = stack.request("GET", f"/counters/{counter_id}").body
        entries = stack.request("GET", f"/counters/{counter_id}/history").body
        assert [entry["version"] for entry in entries] == list(range(1, counter["version"] + 1))
        assert sum(entry["by"] for entry in entries) == counter["value"]
    for queue in ("Event", "History", "Increment"):
        assert stack.messages(f"{queue}DeadLetterQueue") == []


def record_changes(stack: Stack) -> None:
    changes = stack.changes()
    if changes:
        assert stack.record(changes) == len(changes)


def test_each_function_has_one_sample_event_named_after_it() -> None:
    modules = {function.module for function in FUNCTIONS.values()}

    assert {path.name for path in EVENTS.iterdir()} == {f"{module}.json" for module in modules}
    assert CHECKS.keys() == modules


@every_function
def test_the_sample_request_matches_a_route_of_its_function(
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

    assert (event["pathParameters"] or {}) == route.match(event["path"])
    if route.public:
        assert "authorizer" not in event["requestContext"]
        return
    claims = event["requestContext"]["authorizer"]["claims"]
    assert claims["scope"] in route.auth["AuthorizationScopes"]
    assert all(isinstance(claim, str) for claim in claims.values()), (
        "API Gateway passes all claims as strings"
    )


def test_sample_stream_records_have_the_structure_of_real_ones(stack: Stack) -> None:
    stack.request("POST", "/counters/orders:eu")
    stack.request("POST", "/counters/orders:eu")
    insert, modify = stack.changes()
    written = {"INSERT": structure(insert["dynamodb"]), "MODIFY": structure(modify["dynamodb"])}

    for record in load("record_history")["Records"]:
        assert structure(record["dynamodb"]) == written[record["eventName"]]


def structure(value: object) -> object:
    """Return a JSON value in which a type replaces each string, number, boolean and null."""
    if isinstance(value, dict):
        return {key: structure(inner) for key, inner in value.items()}
    return type(value)
