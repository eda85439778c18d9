"""Writes functions/openapi.json, the contract that GET /openapi.json returns: `contract.py`.

The source is openapi.yaml. The functions have no YAML parser, and `sam build` may run with a Python
that has none. So the JSON is committed, and a test fails if it differs from its source.
"""

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "openapi.yaml"
TARGET = ROOT / "functions" / "openapi.json"


def contract() -> dict[str, Any]:
    """Return the content of openapi.yaml."""
    content: dict[str, Any] = yaml.load(SOURCE.read_text(), Loader=yaml.CSafeLoader)
    return content


def as_json() -> str:
    """Return the contract as JSON without whitespace."""
    return json.dumps(contract(), separators=(",", ":"), ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(as_json())
