"""The deployed API does what the contract says: it answers valid and invalid requests."""

import importlib
from types import ModuleType

import pytest
from tests.contract_document import DOCUMENT
from tests.e2e.service import Caller, token_for

from deployment import Stack


@pytest.fixture(scope="module")
def contract_cases() -> ModuleType:
    """The module contract_cases. Only the process that runs these tests loads it."""
    return importlib.import_module("tests.e2e.contract_cases")


def test_the_api_does_what_the_contract_says(
    stack: Stack, contract_cases: ModuleType, subtests: pytest.Subtests
) -> None:
    contract_cases.check_all(stack.url, token_for(stack, stack.scopes), subtests)


@pytest.mark.parametrize(
    ("query", "detail", "is_valid"),
    [
        ({"limit": 101, "values": "true"}, "limit: must be an integer from 1 to 100", True),
        ({"limit": 101, "values": "false"}, "limit: must be an integer from 1 to 100", False),
        ({"limit": 101}, "limit: must be an integer from 1 to 100", False),
        ({"limit": 9, "values": "true"}, "limit: must be an integer from 1 to 1000", False),
        ({"limit": 9}, "limit: must be an integer from 1 to 1000", False),
        ({"id": ["a"], "limit": 9}, "id: must not be combined with limit", True),
        ({"id": ["a"]}, "id: must not be combined with id", False),
        ({}, "increments[3].min: must not be above max", True),
        ({}, "min: must not be above max or else", False),
    ],
)
def test_only_a_refusal_for_a_rule_beyond_the_schemas_is_excused(
    contract_cases: ModuleType, query: dict[str, object], detail: str, *, is_valid: bool
) -> None:
    case = contract_cases.SCHEMA["/counters"]["GET"].Case(query=query)

    assert contract_cases.is_refusal_of_valid_data(case, detail) == is_valid


@pytest.mark.parametrize("token", [None, "garbage"])
def test_everybody_can_read_the_contract_and_gets_304_for_a_version_that_they_have(
    stack: Stack, token: str | None
) -> None:
    with Caller(stack.url, token) as caller:
        answer = caller.get("/openapi.json")
        again = caller.request(
            "GET", "/openapi.json", headers={"If-None-Match": answer.headers["ETag"]}
        )

    assert (answer.status, answer.body) == (200, DOCUMENT)
    assert (again.status, again.body) == (304, None)
