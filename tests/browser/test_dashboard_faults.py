"""What the dashboard does with odd answers, odd URLs, a wrong clock and a held key."""

import uuid
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.sync_api import Page, Request, Route, expect
from tests.browser.dashboard import RESTING, Dashboard, problem, wait_for
from tests.e2e.people import first_person
from tests.e2e.service import Caller

from deployment import Stack

MOST_MINUTES = 180  # that the API returns at once
GATEWAY_ERROR: Any = {"status": 502, "content_type": "text/html", "body": "<h1>Bad Gateway</h1>"}
TEXT = "Call this number to unlock your account"


@pytest.fixture
def name() -> str:
    return f"faults:{uuid.uuid4()}"


@pytest.fixture
def seen(editor: Dashboard, caller: Caller, name: str) -> Dashboard:
    """The view of a counter whose value is 6."""
    caller.post(f"/counters/{name}", by=6)
    caller.history(f"/counters/{name}", entries=1)
    editor.open(f"#/counters/{name}?range=1h")
    expect(editor.value).to_have_text("6")
    wait_for(editor.trend, "6 added")
    expect(editor.changes()).to_have_count(1)
    return editor


def path_of(name: str) -> str:
    return f"**/counters/{quote(name, safe='')}"


# --- Answers -------------------------------------------------------------------------------------


def test_a_change_without_a_value_is_not_shown_as_a_number(seen: Dashboard, name: str) -> None:
    body = {"counter_id": name, "value": None, "version": None}
    body |= {"created_at": None, "updated_at": None}

    def answer(route: Route) -> None:
        if route.request.method == "POST":
            route.fulfill(json=body)
        else:
            route.continue_()

    seen.page.route(path_of(name), answer)

    seen.add(5)

    expect(seen.page.locator(".outcome")).to_have_text("Added 5.")
    expect(seen.value).to_have_text("6")
    expect(seen.content).not_to_contain_text("null")


def test_a_change_that_may_have_been_made_is_never_called_not_made_later(
    seen: Dashboard, caller: Caller, name: str
) -> None:
    keys: list[str] = []
    busy = problem(503, "throttled", "DynamoDB is throttling requests.", **{"Retry-After": "1"})

    def answer(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            route.fulfill(**busy)
            return
        route.fetch()  # the API makes the change
        route.abort()  # but the answer is lost

    seen.page.route(path_of(name), answer)
    outcome = seen.page.locator(".outcome")

    seen.add(5)
    expect(outcome).to_contain_text("It is safe to send it again: it counts once.")
    seen.button("Send it again").click()
    expect(outcome).to_contain_text("Sending…")
    expect(outcome).to_contain_text("It is safe to send it again: it counts once.")
    seen.page.unroute_all()
    seen.button("Send it again").click()

    expect(outcome).to_contain_text("Added 5.")
    assert len(keys) == 6
    assert len({*keys}) == 1
    counter = caller.get(f"/counters/{name}").body
    assert (counter["value"], counter["version"]) == (11, 2)


def test_a_change_without_an_answer_of_the_api_may_have_been_made(
    seen: Dashboard, caller: Caller, name: str
) -> None:
    keys: list[str] = []

    def answer(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        keys.append(route.request.headers["idempotency-key"])
        route.fetch()  # the API makes the change
        route.fulfill(**GATEWAY_ERROR)

    seen.page.route(path_of(name), answer)
    seen.add(5)
    wait_for(seen.outcome("it is not known whether the change was made"))
    seen.page.unroute(path_of(name))

    with seen.page.expect_request(lambda request: request.method == "POST") as again:
        seen.button("Send it again").click()

    wait_for(seen.outcome("Added 5. The value became 11."))
    expect(seen.value).to_have_text("11")
    assert {*keys} == {again.value.headers["idempotency-key"]}
    assert caller.get(f"/counters/{name}").body["version"] == 2


def test_a_page_that_reads_in_vain_keeps_its_content_and_goes_on(
    seen: Dashboard, name: str
) -> None:
    failed: set[str] = set()

    def fail_once(route: Route) -> None:
        path = urlsplit(route.request.url).path
        if route.request.method == "GET" and path not in failed:
            failed.add(path)
            route.fulfill(**GATEWAY_ERROR)
        else:
            route.continue_()

    for end in ("", "/trend?*", "/history?*"):
        seen.page.route(path_of(name) + end, fail_once)
    seen.add(2)

    expect(seen.connection).to_contain_text("This page tries again by itself.")
    expect(seen.value).to_have_text("8")
    wait_for(seen.chart)
    expect(seen.changes()).to_have_count(1)
    expect(seen.alert).to_have_count(0)

    expect(seen.connection).to_be_hidden()
    expect(seen.changes()).to_have_count(2)
    wait_for(seen.trend, "8 added")
    assert len(failed) == 3


# --- Periods -------------------------------------------------------------------------------------


def minutes_of(request: Request) -> float:
    """Return how many intervals a request asks for, if these are minutes."""
    query = {key: value for key, (value,) in parse_qs(urlsplit(request.url).query).items()}
    if query["interval"] != "minute":
        return 0
    start, end = (datetime.fromisoformat(query[end]).timestamp() for end in ("from", "to"))
    return -(-end // 60) - start // 60


@pytest.mark.parametrize(
    ("period", "seconds", "text"),
    [
        pytest.param("range=3h", 0, "in 180 minutes.", id="three hours"),
        pytest.param("range=3h", -70, "in 180 minutes.", id="the clock is behind"),
        # The API would extend this period to 181 minutes.
        pytest.param(
            "from=2026-01-02T10:00:30Z&to=2026-01-02T13:00:30Z", 0, "in 4 hours.", id="half minutes"
        ),
        pytest.param(
            "from=2026-01-02T10:00:00Z&to=2026-01-02T13:00:00Z", 0, "in 180 minutes.", id="whole"
        ),
    ],
)
def test_a_period_has_at_most_180_minutes(
    editor: Dashboard, name: str, period: str, seconds: int, text: str
) -> None:
    before = len(editor.requests)
    with editor.clock_ahead(seconds):
        editor.open(f"#/counters/{name}?{period}&interval=minute")
        wait_for(editor.trend, text)

    requests = [each for each in editor.requests[before:] if "/trend?" in each.url]
    assert requests
    assert max(map(minutes_of, requests)) in {0, MOST_MINUTES}


def test_an_odd_period_in_the_url_shows_the_default(editor: Dashboard, name: str) -> None:
    editor.open(f"#/counters/{name}?range=toString&from=yesterday&interval=constructor")

    wait_for(editor.trend, "in 24 hours.")
    expect(editor.period).to_have_value("24h")
    expect(editor.trend.get_by_label("Hour", exact=True)).to_be_checked()
    expect(editor.trend.get_by_label("Day", exact=True)).to_have_count(
        0
    )  # it would be one interval


# --- The keyboard --------------------------------------------------------------------------------


def test_a_key_that_is_held_counts_once(seen: Dashboard, caller: Caller, name: str) -> None:
    keys = seen.page.keyboard
    seen.change_form.get_by_label("How many").fill("5")
    keys.down("Enter")
    wait_for(seen.outcome("Added 5. The value became 11."))
    for _ in range(3):
        keys.down("Enter")
    keys.up("Enter")

    seen.add(1)

    wait_for(seen.outcome("Added 1. The value became 12."))
    assert caller.get(f"/counters/{name}").body["version"] == 3


# --- Signing in and out --------------------------------------------------------------------------


def test_who_signs_out_while_a_token_is_renewed_stays_signed_out(stack: Stack, page: Page) -> None:
    tab = Dashboard(page, stack)
    tab.open(RESTING)
    tab.sign_in(first_person(stack))
    held: list[Route] = []
    page.route("**/oauth2/token", lambda route: held.append(route))  # noqa: PLW0108  see dashboard.py
    refused = problem(401, "unauthorized", "The token has expired.")
    page.route("**/v1/counters?*", lambda route: route.fulfill(**refused))
    with page.expect_request("**/oauth2/token"):
        tab.open("#/")

    tab.sign_out_button.click()

    wait_for(tab.content, "You are signed out.")
    expect(tab.sign_out_button).to_be_hidden()
    (renewal,) = held
    with page.expect_navigation(url=tab.url), page.expect_response("**/oauth2/token") as answer:
        renewal.continue_()
    renewed = answer.value.status
    assert renewed == 200
    page.unroute_all()
    for _ in range(2):
        wait_for(tab.sign_in_button)
        expect(tab.sign_out_button).to_be_hidden()
        page.reload()
    revoked = [request.post_data or "" for request in tab.requests_to("/oauth2/revoke")]
    assert len({*revoked}) == 2, "the token before the renewal, and the one after it"
    tab.sign_in_button.click()
    wait_for(tab.password)


def test_no_text_of_the_url_is_shown_as_an_error(stack: Stack, page: Page) -> None:
    tab = Dashboard(page, stack)
    error = f"?error=access_denied&error_description={quote(TEXT)}&state=s"
    for pending, message in (
        (None, "This sign-in was not started by this page."),
        ("other", "This sign-in was not started by this page."),
        ("s", "The sign-in failed: access_denied."),
    ):
        tab.open()
        wait_for(tab.sign_in_button)
        if pending:
            page.evaluate(
                """state => sessionStorage.setItem("tally.sign-in",
                  JSON.stringify({ state, verifier: "v", view: "#/" }))""",
                pending,
            )
        page.goto(f"{tab.url}{error}")
        expect(tab.alert).to_have_text(message)
        expect(tab.page.locator("body")).not_to_contain_text(TEXT)
