import re
from collections.abc import Iterator

import botocore.session
import pytest
from tests import aws_template
from tests.component.bad_requests import BAD_REQUESTS, BadRequest
from tests.stack import Stack, running


@pytest.fixture(scope="module")
def shared_stack(session: botocore.session.Session) -> Iterator[Stack]:
    """A stack with one counter. The tests share it, because a bad request must change nothing."""
    with running(session) as stack:
        stack.request("PUT", "/counters/orders", body={"value": 3})
        stack.record(stack.changes())
        yield stack


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=[bad.id for bad in BAD_REQUESTS])
def test_a_bad_request_changes_nothing_and_the_error_names_the_field(
    shared_stack: Stack, bad: BadRequest
) -> None:
    before = shared_stack.contents()

    reply = shared_stack.request(
        bad.method, bad.path, query=bad.query, headers=bad.headers, body=bad.body
    )

    assert reply.status == 400
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.body["status"] == 400
    assert reply.body["type"].endswith("invalid-request")
    assert reply.body["title"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", reply.body["instance"])
    assert reply.body["detail"].startswith(f"{bad.field}: ")
    assert len(reply.body["detail"]) < 300
    assert shared_stack.contents() == before


def test_there_are_bad_requests_for_every_route() -> None:
    routes = [route for function in aws_template.functions().values() for route in function.routes]

    assert len(BAD_REQUESTS) >= 70
    assert len({bad.id for bad in BAD_REQUESTS}) == len(BAD_REQUESTS)
    for route in routes:
        assert any(
            bad.method == route.method and route.match(bad.path) is not None for bad in BAD_REQUESTS
        ), route
