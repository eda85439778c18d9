"""The pictures of the dashboard in README.md and docs/dashboard.md.

To take the pictures anew, set the environment variable TALLY_DOCS to `write`.
"""

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, ViewportSize, expect
from tests.aws_template import ROOT
from tests.browser import samples
from tests.browser.dashboard import Dashboard, wait_for
from tests.browser.png import colors_in, size_of
from tests.e2e.granted import created_groups
from tests.e2e.people import created_person

from deployment import Stack

IMAGES = ROOT / "docs" / "images"
SHORT: ViewportSize = {"width": 1280, "height": 720}
WIDE: ViewportSize = {"width": 1280, "height": 850}
PHONE: ViewportSize = {"width": 390, "height": 1130}
MOST_BYTES = 150_000  # of a picture
COUNTER = f"#/counters/{quote(samples.MAIN, safe='')}?range=7d"
LIST = "#/"


@pytest.fixture(scope="module")
def shop(browser: Browser, stack: Stack) -> Iterator[Dashboard]:
    """The dashboard of a person who may see the sample counters only."""
    samples.write(stack)
    grant: Any = {
        "scopes": {"SS": ["read", "increment", "set"]},
        "prefixes": {"SS": [*samples.EVENTS_AN_HOUR]},
    }
    with (
        created_groups(stack, {"shop": grant}),
        created_person(stack, "shop", username="shop@example.com") as person,
        browser.new_context(locale="en-US", timezone_id="UTC") as context,
    ):
        tab = Dashboard(context.new_page(), stack)
        tab.open()
        tab.sign_in(person)
        yield tab


@pytest.mark.parametrize(
    ("picture", "view", "size"),
    [
        ("list", LIST, SHORT),
        ("counter", COUNTER, WIDE),
        ("dark", COUNTER, WIDE),
        ("phone", COUNTER, PHONE),
    ],
)
def test_the_docs_show_the_page(
    shop: Dashboard, picture: str, view: str, size: ViewportSize
) -> None:
    page = shop.page
    page.set_viewport_size(size)
    page.emulate_media(
        color_scheme="dark" if picture == "dark" else "light", reduced_motion="reduce"
    )
    shop.open(view)
    if view == LIST:
        expect(shop.content.locator("tbody svg")).to_have_count(len(samples.EVENTS_AN_HOUR))
    else:
        wait_for(shop.trend, "unusual")
        expect(shop.changes()).to_have_count(25)
        expect(shop.value).not_to_have_text("…")
        wait_for(shop.chart.locator("canvas"))

    content = page.screenshot(animations="disabled")

    file = IMAGES / f"dashboard-{picture}.png"
    if os.environ.get("TALLY_DOCS") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    assert size_of(content) == size_of(file.read_bytes()) == (size["width"], size["height"])
    assert len(file.read_bytes()) < MOST_BYTES
    assert colors_in(page, content) > 20
    assert colors_in(page, file.read_bytes()) > 20
