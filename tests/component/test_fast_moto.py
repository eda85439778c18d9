"""The faster functions give the same results as the functions that they replace."""

import itertools
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.fast_moto import ORIGINALS
from tests.stack import Stack

VALUES: dict[str, Any] = {
    ":one": {"N": "1"},
    ":text": {"S": "x"},
    ":list": {"L": [{"N": "1"}, {"M": {"a": {"S": "b"}}}]},
    ":names": {"SS": ["a", "b"]},
}
UPDATES = [
    "SET a = :one, b = :text, c = :list",
    "SET a = a + :one, d = if_not_exists(d, :text), c = list_append(c, :list)",
    "SET d = if_not_exists(d, :list), c[1].a = :one",
    "ADD a :one, e :names",
    "DELETE e :names REMOVE b, c[0]",
    "SET a = missing + :one",  # refused: there is no such attribute
    "SET a = :one, a = :text",  # refused: two values for one attribute
    "ADD b :text",  # refused: not a number
    "SET counter_id = :text",  # refused: the key
    "SET x.y = :one",  # refused: x is not a map
    "SET #name = :text",
]
# What #name stands for. The second is the key, which no update may change. An equal update is not
# checked again, unless its names differ.
NAMES = ["b", "counter_id", "b"]


def test_the_faster_functions_give_the_same_results(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = results(stack)
    stack.empty_tables()
    assert ORIGINALS
    for (owner, name), function in ORIGINALS.items():
        if function:
            monkeypatch.setattr(owner, name, function)
        else:
            monkeypatch.delattr(owner, name)

    assert results(stack) == fast
    assert len(fast) == 2 * len(UPDATES) * len(NAMES) + 9


def results(stack: Stack) -> list[Any]:
    """Return the replies to updates, and to a request of each other kind."""
    key: Any = {"counter_id": {"S": "a"}}
    table = stack.refs["CounterTable"]
    found: list[Any] = []
    for name, update in itertools.product(NAMES, UPDATES):
        used = {value: VALUES[value] for value in VALUES if value in update}
        more: Any = {"ExpressionAttributeValues": used} if used else {}
        if "#name" in update:
            more["ExpressionAttributeNames"] = {"#name": name}
        found.append(
            reply(
                stack.dynamodb.update_item,
                TableName=table,
                Key=key,
                UpdateExpression=update,
                ReturnValues="ALL_NEW",
                **more,
            )
        )
        found.append(reply(stack.dynamodb.get_item, TableName=table, Key=key))
    condition = {"ConditionExpression": "attribute_not_exists(a)"}
    writes = [
        {"Put": {"TableName": table, "Item": {"counter_id": {"S": "b"}}}},
        {"Put": {"TableName": table, "Item": key, **condition}},
    ]
    found.append(reply(stack.dynamodb.transact_write_items, TransactItems=writes))
    found.append(
        reply(
            stack.dynamodb.query,
            TableName=table,
            KeyConditionExpression="counter_id = :text",
            ExpressionAttributeValues={":text": {"S": "a"}},
        )
    )
    item = {"counter_id": {"S": "\N{SNOWMAN}"}, **{name[1:]: VALUES[name] for name in VALUES}}
    found += [
        reply(stack.dynamodb.put_item, TableName=table, Item=item),
        reply(stack.dynamodb.put_item, TableName=table, Item=item, ReturnValues="ALL_OLD"),
        reply(stack.dynamodb.put_item, TableName=table, Item=key, **condition),
        reply(stack.dynamodb.put_item, TableName="missing", Item=item),
        reply(stack.dynamodb.batch_get_item, RequestItems={table: {"Keys": [key]}}),
        reply(stack.dynamodb.scan, TableName=table, Limit=1, ReturnConsumedCapacity="TOTAL"),
        reply(stack.dynamodb.delete_item, TableName=table, Key=key, ReturnValues="ALL_OLD"),
    ]
    return found


def reply(operation: Any, **parameters: Any) -> Any:  # noqa: ANN401  any operation
    """Return a reply, or the error, without what differs between two equal replies."""
    try:
        answer: dict[str, Any] = operation(**parameters)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status, error.response["Error"], error.response.get("CancellationReasons")
    status = answer.pop("ResponseMetadata")["HTTPStatusCode"]
    return status, answer
