"""The deployed API does what the contract says: schemathesis sends valid and invalid requests.

schemathesis makes the requests from openapi.yaml, and checks every response against it.
"""

import datetime as dt
import json
import re
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, CheckFunction
from schemathesis.specs.openapi import checks as openapi_checks
from tests import conformance
from tests.contract_document import DOCUMENT
from tests.e2e.service import Caller, token_for
from tests.sizes import examples

from deployment import Stack

# Rules that JSON Schema cannot express, because they compare several values, or a value with the
# time. A request that breaks one of them is valid for its schema, but gets a 400 that says so.
BEYOND_SCHEMAS = (
    "at: must not be combined with version",
    "at: must not be in the future",
    "from: must be before to",
    "from: must not be in the future",
    "from: must be at most ",
    "to: must be after 1970-01-01T00:00:00Z",
    "min: must not be above max",
    "counter_id: must be given only once",
    "If-Match: must not be combined with If-None-Match",
    "id: must not be combined with ",
    "limit: must be an integer from 1 to 100",
)
CONDITIONS = {"If-Match", "If-None-Match"}

# The statuses of valid requests. A refusal that depends on the state of a counter is one of them.
EXPECTED = ["200", "304", "404", "409", "412", "422", "503"]

SCHEMA = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=schemathesis.Config.from_dict(
        {"checks": {"positive_data_acceptance": {"expected-statuses": EXPECTED}}}
    ),
)

# Times in 1970 or later, up to the year 9998. In other years, an offset can lead out of the range.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2100, 1, 1)).map(  # noqa: DTZ001  adds Z
        lambda time: f"{time.isoformat()}Z"
    ),
)


Case = schemathesis.Case[Any]


@pytest.fixture(scope="module")
def token(stack: Stack) -> str:
    return token_for(stack, stack.scopes)


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[str]]:
    """Counts the cases of each operation. After the last test, prints how many there were."""
    counts = Counter[str]()
    yield counts
    checks = len(CHECKS.get_all()) - 1  # without `unsupported_method`
    print(f"\n{len(counts)} operations, {checks} checks, {counts.total()} cases: {dict(counts)}")


@SCHEMA.parametrize()
@examples(full=400, part=5)
def test_the_api_does_what_the_contract_says(
    case: Case, stack: Stack, token: str, counts: Counter[str]
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    response = case.call(stack.url, headers=headers)

    body = response.json() if response.content else None
    # The emulator decodes a path before it looks for the route. API Gateway does not.
    path = unquote(urlsplit(str(response.request.url)).path.removeprefix(urlsplit(stack.url).path))
    flat = {name: ", ".join(values) for name, values in response.headers.items()}
    conformance.check(case.method, path, response.status_code, flat, body)
    case.validate_response(
        response,
        excluded_checks=excluded(case, response.status_code, body),
        headers=headers,
        transport_kwargs={"base_url": stack.url, "headers": headers},
    )
    counts[case.operation.label] += 1


def excluded(case: Case, status: int, body: Any) -> list[CheckFunction]:  # noqa: ANN401  any JSON
    """Return the checks that do not apply to a response."""
    # This check expects 405 for a method that a route does not have. API Gateway answers 404, and
    # has no setting for another status. `conformance.check` checks that answer.
    checks: list[CheckFunction] = [openapi_checks.unsupported_method]
    if status == HTTPStatus.BAD_REQUEST and is_refusal_of_valid_data(case, body["detail"]):
        checks.append(openapi_checks.positive_data_acceptance)
    return checks


def is_refusal_of_valid_data(case: Case, detail: str) -> bool:
    """Return whether a request got a 400, although schemathesis takes the request for valid.

    There are three reasons:
    - The request breaks a rule that JSON Schema cannot express.
    - The body has a number such as 1.0. For JSON Schema, 1.0 is an integer. Tally requires a number
      without a point and without an exponent.
    - schemathesis sends the text 0 in place of some headers, although their patterns exclude it.
    """
    rule = re.sub(r"^increments\[\d+\]\.", "", detail)
    if rule.startswith(BEYOND_SCHEMAS):
        return True
    name = detail.partition(":")[0]
    is_point = rule.endswith(": must be an integer") and ".0" in json.dumps(case.body, default=str)
    return is_point or (name in CONDITIONS and dict(case.headers or {}).get(name) == "0")


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
