"""Takes the tables of a stack back to an earlier time, in two steps.

- `restore_tables.py copy STACK_NAME TIME` makes a new table from each table, as it was at the time.
  The stack does not change.
- `restore_tables.py switch STACK_NAME TIME` makes the stack use the new tables. It keeps the old
  tables, but they no longer belong to the stack.

docs/restoring.md says what to do before, between and after these steps. If a step fails, run it
again: it continues where it stopped. The script takes the region and the credentials from the
environment, as the AWS command line does.
"""

import argparse
import datetime as dt
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError
from samtranslator.yaml_helper import yaml_parse

import unrecorded_changes
from import_tables import ROOT, TABLE, adopt, tables_only

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef, WaiterConfigTypeDef

# The tables to restore, and how many seconds after the given time each of them is restored to.
# DynamoDB restores each table on its own, so the tables cannot have exactly the same moment:
# - An entry of the history must not be newer than its counter, because the next change of the
#   counter would have the same version. So the tables that are written from CounterTable's stream
#   are restored to some seconds earlier. `switch` finds the changes that they lack.
# - A change must not be newer than its receipt, because a repeat would count again.
SECONDS_AFTER = {
    "CounterTable": 0,
    "ReceiptTable": 5,
    "HistoryTable": -5,
    "TrendTable": -5,
    "AuditTable": -5,
}

# Waits of up to a day. A large table takes hours.
_RESTORED: "WaiterConfigTypeDef" = {"Delay": 20, "MaxAttempts": 4320}
_UPDATED: "WaiterConfigTypeDef" = {"Delay": 5, "MaxAttempts": 17280}


class RestoreTablesError(Exception):
    """The tables cannot be restored. The message says why."""


def copy(stack_name: str, time: dt.datetime) -> dict[str, str]:
    """Make new tables from a stack's tables, as they were at a time. Wait until they are complete.

    Args:
        stack_name: the name of the stack.
        time: the time.

    Returns:
        The name of each new table, by its logical id.

    Raises:
        RestoreTablesError: a table is not in the stack.
    """
    dynamodb = boto3.client("dynamodb")
    targets = names_of_copies(stack_name, time)
    sources = tables_of(stack_name)
    if missing := targets.keys() - sources.keys():
        message = f"{stack_name} has no {', '.join(sorted(missing))}: run `switch` to continue it"
        raise RestoreTablesError(message)
    for logical_id, target in targets.items():
        try:
            dynamodb.restore_table_to_point_in_time(
                SourceTableName=sources[logical_id],
                TargetTableName=target,
                RestoreDateTime=time + dt.timedelta(seconds=SECONDS_AFTER[logical_id]),
            )
        except dynamodb.exceptions.TableAlreadyExistsException:
            print(target, "exists already", flush=True)
        else:
            print(f"restoring {sources[logical_id]} to {target}", flush=True)
    for logical_id, target in targets.items():
        dynamodb.get_waiter("table_exists").wait(TableName=target, WaiterConfig=_RESTORED)
        _copy_settings(sources[logical_id], target)
        print(target, "is complete", flush=True)
    return targets


def switch(stack_name: str, time: dt.datetime) -> dict[str, str]:
    """Make a stack use the tables that `copy` made for a time.

    Args:
        stack_name: the name of the stack.
        time: the time that `copy` got.

    Returns:
        The name of each new table, by its logical id.

    Raises:
        RestoreTablesError: a new table does not exist.
    """
    targets = names_of_copies(stack_name, time)
    described = {logical_id: _describe(name) for logical_id, name in targets.items()}
    current = tables_of(stack_name)
    if old := {each: name for each, name in current.items() if targets.get(each, name) != name}:
        found = unrecorded_changes.find(old["HistoryTable"], targets, time)
        unrecorded_changes.park(_output(stack_name, "HistoryDeadLetterQueueUrl"), found.records)
        print(f"parked {len(found.records)} changes that the new history lacks", flush=True)
        for line in found.lost:
            print(line, flush=True)
        _point_to(stack_name, described, time)
        print(f"{stack_name} uses the new tables. The old tables are:", *old.values(), flush=True)
    if targets.keys() - tables_of(stack_name).keys():
        _adopt(stack_name, targets)
        print(f"the new tables belong to {stack_name}", flush=True)
    return targets


def names_of_copies(stack_name: str, time: dt.datetime) -> dict[str, str]:
    """Return the name of each new table for a time, by its logical id."""
    return {
        logical_id: f"{stack_name}-{logical_id}-{time.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}"
        for logical_id in SECONDS_AFTER
    }


def tables_of(stack_name: str) -> dict[str, str]:
    """Return the name of each table that belongs to a stack, by its logical id."""
    pages = boto3.client("cloudformation").get_paginator("list_stack_resources")
    return {
        each["LogicalResourceId"]: each["PhysicalResourceId"]
        for page in pages.paginate(StackName=stack_name)
        for each in page["StackResourceSummaries"]
        if each["ResourceType"] == TABLE and each["ResourceStatus"] != "DELETE_COMPLETE"
    }


def without_tables(template: Any, tables: Mapping[str, Mapping[str, str]]) -> Any:  # noqa: ANN401
    """Return a template without tables. It has the names of other tables in their place.

    Args:
        template: the template, or a part of it.
        tables: for each logical id of a table that is left out, what the template may refer to:
            the attributes of the other table, and its name under "".
    """
    match template:
        case {"Ref": str(name)} if name in tables:
            return tables[name][""]
        case {"Fn::GetAtt": [str(name), str(attribute)]} if name in tables:
            return tables[name][attribute]
        case dict():
            return {
                key: without_tables(value, tables)
                for key, value in template.items()
                if not (key in tables and isinstance(value, dict) and value.get("Type") == TABLE)
            }
        case list():
            return [without_tables(each, tables) for each in template]
        case str():
            return re.sub(
                rf"\$\{{({'|'.join(tables)})(?:\.(\w+))?\}}",
                lambda reference: tables[reference[1]][reference[2] or ""],
                template,
            )
    return template


def _copy_settings(source: str, target: str) -> None:
    """Give a new table the settings that a restore leaves out.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/pointintimerecovery_restores.html
    """
    dynamodb = boto3.client("dynamodb")
    old, new = _describe(source), _describe(target)
    for setting in ("StreamSpecification", "DeletionProtectionEnabled"):
        if old.get(setting) and not new.get(setting):
            dynamodb.update_table(TableName=target, **{setting: old[setting]})  # type: ignore[arg-type]
            dynamodb.get_waiter("table_exists").wait(TableName=target, WaiterConfig=_UPDATED)
    expiry = dynamodb.describe_time_to_live(TableName=source)["TimeToLiveDescription"]
    new_expiry = dynamodb.describe_time_to_live(TableName=target)["TimeToLiveDescription"]
    if "AttributeName" in expiry and "AttributeName" not in new_expiry:
        dynamodb.update_time_to_live(
            TableName=target,
            TimeToLiveSpecification={"AttributeName": expiry["AttributeName"], "Enabled": True},
        )
    dynamodb.update_continuous_backups(
        TableName=target,
        PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
    )


def _point_to(
    stack_name: str, tables: Mapping[str, "TableDescriptionTypeDef"], time: dt.datetime
) -> None:
    """Update a stack: its functions use other tables, and its own tables leave the stack.

    The DeletionPolicy of the tables keeps them.
    """
    attributes = {
        logical_id: {
            "": table["TableName"],
            "Arn": table["TableArn"],
            "StreamArn": table.get("LatestStreamArn", ""),
        }
        for logical_id, table in tables.items()
    }
    template = without_tables(_template(stack_name, "Original"), attributes)
    if "Transform" not in template:
        message = f"the tables of {stack_name} were restored before: deploy it, and begin again"
        raise RestoreTablesError(message)
    # All functions must change at once, so CodeDeploy must not shift their traffic. And Lambda does
    # not publish a version that is like the last one, for example after a switch that failed. So
    # the functions get a description that differs from all earlier ones.
    functions = template["Globals"]["Function"]
    if "DeploymentPreference" in functions:
        functions["DeploymentPreference"]["Enabled"] = False
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    functions["Description"] = f"Uses the tables of {time.isoformat()} since {now}"
    cloudformation = boto3.client("cloudformation")
    cloudformation.update_stack(StackName=stack_name, **_arguments(stack_name, template))
    cloudformation.get_waiter("stack_update_complete").wait(
        StackName=stack_name, WaiterConfig=_UPDATED
    )


def _adopt(stack_name: str, targets: Mapping[str, str]) -> None:
    """Make the new tables resources of the stack, in place of the old tables."""
    # The processed template has no transform. So an import can add the tables to it, and nothing
    # else changes.
    template = _template(stack_name, "Processed")
    definitions = tables_only(yaml_parse((ROOT / "template.yaml").read_text()))["Resources"]
    added = {each: definitions[each] for each in targets}
    template["Resources"] = {**template["Resources"], **added}
    adopt(stack_name, targets, **_arguments(stack_name, template))


def _template(stack_name: str, stage: Any) -> Any:  # noqa: ANN401  a literal of the type stubs
    """Return the template of a stack, before (`Original`) or after (`Processed`) its transform."""
    body: Any = boto3.client("cloudformation").get_template(
        StackName=stack_name, TemplateStage=stage
    )["TemplateBody"]
    return yaml_parse(body) if isinstance(body, str) else json.loads(json.dumps(body))


def _arguments(stack_name: str, template: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the arguments of an update to a template. Put the template where it can be read.

    The template is too long for a request. So it goes to the bucket to which `sam deploy` has
    uploaded the functions' code.
    """
    text = json.dumps(template)
    bucket = re.search(r's3://([^/"]+)/|"S3Bucket": "([^"]+)"', text)
    if not bucket:
        message = f"the template of {stack_name} does not say where the functions' code is"
        raise RestoreTablesError(message)
    s3 = boto3.client("s3")
    path = f"{bucket[1] or bucket[2]}/{stack_name}-restored.template"
    s3.put_object(Bucket=path.partition("/")[0], Key=path.partition("/")[2], Body=text.encode())
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    return {
        "TemplateURL": f"https://s3.{s3.meta.region_name}.amazonaws.com/{path}",
        "Parameters": [
            {"ParameterKey": each["ParameterKey"], "UsePreviousValue": True}
            for each in stack.get("Parameters", [])
        ],
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    }


def _output(stack_name: str, name: str) -> str:
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}[name]


def _describe(table: str) -> "TableDescriptionTypeDef":
    dynamodb = boto3.client("dynamodb")
    try:
        return dynamodb.describe_table(TableName=table)["Table"]
    except dynamodb.exceptions.ResourceNotFoundException as error:
        message = f"there is no table {table}: run `copy` first, with the same time"
        raise RestoreTablesError(message) from error


def _time(text: str) -> dt.datetime:
    time = dt.datetime.fromisoformat(text)
    if time.tzinfo is None:
        message = "the time needs a zone, such as Z"
        raise argparse.ArgumentTypeError(message)
    return time


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["copy", "switch"])
    parser.add_argument("stack_name")
    parser.add_argument("time", type=_time, help="such as 2026-11-22T16:00:00Z")
    options = parser.parse_args(arguments)
    step = copy if options.step == "copy" else switch
    try:
        step(options.stack_name, options.time)
    except (RestoreTablesError, BotoCoreError, ClientError, WaiterError) as error:
        sys.stderr.write(f"restore_tables.py: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
