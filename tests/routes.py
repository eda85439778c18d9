"""The HTTP routes of the template, and what the docs, code and sample events say about each route.

Tests of all routes take the routes from this module, so they include a new route without a change.
"""

import ast
import json
import re

from tests import aws_template, documents
from tests.aws_template import ROOT, Function, Route

ROUTES: list[tuple[Function, Route]] = [
    (function, route) for function in aws_template.functions().values() for route in function.routes
]


def documented_scopes() -> dict[tuple[str, str], str]:
    """Return the scope of each method and path in docs/api.md."""
    scopes = {}
    for first, named, _, scope in documents.table(documents.read("api.md"), "request"):
        for method, path in re.findall(r"`([A-Z]+) (.+?)`", first + named):
            scopes[method, path] = scope.strip("`")
    return scopes


def supported(function: Function, argument: str) -> set[str]:
    """Return the names that the handler's `@endpoint(…)` lists in an argument.

    Args:
        function: the function of the handler.
        argument: `query`, `body` or `headers`.
    """
    code = ast.parse((ROOT / "functions" / f"{function.module}.py").read_text())
    (call,) = [
        node
        for node in ast.walk(code)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "endpoint"
    ]
    keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    return set(keywords.get(argument, ()))


def sample_body(function: Function) -> bytes:
    """Return the body of the function's sample request; empty if it has none."""
    event = json.loads((ROOT / "events" / f"{function.module}.json").read_text())
    return (event["body"] or "").encode()
