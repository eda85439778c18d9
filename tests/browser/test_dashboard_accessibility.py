"""The dashboard works for people who use a keyboard or a screen reader."""

import uuid
from collections.abc import Callable
from itertools import product

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect
from tests.browser.dashboard import Dashboard, problem
from tests.e2e.people import first_person
from tests.e2e.service import Caller

from deployment import Stack

PHONE = {"width": 390, "height": 844}
MOST_TABS = 120  # more elements than any view has that can have the focus

# Returns whether the element with the focus shows that it has it. The radio buttons of a choice are
# invisible; the text beside each shows the focus.
OUTLINE = """() => {
  const focused = document.activeElement;
  const shown = focused.closest(".choice") ? focused.nextElementSibling : focused;
  const { outlineStyle, outlineWidth, outlineColor, visibility } = getComputedStyle(shown);
  const { right, bottom } = shown.getBoundingClientRect();
  const isOutlined = outlineStyle === "solid" && parseFloat(outlineWidth) >= 2
    && !outlineColor.endsWith(", 0)");
  return isOutlined && visibility === "visible" && right > 0 && bottom > 0;
}"""


@pytest.fixture(scope="module")
def seen(caller: Caller) -> str:
    """The name of a counter with 30 changes, for tests that do not change it."""
    return created(caller)


@pytest.fixture
def name(caller: Caller) -> str:
    """The name of a counter with 30 changes."""
    return created(caller)


def created(caller: Caller) -> str:
    """Create a counter with 30 changes, and return its name."""
    name = f"keyboard:{uuid.uuid4()}"
    for _ in range(30):
        caller.post(f"/counters/{name}", by=2)
    caller.history(f"/counters/{name}", entries=30)
    return name


def assert_accessible(page: Page) -> None:
    """Check the page with axe."""
    options = {"resultTypes": ["violations"]}
    found = Axe().run(page, options=options).response["violations"]
    serious = [
        (each["id"], each["impact"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]
    assert serious == []


def tab_to(tab: Dashboard, target: Locator) -> None:
    """Press the Tab key until an element has the focus. The focus is visible all the way."""
    for _ in range(MOST_TABS):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement === document.body"):
            continue
        assert tab.page.evaluate(OUTLINE), tab.page.evaluate("document.activeElement.outerHTML")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(target)


# --- axe ------------------------------------------------------------------------------------------


def test_the_page_that_asks_people_to_sign_in(stack: Stack, page: Page) -> None:
    tab = Dashboard(page, stack)
    tab.open()
    expect(tab.sign_in_button).to_be_visible()
    assert_accessible(page)
    page.emulate_media(color_scheme="dark")
    assert_accessible(page)


def show_list(tab: Dashboard, name: str) -> None:
    tab.open(f"#/?prefix={name}")
    expect(tab.row(name).locator("svg")).to_be_visible()


def show_search_without_result(tab: Dashboard, name: str) -> None:
    tab.open(f"#/?prefix={name}:no")
    expect(tab.content.get_by_text("No counter's name begins with")).to_be_visible()


def show_empty_list(tab: Dashboard, _: str) -> None:
    tab.page.route("**/counters?*", lambda route: route.fulfill(json=[]))
    tab.open("#/")
    expect(tab.content.get_by_text("There are no counters yet.")).to_be_visible()


def show_counter(tab: Dashboard, name: str) -> None:
    tab.open(f"#/counters/{name}?range=1h&at=2026-01-02T03:04:05Z")
    tab.open_table()
    expect(tab.data).to_have_count(60)
    expect(tab.changes()).to_have_count(25)
    expect(tab.past).to_contain_text("Nobody had counted here yet.")
    tab.limit("Not below", 0)
    tab.add(1000, button="Subtract")
    expect(tab.outcome("Not changed")).to_be_visible()


def show_trend_by_hour(tab: Dashboard, name: str) -> None:
    tab.open(f"#/counters/{name}?range=7d")
    expect(tab.trend).to_contain_text("in 168 hours.")


def show_comparison(tab: Dashboard, name: str) -> None:
    tab.open(f"#/compare?id={name}&id={name}:other")
    expect(tab.chart).to_be_visible()


def show_error(tab: Dashboard, name: str) -> None:
    answer = problem(403, "forbidden", "no")
    tab.page.route(f"**/counters/{name}**", lambda route: route.fulfill(**answer))
    tab.page.route("**/counters/*", lambda route: route.fulfill(**answer))
    tab.page.route("**/counters/*/*", lambda route: route.fulfill(**answer))
    tab.open(f"#/counters/{name}")
    expect(tab.alert).to_have_count(3)


VIEWS = [
    show_list,
    show_search_without_result,
    show_empty_list,
    show_counter,
    show_trend_by_hour,
    show_comparison,
    show_error,
]
COLORFUL = [show_list, show_counter, show_comparison]


@pytest.mark.parametrize(
    ("look", "show"),
    [
        *product(["light"], VIEWS),
        *product(["dark", "phone"], COLORFUL),
    ],
)
def test_axe_finds_nothing_serious(
    editor: Dashboard, seen: str, look: str, show: Callable[[Dashboard, str], None]
) -> None:
    page = editor.page
    before = page.viewport_size
    assert before
    page.emulate_media(color_scheme="dark" if look == "dark" else "light")
    if look == "phone":
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    try:
        show(editor, seen)
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.emulate_media(color_scheme="null")
        page.set_viewport_size(before)


# --- The keyboard --------------------------------------------------------------------------------


def test_a_person_signs_in_and_opens_a_counter_with_the_keyboard(
    stack: Stack, page: Page, name: str
) -> None:
    tab, keys, editor = Dashboard(page, stack), page.keyboard, first_person(stack)
    tab.open(f"#/?prefix={name}")
    tab_to(tab, tab.sign_in_button)
    keys.press("Enter")
    expect(page.get_by_label("Username")).to_be_focused()
    keys.type(editor.username)
    keys.press("Tab")
    keys.type(editor.password)
    keys.press("Enter")

    expect(tab.link(name)).to_be_visible()
    tab_to(tab, page.get_by_role("link", name="Skip to the content"))
    keys.press("Enter")
    expect(tab.content).to_be_focused()
    tab_to(tab, tab.link(name))
    keys.press("Enter")
    expect(tab.heading).to_have_text(name)
    expect(tab.content).to_be_focused()

    tab_to(tab, page.get_by_role("button", name="Theme: auto"))
    keys.press("Enter")
    expect(page.get_by_role("button", name="Theme: light")).to_be_focused()
    tab_to(tab, tab.sign_out_button)
    keys.press("Enter")
    expect(tab.sign_in_button).to_be_visible()


def test_the_focus_stays_when_the_trend_is_read_again(
    editor: Dashboard, caller: Caller, name: str
) -> None:
    editor.open(f"#/counters/{name}?range=1h")
    expect(editor.trend).to_contain_text("60 added")
    editor.open_table()
    expect(editor.data).to_have_count(60)
    summary = editor.trend.locator("summary")
    summary.focus()

    caller.post(f"/counters/{name}", by=7)

    expect(editor.trend).to_contain_text("67 added")
    expect(editor.data.last).to_contain_text("67")
    expect(summary).to_be_focused()
    expect(editor.data).to_have_count(60)


def test_a_counter_works_with_the_keyboard(editor: Dashboard, name: str) -> None:
    tab, keys = editor, editor.page.keyboard
    tab.open(f"#/counters/{name}")
    expect(tab.value).to_have_text("60")
    tab_to(tab, tab.change_form.get_by_label("How many"))
    keys.press("ControlOrMeta+a")
    keys.type("40")
    keys.press("Enter")
    expect(tab.value).to_have_text("100")
    tab_to(tab, tab.change_form.get_by_role("button", name="Subtract"))
    keys.press("Enter")
    expect(tab.value).to_have_text("60")
    expect(tab.changes().first).to_contain_text("100 → 60")

    tab_to(tab, tab.trend.get_by_label("Period"))
    keys.type("Last h")
    expect(tab.trend).to_contain_text("in 60 minutes.")
    tab_to(tab, tab.chart)
    keys.press("End")
    expect(tab.readout).to_contain_text("added, ")
    last = tab.readout.inner_text()
    keys.press("ArrowLeft")
    expect(tab.readout).not_to_have_text(last)
    keys.press("ArrowRight")
    expect(tab.readout).to_have_text(last)
    tab_to(tab, tab.trend.locator("summary"))
    keys.press("Enter")
    expect(tab.data).to_have_count(60)

    tab_to(tab, tab.button("Older"))
    keys.press("Enter")
    expect(tab.changes()).to_have_count(7)
    tab_to(tab, tab.button("Newest"))
    keys.press("Enter")
    expect(tab.changes()).to_have_count(25)
