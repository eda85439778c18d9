"""Lint: rules of style for the contract, openapi.yaml, beyond a valid OpenAPI document."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import pytest
from tests import conformance
from tests.conformance import ContractError
from tests.contract_document import (
    COMPONENTS,
    DOCUMENT,
    PROBLEM,
    PROBLEM_TYPE,
    Operation,
    is_problem,
    nodes,
    operations,
    problem_of,
    problems_of,
    resolve,
)

OPERATIONS = operations()
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=str)
every_schema = pytest.mark.parametrize("name", COMPONENTS["schemas"])

# The members of an OpenAPI document are not Tally's, so the schema does not list them all.
FOREIGN_SCHEMAS = {"Contract"}
# Numbers without an upper limit.
UNLIMITED = {"Sum", "Seconds"}
LIMITS_OF_TEXT = {"pattern", "enum", "const", "minLength"}
SENTENCE = re.compile(r"[A-Z][^.]*(?:\.[^ ][^.]*)*\.")


def described() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield everything that needs a description, with its path."""
    for path, node in nodes(DOCUMENT):
        if re.fullmatch(
            r"#/paths/[^ ]+/(get|put|post)|#/components/(?!examples)\w+/[\w-]+"
            r"|#/(tags|servers)/\d+",
            path,
        ):
            yield path, node


def schemas() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every schema and every part of a schema, with its path."""
    waiting = [
        (path, node)
        for path, node in nodes(DOCUMENT)
        if re.fullmatch(r".*/schema|#/components/schemas/\w+", path)
    ]
    while waiting:
        path, schema = waiting.pop()
        yield path, schema
        for name, member in schema.get("properties", {}).items():
            waiting.append((f"{path}/properties/{name}", member))
        if "items" in schema:
            waiting.append((f"{path}/items", schema["items"]))
        for word in ("anyOf", "oneOf", "allOf"):
            waiting += [(f"{path}/{word}", each) for each in schema.get(word, [])]


def examples() -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield every example, with its path and its schema."""
    for path, node in nodes(DOCUMENT):
        if isinstance(node, dict) and "schema" in node:
            if "example" in node:
                yield path, node["schema"], node["example"]
            for example in node.get("examples", {}).values():
                yield path, node["schema"], example["value"]


def values(content: Mapping[str, Any]) -> list[Any]:
    """Return the examples of a media type."""
    named = [example["value"] for example in content.get("examples", {}).values()]
    return [content["example"], *named] if "example" in content else named


def extended(value: Any) -> Iterator[Any]:  # noqa: ANN401  any JSON
    """Yield copies of a value, each with a new member in another one of its objects."""
    if isinstance(value, dict):
        yield {**value, "new_member": 1}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for place, part in parts:
        if isinstance(part, dict | list):
            for new in extended(part):
                changed = value.copy()
                changed[place] = new
                yield changed


def validator_of(schema: Mapping[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Return a validator for a schema as it is published."""
    return jsonschema_rs.Draft202012Validator(
        {**schema, "components": COMPONENTS}, validate_formats=True
    )


def test_everything_has_a_description_of_one_sentence() -> None:
    for path, node in described():
        assert SENTENCE.fullmatch(node.get("description", "")), path


@every_operation
def test_an_operation_has_an_id_a_tag_a_summary_and_its_security(operation: Operation) -> None:
    content = operation.content

    assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", content["operationId"])
    assert len(content["tags"]) == 1
    assert re.fullmatch(r"[A-Z][^.\n]{5,60}", content["summary"])
    assert operation.scope is None or operation.scope.startswith("counters/")


def test_operation_ids_and_summaries_are_unique() -> None:
    for name in ("operationId", "summary"):
        counts = Counter(operation.content[name] for operation in OPERATIONS.values())
        assert max(counts.values()) == 1, name


def test_exactly_the_declared_tags_are_used() -> None:
    used = {tag for operation in OPERATIONS.values() for tag in operation.content["tags"]}

    assert {tag["name"] for tag in DOCUMENT["tags"]} == used


@every_operation
def test_the_path_parameters_are_those_in_the_path_and_are_required(operation: Operation) -> None:
    parameters = operation.parameters("path")

    assert set(parameters) == set(re.findall(r"{(\w+)}", operation.path))
    assert all(parameter["required"] for parameter in parameters.values())


@every_operation
def test_no_parameter_is_in_an_operation_twice(operation: Operation) -> None:
    parameters = [resolve(each) for each in operation.content.get("parameters", [])]

    counts = Counter((each["in"], each["name"].lower()) for each in parameters)
    assert not counts or max(counts.values()) == 1


@every_operation
def test_an_operation_has_the_statuses_that_its_parts_can_lead_to(operation: Operation) -> None:
    statuses = set(operation.responses)
    headers = {name.lower() for name in operation.parameters("header")}

    assert {200, 400, 403, 429, 500, 503} <= statuses
    assert (401 in statuses) == (operation.scope is not None)
    # Only a token can be for certain counters.
    forbidden = operation.content["responses"]["403"]["$ref"].rpartition("/")[2]
    assert forbidden == ("Denied" if operation.scope is None else "Forbidden")
    assert ({413, 415} <= statuses) == (operation.body_schema() is not None)
    assert (304 in statuses) == (operation.method == "GET" and "if-none-match" in headers)
    assert (412 in statuses) == ("if-match" in headers)
    assert ({409, 422} <= statuses) == ("idempotency-key" in headers)


@every_operation
def test_every_error_is_a_problem_with_its_status_and_no_other_response_is(
    operation: Operation,
) -> None:
    for status, response in operation.responses.items():
        if status < 400:
            assert PROBLEM not in response.get("content", {})
            continue
        assert list(response["content"]) == [PROBLEM]
        assert problems_of(response)
        for problem in problems_of(response):
            assert status in problem.statuses, (status, problem)
            assert problem.headers <= response.get("headers", {}).keys(), (status, problem)


@pytest.mark.parametrize("name", COMPONENTS["responses"])
def test_each_problem_of_a_response_has_an_example(name: str) -> None:
    response = COMPONENTS["responses"][name]
    content = response.get("content", {}).get(PROBLEM)
    if content is None:
        return

    kinds = [value["type"].removeprefix(PROBLEM_TYPE) for value in values(content)]
    assert kinds == [problem.kind for problem in problems_of(response)]


def test_every_parameter_body_header_and_content_has_an_example() -> None:
    for path, node in nodes(DOCUMENT):
        if isinstance(node, dict) and "schema" in node:
            assert values(node), path


def test_every_example_is_valid() -> None:
    found = list(examples())
    for path, schema, example in found:
        errors = [str(error) for error in validator_of(schema).iter_errors(example)]
        assert not errors, (path, example, errors)

    assert len(found) > 40


def test_every_default_is_valid() -> None:
    for path, schema in schemas():
        if "default" in schema:
            assert jsonschema_rs.is_valid(dict(schema), schema["default"]), path


def test_every_reference_has_a_target_and_every_component_is_used() -> None:
    used = set()
    for _, node in nodes(DOCUMENT):
        if isinstance(node, dict) and "$ref" in node:
            assert set(node) == {"$ref"}, node
            resolve(node)
            used.add(node["$ref"])
        if isinstance(node, dict) and "discriminator" in node:
            targets = node["discriminator"]["mapping"].values()
            assert sorted(targets) == sorted(each["$ref"] for each in node["oneOf"])
    used.add("#/components/securitySchemes/OAuth2")

    assert used == {
        f"#/components/{kind}/{name}" for kind, part in COMPONENTS.items() for name in part
    }


@every_schema
def test_an_object_lists_its_members(name: str) -> None:
    schema = COMPONENTS["schemas"][name]

    assert set(schema.get("required", [])) <= set(schema.get("properties", {}))
    assert (schema.get("additionalProperties") is True) == (name in FOREIGN_SCHEMAS)


def test_a_request_with_an_unknown_field_is_invalid() -> None:
    bodies = COMPONENTS["requestBodies"].values()
    for content in (body["content"]["application/json"] for body in bodies):
        validator = validator_of(content["schema"])
        for example in extended(content["example"]):
            assert not validator.is_valid(example), example


@every_operation
def test_a_later_version_can_add_a_member_to_a_response_but_this_version_has_no_other_members(
    operation: Operation,
) -> None:
    for status, response in operation.responses.items():
        for media_type, content in response.get("content", {}).items():
            if content["schema"].get("$ref", "").rpartition("/")[2] in FOREIGN_SCHEMAS:
                continue
            headers = {
                name: str(values(resolve(header))[0])
                for name, header in response.get("headers", {}).items()
            }
            validator = validator_of(content["schema"])
            for example in (new for value in values(content) for new in extended(value)):
                validator.validate(example)
                with pytest.raises(ContractError, match="the body is not as the contract says"):
                    conformance.check(
                        operation.method,
                        operation.path,
                        status,
                        {**headers, "Content-Type": media_type},
                        example,
                    )


def test_every_value_has_a_type_and_limits() -> None:
    for path, schema in schemas():
        if schema.keys() & {"$ref", "anyOf", "oneOf"}:
            continue
        kind = schema.get("type")
        assert kind in {"object", "array", "string", "integer", "boolean", "null"}, path
        if path.removeprefix("#/components/schemas/").partition("/")[0] in FOREIGN_SCHEMAS:
            continue
        if kind == "string":
            assert schema.keys() & LIMITS_OF_TEXT, path
        if kind == "array":
            assert {"items", "maxItems"} <= schema.keys(), path
        if kind == "integer" and "enum" not in schema:
            assert "minimum" in schema, path
            is_unlimited = path.rpartition("/")[2] in UNLIMITED | {"events"}
            assert is_unlimited != ("maximum" in schema), path
        if kind == "object":
            assert is_problem(schema) or "properties" in schema, path


def test_a_problem_has_the_members_of_rfc_9457_and_requires_all_of_its_members() -> None:
    for schema in COMPONENTS["schemas"].values():
        if is_problem(schema):
            assert {"type", "title", "status", "detail", "instance"} <= set(schema["properties"])
            assert set(schema["required"]) == set(schema["properties"]), problem_of(schema)
