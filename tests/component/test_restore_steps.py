"""The steps of scripts/restore_tables.py: copy, switch, and how they continue after a failure.

CloudFormation is simulated. The rehearsal in tests/e2e runs the steps against a stack.
"""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from samtranslator.yaml_helper import yaml_parse
from tests import aws_template
from tests.aws_template import ROOT
from tests.past import DEAD_LETTERS
from tests.stack import Item, Stack

import restore_tables
import unrecorded_changes

TIME = dt.datetime(2026, 11, 22, 16, tzinfo=dt.UTC)


@pytest.fixture
def _empty_queue_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrecorded_changes, "_WAIT_SECONDS", 0)  # moto waits in real time


def test_template_of_the_switch_has_the_names_of_the_new_tables_and_no_tables() -> None:
    template = yaml_parse((ROOT / "template.yaml").read_text())
    restored = {
        table: {"": f"{table}-new", "Arn": f"arn:{table}", "StreamArn": f"stream:{table}"}
        for table in restore_tables.SECONDS_AFTER
    }

    switched = restore_tables.without_tables(template, restored)

    assert template["Resources"].keys() - switched["Resources"].keys() == restored.keys()
    text = json.dumps(switched["Resources"])
    for table in restored:
        assert f'"{table}"' not in text
        assert f"${{{table}" not in text
        assert switched["Outputs"][table]["Value"] == f"{table}-new"
        assert f"arn:{table}" in text
    events = switched["Resources"]["RecordHistory"]["Properties"]["Events"]
    assert events["CounterChanges"]["Properties"]["Stream"] == "stream:CounterTable"
    text = restore_tables.without_tables({"Fn::Sub": "${CounterTable.Arn} ${TrendTable}"}, restored)
    assert text == {"Fn::Sub": "arn:CounterTable TrendTable-new"}


def test_all_tables_but_that_of_the_grants_are_restored() -> None:
    assert aws_template.tables().keys() - {"GrantTable"} == restore_tables.SECONDS_AFTER.keys()


@pytest.fixture(name="stack_on_aws")
def _stack_on_aws(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Stand in for CloudFormation, which moto lacks in part. Yield the tables of the stack."""
    sources = {name: f"tally-{name}-ABC" for name in [*restore_tables.SECONDS_AFTER, "GrantTable"]}
    for name, definition in aws_template.tables().items():
        stack.dynamodb.create_table(
            TableName=sources[name], **definition, DeletionProtectionEnabled=False
        )
    stack.dynamodb.update_time_to_live(
        TableName=sources["ReceiptTable"],
        TimeToLiveSpecification={"AttributeName": "expires_at", "Enabled": True},
    )
    current = dict(sources)
    values = {"HistoryDays": "0", "HistoryDeadLetterQueueUrl": stack.refs[DEAD_LETTERS]}
    monkeypatch.setattr(restore_tables, "_wait_until_settled", lambda _: None)
    monkeypatch.setattr(restore_tables, "_template", lambda *_: {"Transform": ""})
    monkeypatch.setattr(restore_tables, "_stack", lambda *_: values)
    monkeypatch.setattr(restore_tables, "tables_of", lambda _: dict(current))
    monkeypatch.setattr(
        restore_tables,
        "_point_to",
        lambda *_: [current.pop(name) for name in restore_tables.SECONDS_AFTER],
    )
    monkeypatch.setattr(restore_tables, "_adopt", lambda _, targets: current.update(targets))
    yield current
    for name in stack.dynamodb.list_tables()["TableNames"]:
        if name.startswith("tally-"):
            stack.dynamodb.delete_table(TableName=name)


def run(step: str, *more: str) -> int:
    return restore_tables.main([step, "tally", TIME.isoformat(), *more])


def interrupt(*_: object) -> None:
    raise ClientError({"Error": {"Code": "interrupted", "Message": "interrupted"}}, "Query")


@pytest.mark.usefixtures("_empty_queue_without_waiting")
def test_switch_takes_only_tables_that_copy_has_finished(
    stack: Stack,
    stack_on_aws: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources = dict(stack_on_aws)
    assert run("switch") == 1
    assert "run `copy` first" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(unrecorded_changes, "complete", interrupt)
        assert run("copy") == 1
    assert run("switch") == 1
    assert "run `copy` again" in capsys.readouterr().err
    assert stack_on_aws == sources

    assert run("copy") == 0
    with monkeypatch.context() as patch:
        patch.setattr(restore_tables, "_point_to", interrupt)
        assert run("switch") == 1
    assert stack_on_aws == sources
    printed = capsys.readouterr().out  # the names must be known if the update goes on
    assert run("switch") == 0

    targets = restore_tables.names_of_copies("tally", TIME)
    assert stack_on_aws == {**sources, **targets}
    assert f'OLD="{" ".join(sources[name] for name in targets)}"' in printed
    for name, target in targets.items():
        table = stack.dynamodb.describe_table(TableName=target)["Table"]
        assert ("LatestStreamArn" in table) == (name == "CounterTable")
    expiry = stack.dynamodb.describe_time_to_live(TableName=targets["ReceiptTable"])
    assert expiry["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"


@pytest.mark.usefixtures("_empty_queue_without_waiting")
def test_a_wrong_time_is_corrected_from_the_old_tables(
    stack: Stack, stack_on_aws: dict[str, str]
) -> None:
    old = [stack_on_aws[name] for name in restore_tables.SECONDS_AFTER]
    item: Item = {"counter_id": {"S": "orders"}, "version": {"N": "1"}, "value": {"N": "1"}}
    assert run("copy") == 0
    assert run("switch") == 0
    stack.dynamodb.put_item(TableName=old[0], Item=item)
    earlier = TIME - dt.timedelta(hours=1)

    again = ["copy", "tally", earlier.isoformat(), "--old", *old]
    assert restore_tables.main(again) == 0
    assert restore_tables.main(["switch", "tally", earlier.isoformat()]) == 0

    new_table = stack_on_aws["CounterTable"]
    assert new_table == restore_tables.names_of_copies("tally", earlier)["CounterTable"]
    assert stack.dynamodb.scan(TableName=new_table)["Items"] == [item]


@pytest.mark.usefixtures("stack_on_aws")
def test_a_stack_that_was_restored_must_be_deployed_before_it_is_copied_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restore_tables, "_template", lambda *_: {})
    assert run("copy") == 1
    assert "deploy it, and begin again" in capsys.readouterr().err


@pytest.mark.usefixtures("stack_on_aws")
def test_receipts_are_restored_to_later_than_counters_and_what_follows_the_stream_to_earlier() -> (
    None
):
    times: dict[str, dt.datetime] = {}

    def note(params: dict[str, Any], **_: object) -> None:
        times[params["SourceTableName"].split("-")[1]] = params["RestoreDateTime"]

    event = "provide-client-params.dynamodb.RestoreTableToPointInTime"
    boto3.DEFAULT_SESSION.events.register(event, note)  # type: ignore[union-attr]
    try:
        assert run("copy") == 0
    finally:
        boto3.DEFAULT_SESSION.events.unregister(event, note)  # type: ignore[union-attr]
    assert times["CounterTable"] == TIME < times["ReceiptTable"]
    assert all(times[name] < TIME for name in ("HistoryTable", "TrendTable", "AuditTable"))


@pytest.mark.usefixtures("stack_on_aws")
def test_a_repeated_copy_waits_for_tables_that_dynamodb_is_restoring(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("copy") == 0
    dynamodb = boto3.client("dynamodb")
    in_use: Any = {"Error": {"Code": "TableInUseException", "Message": "being created"}}

    def restoring(**_: object) -> None:
        raise dynamodb.exceptions.TableInUseException(in_use, "RestoreTableToPointInTime")

    monkeypatch.setattr(dynamodb, "restore_table_to_point_in_time", restoring)
    clients = {"dynamodb": dynamodb, "sqs": stack.sqs}
    monkeypatch.setattr(boto3, "client", clients.__getitem__)
    assert run("copy") == 0


@pytest.fixture(name="cloudformation")
def _cloudformation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    client = boto3.client("cloudformation", "eu-west-1")
    monkeypatch.setattr(boto3, "client", lambda _: client)
    with Stubber(client) as stubber:
        yield stubber


def test_tables_that_left_the_stack_do_not_belong_to_it(cloudformation: Stubber) -> None:
    states = ["CREATE_COMPLETE", "DELETE_SKIPPED", "DELETE_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"]
    summaries = [
        {
            "LogicalResourceId": state,
            "PhysicalResourceId": f"tally-{state}",
            "ResourceType": "AWS::DynamoDB::Table",
            "ResourceStatus": state,
            "LastUpdatedTimestamp": TIME,
        }
        for state in states
    ]
    cloudformation.add_response("list_stack_resources", {"StackResourceSummaries": summaries})

    assert restore_tables.tables_of("tally") == {"CREATE_COMPLETE": "tally-CREATE_COMPLETE"}


@pytest.mark.parametrize("end", ["IMPORT_COMPLETE", "UPDATE_ROLLBACK_FAILED"])
def test_switch_begins_when_no_update_of_the_stack_is_under_way(
    cloudformation: Stubber,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: str,
) -> None:
    for status in ("IMPORT_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", end):
        stack = {"StackName": "tally", "CreationTime": TIME, "StackStatus": status}
        cloudformation.add_response("describe_stacks", {"Stacks": [stack]})
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(restore_tables, "_finished", interrupt)

    assert run("switch") == 1

    cloudformation.assert_no_pending_responses()
    expected = "continue the rollback" if end.endswith("FAILED") else "interrupted"
    assert expected in capsys.readouterr().err
