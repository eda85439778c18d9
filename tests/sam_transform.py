"""Expands template.yaml with SAM's translator. CloudFormation receives the expanded template."""

from functools import cache
from typing import Any

import boto3
from samtranslator.internal.managed_policies import get_bundled_managed_policy_map
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse
from tests.aws_template import ROOT


@cache
def template() -> dict[str, Any]:
    """Return the expanded template."""
    source = yaml_parse((ROOT / "template.yaml").read_text())
    source["Globals"]["Function"]["CodeUri"] = "s3://bucket/key"  # as `sam deploy` sets it
    # The translator reads only the AWS partition from the session. It sends no requests to AWS.
    session = boto3.Session("none", "none", region_name="eu-west-1")
    translator = Translator(get_bundled_managed_policy_map("aws"), Parser(), boto_session=session)
    result: dict[str, Any] = translator.translate(source, {})
    return result


def resources(resource_type: str) -> dict[str, dict[str, Any]]:
    """Return the resources of one type, by logical id."""
    return {
        name: resource
        for name, resource in template()["Resources"].items()
        if resource["Type"] == resource_type
    }
