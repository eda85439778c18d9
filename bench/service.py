"""Runs Tally's functions in this process, and measures their units, requests and bytes.

The functions use an emulated database, which reports the units that DynamoDB would charge.
"""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import botocore.session
from tests.event_queue import EventMessage, event_body
from tests.meter import Meter
from tests.proxy import ALL_RIGHTS, proxy_event
from tests.stack import CLIENT_ID, FACTORIES, REGION, Stack

from bench.aws_output import access_log, http_response
from bench.output import captured
from bench.usage import Usage
from counters import clients, clock, trend
from counters.rights import NONE
from emulator_process import free_port, run_emulator
from local_settings import CREDENTIALS

MESSAGES = 10  # in a batch of the queue: Lambda's maximum for a FIFO queue


class Service:
    """Runs the functions in this process, and measures what they consume."""

    def __init__(self, stack: Stack, meter: Meter) -> None:
        """Prepare to measure.

        Args:
            stack: the tables and the functions.
            meter: counts the requests of the functions to AWS, and the units that they consume.
        """
        self._stack = stack
        self._meter = meter
        self._messages = 0

    def request(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Usage:
        """Make an HTTP request, and return what it consumes.

        Raises:
            RuntimeError: if the response is not a 200.
        """
        function, route, parameters = self._stack.route(method, path)
        text = json.dumps(body).encode() if body else b""
        claims = ALL_RIGHTS | {"sub": CLIENT_ID, "client_id": CLIENT_ID}
        event = proxy_event(route, path, parameters, query, headers or {}, text, claims)
        usage, reply = self._run(function.name, event)
        if reply["statusCode"] != 200:  # noqa: PLR2004  the HTTP status
            raise RuntimeError(reply)
        return replace(
            usage,
            http=1,
            access_log=len(access_log(method, f"/v1{path}")),
            body=len(reply["body"]),
            answer=len(http_response(reply["headers"], reply["body"])),
        )

    def ingest(self, counter_id: str) -> Usage:
        """Count a full batch of messages for one counter, and return what it consumes."""
        records = []
        for _ in range(MESSAGES):
            self._messages += 1
            records.append(
                {
                    "messageId": str(uuid.uuid4()),
                    "body": json.dumps({"counter_id": counter_id, "by": 1}),
                    "attributes": {
                        "SequenceNumber": str(18849496460467696128 + 256 * self._messages),
                        "MessageGroupId": counter_id,
                        "SenderId": "AROAEXAMPLE12345678AB:checkout",
                    },
                    "eventSourceARN": f"arn:aws:sqs:{REGION}:123456789012:queue.fifo",
                }
            )
        usage, reply = self._run("IngestIncrements", {"Records": records})
        _all_done(reply)
        return replace(usage, sqs=3)

    def forward(self, counter_id: str) -> Usage:
        """Forward a full batch of events, and return what this consumes.

        The result includes the requests of EventBridge, which sends each event to EventQueue in a
        request of its own. The result does not include the SQS charges of IncrementQueue (send,
        receive, delete). They are in the result of `ingest`.
        """
        messages = [EventMessage(event_body({"counter_id": counter_id})) for _ in range(MESSAGES)]
        records = [message.record() for message in messages]
        usage, reply = self._run("ForwardEvents", {"Records": records})
        _all_done(reply)
        return replace(usage, requests=1, events=MESSAGES, sqs_standard=MESSAGES + 2)

    def record(self) -> Usage:
        """Record all new changes in one batch, and return what this consumes for each change."""
        records = self._stack.changes()
        usage, reply = self._run("RecordHistory", {"Records": records})
        _all_done(reply)
        # Reading an item that does not exist takes a read unit, which the emulator does not report.
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
        return replace(usage, reads=usage.reads + self._meter.absent).per(len(records))

    def trend(self, counter_id: str, weeks: int) -> None:
        """Write the sums of a busy counter for each hour of the last weeks."""
        hour = trend.hour_of(clock.now())
        sums = {"changes": 900, "increase": 1200, "decrease": 200, "close": 100_000}
        versions = {"first_version": 1_000_000, "last_version": 1_000_899}
        for back in range(1, weeks * 7 * 24 + 1):
            start = clock.timestamp(hour - back * trend.HOUR)
            self._stack.dynamodb.put_item(
                TableName=self._stack.refs["TrendTable"],
                Item={
                    "counter_id": {"S": counter_id},
                    "hour": {"S": start},
                    **{name: {"N": str(value)} for name, value in (sums | versions).items()},
                },
            )

    def grant(self, principal: str) -> None:
        """Limit an app client or a group to the counters that begin with `orders:` or `views:`.

        Args:
            principal: `client:` and an id of an app client, or `group:` and a name of a group.
        """
        self._stack.dynamodb.put_item(
            TableName=self._stack.refs["GrantTable"],
            Item={
                "principal": {"S": principal},
                "scopes": {"SS": ["increment", "read"]},
                "prefixes": {"SS": ["orders:", "views:"]},
            },
        )

    def token(self, event: Mapping[str, object]) -> Usage:
        """Run `issue_token` as Cognito does for an access token, and return what this consumes.

        Args:
            event: the event of Cognito.

        Raises:
            RuntimeError: if the token gives no rights.
        """
        usage, reply = self._run("IssueToken", event)
        issued = reply["response"]["claimsAndScopeOverrideDetails"]["accessTokenGeneration"]
        if all(claim == NONE for claim in issued["claimsToAddOrOverride"].values()):
            raise RuntimeError(reply)
        return usage

    def _run(self, name: str, event: Mapping[str, object]) -> tuple[Usage, dict[str, Any]]:
        self._meter.clear()
        with captured() as log:
            reply = self._stack.invoke(name, event)
        units, requests = self._meter.units, self._meter.requests.total()
        # The emulator always reports the minimum of units for a query. `charged` is calculated from
        # the sizes of the items that the query read.
        reads = max(units["read"], self._meter.charged)
        logs = len(log.getvalue().encode())
        return Usage(units["write"], reads, requests, runs=1, logs=logs), reply


def _all_done(reply: Mapping[str, object]) -> None:
    if reply["batchItemFailures"]:
        raise RuntimeError(reply)


@contextlib.contextmanager
def running() -> Iterator[Service]:
    """Start an emulated database with the template's tables, and yield a service that uses it.

    The functions cannot reach any other database. The emulator stops when the with block ends.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tally-") as directory,
        run_emulator(Path(directory), free_port()) as emulator,
    ):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        local = {"AWS_ENDPOINT_URL": emulator.endpoint_url, "AWS_DEFAULT_REGION": REGION}
        with (
            patch.dict(os.environ, {**kept, **CREDENTIALS, **local}, clear=True),
            patch.object(clients, "_session", botocore.session.get_session),
        ):
            for factory in FACTORIES:
                factory.cache_clear()
            try:
                yield Service(Stack(), Meter())
            finally:
                for factory in FACTORIES:
                    factory.cache_clear()
