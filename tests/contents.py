"""Helpers that change tables directly: write items, delete history entries, empty tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tests import aws_template
from tests.stack import Item, Stack

MAX_WRITES = 25  # per BatchWriteItem

_prepared: dict[str, dict[str, list[Item]]] = {}


def prepare_once(stack: Stack, name: str, make: Callable[[], None]) -> None:
    """Fill an empty stack with the items that `make` writes.

    The first call with a `name` runs `make`. Later calls with the same name do not run `make`. They
    write the same items in batches, which takes far fewer requests.
    """
    if name in _prepared:
        put(stack, _prepared[name])
    else:
        make()
        _prepared[name] = stack.contents()


def put(stack: Stack, contents: Mapping[str, Sequence[Item]]) -> None:
    """Write items to tables. `contents` maps the logical id of a table to its items."""
    _write(
        stack,
        (
            (table, {"PutRequest": {"Item": item}})
            for table, items in contents.items()
            for item in items
        ),
    )


def delete_entries(stack: Stack, *versions: int, counter_id: str = "orders") -> None:
    """Delete the history entries of these versions of a counter."""
    keys = ({"counter_id": {"S": counter_id}, "version": {"N": str(each)}} for each in versions)
    _write(stack, (("HistoryTable", {"DeleteRequest": {"Key": key}}) for key in keys))


def clear(stack: Stack, *tables: str) -> None:
    """Empty the tables with these logical ids. Tests do this because large tables slow moto."""
    for table in tables:
        stack.dynamodb.delete_table(TableName=stack.refs[table])
        stack.dynamodb.create_table(TableName=stack.refs[table], **aws_template.tables()[table])


def _write(stack: Stack, writes: Iterable[tuple[str, Any]]) -> None:
    remaining = list(writes)
    while remaining:
        batch, remaining = remaining[:MAX_WRITES], remaining[MAX_WRITES:]
        requests: dict[str, Any] = {}
        for table, write in batch:
            requests.setdefault(stack.refs[table], []).append(write)
        stack.dynamodb.batch_write_item(RequestItems=requests)
