import re

import pytest
from tests.component.bad_requests import BAD_REQUESTS, BadRequest
from tests.e2e.service import Answer, Caller, counters

from deployment import Stack


def rows(*, carried: bool) -> list[object]:
    return [pytest.param(bad, id=bad.id) for bad in BAD_REQUESTS if bad.carried is carried]


def send(caller: Caller, bad: BadRequest) -> Answer:
    path = f"{bad.path}?{bad.query}" if bad.query else bad.path
    return caller.request(bad.method, path, bad.body, bad.headers)


@pytest.mark.parametrize("bad", rows(carried=True))
def test_a_bad_request_is_told_which_field_is_bad_and_changes_nothing(
    stack: Stack, caller: Caller, bad: BadRequest
) -> None:
    before = counters(stack)
    answer = send(caller, bad)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.body["status"] == 400
    assert answer.body["type"].endswith("invalid-request")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", answer.body["instance"])
    detail, field = answer.body["detail"], bad.field
    if bad.headers:  # on its way the case of a header's name may change
        detail, field = detail.lower(), field.lower()
    assert detail.startswith(f"{field}: ")
    assert counters(stack) == before


@pytest.mark.parametrize("bad", rows(carried=False))
def test_a_bad_request_that_a_gateway_makes_another_of_is_refused_all_the_same(
    stack: Stack, caller: Caller, bad: BadRequest
) -> None:
    before = counters(stack)
    assert 400 <= send(caller, bad).status < 500
    assert counters(stack) == before
