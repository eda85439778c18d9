"""The template's tables, queues and functions in moto, to be used through their public doors."""

import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
import pytest
from moto import mock_aws
from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
from tests import aws_template
from tests.aws_template import Function, Route
from tests.proxy import Context, Reply, proxy_event, reply

from counters import clients, clock

REGION = "eu-west-1"
FACTORIES = [
    made
    for name, made in vars(clients).items()
    if hasattr(made, "cache_clear") and not name.startswith("_")
]
FORWARDER_ROLE_ID = "AROAFORWARDER1234567"
CLIENT_ID = "1example23456789abcdefghij"

Item = dict[str, AttributeValueTypeDef]
StreamRecord = dict[str, Any]


@contextmanager
def running(session: botocore.session.Session) -> Iterator["Stack"]:
    """Start moto, with the stack in it, and no way from here to AWS."""
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patched.delenv(name)
        patched.setenv("AWS_DEFAULT_REGION", REGION)
        with mock_aws():
            patched.setattr(clients, "_session", lambda: session)
            patched.setattr(boto3, "DEFAULT_SESSION", boto3.Session(botocore_session=session))
            for factory in FACTORIES:
                factory.cache_clear()
            yield Stack()


class Stack:
    """The stack, with nothing in its tables; moto must have been started."""

    def __init__(self) -> None:
        self.dynamodb = boto3.client("dynamodb", REGION)
        self.sqs = boto3.client("sqs", REGION)
        self.functions = aws_template.functions()
        # What `!Ref` gives. The names are not the logical ids: nobody can rely on those.
        self.refs: dict[str, str] = {"AWS::StackName": "tally-test"}
        # What `!GetAtt` gives.
        self.attributes = {"ForwardEventsRole.RoleId": FORWARDER_ROLE_ID}
        self._stream_position = 0
        for logical_id, arguments in aws_template.tables().items():
            self.refs[logical_id] = f"tally-{logical_id}"
            self.dynamodb.create_table(TableName=self.refs[logical_id], **arguments)
        for logical_id, attributes in aws_template.queues().items():
            suffix = ".fifo" if "FifoQueue" in attributes else ""
            queue = self.sqs.create_queue(
                QueueName=f"tally-{logical_id}{suffix}", Attributes=attributes
            )
            self.refs[logical_id] = queue["QueueUrl"]

    def environment(self, function: Function) -> dict[str, str]:
        """Return the variables that the template gives a function, and no others."""
        return {
            name: self.refs.get(value["Ref"]) or aws_template.parameter(value["Ref"])
            if "Ref" in value
            else self.attributes[value["Fn::GetAtt"]]
            for name, value in function.environment.items()
        }

    def invoke(self, name: str, event: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Return what the handler of a function makes of an event, in its own environment."""
        function = self.functions[name]
        handler = importlib.import_module(function.module).handler
        with patch.dict(os.environ, self.environment(function)):
            return handler(event, Context(name, deadline=clock.now() + function.timeout))

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
        """Return the answer to an HTTP request, which goes to the function of its route."""
        function, route, parameters = self.route(method, path)
        event = proxy_event(
            route,
            path,
            parameters,
            query,
            headers or {},
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            claims or {"sub": CLIENT_ID, "client_id": CLIENT_ID},
        )
        return reply(self.invoke(function.name, event))

    def items(self, table: str) -> list[Item]:
        """Return every item of a table, given by its logical id, as it is stored."""
        pages = self.dynamodb.get_paginator("scan").paginate(
            TableName=self.refs[table], ConsistentRead=True
        )
        return [item for page in pages for item in page["Items"]]

    def contents(self) -> dict[str, list[Item]]:
        """Return every item of every table."""
        return {table: self.items(table) for table in aws_template.tables()}

    def messages(self, queue: str) -> list[str]:
        """Return the bodies of a queue's messages, and take them from it."""
        bodies = []
        while reply := self.sqs.receive_message(
            QueueUrl=self.refs[queue], MaxNumberOfMessages=10
        ).get("Messages"):
            bodies += [message["Body"] for message in reply]
        return bodies

    def changes(self) -> list[StreamRecord]:
        """Return the stream records of CounterTable since the last call, as Lambda gets them."""
        streams = boto3.client("dynamodbstreams", REGION)
        (stream,) = streams.list_streams(TableName=self.refs["CounterTable"])["Streams"]
        (shard,) = streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"][
            "Shards"
        ]
        position = streams.get_shard_iterator(
            StreamArn=stream["StreamArn"],
            ShardId=shard["ShardId"],
            ShardIteratorType="TRIM_HORIZON",
        )["ShardIterator"]
        records = streams.get_records(ShardIterator=position)["Records"]
        new = records[self._stream_position :]
        self._stream_position = len(records)
        for record in new:
            moment = record["dynamodb"]["ApproximateCreationDateTime"]
            record["dynamodb"]["ApproximateCreationDateTime"] = moment.timestamp()
            record["eventSourceARN"] = stream["StreamArn"]
        # moto makes an item in two steps, and its stream has the first as well: only the key.
        return [
            record
            for record in new
            if record["dynamodb"].get("NewImage") != record["dynamodb"]["Keys"]
        ]

    def record(self, records: Sequence[StreamRecord]) -> int:
        """Deliver a batch to RecordHistory; return how many records, from the first on, it did."""
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
