"""Finds the AWS calls, environment variables and modules that the code of a Lambda function uses.

The code is parsed, but not run. This module assumes that code calls every Python function that it
mentions. So a Python function that is passed as an argument counts as called.

A client factory is a function in counters.clients that returns an AWS client. There are three forms
in which the code may use client factories and the environment:

- `<client factory>().<method>`: the code calls this method, or passes it as an argument
- `os.environ["NAME"]`
- `"AWS_LAMBDA_…" in os.environ`

This module reports an error if the code uses any other form.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.aws_template import ROOT

CODE = ROOT / "functions"
CLIENTS = "counters.clients"


@dataclass(frozen=True)
class Uses:
    """What the code of a function uses.

    Attributes:
        calls: the AWS calls, as pairs. A pair has the name of a client factory and the name of a
            method.
        environment: the names of environment variables.
        modules: the modules in functions/ whose code the function may run.
    """

    calls: set[tuple[str, str]]
    environment: set[str]
    modules: set[str]


@dataclass(frozen=True)
class Module:
    """A parsed module.

    Attributes:
        definitions: the functions and classes of the module, by name.
        imports: the imported names. Each key is the name in the module. Its value is the full name.
        rest: the statements outside functions and classes. They run when the module is imported.
    """

    definitions: dict[str, ast.AST]
    imports: dict[str, str]
    rest: list[ast.stmt]


class UnclearError(Exception):
    """The parsed code has a form that this module does not understand."""


@cache
def uses(module: str) -> Uses:
    """Return what the handler of a module uses, directly or through other code that it calls.

    Raises:
        UnclearError: the code has a form that this module does not understand.
    """
    found = Uses(set(), set(), set())
    visited_names: set[str] = set()
    visited_nodes: set[ast.AST] = set()
    waiting = [f"{module}.handler"]
    while waiting:
        name = waiting.pop()
        if name in visited_names:
            continue
        visited_names.add(name)
        for node, where in _code(name):
            found.modules.add(where)
            if node in visited_nodes:
                continue
            visited_nodes.add(node)
            waiting += _mentions(node, where)
            _collect(node, where, found)
    return found


def _code(name: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield the pieces of code that can run if other code uses a name.

    The pieces are the definition of the name, and the statements that run when the name's module is
    imported. Each piece is yielded with the name of its module.
    """
    where, _, own = name.rpartition(".")
    if where not in modules():
        return
    module = modules()[where]
    if own in module.definitions:
        yield module.definitions[own], where
    for statement in module.rest:
        yield statement, where


def _mentions(node: ast.AST, where: str) -> Iterator[str]:
    """Yield the full name of each name that a piece of code mentions."""
    module = modules()[where]
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield module.imports.get(inner.id, f"{where}.{inner.id}")
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
            yield f"{module.imports.get(inner.value.id, '')}.{inner.attr}"


def _collect(node: ast.AST, where: str, found: Uses) -> None:
    """Add the calls and environment variables in one piece of code to `found`."""
    imports = modules()[where].imports
    understood = set()
    for inner in ast.walk(node):
        match inner:
            case ast.Attribute(value=ast.Call(func=ast.Name(id=factory) as name)) if (
                imports.get(factory, f"{where}.{factory}") in _factories()
            ):
                understood.add(name)
                # The code uses only one attribute of a client that is not a method: `exceptions`.
                if inner.attr != "exceptions":
                    found.calls.add((factory, inner.attr))
            case ast.Subscript(
                value=ast.Attribute(value=ast.Name(id="os") as name, attr="environ"),
                slice=ast.Constant(value=str() as variable),
            ):
                understood.add(name)
                found.environment.add(variable)
            case ast.Compare(
                left=ast.Constant(value=str() as variable),
                ops=[ast.In()],
                comparators=[ast.Attribute(value=ast.Name(id="os") as name, attr="environ")],
            ) if variable.startswith("AWS_LAMBDA_"):  # set by Lambda, not by the template
                understood.add(name)
    client_libraries = set() if where == CLIENTS else {"boto3", "botocore", "botocore.session"}
    watched = _factories() | {"os"} | client_libraries
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner not in understood:
            full_name = imports.get(inner.id, "")
            if full_name in watched or full_name.startswith(("os.", "boto3.", "botocore.session.")):
                detail = f"{where}, line {inner.lineno}: this use of {inner.id} is not understood"
                raise UnclearError(detail)


@cache
def _factories() -> set[str]:
    """Return the full names of the client factories."""
    return {
        f"{CLIENTS}.{name}"
        for name, definition in modules()[CLIENTS].definitions.items()
        if "_client" in {inner.id for inner in ast.walk(definition) if isinstance(inner, ast.Name)}
    }


@cache
def modules() -> dict[str, Module]:
    """Return all modules in functions/. The keys are their full names."""
    return {
        ".".join(path.relative_to(CODE).with_suffix("").parts): _module(path)
        for path in CODE.rglob("*.py")
    }


def _module(path: Path) -> Module:
    tree = ast.parse(path.read_text())
    definitions: dict[str, ast.AST] = {}
    imports: dict[str, str] = {}
    rest = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                if first == "counters":
                    detail = f"{path}, line {node.lineno}: import counters with `from`"
                    raise UnclearError(detail)
                imports[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            imports |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            definitions[statement.name] = statement
        else:
            rest.append(statement)
    return Module(definitions, imports, rest)
