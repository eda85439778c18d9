"""What the dashboard loads, keeps and saves: assets, tokens, tables and pictures."""

import csv
import io
import uuid
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser.dashboard import Dashboard, wait_for
from tests.browser.png import colors_in, size_of
from tests.e2e.people import first_person
from tests.e2e.service import Caller

from deployment import Stack

MOST_BYTES = 120_000  # of the first visit, until the list is there


@pytest.fixture
def name() -> str:
    return f"files:{uuid.uuid4()}"


def saved(tab: Dashboard, button: str, path: Path) -> tuple[str, bytes]:
    """Click a button that downloads a file. Return the file's name and content."""
    with tab.page.expect_download() as download:
        tab.button(button).click()
    download.value.save_as(path)
    return download.value.suggested_filename, path.read_bytes()


def rows_of(content: bytes) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)]


def test_the_trend_as_csv_and_png(
    editor: Dashboard, caller: Caller, name: str, tmp_path: Path
) -> None:
    for by in (12_345, -45):
        caller.post(f"/counters/{name}", by=by)
    caller.history(f"/counters/{name}", entries=2)
    editor.open(f"#/counters/{name}?range=1h")
    wait_for(editor.trend, "12,345 added and 45 subtracted")

    file, content = saved(editor, "Download as CSV", tmp_path / "trend")

    assert file == f"{name.replace(':', '_')} minute.csv"
    rows = rows_of(content)
    query = f"interval=minute&from={rows[0]['start']}"
    buckets = caller.get(f"/counters/{name}/trend?{query}").body[: len(rows)]
    columns = ("start", "changes", "increase", "decrease", "close")
    assert len(rows) == 60
    assert [[row[column] for column in columns] for row in rows] == [
        [str(bucket[column]) for column in columns] for bucket in buckets
    ]

    file, content = saved(editor, "Download as PNG", tmp_path / "chart")
    assert file == f"{name.replace(':', '_')} minute.png"
    width, height = size_of(content)
    canvas: Any = editor.chart.locator("canvas").evaluate("canvas => [canvas.width, canvas.height]")
    # The title and the names of the lines are above the chart.
    assert (width, height) == (canvas[0], canvas[1] + 52)
    assert colors_in(editor.page, content) > 3


def test_the_whole_history_as_csv(
    editor: Dashboard, caller: Caller, name: str, tmp_path: Path
) -> None:
    for _ in range(27):
        caller.post(f"/counters/{name}", by=2)
    caller.put(f"/counters/{name}", value=-1)
    entries = caller.history(f"/counters/{name}", entries=28)
    editor.open(f"#/counters/{name}")
    expect(editor.changes()).to_have_count(25)

    file, content = saved(editor, "Download the history as CSV", tmp_path / "history")

    assert file == f"{name.replace(':', '_')} history.csv"
    rows = rows_of(content)
    assert [int(row["version"]) for row in rows] == [*range(28, 0, -1)]
    for row, entry in zip(rows, reversed(entries), strict=True):
        assert {column: row[column] for column in entry} == {
            column: str(value) for column, value in entry.items()
        }


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("x", "y")'])
def test_a_spreadsheet_does_not_run_a_text_of_a_table(
    editor: Dashboard, name: str, tmp_path: Path, text: str
) -> None:
    entry = {
        "version": 1, "value": -5, "previous_value": 0, "by": -5, "increase": 0, "decrease": 5,
        "operation": "increment", "actor": text, "created_at": "2026-01-02T03:04:05.000Z",
    }  # fmt: skip
    editor.page.route("**/history?*", lambda route: route.fulfill(json=[entry]))
    editor.open(f"#/counters/{name}")
    expect(editor.changes()).to_have_count(1)

    _, content = saved(editor, "Download the history as CSV", tmp_path / "history")

    (row,) = rows_of(content)
    assert row["actor"] == f"'{text}"
    assert row["by"] == "-5"


def transferred(page: Page) -> dict[str, int]:
    """Return the bytes of each answer of this visit, as transferred; 0 if the cache had it."""
    entries: list[list[Any]] = page.evaluate(
        """() => [...performance.getEntriesByType("navigation"),
          ...performance.getEntriesByType("resource")]
          .map(({ name, transferSize }) => [name, transferSize])"""
    )
    return {f"{number} {url}": size for number, (url, size) in enumerate(entries)}


def test_the_second_visit_loads_no_asset_again(
    stack: Stack, caller: Caller, page: Page, name: str
) -> None:
    caller.post(f"/counters/{name}", by=77)
    tab = Dashboard(page, stack)
    tab.open(f"#/?prefix={name}")
    wait_for(tab.sign_in_button)
    first = transferred(page)
    tab.sign_in(first_person(stack))
    wait_for(tab.row(name).locator("svg"))
    second = transferred(page)

    assert any("/assets/" in url for url in second)
    assert [url for url, size in second.items() if "/assets/" in url and size] == []
    print(f"first visit: {sum(first.values())} bytes of {len(first)} answers to sign in,")
    print(f"{sum(second.values())} bytes of {len(second)} answers to see the list")
    assert sum(size for url, size in first.items() if "/assets/" in url) > MOST_BYTES / 4
    assert sum(first.values()) + sum(second.values()) < MOST_BYTES


def test_the_token_is_in_memory_only_and_no_other_host_is_asked(
    browser: Browser, stack: Stack, caller: Caller, name: str
) -> None:
    caller.post(f"/counters/{name}", by=77)
    with browser.new_context() as context:
        tab = Dashboard(context.new_page(), stack)
        tab.open(f"#/counters/{name}?range=1h")
        with tab.page.expect_response("**/oauth2/token") as answer:
            tab.sign_in(first_person(stack))
        tokens = {
            kind: value for kind, value in answer.value.json().items() if kind.endswith("_token")
        }
        assert {*tokens} == {"access_token", "refresh_token", "id_token"}
        wait_for(tab.trend, "77 added")
        assert tab.authorization() == tokens["access_token"]
        stored = tab.page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        )
        urls = [request.url for request in tab.requests]
        parts = [token.rpartition(".")[2] for token in tokens.values()]
        for secret in (*tokens.values(), *parts):
            assert secret not in stored
            assert all(secret not in url for url in urls)
            assert secret not in str(context.cookies())
        assert tab.hosts() == {stack.endpoint_url.partition("//")[2]}
        assert tab.errors == []
