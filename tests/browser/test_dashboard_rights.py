"""The dashboard offers people what they may do. Markup from elsewhere never runs in it."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from tests.browser.dashboard import Dashboard, problem, wait_for
from tests.browser.website import fetch
from tests.e2e.granted import created_groups
from tests.e2e.people import created_person
from tests.e2e.producer import Producer
from tests.e2e.service import Caller

from deployment import Stack

MARKUP = "<img src=x onerror='window.hasRun=true'><script>window.hasRun=true</script>"


@pytest.fixture
def name() -> str:
    return f"rights:{uuid.uuid4()}"


@pytest.fixture
def tab(browser: Browser, stack: Stack) -> Iterator[Dashboard]:
    """The dashboard in a browser in which nobody has signed in."""
    with browser.new_context(locale="en-US", timezone_id="UTC") as context:
        yield Dashboard(context.new_page(), stack)


def test_a_reader_cannot_change_a_counter(
    stack: Stack, tab: Dashboard, caller: Caller, name: str
) -> None:
    caller.post(f"/counters/{name}", by=3)
    with created_person(stack, "readers") as reader:
        tab.open(f"#/counters/{name}")
        tab.sign_in(reader)
        expect(tab.value).to_have_text("3")
        wait_for(tab.history)
        for form in (tab.change_form, tab.set_form):
            expect(form).to_have_count(0)

        headers = {"Authorization": tab.authorization(), "Content-Type": "application/json"}
        url = f"{stack.url}/counters/{name}"
        assert fetch(tab.page, url, headers=headers).status == 200
        # The token of a reader lacks the scopes of these routes. API Gateway says 401 then: see the
        # table in docs/access.md. 403 is for a counter that the grant does not cover.
        for method, body in (("POST", '{"by": 1}'), ("PUT", '{"value": 1}')):
            assert fetch(tab.page, url, method, headers, body).status == 401
    assert caller.get(f"/counters/{name}").body["value"] == 3


def test_a_person_sees_only_the_counters_of_their_grant(
    stack: Stack, tab: Dashboard, caller: Caller, name: str
) -> None:
    team = f"team-{uuid.uuid4()}"
    mine, other = f"{team}:a", name
    for counter in (mine, other):
        caller.post(f"/counters/{counter}", by=8)
    grant: Any = {"scopes": {"SS": ["read", "increment"]}, "prefixes": {"SS": [f"{team}:"]}}
    with created_groups(stack, {team: grant}), created_person(stack, team) as person:
        tab.open()
        tab.sign_in(person)
        expect(tab.content.locator("tbody tr")).to_have_count(1)
        expect(tab.value_of(mine)).to_have_text("8")

        tab.open(f"#/counters/{other}")
        expect(tab.alert.first).to_contain_text("Your account does not allow this.")
        expect(tab.content).not_to_contain_text("8 added")
        for form in (tab.change_form, tab.set_form):
            expect(form).to_have_count(0)
        headers = {"Authorization": tab.authorization()}
        assert fetch(tab.page, f"{stack.url}/counters/{other}", headers=headers).status == 403

        tab.open(f"#/counters/{mine}")
        tab.add(2)
        expect(tab.value).to_have_text("10")
        expect(tab.set_form).to_have_count(0)


def test_a_person_without_a_group_is_told_what_to_do(stack: Stack, tab: Dashboard) -> None:
    with created_person(stack) as person:
        tab.open()
        tab.sign_in(person)
        wait_for(tab.content, "Your account may not read any counter yet.")


def test_markup_in_an_actor_is_text(
    stack: Stack, editor: Dashboard, caller: Caller, name: str
) -> None:
    producer = Producer(stack, caller)
    detail = {"counter_id": name, "by": 4}
    producer.send(name, {"detail-type": "Count", "source": MARKUP, "detail": detail})
    assert producer.value(name, 4) == 4
    caller.history(f"/counters/{name}", entries=1)

    editor.open(f"#/counters/{name}")

    expect(editor.changes()).to_contain_text(f"event:{MARKUP}")
    assert_that_nothing_has_run(editor)


def test_markup_in_a_problem_is_text(editor: Dashboard, name: str) -> None:
    answer = problem(400, "invalid-request", MARKUP)
    editor.page.route(
        f"**/counters/{name.replace(':', '%3A')}*", lambda route: route.fulfill(**answer)
    )

    editor.open(f"#/counters/{name}")

    expect(editor.alert.first).to_contain_text(MARKUP)
    assert_that_nothing_has_run(editor)


def test_markup_in_a_search_or_in_the_url_is_text(editor: Dashboard) -> None:
    editor.open()
    editor.search(MARKUP)
    wait_for(editor.content.get_by_text(f"begins with “{MARKUP}”"))
    assert_that_nothing_has_run(editor)

    editor.open(f"#/counters/{MARKUP.replace('/', '%2F')}")
    expect(editor.heading).to_have_text(MARKUP)
    wait_for(editor.content, "No counter can have this name.")
    assert_that_nothing_has_run(editor)


def test_the_browser_runs_no_other_script_than_those_of_the_page(editor: Dashboard) -> None:
    editor.open()
    wait_for(editor.heading)

    refused = editor.page.evaluate(
        """async markup => {
          const script = document.createElement("script");
          try { script.textContent = "window.hasRun = true"; } catch {}
          script.append("window.hasRun = true");
          document.body.append(script);
          try { document.body.insertAdjacentHTML("beforeend", markup); } catch (error) {
            return String(error);
          }
        }""",
        MARKUP,
    )

    assert "TrustedHTML" in refused
    assert_that_nothing_has_run(editor)
    editor.errors.clear()  # the browser reports what it has refused


def assert_that_nothing_has_run(tab: Dashboard) -> None:
    """Check that the page shows no element of MARKUP, and that no script of it has run."""
    # The browser reports the missing image of MARKUP before that of a later element.
    tab.page.evaluate(
        """() => new Promise(resolve => {
          const later = document.createElement("img");
          later.onerror = () => resolve();
          later.src = "x";
          document.body.append(later);
        }).finally(() => document.querySelector("body > img").remove())"""
    )
    assert tab.page.evaluate("window.hasRun") is None
    assert tab.page.locator("img[onerror]").count() == 0
