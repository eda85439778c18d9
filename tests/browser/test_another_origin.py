"""A web page of another origin can call the API from a browser, and read all answers."""

import uuid
from collections.abc import Callable, Mapping
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Page, Request
from tests.browser.website import Answer, RefusedError, Website, fetch
from tests.component.links import target
from tests.e2e.api_proxy import planned, serving
from tests.e2e.service import Caller, client, extra_variables, token_for

from counters import clock
from counters.idempotency import Intent
from deployment import Stack

Fetch = Callable[..., Answer]


@pytest.fixture(scope="module")
def authorization(stack: Stack) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token_for(stack, stack.scopes)}"}


@pytest.fixture
def foreign(page: Page, website: Website) -> Page:
    """A page of another origin than the API, open in the browser."""
    page.goto(website.origin)
    return page


@pytest.fixture
def call(stack: Stack, foreign: Page, authorization: Mapping[str, str]) -> Fetch:
    """A function that calls the API with a token, from a page of another origin."""

    def call(
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
    ) -> Answer:
        url = path if path.startswith(stack.url) else stack.url + path
        return fetch(foreign, url, method, {**authorization, **(headers or {})}, body)

    return call


def problem(answer: Answer) -> tuple[int, str]:
    """Return the status of an error, and the end of its type."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["status"] == answer.status
    return answer.status, answer.body["type"].removeprefix("urn:tally:problem:")


def test_the_browser_asks_once_whether_a_page_may_send_a_token_and_a_key(
    stack: Stack, foreign: Page, authorization: Mapping[str, str], counter: str
) -> None:
    key = str(uuid.uuid4())
    headers = {**authorization, "Content-Type": "application/json", "Idempotency-Key": key}
    with serving(stack, planned({})) as proxy:
        for _ in range(2):
            answer = fetch(foreign, proxy.stack.url + counter, "POST", headers, '{"by": 2}')
            assert (answer.status, answer.body["value"]) == (200, 2)

    # The first request is the question, the preflight request. The browser remembers its answer.
    assert proxy.seen == [("OPTIONS", None), ("POST", key), ("POST", key)]


def test_a_page_increments_a_counter_and_reads_whether_the_answer_is_a_repeat(
    call: Fetch, counter: str
) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first, second = (call(counter, "POST", key, '{"by": 5}') for _ in range(2))

    assert first.body == second.body
    assert first.body["value"] == 5
    assert first.headers["etag"] == second.headers["etag"] == '"1"'
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"


def test_a_page_follows_the_links_of_a_list(call: Fetch, caller: Caller, counter: str) -> None:
    for _ in range(2):
        caller.post(counter)
    caller.history(counter, entries=2)

    first = call(f"{counter}/history?limit=1")
    second = call(urljoin(first.url, target(first.headers["link"])))

    assert [entry["version"] for entry in first.body + second.body] == [1, 2]
    assert "link" not in second.headers


def test_a_page_sets_a_counter_that_nobody_has_changed_in_the_meantime(
    call: Fetch, counter: str
) -> None:
    tag = call(counter).headers["etag"]
    done = call(counter, "PUT", {"If-Match": tag}, '{"value": 10}')
    refused = call(counter, "PUT", {"If-Match": tag}, '{"value": 11}')

    assert (done.status, done.body["value"], done.headers["etag"]) == (200, 10, '"1"')
    assert problem(refused) == (412, "version-mismatch")
    assert refused.headers["etag"] == done.headers["etag"]


def test_a_page_asks_whether_a_counter_has_changed(
    call: Fetch, caller: Caller, counter: str
) -> None:
    caller.post(counter)
    unchanged = call(counter, headers={"If-None-Match": '"1"'})
    caller.post(counter)
    changed = call(counter, headers={"If-None-Match": '"1"'})

    assert (unchanged.status, unchanged.headers["etag"], unchanged.body) == (304, '"1"', None)
    assert (changed.status, changed.headers["etag"], changed.body["value"]) == (200, '"2"', 2)


def test_the_cache_of_the_browser_asks_whether_a_counter_has_changed(
    foreign: Page, call: Fetch, caller: Caller, counter: str
) -> None:
    requests: list[Request] = []
    # Playwright cannot call `requests.append` itself: it sets an attribute of the function.
    foreign.on("request", lambda request: requests.append(request))  # noqa: PLW0108
    caller.post(counter)
    answers = [call(counter), call(counter)]
    caller.post(counter)
    answers.append(call(counter))

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [answer.body["value"] for answer in answers] == [1, 1, 2]
    sent = [request.header_value("If-None-Match") for request in requests]
    assert sent == [None, '"1"', '"1"']


def test_a_page_reads_how_long_to_wait_while_a_request_with_the_same_key_is_in_progress(
    stack: Stack, call: Fetch, counter: str
) -> None:
    key = str(uuid.uuid4())
    headers = {"Idempotency-Key": key}
    assert call(counter, "POST", headers).status == 200
    # As if another attempt had this key. Nothing is known yet about that attempt.
    name = counter.rpartition("/")[2]
    client(stack, "dynamodb").update_item(
        TableName=stack.outputs["ReceiptTable"],
        Key={"receipt_id": {"S": Intent(key, name, (name,), "").receipt_id(stack.client_id)}},
        UpdateExpression="SET attempt = :attempt, started_at = :now",
        ConditionExpression="attribute_exists(receipt_id)",
        ExpressionAttributeValues={
            ":attempt": {"S": "another"},
            ":now": {"S": clock.timestamp(clock.now())},
        },
    )

    pending = call(counter, "POST", headers)

    assert problem(pending) == (409, "in-progress")
    assert 0 < int(pending.headers["retry-after"]) <= clock.APPLY_WINDOW


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/counter", {}, (401, "unauthorized")),
        ("/counter", {"Authorization": "Bearer invalid"}, (401, "unauthorized")),
        ("/no-such-route", {}, (404, "not-found")),
    ],
)
def test_a_page_reads_the_errors_of_api_gateway(
    stack: Stack, foreign: Page, path: str, headers: Mapping[str, str], expected: tuple[int, str]
) -> None:
    assert problem(fetch(foreign, stack.url + path, headers=headers)) == expected


def test_only_pages_of_the_allowed_origin_can_read_an_answer(
    stack: Stack, page: Page, website: Website
) -> None:
    # This takes less time than another stack with another value of the parameter AllowedOrigin.
    with extra_variables(stack, "ShowContract", ALLOWED_ORIGIN=website.origin):
        page.goto(website.origin)
        assert fetch(page, f"{stack.url}/openapi.json").status == 200
        page.goto(website.other_name)
        with pytest.raises(RefusedError):
            fetch(page, f"{stack.url}/openapi.json")
