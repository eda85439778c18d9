"""A person signs in to the dashboard, looks at counters, and changes them."""

import time
import uuid
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, Route, expect
from tests.browser.dashboard import Dashboard, lost_reply, wait_for
from tests.browser.samples import store
from tests.e2e.people import first_person
from tests.e2e.service import Caller
from tests.past import Past

from counters import clock
from deployment import Stack

WEEK = 7 * 86400


@pytest.fixture
def name() -> str:
    return f"page:{uuid.uuid4()}"


def stored(caller: Caller, name: str) -> tuple[int, int]:
    """Return the value and the version that the API returns."""
    counter = caller.get(f"/counters/{name}").body
    return counter["value"], counter["version"]


def test_a_new_counter_and_a_change_appear_without_a_reload(
    editor: Dashboard, caller: Caller, name: str
) -> None:
    editor.open(f"#/?prefix={name}")
    wait_for(editor.content.get_by_text("No counter's name begins with"))
    editor.page.evaluate("window.loadedOnce = true")

    caller.post(f"/counters/{name}", by=1234)
    expect(editor.value_of(name)).to_have_text("1,234")
    caller.post(f"/counters/{name}", by=-4)
    expect(editor.value_of(name)).to_have_text("1,230")

    editor.link(name).click()
    expect(editor.value).to_have_text("1,230")
    caller.post(f"/counters/{name}", by=70)
    expect(editor.value).to_have_text("1,300")
    assert editor.page.evaluate("window.loadedOnce")


@pytest.mark.parametrize("slowness", [0, 500])  # with 500, the answer comes before the second click
def test_a_double_click_counts_once(
    editor: Dashboard, caller: Caller, name: str, slowness: int
) -> None:
    editor.open(f"#/counters/{name}")
    expect(editor.value).to_have_text("0")

    editor.add(5, clicks=2, slowness=slowness)

    wait_for(editor.outcome("Added 5. The value became 5."))
    expect(editor.value).to_have_text("5")
    assert stored(caller, name) == (5, 1)
    expect(editor.changes()).to_have_count(1)
    assert editor.change(1)["who"] == "you"
    editor.add(5)
    expect(editor.value).to_have_text("10")
    assert stored(caller, name) == (10, 2)


def test_an_addition_whose_reply_is_lost_counts_once(
    editor: Dashboard, caller: Caller, name: str
) -> None:
    editor.open(f"#/counters/{name}")
    expect(editor.value).to_have_text("0")

    with lost_reply(editor.page, f"**/counters/{quote(name, safe='')}", "POST") as keys:
        editor.add(5, clicks=2)
        wait_for(editor.outcome("Added 5. The value became 5."))

    assert len(keys) == 2
    assert len({*keys}) == 1
    assert stored(caller, name) == (5, 1)


def test_an_addition_is_not_sent_twice_while_it_is_being_sent(
    editor: Dashboard, caller: Caller, name: str
) -> None:
    editor.open(f"#/counters/{name}")
    expect(editor.value).to_have_text("0")
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "POST":
            waiting.append(route)
        else:
            route.continue_()

    editor.page.route(f"**/counters/{quote(name, safe='')}", hold)
    editor.change_form.get_by_label("How many").fill("5")
    for _ in range(2):
        editor.page.keyboard.press("Enter")
    wait_for(editor.outcome("Sending…"))
    editor.page.wait_for_timeout(100)
    for route in waiting:
        route.continue_()

    wait_for(editor.outcome("Added 5. The value became 5."))
    assert len(waiting) == 1
    assert stored(caller, name) == (5, 1)


def test_a_refusal_gives_its_reason(editor: Dashboard, caller: Caller, name: str) -> None:
    caller.post(f"/counters/{name}", by=3)
    editor.open(f"#/counters/{name}")
    expect(editor.value).to_have_text("3")

    editor.limit("Not below", 0)
    editor.add(4, button="Subtract")

    reason = "Not changed: the result would be below 0. The value is 3."
    wait_for(editor.outcome(reason))
    assert stored(caller, name) == (3, 1)
    editor.add(3, button="Subtract")
    expect(editor.value).to_have_text("0")


def test_a_set_does_not_undo_the_change_of_somebody_else(
    editor: Dashboard, caller: Caller, name: str
) -> None:
    editor.open(f"#/counters/{name}")
    expect(editor.value).to_have_text("0")
    editor.set_value(40)
    wait_for(editor.outcome("Set to 40."))
    expect(editor.value).to_have_text("40")
    assert stored(caller, name) == (40, 1)

    with editor.no_news():
        caller.post(f"/counters/{name}", by=2)
        editor.set_value(50)
        wait_for(editor.outcome("Not set: somebody has changed the counter"))
    assert stored(caller, name) == (42, 2)
    expect(editor.value).to_have_text("42")


def test_the_trend_of_the_last_hour(editor: Dashboard, caller: Caller, name: str) -> None:
    for by in (7, -2):
        caller.post(f"/counters/{name}", by=by)
    caller.history(f"/counters/{name}", entries=2)
    editor.open(f"#/counters/{name}")

    editor.choose_period("Last hour")

    wait_for(editor.trend, "7 added and 2 subtracted in 60 minutes.")
    editor.open_table()
    expect(editor.data).to_have_count(60)
    expect(editor.data_of("close").last).to_have_text("5")
    assert "range=1h" in editor.page.url


def test_the_past_and_the_pages_of_the_history(
    stack: Stack, editor: Dashboard, caller: Caller, name: str
) -> None:
    past, start = Past(name), time.time() // 60 * 60 - WEEK
    for minute in range(60):
        past.change(start + minute * 60, by=1)
    store(stack, past)
    caller.history(f"/counters/{name}", entries=60)
    editor.open(f"#/counters/{name}")

    expect(editor.changes()).to_have_count(25)
    assert editor.change(60)["change"] == "+1"
    assert editor.change(60)["value"] == "59 → 60"
    assert editor.change(60)["who"] == "somebody"
    editor.button("Older").click()
    expect(editor.changes().first).to_contain_text("34 → 35")
    editor.button("Older").click()
    expect(editor.changes()).to_have_count(10)
    expect(editor.button("Older")).to_be_disabled()
    editor.button("Newest").click()
    expect(editor.changes()).to_have_count(25)

    half = clock.timestamp(start + 1800)[:19]
    editor.look_back(half)
    wait_for(editor.past, "31 at ")
    wait_for(editor.past, "Version 31, made")
    editor.look_back(clock.timestamp(start - 60)[:19])
    wait_for(editor.past, "Nobody had counted here yet.")

    editor.history.get_by_label("Before").fill(half)
    editor.button("Filter").click()
    expect(editor.changes().first).to_contain_text("29 → 30")
    editor.history.get_by_label("From").fill(half)
    editor.history.get_by_label("Before").fill("")
    editor.button("Filter").click()
    expect(editor.changes().first).to_contain_text("59 → 60")
    expect(editor.button("Older")).to_be_enabled()
    editor.button("Older").click()
    expect(editor.changes()).to_have_count(5)
    editor.button("All").click()
    expect(editor.changes()).to_have_count(25)


def test_history_and_trend_catch_up_with_the_counter(editor: Dashboard, name: str) -> None:
    editor.open(f"#/counters/{name}?range=1h")
    wait_for(editor.history, "There are no changes yet.")
    wait_for(editor.trend, "0 added")
    trend = editor.requests_to("/trend")[-1].response()
    assert trend
    before = trend.json()

    # As if the stream of CounterTable were late.
    editor.page.route("**/history?*", lambda route: route.fulfill(json=[]), times=1)
    editor.page.route("**/trend?*", lambda route: route.fulfill(json=before), times=1)
    editor.add(5)

    expect(editor.changes()).to_have_count(1)
    wait_for(editor.trend, "5 added")


def test_who_signs_out_stays_signed_out(stack: Stack, page: Page) -> None:
    tab = Dashboard(page, stack)
    tab.open()
    expect(tab.heading).to_have_text("Counters that you can trust")
    tab.sign_in(first_person(stack))
    expect(tab.heading).to_have_text("Counters")
    page.reload()
    expect(tab.heading).to_have_text("Counters")

    tab.sign_out_button.click()

    wait_for(tab.sign_in_button)
    page.wait_for_url(tab.url)
    page.reload()
    wait_for(tab.sign_in_button)
    other = Dashboard(page.context.new_page(), stack)
    other.open()
    other.sign_in_button.click()
    wait_for(other.password)
