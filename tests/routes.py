"""The template's HTTP routes, and what the docs, code and sample events say about them.

Tests that test every route take the routes from this module. So these tests also test each new
route, without any change to the tests.
"""

import ast
import json
import re

from tests import aws_template, documents
from tests.aws_template import ROOT, Function, Route

ROUTES: list[tuple[Function, Route]] = [
    (function, route) for function in aws_template.functions().values() for route in function.routes
]
# The routes that need a token.
PROTECTED = [(function, route) for function, route in ROUTES if not route.public]


def documented_routes() -> dict[tuple[str, str], str | None]:
    """Return the access scope that docs/api.md documents for each method and path.

    The scope is None if the route needs no token.
    """
    scopes = {}
    for first, named, _, scope in documents.table(documents.read("api.md"), "request"):
        for method, path in re.findall(r"`([A-Z]+) (.+?)`", first + named):
            scopes[method, path] = scope.strip("`") if scope.startswith("`") else None
    return scopes


def documented_scopes() -> dict[tuple[str, str], str]:
    """Return the documented access scope for each method and path that needs a token."""
    return {route: scope for route, scope in documented_routes().items() if scope}


def supported(function: Function, argument: str) -> set[str]:
    """Return the query parameters, body fields or headers that a function's handler supports.

    The handler lists them in the arguments of its decorator `@endpoint(…)`.

    Args:
        function: the function.
        argument: which argument of the decorator to return: `query` (with `lists`), `body` or
            `headers`.
    """
    code = ast.parse((ROOT / "functions" / f"{function.module}.py").read_text())
    (call,) = [
        node
        for node in ast.walk(code)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "endpoint"
    ]
    keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    lists = keywords.get("lists", ()) if argument == "query" else ()
    return {*(keywords.get(argument) or ()), *lists}


def takes_any_query(function: Function) -> bool:
    """Return whether a function's handler accepts every query parameter."""
    return "query=None" in (ROOT / "functions" / f"{function.module}.py").read_text()


def sample_body(function: Function) -> bytes:
    """Return the body of the function's sample request; empty if the request has no body."""
    event = json.loads((ROOT / "events" / f"{function.module}.json").read_text())
    return (event["body"] or "").encode()
