"""Modules and functions are short enough to read in one sitting."""

import ast
from pathlib import Path

import pytest
from tests.aws_template import ROOT

MODULES = [
    path
    for name in ("functions", "client", "scripts", "bench", "tests")
    for path in (ROOT / name).rglob("*.py")
]
CODE = [path for path in MODULES if not path.is_relative_to(ROOT / "tests")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_has_at_most_400_lines(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 400


@pytest.mark.parametrize("module", CODE, ids=name)
def test_a_function_has_at_most_50_lines(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 50, node.name
