"""Grants of the deployed stack, and groups of people that have grants."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.e2e.service import client, cognito

from deployment import Stack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = dict[str, AttributeValueTypeDef]


def put_grants(stack: Stack, items: list["Item"]) -> None:
    """Write grants to GrantTable."""
    dynamodb: DynamoDBClient = client(stack, "dynamodb")
    for start in range(0, len(items), 25):
        puts: Any = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
        dynamodb.batch_write_item(RequestItems={stack.outputs["GrantTable"]: puts})


def delete_grants(stack: Stack, principals: Iterable[str]) -> None:
    """Delete the grants of these principals."""
    dynamodb: DynamoDBClient = client(stack, "dynamodb")
    keys: Any = [{"DeleteRequest": {"Key": {"principal": {"S": each}}}} for each in principals]
    for start in range(0, len(keys), 25):
        dynamodb.batch_write_item(
            RequestItems={stack.outputs["GrantTable"]: keys[start : start + 25]}
        )


@contextmanager
def created_groups(stack: Stack, grants: Mapping[str, "Item"]) -> Iterator[None]:
    """Create groups with these grants. Delete both when the with block ends."""
    pool, pool_id = cognito(stack), stack.outputs["UserPoolId"]
    principals = [f"group:{group}" for group in grants]
    put_grants(stack, [{"principal": {"S": f"group:{group}"}, **grants[group]} for group in grants])
    for group in grants:
        pool.create_group(UserPoolId=pool_id, GroupName=group)
    try:
        yield
    finally:
        for group in grants:
            pool.delete_group(UserPoolId=pool_id, GroupName=group)
        delete_grants(stack, principals)
