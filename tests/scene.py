"""Scenes: what many tests find in the tables. Each is made once in a process, and then copied."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.stack import Item, Stack

MOST_WRITES = 25  # in a BatchWriteItem

_made: dict[str, dict[str, list[Item]]] = {}


def scene(stack: Stack, name: str, make: Callable[[], None]) -> None:
    """Make a scene in an empty stack.

    Only the first call in a process runs `make`. Later calls write the same items, which takes far
    fewer requests than to make them.
    """
    if name in _made:
        put(stack, _made[name])
    else:
        make()
        _made[name] = stack.contents()


def put(stack: Stack, contents: Mapping[str, Sequence[Item]]) -> None:
    """Write items, given by the logical id of their table."""
    writes = [
        (stack.refs[table], {"PutRequest": {"Item": item}})
        for table, items in contents.items()
        for item in items
    ]
    for start in range(0, len(writes), MOST_WRITES):
        requests: dict[str, Any] = {}
        for table, write in writes[start : start + MOST_WRITES]:
            requests.setdefault(table, []).append(write)
        stack.dynamodb.batch_write_item(RequestItems=requests)
