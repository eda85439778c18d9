"""Replaces slow functions of moto and botocore with faster ones that return the same results."""

import copy
import inspect
import json
import re
from functools import cache
from typing import Any

from botocore import useragent
from botocore.hooks import EventAliaser
from moto import backends
from moto.core import responses, utils
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.serialize import BaseJSONSerializer
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Node
from moto.dynamodb.parsing.expressions import UpdateExpressionParser
from moto.dynamodb.parsing.validators import (
    ActionCountValidator,
    OverlappingPathsValidator,
    UpdateExpressionValidator,
    UpdateHashRangeKeyValidator,
)
from moto.dynamodb.responses import DynamoHandler

_alias: Any = EventAliaser._alias_event_name  # type: ignore[attr-defined]  # noqa: SLF001
_aliases: dict[str, str] = {}
_process_any: Any = BotocoreStubber.process_request
_DYNAMODB = re.compile(r"https://dynamodb\.(?P<region>[^.]+)\.amazonaws\.com/")
_serialize_structure: Any = BaseJSONSerializer._serialize_type_structure  # noqa: SLF001
_query: Any = Table.query
_QUERY = inspect.signature(_query)
_make: Any = UpdateExpressionParser.make
_validate: Any = UpdateExpressionValidator.validate
# These processors of an expression only check it. They do not look at values and items.
_CHECKS = (ActionCountValidator, OverlappingPathsValidator, UpdateHashRangeKeyValidator)
_checked: set[tuple[Any, ...]] = set()  # the expressions that have passed these checks
# The functions that were replaced, by owner and name; None if the owner has none.
ORIGINALS: dict[tuple[Any, str], Any] = {}
# For a class that processes expressions, and a class of nodes: whether it processes such nodes.
_processed: dict[tuple[type, type], bool] = {}


def speed_up() -> None:
    """Install the faster functions in moto and botocore."""
    for (owner, name), function in _FASTER.items():
        ORIGINALS.setdefault((owner, name), getattr(owner, name, None))
        setattr(owner, name, function)


def _alias_once(self: Any, event_name: str) -> str:  # noqa: ANN401
    """Return the alias of an event.

    Each client of botocore looks for the aliases itself, but they are the same for all clients.
    """
    if event_name not in _aliases:
        _aliases[event_name] = _alias(self, event_name)
    return _aliases[event_name]


def _process_request(self: Any, request: Any) -> Any:  # noqa: ANN401
    """Process a request. If it is for DynamoDB, take its parameters from its body as they are.

    For each request, moto's own function would search all services, and make a request of a web
    server. It would also parse the body by the model of the operation. Only binary values need
    that, and Tally stores none.

    Unlike moto's, the reply to a request for DynamoDB has no header Date.
    """
    endpoint = _DYNAMODB.fullmatch(request.url)
    if not endpoint:
        return _process_any(self, request)
    handler: Any = DynamoHandler()
    handler.headers = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in request.headers.items()
    }
    handler.params = json.loads(request.body)
    handler.querystring = {}
    handler.region = endpoint["region"]
    handler.current_account = DEFAULT_ACCOUNT_ID
    handler.response_headers = {"server": "amazon.com"}
    return handler.call_action()


def _serialize(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:  # noqa: ANN401
    """Serialize an attribute of an item without looking up its type.

    For each attribute, moto's own function would try all ten attribute types, each under several
    names.
    """
    if key and shape.name == "AttributeValue":
        serialized[key] = _attribute(value)
    else:
        _serialize_structure(self, serialized, value, shape, key)


def _attribute(value: DynamoType | dict[str, Any]) -> dict[str, Any]:
    attribute = value.to_json() if isinstance(value, DynamoType) else value
    ((attribute_type, content),) = attribute.items()
    if attribute_type == "M":
        return {attribute_type: {name: _attribute(each) for name, each in content.items()}}
    if attribute_type == "L":
        return {attribute_type: [_attribute(each) for each in content]}
    return attribute


def _traverse(self: Any, node: Any, position: int = -1) -> Any:  # noqa: ANN401
    """Process the nodes of an expression from the bottom up, as moto's own function does.

    moto's own function would ask for the classes of nodes to be processed at every node.
    """
    if not isinstance(node, Node):
        return node
    parent = node.parent
    for number, child in enumerate(node.children or ()):
        self.pre_processing_of_child(node, number)
        _traverse(self, child, number)
    classes = type(self), type(node)
    if classes not in _processed:
        _processed[classes] = isinstance(node, self.nodes_to_be_processed())
    if _processed[classes]:
        node = self.process(node)
        node.parent = parent
        if parent:
            parent.children[position] = node
    return node


@cache
def _parse(text: str) -> Any:  # noqa: ANN401
    """Parse the expression of an update, once for all equal expressions."""
    tree = _make(text)
    tree.text = text
    return tree


def _copy_node(self: Any, memo: dict[int, Any]) -> Any:  # noqa: ANN401
    """Copy the tree of an expression. moto copies it for each update."""
    copied = object.__new__(type(self))
    copied.__dict__.update(self.__dict__)
    copied.parent = None
    if self.children is not None:
        copied.children = [copy.deepcopy(child, memo) for child in self.children]
        for child in copied.children:
            if isinstance(child, Node):
                child.parent = copied
    return copied


def _validate_once(self: Any) -> Any:  # noqa: ANN401
    """Validate an update. Leave out the checks that the same expression has passed before."""
    names = self.expression_attribute_names or {}
    case = self.node_to_validate.text, *sorted(names.items()), *self.table.table_key_attrs
    if case in _checked:
        self.processors = [each for each in self.processors if not isinstance(each, _CHECKS)]
    validated = _validate(self)
    _checked.add(case)
    return validated


def _query_of_one_key(self: Any, hash_key: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Query a table, but look only at the items with this partition key.

    moto's own function would sort the whole table. It still answers the queries that use an index.
    """
    call = _QUERY.bind(self, hash_key, *args, **kwargs)
    if call.arguments.get("index_name"):
        return _query(self, hash_key, *args, **kwargs)
    only_key = copy.copy(self)
    only_key.items = {hash_key: self.items[hash_key]} if hash_key in self.items else {}
    return _query(only_key, hash_key, *args, **kwargs)


def _copy_table(self: Any, memo: dict[int, Any]) -> Any:  # noqa: ANN401
    """Copy a table and its items. The copy shares the stream records, which never change.

    Before each transaction, moto copies the tables, so that it can undo the transaction.
    """
    copied = copy.copy(self)
    copied.items = copy.deepcopy(self.items, memo)
    if self.stream_shard:
        copied.stream_shard = copy.copy(self.stream_shard)
        copied.stream_shard.table = copied
        copied.stream_shard.items = list(self.stream_shard.items)
    return copied


_FASTER: dict[tuple[Any, str], Any] = {
    (EventAliaser, "_alias_event_name"): _alias_once,
    (BotocoreStubber, "process_request"): _process_request,
    (BaseJSONSerializer, "_serialize_type_structure"): _serialize,
    (Table, "query"): _query_of_one_key,
    (Table, "__deepcopy__"): _copy_table,
    (UpdateExpressionParser, "make"): staticmethod(_parse),
    (UpdateExpressionValidator, "validate"): _validate_once,
    (Node, "__deepcopy__"): _copy_node,
    (DepthFirstTraverser, "traverse_node_recursively"): _traverse,
    (backends, "get_backend"): cache(backends.get_backend),
    (responses, "camelcase_to_underscores"): cache(utils.camelcase_to_underscores),
    (responses, "method_names_from_class"): cache(utils.method_names_from_class),
    (useragent, "sanitize_user_agent_string_component"): cache(
        useragent.sanitize_user_agent_string_component
    ),
}
