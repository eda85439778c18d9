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
def test_the_sample_event_runs_through_its_handler(
    stack: Stack, function: aws_template.Function
) -> None:
    if function.routes:
        prepare(stack)

    result = stack.invoke(function.name, load(function.module))

    CHECKS[function.module](stack, result)


@pytest.mark.parametrize("seed", [1, 0][: cases(full=2, part=1)])
def test_sample_events_can_be_repeated_in_any_order_on_a_stack_in_use(
    stack: Stack, seed: int
) -> None:
    ours = ["default", "orders:eu", "stock"]
    names = [f"/counters/{name}" for name in ours]
    used = names[seed % 2 :]  # the first time, one counter is used after the samples only
    for name in used:
        stack.request("POST", name)
    record_changes(stack)
    before = {name: stack.request("GET", name).body for name in names}
    events = [function for function in FUNCTIONS.values() for _ in range(cases(full=3, part=2))]
    random.Random(seed).shuffle(events)

    for function in events:
        result = stack.invoke(function.name, load(function.module))
        record_changes(stack)
        if function.routes:
            assert reply(result).status == 200, (function.name, reply(result).body)
        assert not (result or {}).get("batchItemFailures"), function.name

    assert {name: stack.request("GET", name).body for name in names} == before
    for name in names:
        assert stack.request("POST", name).status == 200
    record_changes(stack)
    for counter_id in [*ours, *stack.request("GET", "/counters", query="prefix=sample:").body]:
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


def test_each_function_has_one_sample_event_that_is_named_after_it() -> None:
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


def test_the_sample_stream_has_the_form_of_the_codes_own_changes(stack: Stack) -> None:
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
