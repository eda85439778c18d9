"""What a function's code uses of its surroundings, read from the code without running it.

The graph is followed by names: whatever a piece of code mentions it may call. So a function is
found that is only handed on, and nothing that is called is missed, as long as AWS is called in one
form: `<a factory of counters.clients>().<method>`, whether it is called at once or handed on.
Whatever else is done with a factory, and any other way to the environment than
`os.environ["NAME"]`, is an error here.
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
        calls: the AWS calls: for each, the factory of its client and the client's method.
        environment: the names of environment variables.
        modules: the modules with code that can run, without third-party ones.
    """

    calls: set[tuple[str, str]]
    environment: set[str]
    modules: set[str]


@dataclass(frozen=True)
class Module:
    """A module's own definitions, and what the names that it imports stand for."""

    definitions: dict[str, ast.AST]
    imports: dict[str, str]
    rest: list[ast.stmt]


class UnclearError(Exception):
    """The code does what this reader does not follow."""


@cache
def uses(module: str) -> Uses:
    """Return what the handler of a module uses, and all that it calls.

    Raises:
        UnclearError: that cannot be told.
    """
    found = Uses(set(), set(), set())
    seen: set[str] = set()
    read: set[ast.AST] = set()
    waiting = [f"{module}.handler"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node, where in _code(name):
            found.modules.add(where)
            if node in read:
                continue
            read.add(node)
            waiting += _mentions(node, where)
            _collect(node, where, found)
    return found


def _code(name: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield the code that runs if a name is used, with its module.

    That is its definition, and what its module does when it is imported.
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
    """Yield the full names that a piece of code mentions."""
    module = modules()[where]
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield module.imports.get(inner.id, f"{where}.{inner.id}")
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
            yield f"{module.imports.get(inner.value.id, '')}.{inner.attr}"


def _collect(node: ast.AST, where: str, found: Uses) -> None:
    """Add what one piece of code itself uses."""
    imports = modules()[where].imports
    understood = set()
    for inner in ast.walk(node):
        match inner:
            case ast.Attribute(value=ast.Call(func=ast.Name(id=factory) as name)) if (
                imports.get(factory, f"{where}.{factory}") in _factories()
            ):
                understood.add(name)
                # The only attribute in use that is no method.
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
            ) if variable.startswith("AWS_LAMBDA_"):  # Lambda sets it, and not the template
                understood.add(name)
    makers = set() if where == CLIENTS else {"boto3", "botocore", "botocore.session"}
    watched = _factories() | {"os"} | makers
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner not in understood:
            meant = imports.get(inner.id, "")
            if meant in watched or meant.startswith(("os.", "boto3.", "botocore.session.")):
                detail = f"{where}, line {inner.lineno}: {inner.id} is used in an unknown way"
                raise UnclearError(detail)


@cache
def _factories() -> set[str]:
    """Return the full names of the functions that make clients."""
    return {
        f"{CLIENTS}.{name}"
        for name, definition in modules()[CLIENTS].definitions.items()
        if "_client" in {inner.id for inner in ast.walk(definition) if isinstance(inner, ast.Name)}
    }


@cache
def modules() -> dict[str, Module]:
    """Return the modules of the functions, each by its full name."""
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
                    detail = f"{path}, line {node.lineno}: import it with from"
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
