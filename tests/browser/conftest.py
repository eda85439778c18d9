"""Opens web pages in an installed Chromium, for the browser tests."""

import os
import shutil
import threading
from collections.abc import Iterator, Sequence

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.browser.dashboard import RESTING, TIMEOUT, Dashboard
from tests.browser.website import Website
from tests.e2e.people import first_person

from deployment import Stack

NO_CHROMIUM = (
    "tests/browser was not run: there is no Chromium. Install it, or set CHROMIUM to its path"
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# With Debian's headless shell, the tests take a third less CPU time than with the whole Chromium.
PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")


def chromium(programs: Sequence[str] = PROGRAMS) -> str | None:
    """Return the path of the installed Chromium or Google Chrome. Return None if there is none.

    Args:
        programs: the names to look for, in this order, if `CHROMIUM` is not set.
    """
    chosen = os.environ.get("CHROMIUM")
    names = [chosen] if chosen else programs
    return next((path for path in map(shutil.which, names) if path), None)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("tests.stack_fixtures")


def pytest_runtest_setup() -> None:
    """Skip the test if there is no Chromium. Fail instead if TALLY_CHROMIUM is `required`.

    If a fixture did this, pytest would not report all skipped tests in one line.
    """
    if chromium() is None:
        if os.environ.get("TALLY_CHROMIUM") == "required":
            pytest.fail(NO_CHROMIUM, pytrace=False)
        pytest.skip(NO_CHROMIUM)


# While Playwright is running, its event loop counts as running in this thread. So no other test of
# the process can call asyncio.run.
@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS) as browser,
    ):
        expect.set_options(timeout=TIMEOUT)
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page in a new context: without cookies, and with an empty cache."""
    with browser.new_context() as context:
        yield context.new_page()


@pytest.fixture(scope="session")
def _editor(browser: Browser, stack: Stack) -> Iterator[Dashboard]:
    with browser.new_context(locale="en-US", timezone_id="UTC") as context:
        dashboard = Dashboard(context.new_page(), stack)
        dashboard.open()
        dashboard.sign_in(first_person(stack))
        yield dashboard


@pytest.fixture
def editor(_editor: Dashboard) -> Iterator[Dashboard]:
    """The dashboard in a browser in which an editor has signed in. Many tests share the browser.

    Its numbers and times have the format of the United States. Its zone is UTC.
    """
    _editor.errors.clear()
    _editor.requests.clear()
    yield _editor
    _editor.page.unroute_all()
    _editor.open(RESTING)
    assert _editor.errors == []


@pytest.fixture(scope="session")
def website() -> Iterator[Website]:
    with Website() as website:
        thread = threading.Thread(target=website.serve_forever, args=[0.05])
        thread.start()
        yield website
        website.shutdown()
        thread.join()
