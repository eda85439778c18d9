"""GET / and GET /assets/{digest}/{file}: the page of the dashboard and its files, for everybody."""

import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urljoin

import boto3
import pytest
from tests import packed_dashboard
from tests.component.samples import load
from tests.packed_dashboard import asset_path
from tests.proxy import reply
from tests.stack import REGION, SETTINGS, Stack
from tests.wire import Wire, request_lost

import dashboard as packing
from counters import clock, dashboard
from counters.clients import ssm

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
NOT_SERVED = {"index.html", "requirements.txt"}
SOURCES = [path for path in packing.SOURCES.iterdir() if path.name not in NOT_SERVED]
PARAMETER = "/tally/tally-test/dashboard"
YEAR = 365 * 24 * 60 * 60


pytestmark = pytest.mark.usefixtures("unread_settings")


class Page(HTMLParser):
    """The parsed page: the attributes of each element, by the name of the element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: dict[str, list[dict[str, str | None]]] = {}
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.setdefault(tag, []).append(dict(attrs))
        self._open = tag

    def handle_endtag(self, _tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"} and data.strip():
            self.inline.append(data)

    def links(self) -> Iterator[str]:
        """Yield the addresses of all files that the page loads."""
        for tag, name in (("link", "href"), ("script", "src"), ("img", "src")):
            for element in self.elements.get(tag, []):
                if address := element.get(name):
                    yield address


def page(stack: Stack) -> Page:
    return Page(stack.request("GET", "/").body)


def store(settings: dict[str, str]) -> None:
    client = boto3.client("ssm", REGION)
    client.put_parameter(Name=PARAMETER, Value=json.dumps(settings), Overwrite=True)


@pytest.fixture
def other_settings(stack: Stack) -> Iterator[dict[str, str]]:  # noqa: ARG001  moto first
    """Settings that a page could misunderstand. At the end of the test, restore the old ones."""
    settings = {"client_id": '"><b>&', "sign_in": "http://127.0.0.1:4566/a?b=1&c=<"}
    yield settings
    store(SETTINGS)


# --- The page ------------------------------------------------------------------------------------


def test_the_page_says_with_which_client_and_where_people_sign_in(stack: Stack) -> None:
    (root,) = page(stack).elements["html"]

    assert root["data-client-id"] == SETTINGS["client_id"]
    assert root["data-sign-in"] == SETTINGS["sign_in"]


@pytest.mark.usefixtures("wire")
def test_settings_are_escaped(stack: Stack, other_settings: dict[str, str]) -> None:
    store(other_settings)

    answer = stack.request("GET", "/")

    (root,) = Page(answer.body).elements["html"]
    assert root["data-client-id"] == other_settings["client_id"]
    assert root["data-sign-in"] == other_settings["sign_in"]
    assert f'"{html.escape(other_settings["client_id"])}"' in answer.body
    policy = answer.headers["Content-Security-Policy"]
    assert "connect-src 'self' http://127.0.0.1:4566;" in policy, "only the origin"


def test_a_browser_runs_only_the_scripts_of_the_page(stack: Stack) -> None:
    headers = stack.request("GET", "/").headers
    policy = dict(
        rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";")
    )

    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self' {SETTINGS['sign_in']}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Strict-Transport-Security"] == f"max-age={YEAR}"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_no_inline_script_or_style(stack: Stack) -> None:
    parsed = page(stack)

    assert not parsed.inline
    for elements in parsed.elements.values():
        for attributes in elements:
            assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_the_page_loads_only_files_that_exist_and_only_from_its_own_paths(stack: Stack) -> None:
    links = list(page(stack).links())

    assert links
    for link in links:
        assert stack.request("GET", f"/{link}").status == 200, link


def test_the_page_preloads_every_module_at_once(stack: Stack) -> None:
    parsed = page(stack)
    preloaded = {
        Path(link["href"] or "").name
        for link in parsed.elements["link"]
        if link.get("rel") == "modulepreload"
    }

    # theme.js is no module: it must run before the page is shown.
    modules = {path.name for path in packing.SOURCES.glob("*.js")} - {"theme.js"}
    assert preloaded == modules
    themes = [
        script
        for script in parsed.elements["script"]
        if Path(script["src"] or "").name == "theme.js"
    ]
    assert [script.keys() for script in themes] == [{"src"}], "neither deferred nor a module"
    for module in modules:  # each import names a file of the same directory
        source = (packing.SOURCES / module).read_text()
        imported = re.findall(r"""(?:from|import)\s*\(?\s*["']([\w./-]+)["']""", source)
        assert {urljoin("./", name) for name in imported} <= modules, module


def test_a_page_that_did_not_change_is_not_sent_again(
    stack: Stack, other_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = stack.request("GET", "/").headers["ETag"]

    known = stack.request("GET", "/", headers={"If-None-Match": tag})
    store(other_settings)
    monkeypatch.setattr(dashboard, "_known", {})
    changed = stack.request("GET", "/", headers={"If-None-Match": tag})

    assert (known.status, known.body, known.headers["ETag"]) == (304, None, tag)
    assert known.headers["Cache-Control"] == "no-cache"
    assert (changed.status, changed.headers["ETag"] != tag) == (200, True)


@pytest.mark.parametrize(
    "query",
    ["code=a&state=b", "error=access_denied&error_description=no", "utm_source=a&utm_source=b"],
)
def test_any_query_parameter_is_accepted_and_changes_nothing(stack: Stack, query: str) -> None:
    with_query = stack.request("GET", "/", query=query)

    assert with_query == stack.request("GET", "/")


def test_a_body_is_refused(stack: Stack) -> None:
    assert stack.request("GET", "/", body=b"{}").status == 400


@pytest.mark.parametrize(
    ("url_path", "query", "location"),
    [
        ("/v1", "", "v1/"),
        ("/counts", "", "counts/"),  # a custom domain with a base path
        ("/a/b", "", "b/"),
        ("/v1", "code=a%20b&state=%C3%A4&code=c", "v1/?code=a+b&code=c&state=%C3%A4"),
    ],
)
def test_a_path_without_a_slash_at_its_end_leads_to_the_path_with_the_slash(
    stack: Stack, url_path: str, query: str, location: str
) -> None:
    event = load("show_dashboard")
    event["requestContext"]["path"] = url_path
    event["multiValueQueryStringParameters"] = parse_qs(query) or None

    answer = reply(stack.invoke("ShowDashboard", event))

    assert (answer.status, answer.body, answer.headers["Location"]) == (308, None, location)
    with_slash = urljoin(f"https://example.com{url_path}", location).partition("?")[0]
    assert with_slash == f"https://example.com{url_path}/"


# --- The settings --------------------------------------------------------------------------------


def test_the_settings_are_read_once_and_again_after_five_minutes(
    stack: Stack, wire: Wire, other_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stack.request("GET", "/").body
    store(other_settings)
    assert stack.request("GET", "/").body == first
    assert wire.operations() == ["GetParameter"]

    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + 301)

    assert stack.request("GET", "/").body != first
    assert wire.operations() == ["GetParameter"] * 2


def test_an_asset_needs_no_request_to_aws(stack: Stack, wire: Wire) -> None:
    assert stack.request("GET", asset_path("style.css")).status == 200
    assert not wire.operations()


def test_without_the_settings_the_answer_is_an_error_that_the_log_explains(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    ssm().delete_parameter(Name=PARAMETER)
    try:
        answer = stack.request("GET", "/")
    finally:
        boto3.client("ssm", REGION).put_parameter(
            Name=PARAMETER, Type="String", Value=json.dumps(SETTINGS)
        )

    assert (answer.status, answer.body["type"]) == (500, "urn:tally:problem:internal-error")
    assert "ParameterNotFound) when calling the GetParameter operation" in caplog.text
    assert PARAMETER in caplog.text


def test_without_an_answer_of_parameter_store_the_caller_is_told_to_retry(
    stack: Stack, wire: Wire
) -> None:
    wire.through = request_lost

    answer = stack.request("GET", "/")

    assert (answer.status, answer.body["type"]) == (503, "urn:tally:problem:throttled")


def test_without_an_answer_of_parameter_store_old_settings_stay_in_use(
    stack: Stack, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stack.request("GET", "/")
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + 301)
    wire.through = request_lost

    answer = stack.request("GET", "/")

    assert (answer.status, answer.body) == (200, first.body)
    assert wire.operations()[0] == "GetParameter"
    assert len(wire.operations()) > 1


# --- The files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_file_is_served_with_its_media_type_and_may_be_kept_for_a_year(
    stack: Stack, source: Path
) -> None:
    answer = stack.request("GET", asset_path(source.name))

    assert (answer.status, answer.body) == (200, source.read_text())
    assert answer.headers["Content-Type"] == MEDIA_TYPES[source.suffix]
    assert answer.headers["Cache-Control"] == f"public, max-age={YEAR}, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Vary"] == "Accept-Encoding"


def test_the_library_for_charts_is_served_with_its_licence(stack: Stack) -> None:
    script = stack.request("GET", asset_path("uPlot.iife.js"))
    style = stack.request("GET", asset_path("uPlot.min.css"))
    licence = stack.request("GET", asset_path("uplot-license.txt"))

    assert "var uPlot = " in script.body
    assert script.headers["Content-Type"] == MEDIA_TYPES[".js"]
    assert ".uplot" in style.body
    assert "Leon Sorokin" in script.body[:100]
    assert licence.body.startswith("The MIT License (MIT)\n\nCopyright (c) 2022 Leon Sorokin")


def test_a_file_that_did_not_change_is_not_sent_again(stack: Stack) -> None:
    path = asset_path("app.js")
    tag = stack.request("GET", path).headers["ETag"]

    known = stack.request("GET", path, headers={"If-None-Match": tag})
    other = stack.request("GET", path, headers={"If-None-Match": '"other"'})

    assert (known.status, known.body) == (304, None)
    assert known.headers["Content-Type"] == MEDIA_TYPES[".js"]
    assert other.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/assets/0123456789abcdef/app.js",
        "/assets/{digest}/nothing.js",
        "/assets/{digest}/index.html",
        "/assets/{digest}/requirements.txt",
        "/assets/{digest}/..%2Findex.html",
        "/assets/{digest}/%2Fetc%2Fpasswd",
    ],
)
def test_any_other_path_is_not_found_and_no_cache_keeps_the_answer(stack: Stack, path: str) -> None:
    packed_dashboard.use()

    answer = stack.request("GET", path.format(digest=dashboard.digest()))

    assert (answer.status, answer.body["type"]) == (404, "urn:tally:problem:not-found")
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_change_of_any_file_changes_the_path_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(change: str = "") -> str:
        directory = tmp_path / f"with {change}" / "assets"
        directory.mkdir(parents=True)
        for name in ("a.js", "b.css"):
            (directory / name).write_text(name + "!" * (name == change))
        dashboard.assets.cache_clear()
        dashboard.digest.cache_clear()
        monkeypatch.setattr(dashboard, "DIRECTORY", directory.parent)
        return dashboard.digest()

    try:
        digests = {digest(), digest("a.js"), digest("b.css")}
    finally:
        for cached in (dashboard.assets, dashboard.digest, packed_dashboard.use):
            cached.cache_clear()

    assert len(digests) == 3
