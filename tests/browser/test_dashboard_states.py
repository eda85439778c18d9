"""What the dashboard shows without data, an answer or a session; shared URLs; formats."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Route, expect
from tests.browser.dashboard import RESTING, Dashboard, problem, wait_for
from tests.browser.samples import store
from tests.e2e.people import Person, created_person, first_person
from tests.e2e.service import Caller
from tests.past import Past

from deployment import Stack


@pytest.fixture
def name() -> str:
    return f"states:{uuid.uuid4()}"


def signed_in(
    context: BrowserContext, stack: Stack, view: str, person: Person | None = None
) -> Dashboard:
    """Sign in on a view, as the first person if no other one is given."""
    tab = Dashboard(context.new_page(), stack)
    tab.open(view)
    tab.sign_in(person or first_person(stack))
    return tab


def test_an_empty_list_says_how_to_begin(editor: Dashboard) -> None:
    editor.page.route("**/counters?*", lambda route: route.fulfill(json=[]))
    editor.open()
    wait_for(editor.content.get_by_text("There are no counters yet."))


def test_a_search_without_a_result_offers_the_counter(editor: Dashboard, name: str) -> None:
    editor.open()
    editor.search(name)
    editor.link(f"Open “{name}” and count the first one").click()
    expect(editor.heading).to_have_text(name)
    wait_for(editor.content, "Nobody has counted here yet.")
    wait_for(editor.history, "There are no changes yet.")


@pytest.mark.parametrize("view", ["#/", "#/counters/{}", "#/compare?id={}&id=other"])
def test_a_page_that_was_offline_goes_on_by_itself(
    editor: Dashboard, caller: Caller, name: str, view: str
) -> None:
    caller.post(f"/counters/{name}", by=6)
    editor.open(view.format(name))
    if view == "#/":
        editor.search(name)
    wait_for(editor.content.get_by_text("6", exact=True).first)

    editor.page.context.set_offline(offline=True)
    try:
        expect(editor.connection).to_contain_text("You are offline.")
        caller.post(f"/counters/{name}", by=3)
    finally:
        editor.page.context.set_offline(offline=False)

    wait_for(editor.content.get_by_text("9", exact=True).first)
    expect(editor.connection).to_be_hidden()


def test_a_throttled_page_goes_on_by_itself(editor: Dashboard, caller: Caller, name: str) -> None:
    caller.post(f"/counters/{name}", by=6)
    busy = problem(503, "throttled", "DynamoDB is throttling requests.", **{"Retry-After": "1"})
    refused: list[str] = []

    def refuse(route: Route) -> None:
        refused.append(route.request.url)
        route.fulfill(**busy)

    editor.page.route("**/counters/**", refuse)
    editor.open(f"#/counters/{name}")
    expect(editor.connection).to_have_text(
        "Tally is busy. Try again in a moment. This page tries again by itself."
    )
    wait_for(editor.history, "Tally is busy.")
    editor.page.unroute("**/counters/**", refuse)

    expect(editor.value).to_have_text("6")
    expect(editor.connection).to_be_hidden()
    expect(editor.changes()).to_have_count(1)
    assert len(refused) > 3


def test_who_has_no_session_any_more_signs_in_to_the_same_view(
    browser: Browser, stack: Stack, caller: Caller, name: str
) -> None:
    caller.post(f"/counters/{name}", by=6)
    view = f"#/counters/{quote(name, safe='')}?range=1h"
    with browser.new_context() as context:
        tab = signed_in(context, stack, view)
        expect(tab.value).to_have_text("6")
        # As if the token had expired, and the token to renew it, too.
        tab.page.route(
            "**/oauth2/token",
            lambda route: route.fulfill(status=400, json={"error": "invalid_grant"}),
        )
        tab.page.route(
            "**/v1/counters/**",
            lambda route: route.fulfill(**problem(401, "unauthorized", "The token has expired.")),
        )
        expect(tab.alert).to_have_text("Your session has ended. Sign in again.")
        tab.page.unroute_all()
        tab.page.context.clear_cookies()

        tab.sign_in(first_person(stack))

        expect(tab.value).to_have_text("6")
        assert tab.page.url == tab.url + view


def test_a_shared_url_shows_the_same_view_to_another_person(
    browser: Browser, stack: Stack, editor: Dashboard, caller: Caller, name: str
) -> None:
    others = [f"{name}:{number}" for number in range(2)]
    for other in others:
        caller.post(f"/counters/{other}", by=6)
    caller.history(f"/counters/{others[0]}", entries=1)
    with (
        created_person(stack, "readers") as reader,
        browser.new_context(timezone_id="UTC") as context,
    ):
        editor.open(f"#/?prefix={name}")
        tab = signed_in(context, stack, editor.page.url.removeprefix(editor.url), reader)
        expect(tab.content.locator("tbody tr")).to_have_count(2)
        expect(tab.page.get_by_label("Search")).to_have_value(name)

        for choose in (choose_value, choose_period, choose_moment, choose_changes, compare):
            editor.open(RESTING)
            editor.open(f"#/counters/{quote(others[0], safe='')}")
            expect(editor.value).to_have_text("6")
            check = choose(editor, others)
            check(editor)
            url = editor.page.url
            tab.page.goto("about:blank")
            tab.page.goto(url)
            wait_for(tab.sign_out_button)
            check(tab)
            assert tab.page.url == url


Check = Callable[[Dashboard], None]


def choose_value(tab: Dashboard, _: list[str]) -> Check:
    tab.choose_period("Last hour")
    tab.trend.get_by_text("Value", exact=True).click()

    def check(tab: Dashboard) -> None:
        wait_for(tab.trend, "6 added and 0 subtracted in 60 minutes.")
        expect(tab.period).to_have_value("1h")
        expect(tab.trend.get_by_label("Value", exact=True)).to_be_checked()
        expect(tab.trend.get_by_label("Minute", exact=True)).to_be_checked()

    return check


def choose_period(tab: Dashboard, _: list[str]) -> Check:
    tab.choose_period("From … to …")
    form = tab.trend.get_by_role("form", name="Period")
    form.get_by_label("From").fill("2026-01-02T00:00:00")
    form.get_by_label("To").fill("2026-01-04T00:00:00")
    form.get_by_role("button", name="Show").click()
    tab.trend.get_by_text("Day", exact=True).click()

    def check(tab: Dashboard) -> None:
        wait_for(tab.trend, "0 added and 0 subtracted in 2 days.")
        form = tab.trend.get_by_role("form", name="Period")
        expect(form.get_by_label("From")).to_have_value("2026-01-02T00:00")
        expect(form.get_by_label("To")).to_have_value("2026-01-04T00:00")
        expect(tab.trend.get_by_label("Day", exact=True)).to_be_checked()

    return check


def choose_moment(tab: Dashboard, _: list[str]) -> Check:
    tab.look_back("2026-01-02T03:04:05")

    def check(tab: Dashboard) -> None:
        wait_for(tab.past, "Nobody had counted here yet.")
        expect(tab.past.get_by_label("Date and time")).to_have_value("2026-01-02T03:04:05")

    return check


def choose_changes(tab: Dashboard, _: list[str]) -> Check:
    tab.history.get_by_label("Before").fill("2026-01-02T03:04:05")
    tab.button("Filter").click()

    def check(tab: Dashboard) -> None:
        wait_for(tab.history, "There are no changes in this period.")
        expect(tab.history.get_by_label("Before")).to_have_value("2026-01-02T03:04:05")

    return check


def compare(tab: Dashboard, others: list[str]) -> Check:
    tab.open(f"#/?prefix={others[0][:-2]}")
    for other in others:
        tab.row(other).get_by_role("checkbox").check()
    tab.link("Compare 2 counters").click()
    tab.choose_period("Last hour")

    def check(tab: Dashboard) -> None:
        expect(tab.heading).to_have_text("2 counters")
        expect(tab.content.locator(".values strong")).to_have_text(["6", "6"])
        wait_for(tab.trend, "What was added to these counters.")
        expect(tab.period).to_have_value("1h")

    return check


def test_numbers_and_times_are_in_the_format_and_the_zone_of_the_reader(
    browser: Browser, stack: Stack, caller: Caller, name: str
) -> None:
    past = Past(name)
    past.change(datetime(2026, 1, 15, 20, 30, 40, tzinfo=UTC).timestamp(), by=1_234_567)
    store(stack, past)
    caller.history(f"/counters/{name}", entries=1)
    with browser.new_context(locale="de-DE", timezone_id="America/New_York") as context:
        tab = signed_in(context, stack, f"#/counters/{name}")
        expect(tab.value).to_have_text("1.234.567")
        expect(tab.changes()).to_contain_text("15.01.2026, 15:30:40")
        tab.look_back("2026-01-15T15:30:41")
        wait_for(tab.past, "1.234.567 at 15.01.2026, 15:30:41")
        tab.look_back("2026-01-15T15:30:39")
        wait_for(tab.past, "Nobody had counted here yet.")

        tab.button("Local time").click()

        expect(tab.changes()).to_contain_text("15.01.2026, 20:30:40")
        expect(tab.past.get_by_label("Date and time")).to_have_value("2026-01-15T20:30:39")
        tab.page.reload()
        wait_for(tab.button("UTC"))
        tab.button("UTC").click()
        expect(tab.changes()).to_contain_text("15.01.2026, 15:30:40")
