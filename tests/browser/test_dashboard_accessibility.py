"""The dashboard works for people who use a keyboard or a screen reader."""

import uuid
from collections.abc import Callable
from itertools import product

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect
from tests.browser.dashboard import Dashboard, problem, wait_for
from tests.e2e.people import first_person
from tests.e2e.service import Caller

from deployment import Stack

PHONE = {"width": 390, "height": 844}
MOST_TABS = 120  # more elements than any view has that can have the focus

# Returns the place of the focus: "target", "elsewhere", or "nothing" after the last element. It is
# "hidden" if the element with the focus does not show that it has it, and "gone" if the target is
# not on the page. The radio buttons of a choice are invisible; their texts show the focus.
FOCUS = """target => {
  const focused = document.activeElement;
  if (!target.isConnected) return { place: "gone" };
  if (focused === document.body) return { place: "nothing" };
  const shown = focused.closest(".choice") ? focused.nextElementSibling : focused;
  const { outlineStyle, outlineWidth, outlineColor, visibility } = getComputedStyle(shown);
  const { right, bottom } = shown.getBoundingClientRect();
  const isOutlined = outlineStyle === "solid" && parseFloat(outlineWidth) >= 2
    && !outlineColor.endsWith(", 0)");
  const isShown = isOutlined && visibility === "visible" && right > 0 && bottom > 0;
  if (!isShown) return { place: "hidden", element: focused.outerHTML };
  return { place: focused === target ? "target" : "elsewhere" };
}"""

HAS_FOCUS = "document.activeElement !== document.body"


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


def tab_to(tab: Dashboard, target: Locator, *, is_new: bool = False) -> None:
    """Press the Tab key until an element has the focus. The focus is visible all the way.

    Something must have the focus before, except if the page `is_new`. It can lose the focus if it
    removes or disables the element that has it.
    """
    assert is_new or tab.page.evaluate(HAS_FOCUS), "the focus was lost"
    element = target.element_handle()  # looking for it again after each key takes a second in all
    for _ in range(MOST_TABS):
        tab.page.keyboard.press("Tab")
        focus = element.evaluate(FOCUS)
        if focus["place"] == "gone":  # the page has replaced it
            element = target.element_handle()
            focus = element.evaluate(FOCUS)
        assert focus["place"] != "hidden", focus
        if focus["place"] == "target":
            return
    raise AssertionError(target)


def focus_content(tab: Dashboard) -> None:
    """Give the focus to the content, as a link to a view does."""
    tab.content.focus()


# --- axe ------------------------------------------------------------------------------------------


def test_the_page_that_asks_people_to_sign_in(stack: Stack, page: Page) -> None:
    tab = Dashboard(page, stack)
    tab.open()
    wait_for(tab.sign_in_button)
    assert_accessible(page)
    page.emulate_media(color_scheme="dark")
    assert_accessible(page)


def show_list(tab: Dashboard, name: str) -> None:
    tab.open(f"#/?prefix={name}")
    wait_for(tab.row(name).locator("svg"))


def show_search_without_result(tab: Dashboard, name: str) -> None:
    tab.open(f"#/?prefix={name}:no")
    wait_for(tab.content.get_by_text("No counter's name begins with"))


def show_empty_list(tab: Dashboard, _: str) -> None:
    tab.page.route("**/counters?*", lambda route: route.fulfill(json=[]))
    tab.open("#/")
    wait_for(tab.content.get_by_text("There are no counters yet."))


def show_counter(tab: Dashboard, name: str) -> None:
    tab.open(f"#/counters/{name}?range=1h&at=2026-01-02T03:04:05Z")
    tab.open_table()
    expect(tab.data).to_have_count(60)
    expect(tab.changes()).to_have_count(25)
    wait_for(tab.past, "Nobody had counted here yet.")
    tab.limit("Not below", 0)
    tab.add(1000, button="Subtract")
    wait_for(tab.outcome("Not changed"))


def show_trend_by_hour(tab: Dashboard, name: str) -> None:
    tab.open(f"#/counters/{name}?range=7d")
    wait_for(tab.trend, "in 168 hours.")


def show_comparison(tab: Dashboard, name: str) -> None:
    tab.open(f"#/compare?id={name}&id={name}:other")
    wait_for(tab.chart)


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
    tab_to(tab, tab.sign_in_button, is_new=True)
    keys.press("Enter")
    expect(page.get_by_label("Username")).to_be_focused()
    keys.type(editor.username)
    keys.press("Tab")
    keys.type(editor.password)
    keys.press("Enter")

    wait_for(tab.link(name))
    tab_to(tab, page.get_by_role("link", name="Skip to the content"), is_new=True)
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
    wait_for(tab.sign_in_button)


def test_the_focus_stays_when_the_page_reads_again(
    editor: Dashboard, caller: Caller, name: str
) -> None:
    editor.open(f"#/counters/{name}?range=1h")
    wait_for(editor.trend, "60 added")
    editor.open_table()
    expect(editor.data).to_have_count(60)
    total = 60
    for target in (
        editor.trend.locator("summary"),
        editor.button("Download as CSV"),
        editor.chart,
        editor.button("Older"),
    ):
        target.focus()
        total += 7
        caller.post(f"/counters/{name}", by=7)

        wait_for(editor.trend, f"{total} added")
        expect(editor.data_of("close").last).to_have_text(str(total))
        expect(editor.changes().first).to_contain_text(f"{total - 7} → {total}")
        expect(target).to_be_focused()
    expect(editor.data).to_have_count(60)


def test_the_cursor_of_the_chart_stays_when_the_page_reads_again(
    editor: Dashboard, caller: Caller, name: str
) -> None:
    editor.open(f"#/counters/{name}?range=1h")
    wait_for(editor.trend, "60 added")
    editor.page.mouse.move(0, 0)  # a pointer on the chart moves its cursor, too
    editor.chart.focus()
    editor.page.keyboard.press("End")
    expect(editor.readout).to_contain_text("value 60")

    caller.post(f"/counters/{name}", by=7)

    expect(editor.readout).to_contain_text("value 67")
    newest = editor.readout.inner_text()
    editor.page.keyboard.press("ArrowLeft")
    expect(editor.readout).not_to_have_text(newest)
    expect(editor.readout).to_contain_text("added, ")
    expect(editor.chart).to_be_focused()


def test_the_chart_knows_keys_before_the_browser_reports_its_size(
    editor: Dashboard, name: str
) -> None:
    editor.page.evaluate(
        """() => {
          window.observe = ResizeObserver.prototype.observe;
          ResizeObserver.prototype.observe = () => {}; // a busy browser reports late
        }"""
    )
    try:
        editor.open(f"#/counters/{name}?range=1h")
        editor.chart.focus()
        editor.page.keyboard.press("End")
        expect(editor.readout).to_contain_text("value 60")
    finally:
        editor.page.evaluate("() => { ResizeObserver.prototype.observe = window.observe; }")


def test_everything_works_with_the_keyboard(editor: Dashboard, name: str, caller: Caller) -> None:
    caller.post(f"/counters/{name}:2")
    editor.open(f"#/?prefix={uuid.uuid4()}")
    focus_content(editor)
    choose_two_counters(editor, name)
    change_a_counter(editor)
    look_at_the_trend(editor)
    look_into_the_past(editor)


def press(tab: Dashboard, target: Locator, key: str = "Enter") -> None:
    """Go to an element with the Tab key, and press a key."""
    tab_to(tab, target)
    tab.page.keyboard.press(key)


def write(tab: Dashboard, target: Locator, text: str) -> None:
    """Go to a field with the Tab key, and replace its text."""
    press(tab, target, "ControlOrMeta+a")
    tab.page.keyboard.type(text)


def choose_two_counters(tab: Dashboard, name: str) -> None:
    """Find two counters, compare them, and open the first one."""
    write(tab, tab.page.get_by_label("Search"), name)
    press(tab, tab.row(name).get_by_role("checkbox"), "Space")
    press(tab, tab.row(f"{name}:2").get_by_role("checkbox"), "Space")
    press(tab, tab.link("Compare 2 counters"))
    expect(tab.heading).to_have_text("2 counters")
    press(tab, tab.content.get_by_role("link", name=name, exact=True))
    expect(tab.heading).to_have_text(name)
    expect(tab.value).to_have_text("60")


def change_a_counter(tab: Dashboard) -> None:
    """Add, subtract with a limit, and set. The value is 60 before and after."""
    write(tab, tab.change_form.get_by_label("How many"), "40")
    tab.page.keyboard.press("Enter")
    expect(tab.value).to_have_text("100")
    press(tab, tab.change_form.locator("summary"))
    write(tab, tab.change_form.get_by_label("Not below"), "70")
    press(tab, tab.change_form.get_by_role("button", name="Subtract"))
    wait_for(tab.outcome("Not changed: the result would be below 70."))
    write(tab, tab.set_form.get_by_label("New value"), "60")
    press(tab, tab.set_form.get_by_role("button", name="Set"))
    expect(tab.value).to_have_text("60")
    expect(tab.changes().first).to_contain_text("100 → 60")
    wait_for(tab.trend, "100 added and 40 subtracted")


def look_at_the_trend(tab: Dashboard) -> None:
    """Choose periods, read the chart, open its table, and save both."""
    keys = tab.page.keyboard
    tab_to(tab, tab.period)
    keys.type("From")
    form = tab.trend.get_by_role("form", name="Period")
    # The focus moves on from the month to the day, and so on. An hour has two digits.
    tab_to(tab, form.get_by_label("From"))
    keys.type("01022026")
    press(tab, form.get_by_role("button", name="Show"))
    expect(tab.trend.get_by_label("Day", exact=True)).to_be_checked()
    assert "from=2026-01-02T" in tab.page.url
    tab_to(tab, tab.period)
    keys.type("Last h")
    wait_for(tab.trend, "in 60 minutes.")
    press(tab, tab.trend.get_by_label("Changes", exact=True), "ArrowRight")
    expect(tab.trend.get_by_label("Value", exact=True)).to_be_checked()
    with tab.page.expect_response("**/trend?*"):
        keys.press("ArrowLeft")
    expect(tab.trend.get_by_label("Changes", exact=True)).to_be_checked()
    wait_for(tab.trend.get_by_text("Added", exact=True))

    press(tab, tab.chart, "End")
    expect(tab.readout).to_contain_text("added, ")
    last = tab.readout.inner_text()
    keys.press("ArrowLeft")
    expect(tab.readout).not_to_have_text(last)
    keys.press("ArrowRight")
    expect(tab.readout).to_have_text(last)
    press(tab, tab.trend.locator("summary"))
    expect(tab.data).to_have_count(60)
    for name in ("Download as CSV", "Download as PNG", "Download the history as CSV"):
        with tab.page.expect_download():
            press(tab, tab.button(name))


def type_time(tab: Dashboard) -> None:
    """Type a time into the field with the focus, from the month to AM or PM."""
    tab.page.keyboard.type("01022026030405AM")


def look_into_the_past(tab: Dashboard) -> None:
    """Ask for an old value, look through the history, and change the zone."""
    tab_to(tab, tab.past.get_by_label("Date and time"))
    type_time(tab)
    press(tab, tab.past.get_by_role("button", name="Show"))
    wait_for(tab.past, "Nobody had counted here yet.")

    press(tab, tab.button("Older"))
    expect(tab.changes()).to_have_count(7)
    press(tab, tab.button("Newest"))
    expect(tab.changes()).to_have_count(25)
    tab_to(tab, tab.history.get_by_label("Before"))
    type_time(tab)
    press(tab, tab.button("Filter"))
    wait_for(tab.history, "There are no changes in this period.")
    press(tab, tab.button("All"))
    expect(tab.changes()).to_have_count(25)
    press(tab, tab.button("Local time"))
    expect(tab.button("UTC")).to_be_focused()
    expect(tab.value).to_have_text("60")
    tab.page.keyboard.press("Enter")
    expect(tab.button("Local time")).to_be_focused()
