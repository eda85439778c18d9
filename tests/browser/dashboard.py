"""The dashboard in a browser. A test uses it as a person does: by the names that people see."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Route
from tests.e2e.people import Person

from deployment import Stack

TIMEOUT = 30_000  # how long a test waits for what it expects on a page, in milliseconds

RESTING = "#/compare"  # a view that sends no requests

COLUMNS = ("version", "time", "how", "change", "value", "who")  # of the history


def wait_for(part: Locator, text: str = "") -> None:
    """Wait until the page shows a part. With `text`, wait until this text is in the part.

    At each look, `expect` describes the part, or the whole page if there is no such part. For a
    large page, that takes 0.1 s of CPU time. This function describes nothing, so its error does not
    say what the part contained.

    Raises:
        TimeoutError: the page did not show it in time.
    """
    # With a string, Playwright would ignore the case.
    part.filter(has_text=re.compile(re.escape(text))).wait_for(timeout=TIMEOUT)


class Dashboard:
    """The dashboard in one tab of a browser.

    Attributes:
        page: the tab.
        url: the address of the dashboard.
        requests: all requests that the tab has sent.
        errors: what the console of the browser has shown, without failed requests.
    """

    def __init__(self, page: Page, stack: Stack) -> None:
        self.page = page
        self.url = stack.dashboard["url"]
        self.requests: list[Request] = []
        self.errors: list[str] = []
        # Playwright cannot call `append` itself: it sets an attribute of the function.
        page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    # --- Signing in and out ----------------------------------------------------------------------

    def open(self, view: str = "#/") -> None:
        """Open a view. If the page is already open, this does not load it again."""
        self.page.goto(self.url + view)

    def sign_in(self, person: Person) -> None:
        """Sign in from the page that asks people to sign in."""
        self.sign_in_button.click()
        self.enter(person)

    def enter(self, person: Person) -> None:
        """Fill in the form of the sign-in page."""
        self.page.get_by_label("Username").fill(person.username)
        self.page.get_by_label("Password").fill(person.password)
        self.page.get_by_role("button", name="Sign in").click()
        wait_for(self.sign_out_button)

    @property
    def sign_in_button(self) -> Locator:
        return self.page.get_by_role("button", name="Sign in")

    @property
    def sign_out_button(self) -> Locator:
        return self.page.get_by_role("button", name="Sign out")

    @property
    def password(self) -> Locator:
        """The field for the password: it is on the sign-in page only."""
        return self.page.get_by_label("Password")

    # --- The frame of every view -----------------------------------------------------------------

    @property
    def heading(self) -> Locator:
        return self.page.get_by_role("heading", level=1)

    @property
    def content(self) -> Locator:
        return self.page.get_by_role("main")

    @property
    def connection(self) -> Locator:
        """The line that says that Tally does not answer."""
        return self.page.locator("#connection")

    @property
    def alert(self) -> Locator:
        return self.page.get_by_role("alert")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def link(self, name: str) -> Locator:
        return self.page.get_by_role("link", name=name, exact=True)

    # --- The list --------------------------------------------------------------------------------

    def row(self, counter: str) -> Locator:
        """The row of a counter in the list."""
        return self.page.get_by_role("row").filter(has=self.link(counter))

    def value_of(self, counter: str) -> Locator:
        """The value of a counter in the list."""
        return self.row(counter).locator(".number")

    def search(self, prefix: str) -> None:
        self.page.get_by_label("Search").fill(prefix)

    # --- One counter -----------------------------------------------------------------------------

    @property
    def value(self) -> Locator:
        """The value of the counter, large."""
        return self.page.locator("output")

    @property
    def change_form(self) -> Locator:
        return self.page.get_by_role("form", name="Add or subtract")

    @property
    def set_form(self) -> Locator:
        return self.page.get_by_role("form", name="Set")

    def limit(self, name: str, value: int) -> None:
        """Enter a limit of the next change. `name` is "Not below" or "Not above"."""
        field = self.change_form.get_by_label(name)
        if not field.is_visible():
            self.change_form.get_by_text("Limits").click()
        field.fill(str(value))

    def add(self, number: int, clicks: int = 1, slowness: int = 0, button: str = "Add") -> None:
        """Add or subtract.

        Args:
            number: how many.
            clicks: 2 for a double click.
            slowness: how long each click takes, in milliseconds.
            button: "Add" or "Subtract".
        """
        self.change_form.get_by_label("How many").fill(str(number))
        target = self.change_form.get_by_role("button", name=button)
        target.click(click_count=clicks, delay=slowness)

    def set_value(self, value: int) -> None:
        self.set_form.get_by_label("New value").fill(str(value))
        self.set_form.get_by_role("button", name="Set").click()

    def outcome(self, text: str) -> Locator:
        """What the page says about a change, if this text is in it."""
        return self.page.locator(".outcome").get_by_text(text)

    @property
    def trend(self) -> Locator:
        return self.page.get_by_role("region", name="Trend")

    @property
    def chart(self) -> Locator:
        return self.trend.get_by_role("img")

    @property
    def readout(self) -> Locator:
        """What the chart says about the interval under its cursor."""
        return self.trend.locator(".readout")

    @property
    def period(self) -> Locator:
        """The list of periods of the trend."""
        return self.trend.get_by_role("combobox", name="Period")

    def choose_period(self, text: str) -> None:
        self.period.select_option(text)

    @property
    def data(self) -> Locator:
        """The rows of the table of the chart, if the table is open."""
        return self._table.locator("tbody tr")

    def data_of(self, column: str) -> Locator:
        """The cells of a column of this table, such as "close"."""
        names = self._table.locator("thead th").all_inner_texts()
        return self.data.locator(f"> :nth-child({names.index(column) + 1})")

    @property
    def _table(self) -> Locator:
        return self.trend.get_by_role("region", name="Data of the chart")

    def open_table(self) -> None:
        """Open the table of the chart."""
        self.trend.get_by_text("Show as a table").click()

    @property
    def past(self) -> Locator:
        return self.page.get_by_role("region", name="Value in the past")

    def look_back(self, local_time: str) -> None:
        """Ask for the value at a moment, such as 2026-11-26T17:00:00, in the shown zone."""
        self.past.get_by_label("Date and time").fill(local_time)
        self.past.get_by_role("button", name="Show").click()

    @property
    def history(self) -> Locator:
        return self.page.get_by_role("region", name="History")

    def changes(self) -> Locator:
        """The rows of the history."""
        return self.history.locator("tbody tr")

    def change(self, version: int) -> dict[str, str]:
        """Return the row of a version in the history, by column."""
        row = self.changes().filter(has=self.page.get_by_role("rowheader", name=str(version)))
        return dict(zip(COLUMNS, row.locator("th, td").all_inner_texts(), strict=True))

    # --- The network -----------------------------------------------------------------------------

    def authorization(self) -> str:
        """Return the header with which the page has sent its last request to the API."""
        for request in reversed(self.requests):
            header = request.headers.get("authorization")
            if header:
                return header
        raise AssertionError

    @contextmanager
    def no_news(self) -> Iterator[None]:
        """Lose all reads of counters from now on: the page does not learn what has changed.

        This first waits for the answers to the reads that the page has already sent.
        """

        def handle(route: Route) -> None:
            if route.request.method == "GET":
                route.abort()
            else:
                route.continue_()

        self.page.route("**/counters/*", handle)
        for request in [each for each in self.requests if "/counters/" in each.url]:
            request.response()
        try:
            yield
        finally:
            self.page.unroute("**/counters/*", handle)

    @contextmanager
    def clock_ahead(self, seconds: int) -> Iterator[None]:
        """Let the page believe that it is later, or earlier if `seconds` is negative."""
        self.page.evaluate(
            """seconds => {
              window.realNow ??= Date.now;
              Date.now = () => window.realNow() + seconds * 1000;
            }""",
            seconds,
        )
        try:
            yield
        finally:
            self.page.evaluate("Date.now = window.realNow")

    def requests_to(self, end: str) -> list[Request]:
        """Return the requests to paths with this end."""
        return [each for each in self.requests if urlsplit(each.url).path.endswith(end)]

    def hosts(self) -> set[str]:
        """Return the hosts to which the tab has sent requests."""
        schemes = {"http", "https"}
        parts = (urlsplit(request.url) for request in self.requests)
        return {part.netloc for part in parts if part.scheme in schemes}


def problem(status: int, kind: str, detail: str, **headers: str) -> dict[str, Any]:
    """Return the arguments of `Route.fulfill` for a problem."""
    body = {"type": f"urn:tally:problem:{kind}", "status": status, "detail": detail}
    return {
        "status": status,
        "headers": {"Content-Type": "application/problem+json", **headers},
        "body": json.dumps(body),
    }


@contextmanager
def lost_reply(page: Page, pattern: str, method: str) -> Iterator[list[str]]:
    """Lose the reply to the next request with this method: the request reaches the API.

    Yields:
        The idempotency keys of all such requests.
    """
    keys: list[str] = []

    def handle(route: Route) -> None:
        if route.request.method != method:
            route.continue_()
            return
        keys.append(route.request.headers.get("idempotency-key", ""))
        if len(keys) == 1:
            answer = route.fetch()
            assert answer.ok, answer.text()
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route(pattern, handle)
    try:
        yield keys
    finally:
        page.unroute(pattern, handle)
