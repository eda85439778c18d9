"""A website of another origin than the API. Its page calls the API with `fetch`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from playwright.sync_api import Page
from tests.http_server import HttpServer

from local_settings import HOST

# The icon keeps the browser from asking the website for one.
_HTML = b'<!doctype html><title>Another origin</title><link rel="icon" href="data:,">'

_FETCH = """
async ([url, options]) => {
  const response = await fetch(url, options);
  const text = await response.text();
  return [response.url, response.status, Object.fromEntries(response.headers), text];
}
"""


class Website(HttpServer):
    """Serves an empty page on a free port of this machine.

    Attributes:
        origin: the origin of the website.
        other_name: the origin of the website under another name of the machine. To a browser,
            these are two origins.
    """

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.origin = f"http://{HOST}:{self.server_port}"
        self.other_name = f"http://localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(_HTML)))
        self.end_headers()
        self.wfile.write(_HTML)


@dataclass(frozen=True)
class Answer:
    """An answer, as JavaScript in a page sees it.

    Attributes:
        url: the URL that answered.
        status: the status.
        headers: the headers that the browser lets the page read. The names are in lower case.
        body: the parsed JSON; None if the answer has no body.
    """

    url: str
    status: int
    headers: dict[str, str]
    body: Any


class RefusedError(Exception):
    """The browser did not let the page send the request or read the answer."""


def fetch(
    page: Page,
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
) -> Answer:
    """Send a request from the page that is open in the browser.

    Raises:
        RefusedError: the browser did not let the page send the request or read the answer.
    """
    options = {"method": method, "headers": dict(headers or {}), "body": body}
    if body is None:
        del options["body"]
    answer = page.evaluate(f"options => ({_FETCH})(options).catch(String)", [url, options])
    if isinstance(answer, str):
        raise RefusedError(answer)
    final_url, status, readable, text = answer
    return Answer(final_url, status, readable, json.loads(text) if text else None)
