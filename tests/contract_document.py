"""The HTTP contract, openapi.yaml. Tests compare it with the code, the docs and the template."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contract import contract

DOCUMENT: dict[str, Any] = contract()
COMPONENTS: dict[str, dict[str, Any]] = DOCUMENT["components"]
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
PROBLEM = "application/problem+json"
PROBLEM_TYPE = "urn:tally:problem:"


@dataclass(frozen=True)
class Problem:
    """A problem of the contract.

    Attributes:
        kind: the last part of the problem's `type`.
        statuses: the statuses with which the problem can occur.
        members: the members that only this problem has.
        headers: the headers that a response has exactly if it has this problem.
    """

    kind: str
    statuses: frozenset[int]
    members: frozenset[str]
    headers: frozenset[str]


@dataclass(frozen=True)
class Operation:
    """A request of the contract: a method and a path.

    Attributes:
        content: the operation as it is in the contract.
    """

    method: str
    path: str
    content: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def scope(self) -> str | None:
        """The scope that the operation needs. None if it needs no token."""
        match self.content["security"]:
            case []:
                return None
            case [{"OAuth2": [str(scope)]}]:
                return scope
        raise AssertionError(self)

    @property
    def responses(self) -> dict[int, dict[str, Any]]:
        """The responses, by status."""
        return {int(status): resolve(each) for status, each in self.content["responses"].items()}

    def parameters(self, place: str) -> dict[str, dict[str, Any]]:
        """Return the parameters in a place (`path`, `query` or `header`), by name."""
        parameters = [resolve(each) for each in self.content.get("parameters", [])]
        return {each["name"]: each for each in parameters if each["in"] == place}

    def body_schema(self) -> dict[str, Any] | None:
        """Return the schema of the request's body. None if the request has no body."""
        body = resolve(self.content.get("requestBody"))
        return resolve(body["content"]["application/json"]["schema"]) if body else None

    def body_fields(self) -> set[str]:
        """Return the names of the fields in the request's body."""
        return set((self.body_schema() or {}).get("properties", ()))


def resolve(node: Any) -> Any:  # noqa: ANN401  any part of the contract
    """Return the part of the contract that a reference names. Return any other node unchanged."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


def operations() -> dict[tuple[str, str], Operation]:
    """Return the operations, by method in upper case and path."""
    return {
        (method.upper(), path): Operation(method.upper(), path, item[method])
        for path, item in DOCUMENT["paths"].items()
        for method in METHODS
        if method in item
    }


def problems() -> dict[str, Problem]:
    """Return the problems, by the last part of their `type`."""
    found = [problem_of(schema) for schema in COMPONENTS["schemas"].values() if is_problem(schema)]
    return {problem.kind: problem for problem in found}


def is_problem(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema describes a problem."""
    kind = schema.get("properties", {}).get("type", {})
    return str(kind.get("const", "")).startswith(PROBLEM_TYPE)


def problem_of(schema: Mapping[str, Any]) -> Problem:
    """Return the problem that a schema describes."""
    properties = schema["properties"]
    standard = {"type", "title", "status", "detail", "instance"}
    return Problem(
        properties["type"]["const"].removeprefix(PROBLEM_TYPE),
        frozenset(properties["status"]["enum"]),
        frozenset(properties.keys() - standard),
        frozenset(schema.get("x-headers", ())),
    )


def problems_of(response: Mapping[str, Any]) -> list[Problem]:
    """Return the problems that a response can have."""
    schema = response.get("content", {}).get(PROBLEM, {}).get("schema", {})
    return [problem_of(resolve(each)) for each in schema.get("oneOf", [schema] if schema else [])]


def nodes(node: Any, path: str = "#") -> Iterator[tuple[str, Any]]:  # noqa: ANN401  any part
    """Yield every part of the contract, with its path: a JSON pointer."""
    yield path, node
    if isinstance(node, dict):
        for name, value in node.items():
            yield from nodes(value, f"{path}/{name}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from nodes(value, f"{path}/{number}")
