"""Takes the tables of a stack back to an earlier time.

- `restore_tables.py copy STACK_NAME TIME` makes a new table from each table, as it was at the time.
  The stack does not change.
- `restore_tables.py switch STACK_NAME TIME` makes the stack use the new tables. It keeps the old
  tables, but they no longer belong to the stack.
- `restore_tables.py lost STACK_NAME TIME --old TABLE …` prints the changes that are lost.

docs/restoring.md says what to do before, between and after these steps. If a step fails, run it
again: it continues where it stopped. The script takes the region and the credentials from the
environment, as the AWS command line does.
"""

import argparse
import datetime as dt
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from samtranslator.yaml_helper import yaml_parse

import unrecorded_changes
from import_tables import ROOT, TABLE, ImportTablesError, adopt, find, tables_only

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef, WaiterConfigTypeDef

# The tables to restore, and how many seconds after the given time each of them is restored to.
# DynamoDB restores each table on its own, so the tables cannot have exactly the same moment:
# - An entry of the history must not be newer than its counter, because the next change of the
#   counter would have the same version. So the tables that are written from CounterTable's stream
#   are restored to some seconds earlier. `copy` then adds what they lack.
# - A change must not be newer than its receipt, because a repeat would count again.
SECONDS_AFTER = {
    "CounterTable": 0,
    "ReceiptTable": 5,
    "HistoryTable": -5,
    "TrendTable": -5,
    "AuditTable": -5,
}

# The states of a table that is not in its stack: deleted, kept by its DeletionPolicy, not imported.
_NOT_IN_THE_STACK = ("DELETE_COMPLETE", "DELETE_SKIPPED", "IMPORT_ROLLBACK_COMPLETE")

# Waits of up to a day. A large table takes hours.
_RESTORED: "WaiterConfigTypeDef" = {"Delay": 20, "MaxAttempts": 4320}
_UPDATED: "WaiterConfigTypeDef" = {"Delay": 5, "MaxAttempts": 17280}


class RestoreTablesError(Exception):
    """The tables cannot be restored. The message says why."""


def copy(stack_name: str, moment: dt.datetime, old: Sequence[str] = ()) -> None:
    """Make new tables from a stack's tables, as they were at a time. Wait until they are complete.

    Args:
        stack_name: the name of the stack.
        moment: the time.
        old: the names of the tables to copy. By default, the tables of the stack.

    Raises:
        ImportTablesError: `old` lacks a table.
        RestoreTablesError: a table is not in the stack, or the stack must be deployed first.
    """
    _template_before_transform(stack_name)
    dynamodb = boto3.client("dynamodb")
    targets = names_of_copies(stack_name, moment)
    sources = find(stack_name, list(targets), old) if old else tables_of(stack_name)
    if missing := targets.keys() - sources.keys():
        message = f"{stack_name} has no {', '.join(sorted(missing))}: run `switch` to continue it"
        raise RestoreTablesError(message)
    for logical_id, target in targets.items():
        try:
            dynamodb.restore_table_to_point_in_time(
                SourceTableName=sources[logical_id],
                TargetTableName=target,
                RestoreDateTime=moment + dt.timedelta(seconds=SECONDS_AFTER[logical_id]),
            )
        except (
            dynamodb.exceptions.TableAlreadyExistsException,
            dynamodb.exceptions.TableInUseException,  # DynamoDB is still restoring it
        ):
            print(target, "exists already", flush=True)
        else:
            print(f"restoring {sources[logical_id]} to {target}", flush=True)
    for logical_id, target in targets.items():
        dynamodb.get_waiter("table_exists").wait(TableName=target, WaiterConfig=_RESTORED)
        _copy_settings(sources[logical_id], target)
    days = int(_stack(stack_name, "Parameters")["HistoryDays"])
    copied, gaps = unrecorded_changes.complete(sources["HistoryTable"], targets, moment, days)
    for target in targets.values():  # last, because `switch` takes it as a sign that all is done
        dynamodb.update_continuous_backups(
            TableName=target,
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
        )
    print(*gaps, f"copied {copied} entries that the new history lacked", sep="\n")
    print(f"{len(gaps)} counters have changes without an entry", flush=True)


def switch(stack_name: str, moment: dt.datetime) -> None:
    """Make a stack use the tables that `copy` made for a time.

    Args:
        stack_name: the name of the stack.
        moment: the time that `copy` got.

    Raises:
        RestoreTablesError: `copy` has not finished the new tables, the last update of the stack
            has failed, or the stack must be deployed first.
    """
    _wait_until_settled(stack_name)
    targets = names_of_copies(stack_name, moment)
    described = {logical_id: _finished(name) for logical_id, name in targets.items()}
    current = tables_of(stack_name)
    if old := {each: name for each, name in current.items() if targets.get(each, name) != name}:
        template = _template_before_transform(stack_name)
        kept, deleted = unrecorded_changes.remove_lost_records(
            _stack(stack_name, "Outputs")["HistoryDeadLetterQueueUrl"], targets["CounterTable"]
        )
        for each in deleted:
            print("deleted the parked record of a lost change:", each)
        print(f"{kept} parked records stay in HistoryDeadLetterQueue", flush=True)
        # Printed before the update. After it, no repeat would know these names.
        print(f'the old tables: OLD="{" ".join(old.values())}"', flush=True)
        _point_to(stack_name, template, described, moment)
    if targets.keys() - tables_of(stack_name).keys():
        _adopt(stack_name, targets)
    print(f"the tables of {stack_name} are now:", *tables_of(stack_name).values(), flush=True)


def print_lost(stack_name: str, moment: dt.datetime, old: Sequence[str]) -> None:
    """Print the changes that a restore has lost: counter, version, `by`, time, and actor.

    Args:
        stack_name: the name of the stack.
        moment: the time that `copy` got.
        old: the names of the old tables.

    Raises:
        ImportTablesError: `old` lacks the old HistoryTable.
    """
    (old_history,) = find(stack_name, ["HistoryTable"], old).values()
    new_history = names_of_copies(stack_name, moment)["HistoryTable"]
    for item in unrecorded_changes.lost(old_history, new_history, moment):
        names = ("counter_id", "version", "by", "created_at", "actor")
        values: list[Any] = [item.get(name, {}) for name in names]
        print(*[next(iter(value.values()), "?") for value in values], sep="\t", flush=True)


def names_of_copies(stack_name: str, moment: dt.datetime) -> dict[str, str]:
    """Return the name of each new table for a time, by its logical id."""
    return {
        logical_id: f"{stack_name}-{logical_id}-{moment.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}"
        for logical_id in SECONDS_AFTER
    }


def tables_of(stack_name: str) -> dict[str, str]:
    """Return the name of each table that belongs to a stack, by its logical id."""
    pages = boto3.client("cloudformation").get_paginator("list_stack_resources")
    return {
        each["LogicalResourceId"]: each["PhysicalResourceId"]
        for page in pages.paginate(StackName=stack_name)
        for each in page["StackResourceSummaries"]
        if each["ResourceType"] == TABLE and each["ResourceStatus"] not in _NOT_IN_THE_STACK
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
    old, new = (dynamodb.describe_table(TableName=each)["Table"] for each in (source, target))
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


def _point_to(
    stack_name: str,
    original: Any,  # noqa: ANN401
    tables: Mapping[str, "TableDescriptionTypeDef"],
    moment: dt.datetime,
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
    template = without_tables(original, attributes)
    # All functions must change at once, so CodeDeploy must not shift their traffic. And Lambda does
    # not publish a version that is like the last one, for example after a switch that failed. So
    # the functions get a description that differs from all earlier ones.
    functions = template["Globals"]["Function"]
    if "DeploymentPreference" in functions:
        functions["DeploymentPreference"]["Enabled"] = False
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    functions["Description"] = f"Uses the tables of {moment.isoformat()} since {now}"
    cloudformation = boto3.client("cloudformation")
    with _uploaded(stack_name, template) as arguments:
        cloudformation.update_stack(StackName=stack_name, **arguments)
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
    with _uploaded(stack_name, template) as arguments:
        adopt(stack_name, targets, **arguments)


def _template(stack_name: str, stage: Any) -> Any:  # noqa: ANN401  a literal of the type stubs
    """Return the template of a stack, before (`Original`) or after (`Processed`) its transform."""
    body: Any = boto3.client("cloudformation").get_template(
        StackName=stack_name, TemplateStage=stage
    )["TemplateBody"]
    return yaml_parse(body) if isinstance(body, str) else body


def _template_before_transform(stack_name: str) -> Any:  # noqa: ANN401
    """Return the template of a stack as `make deploy` has sent it.

    Raises:
        RestoreTablesError: the last update was that of `switch`, which has no such template.
    """
    template = _template(stack_name, "Original")
    if "Transform" not in template:
        message = f"the tables of {stack_name} were restored before: deploy it, and begin again"
        raise RestoreTablesError(message)
    return template


@contextmanager
def _uploaded(stack_name: str, template: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Yield the arguments of an update to a template. Meanwhile, the template is in a bucket.

    The template is too long for a request. So it goes to the bucket to which `sam deploy` has
    uploaded the functions' code.
    """
    text = json.dumps(template)
    bucket = re.search(r's3://([^/"]+)/|"S3Bucket": "([^"]+)"', text)
    if not bucket:
        message = f"the template of {stack_name} does not say where the functions' code is"
        raise RestoreTablesError(message)
    s3 = boto3.client("s3")
    name, key = bucket[1] or bucket[2], f"{stack_name}-restored.template"
    s3.put_object(Bucket=name, Key=key, Body=text.encode())
    try:
        yield {
            "TemplateURL": f"{s3.meta.endpoint_url}/{name}/{key}",
            "Parameters": [
                {"ParameterKey": each, "UsePreviousValue": True}
                for each in _stack(stack_name, "Parameters")
            ],
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        }
    finally:
        s3.delete_object(Bucket=name, Key=key)


def _stack(stack_name: str, part: Literal["Parameters", "Outputs"]) -> dict[str, str]:
    """Return the parameters or the outputs of a stack, by name."""
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    kind = part.removesuffix("s")
    listed: Any = stack.get(part, [])
    return {each[f"{kind}Key"]: each[f"{kind}Value"] for each in listed}


def _wait_until_settled(stack_name: str) -> None:
    """Wait until no update of a stack is under way, such as that of an interrupted `switch`.

    Raises:
        RestoreTablesError: the last update has failed, and was not brought back.
    """
    cloudformation = boto3.client("cloudformation")
    while True:
        (stack,) = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
        status = stack["StackStatus"]
        if not status.endswith("_IN_PROGRESS"):
            break
        print(f"{stack_name} is {status}: waiting", flush=True)
        time.sleep(_UPDATED["Delay"])
    if not status.endswith("_COMPLETE"):
        message = f"{stack_name} is {status}: continue the rollback of its last update first"
        raise RestoreTablesError(message)


def _finished(table: str) -> "TableDescriptionTypeDef":
    """Return the description of a table that `copy` has finished.

    Raises:
        RestoreTablesError: `copy` has not finished the table.
    """
    dynamodb = boto3.client("dynamodb")
    try:
        backups = dynamodb.describe_continuous_backups(TableName=table)
    except dynamodb.exceptions.TableNotFoundException as error:
        message = f"there is no table {table}: run `copy` first, with the same time"
        raise RestoreTablesError(message) from error
    recovery = backups["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    if recovery.get("PointInTimeRecoveryStatus") != "ENABLED":
        message = f"{table} is not finished: run `copy` again, with the same time"
        raise RestoreTablesError(message)
    return dynamodb.describe_table(TableName=table)["Table"]


def _time(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        message = "the time needs a zone, such as Z"
        raise argparse.ArgumentTypeError(message)
    return moment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["copy", "switch", "lost"])
    parser.add_argument("stack_name")
    parser.add_argument("time", type=_time, help="such as 2026-11-22T16:00:00Z")
    parser.add_argument(
        "--old", nargs="+", default=[], help="the old tables, as `switch` has printed them"
    )
    options = parser.parse_args(arguments)
    try:
        if options.step == "copy":
            copy(options.stack_name, options.time, options.old)
        elif options.step == "switch":
            switch(options.stack_name, options.time)
        else:
            print_lost(options.stack_name, options.time, options.old)
    except (RestoreTablesError, ImportTablesError, BotoCoreError, ClientError) as error:
        sys.stderr.write(f"restore_tables.py: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
