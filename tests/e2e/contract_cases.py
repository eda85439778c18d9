"""Sends the requests of schemathesis to the deployed API. Loading schemathesis takes two seconds.

schemathesis makes valid and invalid requests from openapi.yaml, and checks every response against
it.
"""

import datetime as dt
import json
import re
from collections import Counter
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import CheckFunction, CheckResult, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi import checks as openapi_checks
from tests import conformance
from tests.contract_document import DOCUMENT, operations
from tests.sizes import FULL, examples

# Rules that JSON Schema cannot express, because they compare several values, or a value with the
# time. A request that breaks one of them is valid for its schema, but gets a 400 with exactly this
# text.
BEYOND_SCHEMAS = re.compile(
    r"at: must not be combined with version"
    r"|expected: must be false if interval is minute"
    r"|at: must not be in the future"
    r"|from: must be before to"
    r"|from: must not be in the future"
    r"|from: must be at most \d+ (minute|hour|day)s before to"
    r" \(or before now, if to is missing or in the future\)"
    r"|to: must be after 1970-01-01T00:00:00Z"
    r"|(increments\[\d+\]\.)?min: must not be above max"
    r"|increments\[\d+\]\.counter_id: must be given only once"
    r"|If-Match: must not be combined with If-None-Match"
    r"|id: must not be combined with (prefix|limit|after|values)"
)
# As above, but only together with `values=true`. Without it, the schema has the limit.
LIMIT_OF_VALUES = "limit: must be an integer from 1 to 100"
# These checks need several callers, several requests, a required header, or the header Allow. So
# they have nothing to check here, and are not counted.
WITHOUT_EFFECT = {
    "allow_header_conformance",
    "ensure_resource_availability",
    "missing_required_header",
    "object_level_authorization",
    "use_after_free",
}
CONDITIONS = {"If-Match", "If-None-Match"}

# The statuses of valid requests. A refusal that depends on the state of a counter is one of them.
EXPECTED = ["200", "304", "404", "409", "412", "422", "503"]

# For each operation, schemathesis sends random requests, and a request for each bound in a schema.
# A route of the default counter has the same function and the same bounds as the route of named
# counters. So only `make test-full` sends it the requests for the bounds.
DEFAULT_COUNTER = {
    "include-path-regex": "^/counter(/|$)",
    "phases": {"coverage": {"enabled": FULL}},
}

SCHEMA = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=schemathesis.Config.from_dict(
        {
            "checks": {"positive_data_acceptance": {"expected-statuses": EXPECTED}},
            "operations": [DEFAULT_COUNTER],
        }
    ),
)

# Times in UTC from 1970 to 2099. The format also allows earlier times and leap seconds, which Tally
# refuses.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2100, 1, 1)).map(  # noqa: DTZ001  adds Z
        lambda time: f"{time.isoformat()}Z"
    ),
)


RUN = Counter[str]()  # how often each check has run


@SCHEMA.hook  # type: ignore[untyped-decorator]  # mypy does not read schemathesis
def after_validate(
    _context: schemathesis.HookContext, _case: Case, _response: object, results: list[CheckResult]
) -> None:
    """Count the checks that ran. schemathesis gives no result of a check that it left out."""
    RUN.update(result.name for result in results if result.name not in WITHOUT_EFFECT)


def check_all(url: str, token: str, subtests: pytest.Subtests) -> None:
    """Send the requests of each operation, and check the responses.

    Args:
        url: the URL of the API.
        token: a token with all scopes.
        subtests: each operation becomes one of them.
    """
    headers = {"Authorization": f"Bearer {token}"}
    counts = Counter[str]()  # the cases of each operation

    def check(case: Case) -> None:
        response = case.call(url, headers=headers)

        # The emulator decodes a path before it looks for the route. API Gateway does not.
        sent = urlsplit(str(response.request.url)).path
        path = unquote(sent.removeprefix(urlsplit(url).path))
        flat = {name: ", ".join(values) for name, values in response.headers.items()}
        body = conformance.parsed(flat.get("content-type", ""), response.text)
        conformance.check(case.method, path, response.status_code, flat, body)
        case.validate_response(
            response,
            excluded_checks=excluded(case, response.status_code, body),
            headers=headers,
            transport_kwargs={"base_url": url, "headers": headers},
        )
        counts[case.operation.label] += 1

    # The next lines do what `SCHEMA.parametrize` does. But it does so while pytest collects the
    # tests, which takes seconds in each process of the test run.
    load_all_checks()
    for result in get_all_tests(
        schema=SCHEMA, test_func=check, settings=examples(full=400, part=3), given_kwargs=None
    ):
        assert isinstance(result, Ok)
        operation, test = result.ok()
        with subtests.test(operation.label):
            test()
    print(f"\n{len(counts)} operations, {counts.total()} cases: {dict(counts)}")
    print(f"{RUN.total()} runs of {len(RUN)} checks: {dict(RUN)}")
    assert min(RUN["positive_data_acceptance"], RUN["negative_data_rejection"]) > 0
    assert counts.keys() == {str(operation) for operation in operations().values()}


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
    if BEYOND_SCHEMAS.fullmatch(detail):
        return True
    if detail == LIMIT_OF_VALUES and str(dict(case.query or {}).get("values")).lower() == "true":
        return True
    name, _, why = detail.partition(": ")
    is_point = why == "must be an integer" and ".0" in json.dumps(case.body, default=str)
    return is_point or (name in CONDITIONS and dict(case.headers or {}).get(name) == "0")
