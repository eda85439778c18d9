"""Reads tables, queues, functions and their routes from template.yaml, before SAM expands it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import QueueAttributeNameType

ROOT = Path(__file__).parents[1]


class _Loader(yaml.CSafeLoader):
    """Reads YAML with CloudFormation's short forms: `!Ref X` becomes `{"Ref": "X"}`."""


def _long_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _long_form)


def parse(template: str) -> dict[str, Any]:
    """Return the content of a template. `!Ref X` becomes `{"Ref": "X"}`."""
    content: dict[str, Any] = _Loader(template).get_single_data()
    return content


TEMPLATE = parse((ROOT / "template.yaml").read_text())
GLOBALS: dict[str, Any] = TEMPLATE["Globals"]["Function"]


@dataclass(frozen=True)
class Route:
    """An HTTP route of the template.

    Attributes:
        auth: the template's `Auth` settings for the route: its authorizer and its scopes.
    """

    method: str
    path: str
    auth: Mapping[str, Any]

    @property
    def public(self) -> bool:
        """Whether the route needs no token."""
        return self.auth == {"Authorizer": "NONE"}

    def match(self, path: str) -> dict[str, str] | None:
        """Return the path parameters in a request's path; None if this is not the path's route.

        The parameters' values stay percent-encoded, as in the events that API Gateway sends.
        """
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path)
        match = re.fullmatch(pattern, path)
        return None if match is None else match.groupdict()


@dataclass(frozen=True)
class Function:
    """A Lambda function of the template.

    Attributes:
        timeout: in seconds.
        environment: the environment variables of this function, without those in the template's
            `Globals`.
    """

    name: str
    handler: str
    timeout: int
    environment: Mapping[str, Any]
    routes: list[Route]

    @property
    def module(self) -> str:
        return self.handler.removesuffix(".handler")


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """Return the template's resources of one type. The keys are their logical ids."""
    return {
        name: resource
        for name, resource in TEMPLATE["Resources"].items()
        if resource["Type"] == kind
    }


def tables() -> dict[str, dict[str, Any]]:
    """Return the arguments of the CreateTable request for each table. The keys are logical ids.

    Settings that do not affect reads and writes, such as backups, are left out.
    """
    used = {"AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode"}
    arguments = {}
    for name, table in resources("AWS::DynamoDB::Table").items():
        properties = table["Properties"]
        arguments[name] = {key: properties[key] for key in used & properties.keys()}
        if stream := properties.get("StreamSpecification"):
            arguments[name]["StreamSpecification"] = {"StreamEnabled": True, **stream}
    return arguments


def queues() -> "dict[str, dict[QueueAttributeNameType, str]]":
    """Return the attributes of the CreateQueue request for each queue. The keys are logical ids.

    The redrive policy, which names the dead-letter queue of a queue, is left out. In the tests with
    moto, SQS never moves a message to a dead-letter queue.
    """
    return {
        name: {
            key: json.dumps(value)
            for key, value in queue["Properties"].items()
            if key != "RedrivePolicy"
        }
        for name, queue in resources("AWS::SQS::Queue").items()
    }


def functions() -> dict[str, Function]:
    """Return the template's functions. The keys are their logical ids."""
    return {
        name: _function(name, resource["Properties"])
        for name, resource in resources("AWS::Serverless::Function").items()
    }


def parameter(name: str) -> str:
    """Return the default value of a parameter of the template."""
    return str(TEMPLATE["Parameters"][name]["Default"])


def _function(name: str, properties: Mapping[str, Any]) -> Function:
    events = [event for event in properties.get("Events", {}).values() if event["Type"] == "Api"]
    return Function(
        name,
        properties["Handler"],
        properties.get("Timeout", GLOBALS["Timeout"]),
        properties.get("Environment", {}).get("Variables", {}),
        [
            Route(
                event["Properties"]["Method"],
                event["Properties"]["Path"],
                event["Properties"].get("Auth", {}),
            )
            for event in events
        ],
    )
