"""Measures the dashboard in Chromium: what it loads, a list of 10,000 counters, and its cost.

`python -m bench.dashboard` prints the section. It needs an installed Chromium.
"""

import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    CDPSession,
    Page,
    Request,
    Route,
    sync_playwright,
)
from tests.browser.conftest import ARGUMENTS, chromium
from tests.e2e.service import Caller, token_for

from bench import prices
from bench.report import Section, cents, median, table
from bench.service import Service
from bench.service import running as running_service
from bench.usage import Usage
from deployment import Stack
from emulator_process import free_port
from local_stack import local_stack

PROGRAMS = ("chromium", "google-chrome")  # what people use, so not the headless shell
ROUNDS = 5
MANY = 10_000  # counters
LISTED = 100  # counters of the list that is watched
WATCHED_SECONDS = 60
MINUTES_OF_A_DAY = 24 * 60
WAIT = 60_000  # milliseconds; these machines can be slow

# The kinds of request that the page sends, by what their URLs contain.
_KINDS = {
    "the value": re.compile(r"/counters/[^/?]+$"),
    "the trend": re.compile(r"/trend\?"),
    "a curve of the list": re.compile(r"/trend$"),
    "a page of the history": re.compile(r"/history\?"),
    "a page of the list": re.compile(r"/counters\?"),
}


@dataclass(frozen=True)
class Visit:
    """What a visit loaded, up to the first number.

    Attributes:
        requests: the requests for the page and its files.
        bytes: their size, as transferred.
        data: the requests for counters.
        milliseconds: from the moment at which the browser opens the page until the first number.
    """

    requests: int
    bytes: int
    data: int
    milliseconds: float


def measure() -> Section:
    """Measure, and return the section of docs/benchmarks.md. This takes about five minutes."""
    with (
        tempfile.TemporaryDirectory(prefix="tally-") as directory,
        local_stack(Path(directory), free_port()) as stack,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(PROGRAMS), args=ARGUMENTS) as browser,
        Caller(stack.url, token_for(stack, stack.scopes)) as caller,
    ):
        for number in range(LISTED):
            caller.request("POST", f"/counters/watched:{number:03}")
        visits = [_two_visits(stack, browser) for _ in range(ROUNDS)]
        many = _many_counters(stack, browser)
        watched = _watched(stack, browser, caller)
    with running_service() as service:
        usage = _usage(service)
    text = "\n\n".join([_visits_text(visits), _many_text(many), _cost_text(watched, usage)])
    return Section("The dashboard", "python -m bench.dashboard", text)


# --- Visits ---------------------------------------------------------------------------------------


def _two_visits(stack: Stack, browser: Browser) -> tuple[Visit, Visit]:
    with browser.new_context() as context:
        first = _visit(stack, context, lambda page: _sign_in(stack, page))
        # The page and the sign-in page remember that somebody is signed in.
        second = _visit(stack, context, lambda _page: None)
    return first, second


def _visit(stack: Stack, context: BrowserContext, sign_in: Callable[[Page], None]) -> Visit:
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    urls: dict[str, str] = {}
    sizes: dict[str, int] = {}
    session.on(
        "Network.requestWillBeSent",
        lambda event: urls.update({event["requestId"]: event["request"]["url"]}),
    )
    session.on(
        "Network.loadingFinished",
        lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}),
    )
    home = stack.dashboard["url"]
    page.goto(home)
    sign_in(page)
    page.locator(".number").first.filter(has_text=re.compile(r"\d")).wait_for(timeout=WAIT)
    # Both times are of the page's last load: the one after the sign-in.
    milliseconds = page.evaluate("performance.now()")
    page.wait_for_timeout(200)
    own = [each for each, url in urls.items() if _is_own(url, home)]
    data = [url for url in urls.values() if url.startswith(f"{home}counters")]
    transferred = [sizes.get(each, 0) for each in own if sizes.get(each, 0)]
    page.close()
    return Visit(len(transferred), sum(transferred), len(data), milliseconds)


def _is_own(url: str, home: str) -> bool:
    path = url.partition("?")[0]
    return path == home or path.startswith(f"{home}assets/")


def _sign_in(stack: Stack, page: Page) -> None:
    page.get_by_role("button", name="Sign in").click()
    page.locator("input[name=username]").fill(stack.dashboard["username"])
    page.locator("input[name=password]").fill(stack.dashboard["password"])
    page.locator("input[name=password]").press("Enter")


# --- Many counters --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Many:
    """The list of MANY counters.

    Attributes:
        first: the milliseconds until the first page is shown.
        search: the milliseconds from the last key until the search result is shown.
        all: the seconds in which somebody scrolls to the end.
        longest: the longest time in which the page does not react, in milliseconds.
        before, after: the memory of the page's JavaScript in MB, with one page and with all.
        rows: the rows that exist at the end.
    """

    first: float
    search: float
    all: float
    longest: float
    before: float
    after: float
    rows: int


def _many_counters(stack: Stack, browser: Browser) -> Many:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(stack.dashboard["url"])
        _sign_in(stack, page)
        page.get_by_role("heading", name="Counters").wait_for(timeout=WAIT)
        page.route(re.compile(r"/counters\?"), _answer)
        session = context.new_cdp_session(page)
        page.evaluate(
            "window.longest = 0; new PerformanceObserver((list) => list.getEntries().forEach("
            "(each) => { longest = Math.max(longest, each.duration); }))"
            ".observe({ type: 'longtask' })"
        )
        search = page.get_by_role("searchbox")
        start = time.monotonic()
        search.fill("many:")
        page.get_by_role("link", name="many:00000").wait_for(timeout=WAIT)
        first = time.monotonic() - start
        before = _memory(session)
        start = time.monotonic()
        while page.locator("tbody").count() < MANY // LISTED:
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            page.wait_for_timeout(20)
        whole = time.monotonic() - start
        page.get_by_role("link", name=f"many:{MANY - 1:05}").wait_for(timeout=WAIT)
        after, rows = _memory(session), page.locator("tbody tr").count()
        page.evaluate("scrollTo(0, 0)")
        start = time.monotonic()
        search.fill("many:0987")
        page.get_by_role("link", name="many:09870").wait_for(timeout=WAIT)
        found = time.monotonic() - start
        longest = page.evaluate("longest")
    return Many(1000 * first, 1000 * found, whole, longest, before, after, rows)


def _answer(route: Route) -> None:
    """Answer a request for a page of the list from memory."""
    query = {
        name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()
    }
    names = [f"many:{number:05}" for number in range(MANY)]
    after = query.get("after", "")
    fitting = [name for name in names if name.startswith(query.get("prefix", "")) and name > after]
    page = fitting[:LISTED]
    long_ago = "2026-01-01T00:00:00.000Z"
    body = [
        {
            "counter_id": name,
            "value": 7,
            "version": 1,
            "created_at": long_ago,
            "updated_at": long_ago,
        }
        for name in page
    ]
    more = len(fitting) > LISTED
    link = {"Link": f'<?values=true&after={page[-1]}>; rel="next"'} if more else {}
    headers = {"Content-Type": "application/json", **link}
    route.fulfill(status=200, headers=headers, body=json.dumps(body))


def _memory(session: CDPSession) -> float:
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {
        each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]
    }
    return float(metrics["JSHeapUsedSize"]) / 1e6


# --- What watching costs --------------------------------------------------------------------------


def _watched(stack: Stack, browser: Browser, caller: Caller) -> dict[str, Counter[str]]:
    """Return the requests of a minute, by what somebody watches and by the kind of request."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto(stack.dashboard["url"])
        _sign_in(stack, page)
        page.get_by_role("heading", name="Counters").wait_for(timeout=WAIT)
        home = stack.dashboard["url"]
        listed = _requests(page, f"{home}#/?prefix=watched:", lambda: None)
        still = _requests(page, f"{home}#/counters/watched:001", lambda: None)
        busy = _requests(
            page,
            f"{home}#/counters/watched:002",
            lambda: caller.request("POST", "/counters/watched:002"),
        )
    return {
        "one counter that does not change": still,
        "one counter that changes every second": busy,
        f"a list of {LISTED}": listed,
    }


def _requests(page: Page, url: str, work: Callable[[], object]) -> Counter[str]:
    """Count the requests of a view in a minute, by kind. Call `work` every second."""
    kinds: Counter[str] = Counter()

    def seen(request: Request) -> None:
        kinds.update(kind for kind, pattern in _KINDS.items() if pattern.search(request.url))

    page.on("request", seen)
    page.goto(url)
    end = time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < end:
        work()
        page.wait_for_timeout(1000)
    page.remove_listener("request", seen)
    return kinds


def _usage(service: Service) -> Mapping[str, Usage]:
    """Return what a request of each kind consumes."""
    for number in range(LISTED):
        service.request("POST", f"/counters/watched:{number:03}")
    for _ in range(30):
        service.request("POST", "/counters/watched:001")
    service.record()
    service.trend("watched:001", weeks=9)
    one = "/counters/watched:001"
    return {
        "the value": service.request("GET", one),
        "the trend": service.request("GET", f"{one}/trend", "expected=true"),
        "a page of the history": service.request("GET", f"{one}/history", "order=desc&limit=25"),
        "a page of the list": service.request("GET", "/counters", f"values=true&limit={LISTED}"),
        "a curve of the list": service.request("GET", f"{one}/trend"),
    }


# --- The section ----------------------------------------------------------------------------------


def _visits_text(visits: Sequence[tuple[Visit, Visit]]) -> str:
    introduction = (
        f"Medians of {ROUNDS} visits on the local stack, each with a new browser that signs in, up"
        " to the first number of the list. The second visit is in the same browser: its cache has"
        " the files, and the sign-in page remembers the person. The time begins when the browser"
        " comes back from the sign-in page. Bytes are as transferred, with headers. They do not"
        " include the sign-in page, which belongs to Cognito."
    )
    rows = [
        (name, *(f"{value:,.0f}" for value in _medians([pair[index] for pair in visits])))
        for index, name in enumerate(("first visit", "second visit"))
    ]
    columns = ("", "requests for the page", "bytes", "requests for counters", "milliseconds")
    return "\n\n".join([introduction, table(columns, rows)])


def _medians(visits: Sequence[Visit]) -> list[float]:
    return [
        median([getattr(visit, name) for visit in visits])
        for name in ("requests", "bytes", "data", "milliseconds")
    ]


def _many_text(many: Many) -> str:
    introduction = (
        f"The list of {MANY:,} counters. The benchmark answers the page's requests from memory, so"
        " the times are those of the page alone. Rows exist only near the screen."
    )
    rows = [
        ("until the first hundred are shown", f"{many.first:,.0f} ms"),
        ("from the search text until its result is shown", f"{many.search:,.0f} ms"),
        (f"scrolling to the end, {MANY // LISTED} requests", f"{many.all:.1f} s"),
        ("the longest time in which the page did not react", f"{many.longest:,.0f} ms"),
        ("memory of JavaScript with the first hundred", f"{many.before:.1f} MB"),
        (f"memory of JavaScript with all {MANY:,}", f"{many.after:.1f} MB"),
        ("rows that exist at the end", many.rows),
    ]
    return "\n\n".join([introduction, table(("", "measured"), rows)])


def _cost_text(watched: Mapping[str, Counter[str]], usage: Mapping[str, Usage]) -> str:
    introduction = (
        "What somebody who watches costs. The requests were counted in a real minute, with the tab"
        " in front. Opening the view is included. A day is this minute, 1,440 times. In a hidden"
        " tab, the page reads once a minute. Unchanged values cost as much as changed ones. Prices"
        " are those of [the costs](#what-does-a-million-cost)."
    )
    each = [
        (kind, f"{one.reads:g}", f"{sum(one.dollars().values()):.2f}")
        for kind, one in usage.items()
    ]
    rows = []
    for name, kinds in watched.items():
        total = sum((usage[kind].times(count) for kind, count in kinds.items()), Usage())
        dollars = sum(total.dollars().values()) / prices.MILLION
        rows.append(
            (
                name,
                ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common()),
                f"{total.reads:,.0f}",
                f"{dollars:.5f}",
                f"{total.reads * MINUTES_OF_A_DAY:,.0f}",
                cents(dollars * MINUTES_OF_A_DAY),
            )
        )
    columns = ["watched", "requests in a minute", "read units", "dollars", "read units of a day"]
    return "\n\n".join(
        [
            introduction,
            table(["a request for", "read units", "dollars per million"], each),
            table([*columns, "dollars of a day"], rows),
        ]
    )


if __name__ == "__main__":
    print(measure().markdown())
