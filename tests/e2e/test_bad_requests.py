"""The deployed API refuses bad requests. The component tests send all of them to the functions."""

import re

import pytest
from tests.component.bad_requests import BAD_REQUESTS, BadRequest
from tests.e2e.service import Answer, Caller, stored_counters
from tests.sizes import cases

from deployment import Stack

EVERY = cases(full=1, part=16)  # `make test` sends every 16th bad request over HTTP


def bad_requests(*, carried: bool) -> list[object]:
    requests = [bad for bad in BAD_REQUESTS if bad.carried is carried]
    return [pytest.param(bad, id=bad.id) for bad in requests[::EVERY]]


def send(caller: Caller, bad: BadRequest) -> Answer:
    path = f"{bad.path}?{bad.query}" if bad.query else bad.path
    return caller.request(bad.method, path, bad.body, bad.headers)


@pytest.mark.parametrize("bad", bad_requests(carried=True))
def test_bad_request_gets_a_400_that_names_the_field_and_changes_nothing(
    stack: Stack, caller: Caller, bad: BadRequest
) -> None:
    before = stored_counters(stack)
    answer = send(caller, bad)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.body["status"] == 400
    assert answer.body["type"].endswith("invalid-request")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", answer.body["instance"])
    detail, field = answer.body["detail"], bad.field
    if bad.headers:  # a gateway may change header names to lower case
        detail, field = detail.lower(), field.lower()
    assert detail.startswith(f"{field}: ")
    assert stored_counters(stack) == before


@pytest.mark.parametrize("bad", bad_requests(carried=False))
def test_bad_request_that_clients_or_gateways_alter_is_still_refused(
    stack: Stack, caller: Caller, bad: BadRequest
) -> None:
    before = stored_counters(stack)
    assert 400 <= send(caller, bad).status < 500
    assert stored_counters(stack) == before
