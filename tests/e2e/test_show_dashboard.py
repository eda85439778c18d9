"""The dashboard's page on the local stack: its settings, its address, and compression."""

import re
from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
import urllib3
from tests.aws_template import TEMPLATE
from tests.component.test_show_dashboard import Page
from tests.e2e.service import Caller, tally_of

from deployment import Stack

COMPRESSED = {"Accept-Encoding": "gzip, deflate, br, zstd"}  # as browsers send it
LEAST = TEMPLATE["Resources"]["Api"]["Properties"]["MinimumCompressionSize"]  # bytes


@pytest.fixture
def anybody(stack: Stack) -> Iterator[Caller]:
    """A caller without a token."""
    with Caller(stack.url, None) as caller:
        yield caller


def test_the_page_sends_people_to_the_sign_in_page_of_the_local_stack(
    stack: Stack, anybody: Caller
) -> None:
    answer = anybody.get("/")

    (root,) = Page(answer.body).elements["html"]
    assert f"{stack.url}/" == stack.dashboard["url"]
    assert root["data-client-id"] == stack.outputs["DashboardClientId"]
    assert root["data-sign-in"] == stack.endpoint_url
    assert f"connect-src 'self' {stack.endpoint_url};" in answer.headers["Content-Security-Policy"]


def test_the_files_of_the_page_are_where_the_page_says(stack: Stack, anybody: Caller) -> None:
    links = list(Page(anybody.get("/").body).links())

    assert len(links) > 3
    for link in links:
        assert anybody.get(urljoin(stack.dashboard["url"], link)).status == 200, link


@pytest.mark.parametrize("query", ["", "?code=a&state=b"])
def test_the_address_without_a_slash_leads_to_the_page(stack: Stack, query: str) -> None:
    url = stack.dashboard["url"]

    answer = urllib3.request("GET", url.removesuffix("/") + query, redirect=False)

    assert answer.status == 308
    assert urljoin(url.removesuffix("/"), answer.headers["Location"]) == url + query


def test_large_responses_are_compressed_if_the_caller_accepts_it(anybody: Caller) -> None:
    (script,) = set(re.findall(r'src="(\S+/uPlot.iife.js)"', anybody.get("/").body))

    for path in (f"/{script}", "/openapi.json"):
        plain = anybody.get(path)
        compressed = anybody.request("GET", path, headers=COMPRESSED)
        assert "Content-Encoding" not in plain.headers
        assert compressed.headers["Content-Encoding"] == "gzip"
        assert compressed.body == plain.body  # urllib3 has decompressed it
        assert compressed.headers["ETag"] == plain.headers["ETag"]
        size = int(compressed.headers["Content-Length"])
        assert LEAST < size < int(plain.headers["Content-Length"]) / 2


def test_small_responses_are_not_compressed(caller: Caller, counter: str) -> None:
    answer = caller.request("GET", counter, headers=COMPRESSED)

    assert int(answer.headers["Content-Length"]) < LEAST
    assert "Content-Encoding" not in answer.headers


def test_the_python_client_reads_compressed_lists(stack: Stack, counter: str) -> None:
    name = counter.rpartition("/")[2]
    names = [f"{name}:{number:03}" for number in range(40)]  # together more than LEAST bytes
    with tally_of(stack) as tally:
        assert [each.counter_id for each in tally.get_many(names)] == names
