"""The emulator runs a function as Lambda does: alone with its artifact."""

import io
import json
import zipfile

from tests.e2e.service import client

from deployment import RUNTIME, Stack

# Packages of the emulator and of the tests, which are not in the function's artifact.
PACKAGES = ["ministack", "pytest", "botocore", "tally_client"]
HANDLER = """
import importlib.util

def handler(names, context):
    return [name for name in names if importlib.util.find_spec(name)]
"""


def test_a_function_can_import_only_its_artifact_and_the_standard_library(stack: Stack) -> None:
    lambda_ = client(stack, "lambda")
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as artifact:
        artifact.writestr("index.py", HANDLER)
    lambda_.create_function(
        FunctionName="finds-packages",
        Runtime=RUNTIME,
        Role="arn:aws:iam::000000000000:role/any",
        Handler="index.handler",
        Code={"ZipFile": code.getvalue()},
    )

    try:
        answer = lambda_.invoke(
            FunctionName="finds-packages", Payload=json.dumps([*PACKAGES, "index", "json"])
        )
    finally:
        lambda_.delete_function(FunctionName="finds-packages")

    assert json.load(answer["Payload"]) == ["index", "json"]
