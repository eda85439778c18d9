"""Calculates the list price of an operation from the resources that the operation consumes."""

from dataclasses import dataclass, field

from tests import aws_template

from bench import prices
from bench.aws_output import PLATFORM_BYTES

# The times of a warm function. They are assumptions: the benchmark does not run on Lambda.
# A function without its requests, in milliseconds: the CPU time of an increment in the section
# Memory of docs/benchmarks.md (about 2 ms), at the share of a CPU with 512 MB (29 %), rounded up.
FUNCTION_MS = 8
DATABASE_MS = 5  # a request of a function to DynamoDB or SQS, in milliseconds
MEMORY = int(aws_template.parameter("MemorySize")) / 1024  # GB

# The share of requests that X-Ray traces if tracing is on, with X-Ray's default rule. The rule also
# traces the first request of each second. So at less than one request per second, it traces all.
# https://docs.aws.amazon.com/xray/latest/devguide/xray-console-sampling.html
SAMPLED = 0.05


@dataclass(frozen=True)
class Watching:
    """Settings of the template that cost money, and that only the operator of a stack uses.

    Attributes:
        platform_logs: whether Lambda writes two log lines for each invocation.
        traced: the share of the invocations that X-Ray traces.
    """

    platform_logs: bool = False
    traced: float = 0


DEFAULT = Watching(
    platform_logs=aws_template.parameter("SystemLogLevel") == "INFO",
    traced=SAMPLED if aws_template.parameter("Tracing") == "Active" else 0,
)


@dataclass(frozen=True)
class Usage:
    """What an operation consumes.

    Attributes:
        writes: write units.
        reads: read units.
        requests: requests that functions send to DynamoDB or SQS.
        runs: invocations of functions.
        logs: the functions' log lines, in bytes.
        http: HTTP requests.
        access_log: the lines of the access log, in bytes.
        body: the bodies of responses, in bytes.
        answer: the responses with headers and bodies, in bytes.
        sqs: requests to FIFO queues.
        sqs_standard: requests to standard queues.
        events: events on the bus.
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
        """Return the sum of two usages."""
        return Usage(**{name: value + vars(other)[name] for name, value in vars(self).items()})

    def per(self, count: int) -> "Usage":
        """Return this usage divided by `count`."""
        return Usage(**{name: value / count for name, value in vars(self).items()})

    def times(self, count: int) -> "Usage":
        """Return this usage multiplied by `count`."""
        return Usage(**{name: value * count for name, value in vars(self).items()})

    def milliseconds(self) -> float:
        """Return the assumed run time of the functions, in milliseconds."""
        return self.runs * FUNCTION_MS + self.requests * DATABASE_MS

    def all_logs(self, watching: Watching = DEFAULT) -> float:
        """Return the size of the log lines of functions, Lambda and API Gateway, in bytes."""
        platform = self.runs * PLATFORM_BYTES if watching.platform_logs else 0
        return self.logs + platform + self.access_log

    def dollars(self, watching: Watching = DEFAULT) -> dict[str, float]:
        """Return what a million times this usage costs in US dollars, by the kind of charge."""
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
            "CloudWatch Logs": self.all_logs(watching) * prices.LOGS.dollars,
            "X-Ray": watching.traced * self.runs * prices.TRACE.dollars,
            "data out": self.answer * prices.DATA_OUT.dollars,
        }
        return {name: prices.MILLION * each for name, each in once.items()}


@dataclass(frozen=True)
class Operation:
    """What an operation consumes, and what recording its change consumes.

    Attributes:
        name: the operation, as in the tables.
        own: what the operation itself consumes.
        alone: what record_history consumes in a run that records only this change.
        among: what record_history consumes per change in a run that records a hundred changes.
    """

    name: str
    own: Usage
    alone: Usage = field(default_factory=Usage)
    among: Usage = field(default_factory=Usage)

    def total(self, recorded: Usage, watching: Watching = DEFAULT) -> float:
        """Return the price of a million operations in US dollars, with their history.

        Args:
            recorded: what recording the change consumes: `alone` or `among`.
            watching: the settings for logs and traces.
        """
        parts = (self.own.dollars(watching), recorded.dollars(watching))
        return sum(sum(part.values()) for part in parts)
