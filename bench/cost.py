"""What a million of each operation costs: units and bytes as measured here, at list prices.

The handlers run in this process, against a database on this machine that reports the units it would
charge. `python -m bench.cost` prints the section.
"""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import botocore.session
from tests import aws_template
from tests.event_queue import EventMessage, an_event
from tests.meter import Meter
from tests.proxy import proxy_event
from tests.stack import CLIENT_ID, FACTORIES, REGION, Stack

from bench import prices
from bench.output import captured
from bench.report import Section, bars, table
from counters import clients
from local_stack import CREDENTIALS, free_port, run_emulator

BATCH = 100  # increments of a POST /increments, changes of a page and of a run of record_history
MESSAGES = 10  # of a batch of the queue: the most that Lambda takes of a FIFO queue

# Times cannot be measured here, so this is assumed of a warm function, in milliseconds: itself, and
# what it waits for each request to DynamoDB or SQS. How many requests there are is measured.
FUNCTION_MS = 10
DATABASE_MS = 5
MEMORY = int(aws_template.parameter("MemorySize")) / 1024  # GB

SAMPLED = 0.05  # X-Ray's default rule, beyond one request a second
# https://docs.aws.amazon.com/xray/latest/devguide/xray-console-sampling.html

_ID = "79b4f56e-95b1-4643-9700-2807f4e68189"
_TRACE = "Root=1-5f35ae12-0c0fec141ab77a00bc047aa2;Parent=2be948a625588e32;Sampled=0"

# The two lines that Lambda itself writes of an invocation at LogFormat JSON and the level INFO.
# https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
_START = {
    "time": "2026-11-22T16:07:13.192Z",
    "type": "platform.start",
    "record": {"requestId": _ID, "version": "$LATEST"},
}
_REPORT = {
    "time": "2026-11-22T16:07:13.207Z",
    "type": "platform.report",
    "record": {
        "requestId": _ID,
        "metrics": {
            "durationMs": 14.203,
            "billedDurationMs": 15,
            "memorySizeMB": 512,
            "maxMemoryUsedMB": 98,
        },
        "tracing": {
            "spanId": "53995c3f42cd8ad8",
            "type": "X-Amzn-Trace-Id",
            "value": _TRACE,
        },
        "status": "success",
    },
}
PLATFORM_BYTES = sum(len(json.dumps(line, separators=(",", ":"))) + 1 for line in (_START, _REPORT))

# What API Gateway puts into the access log, as the template's format asks for it.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html
_CONTEXT = {
    "$context.requestTimeEpoch": "1795363633192",
    "$context.requestId": _ID,
    "$context.extendedRequestId": "dHBXkGKhIAMEdYw=",
    "$context.status": "200",
    "$context.authorizer.claims.client_id": CLIENT_ID,
    "$context.responseLatency": "18",
    "$context.error.responseType": "-",
}

# What API Gateway puts before the function's own headers.
_HEADERS = f"""HTTP/1.1 200 OK
Date: Sun, 22 Nov 2026 16:07:13 GMT
Content-Length: 138
Connection: keep-alive
x-amzn-RequestId: {_ID}
x-amz-apigw-id: dHBXkGKhIAMEdYw=
X-Amzn-Trace-Id: {_TRACE}
"""

_MEASURED = f"""
Measured, for one operation, or of a batch for each increment in it: the functions run in this
process, against an emulated database that reports units; of a page they go by the size of its
entries. Lambda's own two lines of log for a run are {PLATFORM_BYTES} bytes, made up after their
documented schema, and so are the access log and API Gateway's headers. Recorded alone: by a run of
`record_history` that finds one change. Recorded among 100: by one that finds a hundred, of one
counter, or of the hundred counters of a batch. The counters, and the hour of their trend, are there
already. On the bus, `forward_events` runs for each ten events, and its one request to the queue is
listed with those to the database; then ten events of one counter are counted as from the queue.
""".strip()

_DOLLARS = f"""
US dollars for a million, without free tiers. The time of a function is not measured: it is taken as
{FUNCTION_MS} ms, and {DATABASE_MS} ms for each request, at {MEMORY} GB. Of each run
{SAMPLED:.0%} are traced.
""".strip()

_OTHERS = """
What else is managed and counts, for a million increments beyond what a plan includes. Mostly that
is the operation alone; what it lacks is to be built, run and paid beside it. The prices are those
found at the address, in November 2026 or as of the month that it says; where it is not the
vendor's, it quotes the vendor. What could not be found published is left out.
""".strip()


@dataclass(frozen=True)
class Usage:
    """What something consumes; `runs` are of functions, `requests` those to database and queue.

    `sqs` are requests to FIFO queues, `sqs_standard` to others. Logs and answers are in bytes.
    """

    writes: float = 0
    reads: float = 0
    requests: float = 0
    runs: float = 0
    logs: float = 0
    http: float = 0
    access_log: float = 0
    body: float = 0
    answer: float = 0
    sqs: float = 0
    sqs_standard: float = 0
    events: float = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Return what both consume."""
        return Usage(**{name: value + vars(other)[name] for name, value in vars(self).items()})

    def per(self, count: int) -> "Usage":
        """Return the part of one of `count`."""
        return Usage(**{name: value / count for name, value in vars(self).items()})

    def milliseconds(self) -> float:
        """Return the time of the functions, as it is assumed."""
        return self.runs * FUNCTION_MS + self.requests * DATABASE_MS

    def all_logs(self) -> float:
        """Return the bytes of all log lines: the functions', Lambda's and API Gateway's."""
        return self.logs + self.runs * PLATFORM_BYTES + self.access_log

    def dollars(self) -> dict[str, float]:
        """Return what a million of it costs, line by line, without its history."""
        seconds = self.milliseconds() / 1000 * MEMORY
        once = {
            "API Gateway": self.http * prices.API_REQUEST.dollars,
            "EventBridge": self.events * prices.EVENT.dollars,
            "SQS standard: send, receive, delete": (
                self.sqs_standard * prices.SQS_STANDARD_REQUEST.dollars
            ),
            "SQS FIFO: send, receive, delete": self.sqs * prices.SQS_REQUEST.dollars,
            "Lambda, requests": self.runs * prices.LAMBDA_REQUEST.dollars,
            "Lambda, time": seconds * prices.LAMBDA_TIME.dollars,
            "DynamoDB, writes": self.writes * prices.WRITE_UNIT.dollars,
            "DynamoDB, reads": self.reads * prices.READ_UNIT.dollars,
            "CloudWatch Logs": self.all_logs() * prices.LOGS.dollars,
            "X-Ray": SAMPLED * self.runs * prices.TRACE.dollars,
            "data out": self.answer * prices.DATA_OUT.dollars,
        }
        return {name: prices.MILLION * each for name, each in once.items()}


@dataclass(frozen=True)
class Operation:
    """What an operation consumes itself, and the run of record_history behind it.

    `alone` is the run that has this change only, `among` its part of one that has a hundred.
    """

    name: str
    own: Usage
    alone: Usage = field(default_factory=Usage)
    among: Usage = field(default_factory=Usage)

    def total(self, recorded: Usage) -> float:
        """Return the dollars of a million, with their history recorded so."""
        return sum(self.own.dollars().values()) + sum(recorded.dollars().values())


class Service:
    """The functions in this process, and what they consume."""

    def __init__(self, stack: Stack, meter: Meter) -> None:
        """Take the tables to be used, and the meter on the clients of the functions."""
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
        """Make an HTTP request; return what it consumes.

        Raises:
            RuntimeError: it is refused.
        """
        function, route, parameters = self._stack.route(method, path)
        text = json.dumps(body).encode() if body else b""
        claims = {"sub": CLIENT_ID, "client_id": CLIENT_ID}
        event = proxy_event(route, path, parameters, query, headers or {}, text, claims)
        usage, reply = self._run(function.name, event)
        if reply["statusCode"] != 200:  # noqa: PLR2004
            raise RuntimeError(reply)
        own_headers = "".join(f"{name}: {value}\r\n" for name, value in reply["headers"].items())
        return replace(
            usage,
            http=1,
            access_log=len(_access_log(method, f"/v1{path}")),
            body=len(reply["body"]),
            answer=len(_HEADERS.replace("\n", "\r\n") + own_headers + "\r\n" + reply["body"]),
        )

    def ingest(self, counter_id: str) -> Usage:
        """Count a full batch of the queue, all of one counter; return what it consumes."""
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
        """Forward a full batch of events; return what it and their way to it consume.

        EventBridge sends each event by itself. The function that counts them receives them and
        deletes them: `ingest` has these two requests, and the one that sends them.
        """
        messages = [EventMessage(an_event({"counter_id": counter_id})) for _ in range(MESSAGES)]
        records = [message.record() for message in messages]
        usage, reply = self._run("ForwardEvents", {"Records": records})
        _all_done(reply)
        return replace(usage, requests=1, events=MESSAGES, sqs_standard=MESSAGES + 2)

    def record(self) -> Usage:
        """Deliver all that the stream has new, in one batch; return what one change consumes."""
        records = self._stack.changes()
        usage, reply = self._run("RecordHistory", {"Records": records})
        _all_done(reply)
        # A read of what is not there takes a unit, which this database does not report.
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
        return replace(usage, reads=usage.reads + len(records)).per(len(records))

    def _run(self, name: str, event: Mapping[str, object]) -> tuple[Usage, dict[str, Any]]:
        self._meter.clear()
        with captured() as log:
            reply = self._stack.invoke(name, event)
        units, requests = self._meter.units, self._meter.requests.total()
        # Whatever a query reads, this database reports the least; `charged` goes by size.
        reads = max(units["read"], self._meter.charged)
        logs = len(log.getvalue().encode())
        return Usage(units["write"], reads, requests, runs=1, logs=logs), reply


def operations(service: Service) -> list[Operation]:
    """Return what each operation consumes, on counters that are there already."""
    one, busy = "orders:eu", "views:home"
    path = f"/counters/{one}"
    names = [f"stock:{number:03}" for number in range(BATCH)]
    moves = {"increments": [{"counter_id": name, "by": 1} for name in names]}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for _ in range(2):  # what makes a counter, an hour of its trend or a group costs more, once
        service.request("POST", path)
        service.record()
        service.request("POST", "/increments", body=moves)
        service.record()
        service.ingest(busy)
        service.record()

    plain = service.request("POST", path)
    alone = service.record()
    keyed = service.request("POST", path, headers=key)
    keyed_alone = service.record()
    repeated = service.request("POST", path, headers=key)
    for _ in range(BATCH):
        service.request("POST", path)
    among = service.record()
    moved = service.request("POST", "/increments", body=moves).per(BATCH)
    moved_among = service.record()
    queued = service.ingest(busy).per(MESSAGES)
    forwarded = service.forward(busy).per(MESSAGES)
    queued_alone = service.record().per(MESSAGES)
    for _ in range(BATCH):
        service.ingest(busy)
    queued_among = service.record().per(MESSAGES)
    return [
        Operation("plain", plain, alone, among),
        Operation("keyed", keyed, keyed_alone, among),
        Operation("… repeated", repeated),
        Operation(f"batched by {BATCH}", moved, alone, moved_among),
        Operation(f"queued by {MESSAGES}", queued, queued_alone, queued_among),
        Operation("bus, by 10", forwarded + queued, queued_alone, queued_among),
        Operation("read", service.request("GET", path)),
        Operation(f"page of {BATCH}", service.request("GET", f"{path}/history")),
    ]


def measure() -> Section:
    """Return what a million of each operation consumes and costs, and what others charge."""
    with _service() as service:
        made = operations(service)
    titles = [operation.name for operation in made]
    totals = {operation.name: operation.total(operation.alone) for operation in made}
    picture = bars("What a million costs, each change recorded alone", "US dollars", totals)
    parts = (
        _MEASURED,
        table(["one operation", *titles], _amounts(made)),
        _DOLLARS,
        table(["a million", *titles], _lines(made)),
        picture,
        table(["list price of us-east-1", "US dollars", "page", "as of"], _prices()),
        _OTHERS,
        table(["a million increments", "US dollars", "that is", "lacks", "as of"], _others(made)),
    )
    return Section("What does a million cost?", "python -m bench.cost", "\n\n".join(parts))


def _amounts(made: Sequence[Operation]) -> list[list[object]]:
    rows: dict[str, list[float]] = {}
    for operation in made:
        own, alone, among = operation.own, operation.alone, operation.among
        for name, value in {
            "write units": own.writes,
            "read units": own.reads,
            "requests to the database, or from one queue to the other": own.requests,
            "body of the answer, bytes": own.body,
            "… with its headers": own.answer,
            "log lines of the function, bytes": own.logs,
            "… and Lambda's, and the access log": own.all_logs(),
            "recorded alone: write units": alone.writes,
            "… read units": alone.reads,
            "… log lines of record_history, bytes": alone.logs,
            "… and Lambda's": alone.all_logs(),
            "recorded among 100: write units": among.writes,
            "… read units for each": among.reads,
            "… log lines, and Lambda's, bytes": among.all_logs(),
        }.items():
            rows.setdefault(name, []).append(value)
    return [[name, *map(_amount, values)] for name, values in rows.items()]


def _lines(made: Sequence[Operation]) -> list[list[object]]:
    rows: dict[str, list[float]] = {}
    for operation in made:
        for name, value in operation.own.dollars().items():
            rows.setdefault(name, []).append(value)
        for name, value in operation.alone.dollars().items():
            if name.partition(",")[0] in {"DynamoDB", "Lambda", "CloudWatch Logs", "X-Ray"}:
                rows.setdefault(f"its history: {name}", []).append(value)
        for name, value in {
            "**in all**, each change recorded alone": operation.total(operation.alone),
            "**in all**, a hundred changes at a time": operation.total(operation.among),
        }.items():
            rows.setdefault(name, []).append(value)
    return [[name, *map(_cents, values)] for name, values in rows.items()]


def _prices() -> list[list[object]]:
    rows: list[list[object]] = []
    for price in prices.AWS:
        factor, unit = prices.MILLION, f"million {price.unit}s"
        if price.unit == "byte":
            factor, unit = prices.GIGABYTE, "GB"
        charged = f"{price.dollars * factor:.6g} a {unit}"
        rows.append([price.name, charged, f"<{price.source}>", price.date])
    return rows


def _others(made: Sequence[Operation]) -> list[list[object]]:
    plain, queued = made[0], made[4]
    rows: list[list[object]] = [
        [f"Tally, {each.name}", _cents(each.total(each.alone)), "the table above", "", ""]
        for each in (plain, queued)
    ]
    for other in sorted(prices.ALTERNATIVES, key=lambda each: each.dollars):
        how = f"[{other.how}]({other.source})"
        rows.append([other.name, f"{other.dollars:.4g}", how, other.lacks, other.date])
    return rows


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= BATCH else f"{value:.4g}"


def _cents(dollars: float) -> str:
    return f"{dollars + 1e-9:.2f}"  # half a cent is rounded up


def _access_log(method: str, path: str) -> str:
    """Return a line of the access log, in the template's format."""
    (api,) = aws_template.resources("AWS::Serverless::Api").values()
    line: str = api["Properties"]["AccessLogSetting"]["Format"]
    context = {**_CONTEXT, "$context.httpMethod": method, "$context.path": path}
    for name in sorted(context, key=len, reverse=True):  # one is the beginning of another
        line = line.replace(name, context[name])
    return line


def _all_done(reply: Mapping[str, object]) -> None:
    if reply["batchItemFailures"]:
        raise RuntimeError(reply)


@contextlib.contextmanager
def _service() -> Iterator[Service]:
    """Start a database with the template's tables, and give the functions no way past it."""
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


if __name__ == "__main__":
    print(measure().markdown())
