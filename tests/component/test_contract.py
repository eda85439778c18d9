"""The contract, openapi.yaml, matches the template, the code and the docs, in both directions."""

import json
import re
from typing import Any

import openapi_spec_validator
import pytest
from tests import aws_template
from tests.aws_template import TEMPLATE, Function, Route
from tests.conformance import CORS_HEADERS
from tests.contract_document import (
    COMPONENTS,
    DOCUMENT,
    PROBLEM_TYPE,
    Operation,
    operations,
    problems,
    problems_of,
    resolve,
)
from tests.documents import read, rows, table
from tests.routes import ROUTES, documented_routes, supported

import contract
from counters import badge, errors, headers, model, rules
from counters.errors import CounterError
from counters.model import Bounds, Condition, Counter

API = read("api.md")
OPERATIONS = operations()
COUNTER = Counter("orders", 1, 1, "2026-11-22T10:00:00.000Z", "2026-11-22T10:00:00.000Z")

every_route = pytest.mark.parametrize(
    ("function", "route"), ROUTES, ids=[f"{route.method} {route.path}" for _, route in ROUTES]
)

# One error of each class.
ERRORS: list[CounterError] = [
    errors.InvalidRequestError("by: must be an integer"),
    errors.UnauthorizedError("no token"),
    errors.ForbiddenError("not this counter"),
    errors.NotFoundError("no such version"),
    errors.BoundExceededError(Bounds(), COUNTER),
    errors.InProgressError(1),
    errors.VersionMismatchError(Condition(None), COUNTER),
    errors.KeyReusedError("another body"),
    errors.ThrottledError("busy"),
    errors.OutcomeUnknownError("lost"),
    errors.InternalError(),
]


def gateway_problems() -> list[tuple[int, str, set[str]]]:
    """Return API Gateway's own errors: the status, the last part of the type, and the headers.

    The headers that all responses have are left out.
    """
    responses: dict[str, Any] = TEMPLATE["Resources"]["Api"]["Properties"]["GatewayResponses"]
    found = []
    for response in responses.values():
        problem = json.loads(response["ResponseTemplates"]["application/json"])
        sent = set(response["ResponseParameters"]["Headers"]) - {"Content-Type"} - CORS_HEADERS
        found.append((problem["status"], problem["type"].removeprefix(PROBLEM_TYPE), sent))
    return found


def section(operation: Operation) -> str:
    """Return the section of docs/api.md that describes an operation."""
    path = re.sub(r"^/counters/{counter_id}", "/counter", operation.path)
    text = API.partition(f"\n### {operation.method} {path}\n")[2].partition("\n##")[0]
    assert text, operation
    return text


def test_the_contract_is_a_valid_openapi_document() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(DOCUMENT)


def test_the_json_that_the_service_returns_is_up_to_date() -> None:
    assert contract.TARGET.read_text() == contract.as_json(), "run make contract"


# --- The template --------------------------------------------------------------------------------


def test_the_contract_has_exactly_the_routes_of_the_template_with_their_scopes() -> None:
    scopes: dict[tuple[str, str], str | None] = {}
    for _, route in ROUTES:
        (scope,) = route.auth.get("AuthorizationScopes", [None])
        scopes[route.method, route.path] = scope

    assert {key: operation.scope for key, operation in OPERATIONS.items()} == scopes


def test_exactly_the_operations_without_security_have_no_authorizer() -> None:
    for _, route in ROUTES:
        is_public = OPERATIONS[route.method, route.path].content["security"] == []
        assert route.public == is_public
        assert route.public == (route.auth == {"Authorizer": "NONE"})


def test_the_contract_has_exactly_the_scopes_of_the_template() -> None:
    (server,) = aws_template.resources("AWS::Cognito::UserPoolResourceServer").values()
    offered = {
        f"{server['Properties']['Identifier']}/{scope['ScopeName']}": scope["ScopeDescription"]
        for scope in server["Properties"]["Scopes"]
    }

    flow = COMPONENTS["securitySchemes"]["OAuth2"]["flows"]["clientCredentials"]
    assert flow["scopes"] == offered


def test_the_base_url_is_that_of_the_stage() -> None:
    stage = TEMPLATE["Resources"]["Api"]["Properties"]["StageName"]

    assert DOCUMENT["info"]["version"] == stage
    assert [server["url"] for server in DOCUMENT["servers"]] == ["."]


def test_every_error_of_api_gateway_is_in_the_contract_with_its_headers() -> None:
    for status, kind, sent in gateway_problems():
        problem = problems()[kind]
        assert status in problem.statuses, (status, kind)
        assert sent == set(problem.headers), (status, kind)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=str)
def test_every_operation_has_the_errors_that_api_gateway_can_answer_with(
    operation: Operation,
) -> None:
    expected = {
        (status, kind)
        for status, kind, _ in gateway_problems()
        if (status != 401 or operation.scope)
        and (status not in {413, 415} or operation.body_schema())
        # This is the error for an unknown route, which has no operation.
        and status != 404
    }

    documented = {
        (status, problem.kind)
        for status, response in operation.responses.items()
        for problem in problems_of(response)
    }
    assert expected <= documented


# --- The code ------------------------------------------------------------------------------------


@every_route
def test_an_operation_has_exactly_the_parameters_headers_and_fields_of_its_handler(
    function: Function, route: Route
) -> None:
    operation = OPERATIONS[route.method, route.path]

    assert set(operation.parameters("query")) == supported(function, "query")
    assert {name.lower() for name in operation.parameters("header")} == supported(
        function, "headers"
    )
    assert operation.body_fields() == supported(function, "body")
    assert set(operation.parameters("path")) == set(re.findall(r"{(\w+)}", route.path))


def test_there_is_an_error_of_each_class() -> None:
    assert {type(error) for error in ERRORS} == set(CounterError.__subclasses__())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.kind)
def test_a_problem_has_the_status_members_and_headers_of_its_error(error: CounterError) -> None:
    problem = problems()[error.kind]

    assert error.status in problem.statuses
    assert error.members.keys() == problem.members
    assert error.headers.keys() == problem.headers


def test_the_contract_has_exactly_the_problems_of_the_functions_and_of_api_gateway() -> None:
    of_functions = {(int(error.status), error.kind) for error in ERRORS}
    of_api_gateway = {(status, kind) for status, kind, _ in gateway_problems()}

    assert {
        (status, problem.kind) for problem in problems().values() for status in problem.statuses
    } == of_functions | of_api_gateway


@pytest.mark.parametrize(
    ("schema", "record", "required"),
    [
        ("Counter", model.Counter, model.Counter),
        ("ChangedCounter", model.ChangedCounter, model.ChangedCounter),
        ("TrendInterval", model.ComparedBucket, model.Bucket),
        ("Range", model.Range, model.Range),
    ],
)
def test_a_schema_has_exactly_the_members_of_its_record(
    schema: str,
    record: Any,  # noqa: ANN401
    required: Any,  # noqa: ANN401
) -> None:
    assert list(COMPONENTS["schemas"][schema]["properties"]) == list(record._fields)
    assert COMPONENTS["schemas"][schema]["required"] == list(required._fields)


def test_the_limits_are_those_of_the_code() -> None:
    schemas, parameters = COMPONENTS["schemas"], COMPONENTS["parameters"]
    whole = {"minimum": model.MIN_INTEGER, "maximum": model.MAX_INTEGER}

    assert schemas["CounterId"]["pattern"] == f"^{rules._COUNTER_ID.pattern}$"  # noqa: SLF001
    for name in ("Value", "By", "Min", "Max"):
        assert {limit: schemas[name][limit] for limit in whole} == whole
    assert schemas["Version"]["maximum"] == model.MAX_INTEGER
    assert parameters["Interval"]["schema"]["enum"] == list(model.SECONDS)
    colors = parameters["Color"]["schema"]
    assert colors["pattern"].removeprefix("^(").startswith("|".join([*badge.COLORS, "["]))
    assert colors["default"] == badge.DEFAULT_COLOR
    assert f"{{1,{badge.LONGEST_LABEL}}}$" in parameters["Label"]["schema"]["pattern"]
    most = rules.MAX_COUNTERS
    assert schemas["Increments"]["properties"]["increments"]["maxItems"] == most
    assert parameters["Id"]["schema"]["maxItems"] == schemas["Counters"]["maxItems"] == most
    assert f"{{0,{headers._MOST_VERSIONS - 1}}}" in parameters["IfMatch"]["schema"]["pattern"]  # noqa: SLF001
    longest = headers._LONGEST_KEY  # noqa: SLF001
    key = parameters["IdempotencyKey"]["schema"]["pattern"]
    assert f"{{0,{longest - 1}}}|" in key
    assert f"{{1,{longest}}}" in key


# --- The docs ------------------------------------------------------------------------------------


def test_the_docs_have_exactly_the_routes_of_the_contract_with_their_scopes() -> None:
    assert documented_routes() == {key: each.scope for key, each in OPERATIONS.items()}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=str)
def test_the_docs_have_exactly_the_parameters_headers_and_fields_of_an_operation(
    operation: Operation,
) -> None:
    text = section(operation)

    assert rows(text, "query parameter").keys() == operation.parameters("query").keys()
    assert rows(text, "header").keys() == operation.parameters("header").keys()
    assert rows(text, "body field").keys() == operation.body_fields()


def test_the_docs_have_the_defaults_of_the_contract() -> None:
    for operation in OPERATIONS.values():
        documented = rows(section(operation), "query parameter")
        for name, parameter in operation.parameters("query").items():
            default = resolve(parameter["schema"]).get("default")
            if isinstance(default, bool) or default is None:
                continue
            assert documented[name][-1].strip("`") == str(default), (operation, name)


def test_the_docs_have_exactly_the_members_of_the_contract() -> None:
    schemas = COMPONENTS["schemas"]
    history = read("history.md")
    trend = history.partition("\n## The trend\n")[2]

    assert rows(API, "member").keys() == schemas["Counter"]["properties"].keys()
    assert (
        rows(API, "member of an increment").keys()
        == schemas["CounterIncrement"]["properties"].keys()
    )
    assert rows(history, "member").keys() == schemas["Entry"]["properties"].keys()
    assert rows(trend, "member").keys() == schemas["TrendInterval"]["properties"].keys()


def test_the_docs_have_exactly_the_response_headers_of_the_contract() -> None:
    responses = [response for each in OPERATIONS.values() for response in each.responses.values()]

    described = {name for response in responses for name in response.get("headers", {})}
    assert rows(API, "response header").keys() == described | CORS_HEADERS


def test_the_docs_have_exactly_the_problems_of_the_contract() -> None:
    documented = {}
    for statuses, kind, _, more in table(API, "status"):
        found = frozenset(int(status) for status in re.findall(r"\d+", statuses))
        documented[kind.strip("`")] = (found, frozenset(re.findall(r"`(.+?)`", more)))

    assert documented == {
        kind: (problem.statuses, problem.members | problem.headers)
        for kind, problem in problems().items()
    }


def test_the_operations_have_exactly_the_statuses_and_problems_of_the_docs() -> None:
    documented = {
        (int(status), kind.strip("`"))
        for statuses, kind, *_ in table(API, "status")
        for status in re.findall(r"\d+", statuses)
    }
    used = set()
    for operation in OPERATIONS.values():
        for status, response in operation.responses.items():
            used |= {(status, problem.kind) for problem in problems_of(response) if status >= 400}
            assert status in {200, 304, 308} or problems_of(response)
        text = section(operation)
        assert (304 in operation.responses) == ("304" in text)
        assert (308 in operation.responses) == ("308" in text)
        assert (412 in operation.responses) == ("412" in text)

    assert used == documented
