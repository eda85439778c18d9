"""Modules and functions are short enough to read in one sitting."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.aws_template import ROOT

MODULES = [
    path
    for name in ("functions", "client", "scripts", "bench", "tests")
    for path in (ROOT / name).rglob("*.py")
]
CODE = [path for path in MODULES if not path.is_relative_to(ROOT / "tests")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def long_functions(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno >= 50:
                yield f"{name(module)}: {node.name}"


def test_a_module_has_at_most_400_lines() -> None:
    too_long = [name(path) for path in MODULES if len(path.read_text().splitlines()) > 400]

    assert too_long == []


def test_a_function_has_at_most_50_lines() -> None:
    too_long = [function for module in CODE for function in long_functions(module)]

    assert too_long == []
