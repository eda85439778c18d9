"""The template's tables, queues and functions in moto. Tests call the functions as AWS does."""

import importlib
import json
import os
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
import pytest
from moto import mock_aws
from moto.core.model_instances import reset_model_data
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
from tests import aws_template, conformance, packed_dashboard
from tests.aws_template import Function, Route
from tests.proxy import ALL_RIGHTS, Context, Reply, proxy_event, reply

from counters import clients, clock

REGION = "eu-west-1"
FACTORIES = [
    factory
    for name, factory in vars(clients).items()
    if hasattr(factory, "cache_clear") and not name.startswith("_")
]
FORWARDER_ROLE_ID = "AROAFORWARDER1234567"
CLIENT_ID = "1example23456789abcdefghij"
# The settings of the dashboard.
SETTINGS = {
    "client_id": "2example23456789abcdefghij",
    "sign_in": "https://tally-example.auth.eu-west-1.amazoncognito.com",
}

Item = dict[str, AttributeValueTypeDef]
StreamRecord = dict[str, Any]

# The name of each AWS operation that changes nothing begins with one of these words.
READS = ("BatchGet", "Describe", "Get", "List", "Query", "Scan")


@contextmanager
def moto() -> Iterator[None]:
    """Let moto, which simulates AWS, answer all requests to AWS until the with block ends.

    The tables and queues that moto already has stay as they are. Starting moto takes 30 ms of CPU
    time. Inside another `with moto()` block, it takes almost no CPU time.
    """
    mock = mock_aws()
    mock.start(reset=False)
    try:
        yield
    finally:
        mock.stop(remove_data=False)


@contextmanager
def running(session: botocore.session.Session) -> Iterator["Stack"]:
    """Start moto, and yield an empty stack in it. No request in the with block reaches AWS.

    Creating a stack takes as much CPU time as ten requests. So when the with block ends, this
    function empties the stack, and keeps it for a later call.
    """
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patched.delenv(name)
        patched.setenv("AWS_DEFAULT_REGION", REGION)
        with moto():
            patched.setattr(clients, "_session", lambda: session)
            patched.setattr(boto3, "DEFAULT_SESSION", boto3.Session(botocore_session=session))
            with _stack_pool(session).empty() as stack:
                yield stack


@cache
def _stack_pool(session: botocore.session.Session) -> "_StackPool":
    return _StackPool(session)


class _StackPool:
    """Keeps stacks in moto, and the functions' AWS clients, so that many tests can use them."""

    def __init__(self, session: botocore.session.Session) -> None:
        # Every client that the session creates from now on calls `_note_change` before each
        # request.
        session.register("before-parameter-build", self._note_change)
        self._changed: set[str] = set()  # names of tables, URLs of queues
        self._replaced: set[str] = set()  # names of tables
        self._clients = {factory: factory.__wrapped__() for factory in FACTORIES}
        self._idle: list[Stack] = []
        self._in_use = 0

    @contextmanager
    def empty(self) -> Iterator["Stack"]:
        """Yield an empty stack that is not in use."""
        number = self._in_use + len(self._idle)
        stack = self._idle.pop() if self._idle else Stack(f"tally{number or ''}")
        functions, refs = dict(stack.functions), dict(stack.refs)  # a test may change them
        self._in_use += 1
        self._provide_clients()
        try:
            yield stack
        finally:
            self._in_use -= 1
            stack.functions, stack.refs = functions, refs
            stack.clear(self._changed, self._replaced)
            self._idle.append(stack)
            if self._in_use:
                self._provide_clients()
            else:
                _forget_clients()
                self._changed.clear()
                self._replaced.clear()
                reset_model_data()  # moto keeps a list of every item that it ever stored

    def _provide_clients(self) -> None:
        """Make the client factories, the functions of counters.clients, return this pool's clients.

        Each factory returns the pool's client until the cache of the factory is cleared.
        """
        _forget_clients()
        for factory, client in self._clients.items():
            with patch.object(clients, "_client", lambda _service, client=client: client):
                factory()

    def _note_change(self, **call: Any) -> None:  # noqa: ANN401  of any operation
        params, model = call["params"], call["model"]
        if model.name in {"CreateTable", "DeleteTable", "UpdateTable"}:
            self._replaced.add(params["TableName"])
        elif not model.name.startswith(READS):
            self._changed.update(_targets(params))


def _forget_clients() -> None:
    for factory in FACTORIES:
        factory.cache_clear()


def _targets(params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables and queues that a request names."""
    for name in ("TableName", "QueueUrl"):
        if name in params:
            yield params[name]
    yield from params.get("RequestItems", ())
    for write in params.get("TransactItems", ()):
        for action in write.values():
            yield action["TableName"]


class Stack:
    """The functions, tables and queues of the template. The tables and queues are empty at first.

    The constructor creates the tables and queues with boto3's default session.
    """

    def __init__(self, prefix: str = "tally") -> None:
        self.dynamodb = boto3.client("dynamodb", REGION)
        self.sqs = boto3.client("sqs", REGION)
        self._streams = boto3.client("dynamodbstreams", REGION)
        self.functions = aws_template.functions()
        # The value of `!Ref` for each logical id. The value differs from the logical id. So a test
        # fails if code uses a logical id as the name of a table or queue.
        self.refs: dict[str, str] = {"AWS::StackName": "tally-test"}
        # The values of `!GetAtt`.
        self.attributes = {"ForwardEventsRole.RoleId": FORWARDER_ROLE_ID}
        self._prefix = prefix
        self._last_number: str | None = None  # of the last stream record that `changes` returned
        self._known_stream: tuple[str, str] | None = None
        for logical_id in aws_template.tables():
            self.refs[logical_id] = f"{prefix}-{logical_id}"
            self._create_table(logical_id)
        for logical_id in aws_template.queues():
            self.refs[logical_id] = self._create_queue(logical_id)
        self._store_settings()

    def _create_table(self, logical_id: str) -> None:
        arguments = aws_template.tables()[logical_id]
        self.dynamodb.create_table(TableName=self.refs[logical_id], **arguments)
        self._known_stream = None

    def _create_queue(self, logical_id: str) -> str:
        attributes = aws_template.queues()[logical_id]
        suffix = ".fifo" if "FifoQueue" in attributes else ""
        name = f"{self._prefix}-{logical_id}{suffix}"
        return self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def clear(self, changed: Container[str], replaced: Container[str]) -> None:
        """Empty the tables and queues that have changed. This works only in moto.

        Args:
            changed: names of tables and URLs of queues.
            replaced: names of tables that were created, deleted or altered.
        """
        self._last_number = None
        for logical_id in aws_template.tables():
            name = self.refs[logical_id]
            if name in replaced:
                with suppress(self.dynamodb.exceptions.ResourceNotFoundException):
                    self.dynamodb.delete_table(TableName=name)
                self._create_table(logical_id)
            elif name in changed:
                # Emptying a table through AWS's API would take 9 ms of CPU time.
                table = self._moto_table(logical_id)
                table.items.clear()
                if table.stream_shard:
                    table.stream_shard.items.clear()
        for logical_id in aws_template.queues():
            if self.refs[logical_id] in changed:
                self.sqs.delete_queue(QueueUrl=self.refs[logical_id])
                self._create_queue(logical_id)

    def empty_tables(self) -> None:
        """Empty every table."""
        self.clear({self.refs[table] for table in aws_template.tables()}, ())

    def remove_stream(self) -> None:
        """Replace CounterTable with a table without a stream.

        With a stream, transactions would be slow: for each write of a transaction, moto would copy
        the table and its stream.
        """
        arguments = aws_template.tables()["CounterTable"]
        del arguments["StreamSpecification"]
        self.dynamodb.delete_table(TableName=self.refs["CounterTable"])
        self.dynamodb.create_table(TableName=self.refs["CounterTable"], **arguments)

    def _moto_table(self, logical_id: str) -> Table:
        """Return moto's own object for a table."""
        return dynamodb_backends[ACCOUNT_ID][REGION].tables[self.refs[logical_id]]

    def environment(self, function: Function) -> dict[str, str]:
        """Return the environment variables that the template sets for this function.

        The variables in the template's `Globals` are not included.
        """
        return {name: self._value(value) for name, value in function.environment.items()}

    @contextmanager
    def in_environment(self, function: Function) -> Iterator[None]:
        """Set the environment variables of a function in the with block.

        `patch.dict` would set all other variables of this process again, too, which is slow.
        """
        with pytest.MonkeyPatch.context() as patched:
            for name, value in self.environment(function).items():
                patched.setenv(name, value)
            yield

    def _value(self, value: Mapping[str, str]) -> str:
        """Return the value of `!Ref`, `!GetAtt` or `!Sub`."""
        if "Ref" in value:
            return self.refs.get(value["Ref"]) or aws_template.parameter(value["Ref"])
        if "Fn::Sub" in value:
            return re.sub(r"\${(.+?)}", lambda match: self.refs[match[1]], value["Fn::Sub"])
        return self.attributes[value["Fn::GetAtt"]]

    def _store_settings(self) -> None:
        """Store the settings of the dashboard, as the template does."""
        name = aws_template.TEMPLATE["Resources"]["DashboardSettings"]["Properties"]["Name"]
        boto3.client("ssm", REGION).put_parameter(
            Name=self._value(name), Type="String", Value=json.dumps(SETTINGS), Overwrite=True
        )

    def invoke(self, name: str, event: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Call the handler of a function with an event, in the function's environment.

        If the function belongs to the HTTP API, also check its answer against the contract.
        """
        function = self.functions[name]
        handler = importlib.import_module(function.module).handler
        if function.module == "show_dashboard":
            packed_dashboard.use()
        with self.in_environment(function):
            answer = handler(event, Context(name, deadline=clock.now() + function.timeout))
        if function.routes:
            conformance.check_answer(event, answer)
        return answer

    def request(  # noqa: PLR0913
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | bytes = b"",
        claims: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send an HTTP request to the function of its route. Return the reply.

        Unless `claims` says otherwise, the caller may use all counters.
        """
        function, route, parameters = self.route(method, path)
        event = proxy_event(
            route,
            path,
            parameters,
            query,
            headers or {},
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            {**ALL_RIGHTS, **(claims or {"sub": CLIENT_ID, "client_id": CLIENT_ID})},
        )
        return reply(self.invoke(function.name, event))

    def item(self, table: str, key: str) -> Item | None:
        """Return the item with this key, as moto stores it; None if the table has no such item.

        The table must not have a sort key. This method sends no request, so a simulation can call
        it after each step.
        """
        found = self._moto_table(table).get_item(DynamoType({"S": key}))
        return found.to_json()["Attributes"] if found else None

    def items(self, table: str) -> list[Item]:
        """Return every item of the table with this logical id, as moto stores it."""
        return [item.to_json()["Attributes"] for item in self._moto_table(table).all_items()]

    def contents(self) -> dict[str, list[Item]]:
        """Return every item of every table."""
        return {table: self.items(table) for table in aws_template.tables()}

    def messages(self, queue: str) -> list[str]:
        """Receive all messages of a queue. Return their bodies."""
        bodies = []
        while reply := self.sqs.receive_message(
            QueueUrl=self.refs[queue], MaxNumberOfMessages=10
        ).get("Messages"):
            bodies += [message["Body"] for message in reply]
        return bodies

    def changes(self) -> list[StreamRecord]:
        """Return the new stream records of CounterTable, as Lambda gets them.

        New records are those that arrived after the last call of this method.
        """
        stream, shard = self._stream()
        place: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if self._last_number:
            place = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "SequenceNumber": self._last_number,
            }
        iterator = self._streams.get_shard_iterator(StreamArn=stream, ShardId=shard, **place)
        new = self._streams.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        if new:
            self._last_number = new[-1]["dynamodb"]["SequenceNumber"]
        for record in new:
            moment = record["dynamodb"]["ApproximateCreationDateTime"]
            record["dynamodb"]["ApproximateCreationDateTime"] = moment.timestamp()
            record["eventSourceARN"] = stream
        # moto creates an item in two steps, and writes a stream record for each step. Leave out the
        # record of the first step. Its image has only the key.
        return [
            record
            for record in new
            if record["dynamodb"].get("NewImage") != record["dynamodb"]["Keys"]
        ]

    def _stream(self) -> tuple[str, str]:
        """Return the stream of CounterTable, and its only shard."""
        if self._known_stream is None:
            (stream,) = self._streams.list_streams(TableName=self.refs["CounterTable"])["Streams"]
            description = self._streams.describe_stream(StreamArn=stream["StreamArn"])
            (shard,) = description["StreamDescription"]["Shards"]
            self._known_stream = (stream["StreamArn"], shard["ShardId"])
        return self._known_stream

    def record(self, records: Sequence[StreamRecord]) -> int:
        """Deliver a batch to RecordHistory.

        Returns:
            How many records the function has processed: all records before the first failed one.
        """
        failures = self.invoke("RecordHistory", {"Records": records})["batchItemFailures"]
        if not failures:
            return len(records)
        (failure,) = failures
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        return numbers.index(failure["itemIdentifier"])

    def route(self, method: str, path: str) -> tuple[Function, Route, dict[str, str]]:
        for function in self.functions.values():
            for route in function.routes:
                parameters = route.match(path)
                if route.method == method and parameters is not None:
                    return function, route, parameters
        raise LookupError(method, path)
