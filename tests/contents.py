"""What tests find in the tables: scenes that are made once and copied, and items that are gone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tests import aws_template
from tests.stack import Item, Stack

MOST_WRITES = 25  # in a BatchWriteItem

_made: dict[str, dict[str, list[Item]]] = {}


def prepare_once(stack: Stack, name: str, make: Callable[[], None]) -> None:
    """Make a scene in an empty stack.

    Only the first call for a name runs `make`. Later calls write the same items, which takes far
    fewer requests.
    """
    if name in _made:
        put(stack, _made[name])
    else:
        make()
        _made[name] = stack.contents()


def put(stack: Stack, contents: Mapping[str, Sequence[Item]]) -> None:
    """Write items, given by the logical id of their table."""
    _write(
        stack,
        (
            (table, {"PutRequest": {"Item": item}})
            for table, items in contents.items()
            for item in items
        ),
    )


def forget(stack: Stack, *versions: int, counter_id: str = "orders") -> None:
    """Delete versions of a counter from the history."""
    keys = ({"counter_id": {"S": counter_id}, "version": {"N": str(each)}} for each in versions)
    _write(stack, (("HistoryTable", {"DeleteRequest": {"Key": key}}) for key in keys))


def clear(stack: Stack, *tables: str) -> None:
    """Empty tables, given by their logical ids: moto goes through all of a table for a Query."""
    for table in tables:
        stack.dynamodb.delete_table(TableName=stack.refs[table])
        stack.dynamodb.create_table(TableName=stack.refs[table], **aws_template.tables()[table])


def _write(stack: Stack, writes: Iterable[tuple[str, Any]]) -> None:
    left = list(writes)
    while left:
        some, left = left[:MOST_WRITES], left[MOST_WRITES:]
        requests: dict[str, Any] = {}
        for table, write in some:
            requests.setdefault(stack.refs[table], []).append(write)
        stack.dynamodb.batch_write_item(RequestItems=requests)
