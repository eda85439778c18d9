"""Makes moto faster where it spends most of the tests' time. What it answers stays the same."""

import copy
import inspect
from functools import cache
from typing import Any

from moto.core.serialize import BaseJSONSerializer
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.parsing.expressions import UpdateExpressionParser  # type: ignore[attr-defined]

_serialize_structure: Any = BaseJSONSerializer._serialize_type_structure  # noqa: SLF001
_query: Any = Table.query
_QUERY = inspect.signature(_query)


def speed_up() -> None:
    """Install the faster functions in this process."""
    for changed, name, method in [
        (BaseJSONSerializer, "_serialize_type_structure", _serialize),
        (Table, "query", _query_of_one_key),
        (Table, "__deepcopy__", _copied_table),
        (UpdateExpressionParser, "make", cache(UpdateExpressionParser.make)),
    ]:
        setattr(changed, name, method)


def _serialize(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:  # noqa: ANN401
    """Write an attribute of an item as it is.

    For each attribute, moto would look for each of the ten types under several names.
    """
    if key and shape.name == "AttributeValue":
        serialized[key] = _attribute(value)
    else:
        _serialize_structure(self, serialized, value, shape, key)


def _attribute(value: DynamoType | dict[str, Any]) -> dict[str, Any]:
    attribute = value.to_json() if isinstance(value, DynamoType) else value
    ((kind, inner),) = attribute.items()
    if kind == "M":
        return {kind: {name: _attribute(each) for name, each in inner.items()}}
    if kind == "L":
        return {kind: [_attribute(each) for each in inner]}
    return attribute


def _query_of_one_key(self: Any, hash_key: Any, *asked: Any, **more: Any) -> Any:  # noqa: ANN401
    """Look only among the items that have the key, unless an index is asked for.

    moto would sort the whole table.
    """
    call = _QUERY.bind(self, hash_key, *asked, **more)
    if call.arguments.get("index_name"):
        return _query(self, hash_key, *asked, **more)
    part = copy.copy(self)
    part.items = {hash_key: self.items[hash_key]} if hash_key in self.items else {}
    return _query(part, hash_key, *asked, **more)


def _copied_table(self: Any, memo: dict[int, Any]) -> Any:  # noqa: ANN401
    """Copy the items, and not what is in the stream, which does not change.

    moto copies the tables for each transaction, so that it can roll it back.
    """
    copied = copy.copy(self)
    copied.items = copy.deepcopy(self.items, memo)
    if self.stream_shard:
        copied.stream_shard = copy.copy(self.stream_shard)
        copied.stream_shard.table = copied
        copied.stream_shard.items = list(self.stream_shard.items)
    return copied
