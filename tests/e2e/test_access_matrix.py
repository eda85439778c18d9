"""Access: which kinds of callers may use which routes, and for which counters.

The last test compares the results with the table in docs/access.md. To write the table anew, set
the environment variable TALLY_DOCS to `write`.
"""

import itertools
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from tests import documents, routes
from tests.aws_template import ROOT
from tests.e2e.kinds_of_callers import INSIDE, KINDS, OUTSIDE, PREFIX, Kind, tokens
from tests.e2e.service import Answer, Caller, stored_items

from deployment import PUBLIC_PREFIX, Stack

# For a caller with a grant for PREFIX: the counters that the grant covers, and others.
INSIDE_COUNTERS = (f"{PREFIX}eu", PREFIX)
OUTSIDE_COUNTERS = ("orders", "orders2", "Orders:eu", "other")
DEFAULT = "default"  # the counter of /counter
PUBLIC = f"{PUBLIC_PREFIX}access-matrix"  # the counter of requests that need no token
ALLOWED = "✓"
SECTION = "## Who may do what"
HEADING = "request"  # of the table's first column
PAGE = ROOT / "docs" / "access.md"

KEYS = (f"access-matrix-{number}" for number in itertools.count())


@dataclass(frozen=True)
class Row:
    """A row of the matrix: a route, and how a request names counters.

    Attributes:
        path: the path of the route. For GET /counters, also a query.
        scope: the scope that the route needs; empty if it needs no token.
        counters: how a request names counters: `path`, `default`, `id`, `increments` or `list`. A
            request for a list names no counters.
        body: the body of a request, if the path names the counter.
        keyed: whether the route supports Idempotency-Key.
    """

    method: str
    path: str
    scope: str
    counters: str
    body: bytes = b""
    keyed: bool = False

    @property
    def label(self) -> str:
        return f"`{self.method} {self.path}`"

    def send(self, caller: Caller, counters: Sequence[str]) -> Answer:
        """Send a valid request for these counters."""
        path, body = self.path.replace("{counter_id}", counters[0]), self.body
        if self.counters == "id":
            path = f"/counters?{urlencode([('id', counter) for counter in counters])}"
        if self.counters == "increments":
            increments = [{"counter_id": counter} for counter in counters]
            body = json.dumps({"increments": increments}).encode()
        if path.startswith("/assets/"):
            (path,) = set(re.findall(r'"(assets/\w+/app\.js)"', str(caller.get("/").body)))
            path = f"/{path}"
        headers = {"Idempotency-Key": next(KEYS)} if self.keyed else None
        return caller.request(self.method, path, body, headers)

    def requests(self, kind: Kind) -> list[tuple[str, ...]]:
        """Return the counters of each request that a kind of caller sends."""
        if not self.scope:
            return [(PUBLIC,)]
        if self.counters in {"default", "list"}:
            return [(DEFAULT,)]
        if self.counters == "path":
            every = [*INSIDE_COUNTERS, *OUTSIDE_COUNTERS]
            return [(counter,) for counter in (every if kind.limited else every[:1])]
        outside = [(INSIDE_COUNTERS[0], counter) for counter in OUTSIDE_COUNTERS]
        return [INSIDE_COUNTERS, *(outside if kind.limited else outside[:1])]


def rows() -> Iterator[Row]:
    """Yield the rows: one for each route of the template, and three for GET /counters.

    The rows have the order of the routes in docs/api.md.
    """
    scopes = routes.documented_scopes()
    order = list(routes.documented_routes())
    for function, route in sorted(
        routes.ROUTES, key=lambda each: order.index((each[1].method, each[1].path))
    ):
        method, path = route.method, route.path
        scope = "" if route.public else scopes[method, path].removeprefix("counters/")
        keyed = "idempotency-key" in routes.supported(function, "headers")
        if path == "/counters":
            yield Row(method, path, scope, "list")
            yield Row(method, f"{path}?values=true", scope, "list")
            yield Row(method, f"{path}?id=…", scope, "id")
        elif path == "/increments":
            yield Row(method, path, scope, "increments", keyed=keyed)
        else:
            is_default = path == "/counter" or path.startswith("/counter/")
            assert route.public or is_default or "{counter_id}" in path, (
                f"{method} {path}: how does a request name its counters? Add it to `rows`."
            )
            body = routes.sample_body(function)
            yield Row(method, path, scope, "default" if is_default else "path", body, keyed)


ROWS = list(rows())


def expected_mark(kind: Kind, row: Row, counters: Sequence[str]) -> str:
    """Return ALLOWED, or the status with which Tally refuses a request."""
    if not row.scope:
        return ALLOWED
    prefix = kind.rights.get(row.scope)
    if prefix is None:
        return "401"
    if row.counters == "list":
        return ALLOWED
    return ALLOWED if all(each.startswith(prefix) for each in counters) else "403"


def mark_of(answer: Answer, counters: Sequence[str]) -> str:
    """Return ALLOWED, or the status with which Tally refused a request."""
    if answer.status == 401:
        assert answer.body["type"] == "urn:tally:problem:unauthorized"
    if answer.status == 403:
        assert answer.body["type"] == "urn:tally:problem:forbidden"
        refused = next((each for each in counters if not each.startswith(PREFIX)), counters[0])
        assert answer.body["detail"].endswith(f" {refused}.")
    return ALLOWED if answer.status == 200 else str(answer.status)


class Matrix:
    """Sends the requests of each kind of caller, and keeps the results.

    Attributes:
        cells: what the callers of each column got in each row. If all is well, each set has one
            mark.
    """

    def __init__(self, stack: Stack, token_of: Callable[[Kind], str | None]) -> None:
        self.cells: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._stack = stack
        self._token_of = token_of
        self._measured: dict[str, list[str]] = {}

    def unexpected(self, kind: Kind) -> list[str]:
        """Return a line of text for each result that is not as expected.

        The first call sends the requests.
        """
        if kind.name not in self._measured:
            with Caller(self._stack.url, self._token_of(kind)) as caller:
                self._measured[kind.name] = list(self._measure(kind, caller))
        return self._measured[kind.name]

    def _measure(self, kind: Kind, caller: Caller) -> Iterator[str]:
        requests = [(row, counters) for row in ROWS for counters in row.requests(kind)]
        refused = [each for each in requests if expected_mark(kind, *each) != ALLOWED]
        before = self._stored()
        for row, counters in refused:
            yield from self._compare(kind, row, counters, row.send(caller, counters))
        if self._stored() != before:
            yield "the refused requests changed the stored data"
        for row, counters in requests:
            if (row, counters) in refused:
                continue
            if row.counters == "list":
                yield from self._compare_list(kind, row, caller)
            else:
                yield from self._compare(kind, row, counters, row.send(caller, counters))

    def _compare(
        self, kind: Kind, row: Row, counters: Sequence[str], answer: Answer
    ) -> Iterator[str]:
        expected, mark = expected_mark(kind, row, counters), mark_of(answer, counters)
        if mark != expected:
            yield f"{row.label} {counters}: {mark} instead of {expected}: {answer.body}"
        if kind.column == INSIDE:
            is_inside = all(each.startswith(PREFIX) for each in counters) or not row.scope
            self.cells[row.label, INSIDE if is_inside else OUTSIDE].add(mark)
            if not row.scope:
                self.cells[row.label, OUTSIDE].add(mark)
        else:
            self.cells[row.label, kind.column].add(mark)

    def _compare_list(self, kind: Kind, row: Row, caller: Caller) -> Iterator[str]:
        """Check that a list has all counters that the caller may read, and no others."""
        found = [
            each if isinstance(each, str) else each["counter_id"]
            for page in caller.pages(row.path)
            for each in page
        ]
        names = sorted(item["counter_id"]["S"] for item in self._stored()["CounterTable"])
        allowed = [name for name in names if name.startswith(kind.rights[row.scope])]
        if found != allowed:
            yield f"{row.label}: {found} instead of {allowed}"
        if kind.column == INSIDE:
            left_out = not set(OUTSIDE_COUNTERS) & set(found)
            self.cells[row.label, OUTSIDE].add("left out" if left_out else ALLOWED)
        listed = set(INSIDE_COUNTERS) <= set(found)
        self.cells[row.label, kind.column].add(ALLOWED if listed else "left out")

    def _stored(self) -> dict[str, list[Any]]:
        return {name: stored_items(self._stack, name) for name in ("CounterTable", "ReceiptTable")}

    def table(self) -> str:
        """Return the table for docs/access.md."""
        columns = [*dict.fromkeys(kind.column for kind in KINDS if kind.column), OUTSIDE]
        lines = [
            [HEADING, *columns],
            ["---"] * (len(columns) + 1),
            *([row.label, *(self._cell(row, column) for column in columns)] for row in ROWS),
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def _cell(self, row: Row, column: str) -> str:
        return " ".join(sorted(self.cells[row.label, column])) or "-"


@pytest.fixture(scope="module")
def matrix(stack: Stack) -> Iterator[Matrix]:
    with tokens(stack) as token_of:
        matrix = Matrix(stack, token_of)
        names = [*INSIDE_COUNTERS, *OUTSIDE_COUNTERS, DEFAULT, PUBLIC]
        everything = next(kind for kind in KINDS if kind.name == "machine with all scopes")
        with Caller(stack.url, token_of(everything)) as caller:
            increments = [{"counter_id": name} for name in names]
            assert caller.post("/increments", increments=increments).status == 200
        yield matrix


def test_template_has_the_same_routes_for_the_default_and_named_counters() -> None:
    for counter in ("/counter", "/counters/{counter_id}"):
        found = {row.path: row.scope for row in ROWS if row.path.startswith(f"{counter}/")}
        assert {row.method for row in ROWS if row.path == counter} == {"GET", "POST", "PUT"}
        assert found[f"{counter}/history"] == found[f"{counter}/trend"] == "read"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_route_answers_or_refuses_as_the_rights_say(matrix: Matrix, kind: Kind) -> None:
    assert matrix.unexpected(kind) == []


def test_the_documented_table_is_as_measured(matrix: Matrix) -> None:
    for kind in KINDS:
        matrix.unexpected(kind)
    before, heading, after = PAGE.read_text().partition(f"\n{SECTION}\n")
    assert heading, f"{PAGE.name} has no section {SECTION}"
    documented = documents.table_text(after, HEADING)
    if os.environ.get("TALLY_DOCS") == "write":
        PAGE.write_text(before + heading + after.replace(documented, matrix.table()))
        return
    assert documented == matrix.table(), (
        f"The table in {PAGE.name} differs from the results. To write the table anew, run this"
        " module with the environment variable TALLY_DOCS=write."
    )
