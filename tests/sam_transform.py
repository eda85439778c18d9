"""Expands template.yaml with SAM's translator. CloudFormation receives the expanded template.

Loading the translator and expanding the template takes a second of CPU time in each process. So the
expanded template is kept in a file, until template.yaml or the translator changes.
"""

import hashlib
import importlib.metadata
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from tests.aws_template import ROOT

KEPT = ROOT / ".aws-sam" / "expanded"
SOURCE = ROOT / "template.yaml"


@cache
def template(
    stage: str = "dev", traffic_shift: str = "gradual", tracing: str = "Disabled"
) -> dict[str, Any]:
    """Return the expanded template for values of the parameters Stage, TrafficShift and Tracing."""
    version = importlib.metadata.version("aws-sam-translator").encode()
    sources = (version, SOURCE.read_bytes(), Path(__file__).read_bytes())
    name = f"{stage}-{traffic_shift}-{tracing}"
    kept = KEPT / f"{name}-{hashlib.sha256(b'|'.join(sources)).hexdigest()}.json"
    if not kept.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        for old in set(KEPT.glob(f"{name}-*.json")) - {kept}:
            old.unlink(missing_ok=True)
        # Another process may read the file now, so write another one, and rename it.
        unfinished = KEPT / str(os.getpid())
        unfinished.write_text(json.dumps(_expanded(stage, traffic_shift, tracing)))
        unfinished.rename(kept)
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def _expanded(stage: str, traffic_shift: str, tracing: str) -> Any:  # noqa: ANN401  it has no types
    # Loading the translator takes half a second.
    from samtranslator.internal.managed_policies import (  # noqa: PLC0415
        get_bundled_managed_policy_map,
    )
    from samtranslator.parser.parser import Parser  # noqa: PLC0415
    from samtranslator.translator.translator import Translator  # noqa: PLC0415
    from samtranslator.yaml_helper import yaml_parse  # noqa: PLC0415

    source = yaml_parse(SOURCE.read_text())
    source["Globals"]["Function"]["CodeUri"] = "s3://bucket/key"  # as `sam deploy` sets it
    # The translator reads only the AWS partition from the session. It sends no requests to AWS.
    session = boto3.Session("none", "none", region_name="eu-west-1")
    translator = Translator(get_bundled_managed_policy_map("aws"), Parser(), boto_session=session)
    parameters = {"Stage": stage, "TrafficShift": traffic_shift, "Tracing": tracing}
    return translator.translate(source, parameters)


def resources(resource_type: str, stage: str = "dev") -> dict[str, dict[str, Any]]:
    """Return the resources of one type, by logical id."""
    return {
        name: resource
        for name, resource in template(stage)["Resources"].items()
        if resource["Type"] == resource_type
    }
