"""A long list of counters: its pages, its curves, and what happens when somebody leaves it."""

import uuid

import pytest
from playwright.sync_api import Route, expect
from tests.browser.dashboard import RESTING, Dashboard, wait_for
from tests.e2e.service import Caller

MOST_INCREMENTS = 100  # of a request

# Scrolls through the whole page. Returns the names in the list at each stop.
SCROLL = """async () => {
  const stops = [];
  const settled = () => new Promise(resolve => setTimeout(resolve, 100));
  for (let top = 0; ; top += 800) {
    scrollTo(0, top);
    await settled();
    stops.push([...document.querySelectorAll("main tbody th a")].map(each => each.textContent));
    if (top + innerHeight >= document.documentElement.scrollHeight) return stops;
  }
}"""


@pytest.fixture(scope="module")
def names(caller: Caller) -> list[str]:
    """The names of 250 counters with the same beginning, in order."""
    prefix = f"list-{uuid.uuid4()}"
    names = [f"{prefix}:{number}" for number in range(100, 350)]
    for first in range(0, len(names), MOST_INCREMENTS):
        increments = [{"counter_id": name} for name in names[first : first + MOST_INCREMENTS]]
        assert caller.post("/increments", increments=increments).status == 200
    return names


def show_all(tab: Dashboard, names: list[str]) -> None:
    """Open the list, and scroll until it has all counters."""
    prefix = names[0].partition(":")[0]
    tab.open(f"#/?prefix={prefix}")
    wait_for(tab.link(names[0]))
    for name in (names[150], names[-1]):
        tab.page.keyboard.press("End")
        expect(tab.link(name)).to_have_count(1)


def test_new_counters_appear_once_and_in_order(
    editor: Dashboard, caller: Caller, names: list[str]
) -> None:
    show_all(editor, names)
    early, middle = f"{names[0][:-3]}0", f"{names[125]}:new"
    for name in (middle, early):
        assert caller.post(f"/counters/{name}").status == 200
    editor.page.keyboard.press("Home")
    wait_for(editor.link(early))
    editor.page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    wait_for(editor.link(middle))

    stops: list[list[str]] = editor.page.evaluate(SCROLL)

    expected = sorted([*names, early, middle])
    for stop in stops:
        first = expected.index(stop[0])
        assert stop == expected[first : first + len(stop)]
    assert {name for stop in stops for name in stop} == {*expected}
    assert len(stops[0]) < len(expected), "the rows far away do not exist"


def test_a_new_counter_does_not_hide_those_behind_the_first_page(
    editor: Dashboard, caller: Caller
) -> None:
    prefix = f"list-{uuid.uuid4()}"
    names = [f"{prefix}:{number}" for number in range(100, 250)]
    for some in (names[:MOST_INCREMENTS], names[MOST_INCREMENTS:]):
        increments = [{"counter_id": name} for name in some]
        assert caller.post("/increments", increments=increments).status == 200
    editor.open(f"#/?prefix={prefix}")
    wait_for(editor.link(names[0]))

    early = f"{prefix}:000"
    assert caller.post(f"/counters/{early}").status == 200
    wait_for(editor.link(early))
    editor.page.keyboard.press("End")

    expect(editor.link(names[-1])).to_have_count(1)


def test_who_leaves_the_list_while_it_is_read_sees_no_error(
    editor: Dashboard, names: list[str]
) -> None:
    held: list[Route] = []
    editor.page.route("**/counters?*after=*", lambda route: held.append(route))  # noqa: PLW0108  see dashboard.py
    editor.open(f"#/?prefix={names[0].partition(':')[0]}")
    wait_for(editor.link(names[0]))
    with editor.page.expect_request("**/counters?*after=*"):
        editor.page.keyboard.press("End")

    editor.open(RESTING)

    expect(editor.heading).to_have_text("0 counters")
    editor.page.wait_for_timeout(100)
    expect(editor.connection).to_be_hidden()
    expect(editor.alert).to_have_count(0)
    assert held


def test_the_curve_catches_up_with_the_counter(editor: Dashboard, caller: Caller) -> None:
    name = f"list:{uuid.uuid4()}"
    caller.post(f"/counters/{name}", by=5)
    caller.history(f"/counters/{name}", entries=1)
    editor.open(f"#/?prefix={name}")
    curve = editor.row(name).locator(".day span")
    expect(curve).to_have_text("+5")
    trend = editor.requests_to("/trend")[-1].response()
    assert trend
    before = trend.json()
    # As if the stream of CounterTable were late.
    late: list[Route] = []

    def answer(route: Route) -> None:
        late.append(route)
        route.fulfill(json=before)

    editor.page.route("**/trend*", answer, times=1)
    caller.post(f"/counters/{name}", by=4)
    expect(editor.value_of(name)).to_have_text("9")
    caller.history(f"/counters/{name}", entries=2)

    with editor.clock_ahead(61):
        editor.page.wait_for_event("response", lambda response: "/trend" in response.url)
        assert len(late) == 1
        expect(curve).to_have_text("+5")
    with editor.clock_ahead(122):
        expect(curve).to_have_text("+9")
