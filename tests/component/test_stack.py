"""Tests in the same process reuse a stack in moto, but each test starts with an empty stack."""

from collections.abc import Callable
from dataclasses import replace

import botocore.session
import pytest
from tests import aws_template
from tests.stack import Item, Stack, running

from counters import clients

ITEM: Item = {"counter_id": {"S": "orders"}, "value": {"N": "1"}}


def put(stack: Stack) -> None:
    stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=ITEM)


def update(stack: Stack) -> None:
    stack.dynamodb.update_item(
        TableName=stack.refs["CounterTable"],
        Key={"counter_id": {"S": "orders"}},
        UpdateExpression="SET #value = :one",
        ExpressionAttributeNames={"#value": "value"},
        ExpressionAttributeValues={":one": {"N": "1"}},
    )


def batch_write(stack: Stack) -> None:
    writes = {stack.refs["CounterTable"]: [{"PutRequest": {"Item": ITEM}}]}
    stack.dynamodb.batch_write_item(RequestItems=writes)  # type: ignore[arg-type]


def transact(stack: Stack) -> None:
    write = {"Put": {"TableName": stack.refs["CounterTable"], "Item": ITEM}}
    stack.dynamodb.transact_write_items(TransactItems=[write])  # type: ignore[list-item]


def write_to_every_table(stack: Stack) -> None:
    for logical_id, table in aws_template.tables().items():
        types = {
            each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]
        }
        key = {
            each["AttributeName"]: {types[each["AttributeName"]]: "1"}
            for each in table["KeySchema"]
        }
        stack.dynamodb.put_item(TableName=stack.refs[logical_id], Item=key)
    assert all(stack.contents().values())


def request(stack: Stack) -> None:
    stack.request("POST", "/counters/orders", headers={"Idempotency-Key": "key"})
    stack.record(stack.changes())
    assert sum(map(bool, stack.contents().values())) == 4


def replace_a_table(stack: Stack) -> None:
    arguments = aws_template.tables()["CounterTable"]
    del arguments["StreamSpecification"]
    stack.dynamodb.delete_table(TableName=stack.refs["CounterTable"])
    stack.dynamodb.create_table(TableName=stack.refs["CounterTable"], **arguments)
    put(stack)


def delete_a_table(stack: Stack) -> None:
    stack.dynamodb.delete_table(TableName=stack.refs["CounterTable"])


def send(stack: Stack) -> None:
    for logical_id, queue in aws_template.queues().items():
        fifo = {"MessageGroupId": "group", "MessageDeduplicationId": "id"}
        more = fifo if "FifoQueue" in queue else {}
        stack.sqs.send_message(QueueUrl=stack.refs[logical_id], MessageBody="body", **more)  # type: ignore[arg-type]
    assert stack.messages("IncrementQueue")  # the messages are received, but not deleted


CHANGES = [
    *(put, update, batch_write, transact, write_to_every_table, request),
    *(replace_a_table, delete_a_table, send),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_stack_is_empty_after_any_change_in_the_previous_test(
    session: botocore.session.Session, change: Callable[[Stack], None]
) -> None:
    with running(session) as stack:
        names, functions = dict(stack.refs), dict(stack.functions)
        stack.refs["HistoryDays"] = "8"
        stack.functions["GetCounter"] = replace(functions["GetCounter"], timeout=1)
        change(stack)

    with running(session) as stack:
        assert (stack.refs, stack.functions) == (names, functions)
        assert not any(stack.contents().values())
        assert stack.changes() == []
        assert not any(stack.messages(queue) for queue in aws_template.queues())
        # The reused stack works like a new stack.
        send(stack)
        assert stack.request("POST", "/counter").status == 200
        (record,) = stack.changes()
        assert record["eventName"] == "INSERT"


def test_two_stacks_in_use_share_no_data(session: botocore.session.Session) -> None:
    with running(session) as one:
        one.request("POST", "/counter")
        with running(session) as other:
            assert not any(other.contents().values())
            other.request("POST", "/counter", body={"by": 2})
        assert one.request("GET", "/counter").body["value"] == 1


def test_new_clients_in_one_test_do_not_replace_the_shared_clients(
    session: botocore.session.Session,
) -> None:
    with running(session) as stack:
        shared = clients.dynamodb()
        clients.dynamodb.cache_clear()
        assert clients.dynamodb() is not shared
        assert stack.request("POST", "/counter").status == 200
    with running(session):
        assert clients.dynamodb() is shared


def test_items_are_what_a_scan_returns(session: botocore.session.Session) -> None:
    with running(session) as stack:
        request(stack)
        for table in aws_template.tables():
            scanned = stack.dynamodb.scan(TableName=stack.refs[table])["Items"]
            assert stack.items(table) == scanned
        assert [stack.item("CounterTable", "orders")] == stack.items("CounterTable")
        assert stack.item("CounterTable", "another") is None
