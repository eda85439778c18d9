"""Creates more stacks in the emulator of the end-to-end tests. This takes a few seconds each."""

from typing import Any

from tests.aws_template import parse
from tests.e2e.service import client, physical_name

from deployment import Stack, describe
from emulator_process import Emulator
from local_settings import LOCAL_ONLY, STACK_NAME


def create(emulator: Emulator, stack: Stack, name: str) -> Stack:
    """Create a stack without counters from the template that `sam deploy` used for `stack`.

    Args:
        emulator: the emulator that `stack` runs in. The new stack runs there, too.
        stack: the deployed stack.
        name: the name of the new stack.
    """
    cloudformation = client(stack, "cloudformation")
    template = cloudformation.get_template(StackName=STACK_NAME, TemplateStage="Original")
    _upload_code(stack, template["TemplateBody"])
    # The template is too long for the request, so it goes through S3.
    s3 = client(stack, "s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="template", Body=template["TemplateBody"].encode())
    cloudformation.create_stack(**_arguments(stack, name))
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName=name, WaiterConfig={"Delay": 1}
    )
    return describe(emulator, name)


def update(emulator: Emulator, stack: Stack, name: str) -> Stack:
    """Update a stack that has the name of an earlier `create`, as `sam deploy` would.

    This takes a small part of the time that `sam deploy` takes.
    """
    cloudformation = client(stack, "cloudformation")
    cloudformation.update_stack(**_arguments(stack, name))
    cloudformation.get_waiter("stack_update_complete").wait(
        StackName=name, WaiterConfig={"Delay": 1}
    )
    return describe(emulator, name)


def _arguments(stack: Stack, name: str) -> Any:  # noqa: ANN401  of two operations
    """Return the arguments for creating or updating a stack like `stack`."""
    cloudformation = client(stack, "cloudformation")
    (first,) = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"]
    return {
        "StackName": name,
        "TemplateURL": f"https://s3.amazonaws.com/{name}/template",
        "Parameters": first["Parameters"],
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    }


def _upload_code(stack: Stack, template: str) -> None:
    """Put the code of all functions where a template expects it.

    The emulator that `stack` runs in was started from a saved state, which has no S3 objects.
    """
    s3, lambda_ = client(stack, "s3"), client(stack, "lambda")
    for logical_id, resource in parse(template)["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            function = lambda_.get_function(FunctionName=physical_name(stack, logical_id))
            bucket, key = resource["Properties"]["CodeUri"].removeprefix("s3://").split("/", 1)
            with LOCAL_ONLY.open(function["Code"]["Location"]) as code:
                s3.put_object(Bucket=bucket, Key=key, Body=code.read())
