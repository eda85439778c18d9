"""Creates a stack from the tables of a deleted stack: `import_tables.py STACK_NAME STAGE`.

The new stack has only the tables. Run `make deploy` after this script to add the other resources to
the stack. The script takes the region and the credentials from the environment, as the AWS command
line does.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError
from samtranslator.yaml_helper import yaml_parse

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import ResourceToImportTypeDef, WaiterConfigTypeDef

ROOT = Path(__file__).resolve().parent.parent
TABLE = "AWS::DynamoDB::Table"

# Waits of up to an hour.
_IMPORTED: "WaiterConfigTypeDef" = {"Delay": 2, "MaxAttempts": 1800}


class ImportTablesError(Exception):
    """The tables cannot be imported. The message says why."""


def tables_only(template: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a template that defines its tables.

    The template of an import must contain exactly the resources to import:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-manually.html

    Args:
        template: the whole template.
    """
    tables = {
        logical_id: resource
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == TABLE
    }
    return {
        "AWSTemplateFormatVersion": template["AWSTemplateFormatVersion"],
        "Parameters": {"Stage": template["Parameters"]["Stage"]},
        "Conditions": {"IsProd": template["Conditions"]["IsProd"]},
        "Resources": tables,
    }


def find(stack_name: str, logical_ids: Sequence[str], table_names: Sequence[str]) -> dict[str, str]:
    """Find the tables that a deleted stack left behind: one table for each logical id.

    Args:
        stack_name: the name of the deleted stack.
        logical_ids: the logical ids of the tables in the template.
        table_names: the names of the tables to choose from.

    Returns:
        The name of each table, by its logical id.

    Raises:
        ImportTablesError: a logical id has no table, or has more than one.

    """
    found = {}
    for logical_id in logical_ids:
        # CloudFormation names a table after its stack and its logical id, with a random suffix.
        beginning = f"{stack_name}-{logical_id}-"
        names = [name for name in table_names if name.startswith(beginning)]
        if not names:
            message = (
                f"there is no table whose name starts with {beginning}:"
                " check the stack's name and the region"
            )
            raise ImportTablesError(message)
        if len(names) > 1:
            message = (
                f"{stack_name} left {len(names)} tables for {logical_id} ({', '.join(names)}):"
                " name one table for each logical id with --tables"
            )
            raise ImportTablesError(message)
        found[logical_id] = names[0]
    return found


def import_tables(stack_name: str, stage: str, table_names: Sequence[str] = ()) -> dict[str, str]:
    """Create a stack from the tables that a deleted stack left behind.

    Args:
        stack_name: the name of the deleted stack. The new stack gets the same name.
        stage: the stage of the stack, `dev` or `prod`.
        table_names: the names of the tables to choose from. By default, all tables of the region.

    Returns:
        The name of each table, by its logical id.

    Raises:
        ImportTablesError: a logical id has no table, or has more than one, or AWS refused the
            import.

    """
    template = tables_only(yaml_parse((ROOT / "template.yaml").read_text()))
    try:
        return _import(stack_name, stage, template, table_names)
    except WaiterError as error:
        response: Any = error.last_response
        (stack,) = response.get("Stacks") or [{}]
        reason = response.get("StatusReason") or stack.get("StackStatusReason") or error
        message = f"CloudFormation did not import the tables: {reason}"
        raise ImportTablesError(message) from error
    except (BotoCoreError, ClientError) as error:
        message = f"the tables were not imported: {error}"
        raise ImportTablesError(message) from error


def _import(
    stack_name: str, stage: str, template: dict[str, Any], table_names: Sequence[str]
) -> dict[str, str]:
    if not table_names:
        pages = boto3.client("dynamodb").get_paginator("list_tables").paginate()
        table_names = [name for page in pages for name in page["TableNames"]]
    found = find(stack_name, list(template["Resources"]), table_names)
    adopt(
        stack_name,
        found,
        Parameters=[{"ParameterKey": "Stage", "ParameterValue": stage}],
        TemplateBody=json.dumps(template),
    )
    return found


def adopt(stack_name: str, found: Mapping[str, str], **template: Any) -> None:  # noqa: ANN401
    """Make existing tables resources of a stack, and wait until they are.

    Args:
        stack_name: the name of the stack.
        found: the name of each table, by its logical id.
        template: the template of the stack with the tables, and its parameters, as for the
            operation CreateChangeSet.

    Raises:
        WaiterError: CloudFormation did not import the tables.
    """
    resources: list[ResourceToImportTypeDef] = [
        {
            "ResourceType": TABLE,
            "LogicalResourceId": logical_id,
            "ResourceIdentifier": {"TableName": name},
        }
        for logical_id, name in found.items()
    ]
    cloudformation = boto3.client("cloudformation")
    change_set = cloudformation.create_change_set(
        StackName=stack_name,
        ChangeSetName=f"import-tables-{int(time.time())}",  # a failed change set occupies its name
        ChangeSetType="IMPORT",
        ResourcesToImport=resources,
        **template,
    )
    cloudformation.get_waiter("change_set_create_complete").wait(
        ChangeSetName=change_set["Id"], WaiterConfig=_IMPORTED
    )
    cloudformation.execute_change_set(ChangeSetName=change_set["Id"])
    cloudformation.get_waiter("stack_import_complete").wait(
        StackName=stack_name, WaiterConfig=_IMPORTED
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stack_name", help="the name of the deleted stack, and of the new one")
    parser.add_argument("stage", choices=["dev", "prod"])
    parser.add_argument(
        "--tables",
        nargs="+",
        default=[],
        help="the tables to import, if several stacks of that name left tables",
    )
    options = parser.parse_args(arguments)
    try:
        found = import_tables(options.stack_name, options.stage, options.tables)
    except ImportTablesError as error:
        sys.stderr.write(f"import_tables.py: {error}\n")
        return 1
    for logical_id, name in found.items():
        print(logical_id, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
