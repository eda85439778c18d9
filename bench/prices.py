"""List prices in US dollars, without free tiers: of AWS in us-east-1, and of what else counts."""

from dataclasses import dataclass

MILLION = 1_000_000
GIGABYTE = 1_000_000_000  # bytes


@dataclass(frozen=True)
class Price:
    """What one `unit` costs, as the page at `source` had it in the month `date`."""

    name: str
    dollars: float
    unit: str
    source: str
    date: str = "2026-11"


WRITE_UNIT = Price(
    "DynamoDB on demand, writes",
    0.625 / MILLION,
    "write unit",
    "https://aws.amazon.com/dynamodb/pricing/on-demand/",
)
READ_UNIT = Price(
    "DynamoDB on demand, reads",
    0.125 / MILLION,
    "read unit",
    "https://aws.amazon.com/dynamodb/pricing/on-demand/",
)
API_REQUEST = Price(
    "API Gateway, REST",
    3.50 / MILLION,
    "request",
    "https://aws.amazon.com/api-gateway/pricing/",
)
LAMBDA_REQUEST = Price(
    "Lambda, requests",
    0.20 / MILLION,
    "request",
    "https://aws.amazon.com/lambda/pricing/",
)
LAMBDA_TIME = Price(
    "Lambda, time, arm64",
    0.0000133334,
    "GB-second",
    "https://aws.amazon.com/lambda/pricing/",
)
LOGS = Price(
    "CloudWatch Logs, ingestion",
    0.50 / GIGABYTE,
    "byte",
    "https://aws.amazon.com/cloudwatch/pricing/",
)
SQS_REQUEST = Price(
    "SQS FIFO",
    0.50 / MILLION,
    "request",
    "https://aws.amazon.com/sqs/pricing/",
)
SQS_STANDARD_REQUEST = Price(
    "SQS standard",
    0.40 / MILLION,
    "request",
    "https://aws.amazon.com/sqs/pricing/",
)
EVENT = Price(
    "EventBridge, custom events",
    1.00 / MILLION,
    "event",
    "https://aws.amazon.com/eventbridge/pricing/",
)
TRACE = Price(
    "X-Ray, traces recorded",
    5.00 / MILLION,
    "trace",
    "https://aws.amazon.com/xray/pricing/",
)
DATA_OUT = Price(
    "Data out to the internet",
    0.09 / GIGABYTE,
    "byte",
    "https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer",
)
AWS = (
    *(WRITE_UNIT, READ_UNIT, API_REQUEST, LAMBDA_REQUEST, LAMBDA_TIME),
    *(LOGS, SQS_REQUEST, SQS_STANDARD_REQUEST, EVENT, TRACE, DATA_OUT),
)


@dataclass(frozen=True)
class Alternative:
    """Something managed that can count, and what it charges for a million increments.

    Args:
        name: what it is.
        dollars: for a million increments, beyond what a plan includes.
        how: from which published prices that follows.
        lacks: what of a Tally increment is not in it.
        source: where the prices were found, a public address.
        date: the month that it gives for them; if it gives none, that in which it was read.
    """

    name: str
    dollars: float
    how: str
    lacks: str
    source: str
    date: str


_FRONT = "HTTPS front, tokens"
_REST = "a function, a database, tokens, history"

ALTERNATIVES = (
    Alternative(
        "API Gateway HTTP API alone",
        1.00,
        "1.00 a million requests",
        _REST,
        "https://docs.aws.amazon.com/pt_br/whitepapers/latest/best-practices-api-gateway-private-apis-integration/cost-optimization.html",
        "2026-11",
    ),
    Alternative(
        "API Gateway REST API alone",
        3.50,
        "3.50 a million requests",
        _REST,
        "https://docs.aws.amazon.com/pt_br/whitepapers/latest/best-practices-api-gateway-private-apis-integration/cost-optimization.html",
        "2026-11",
    ),
    Alternative(
        "ElastiCache Serverless, Valkey: `INCR`",
        0.0023,
        "0.0023 a million ECPUs, one an `INCR`; besides at least 0.1 GB at 0.084 a GB-hour, so"
        " 6.1 a month",
        f"{_FRONT}, a function in its VPC, a repeat without harm, history",
        "https://www.usage.ai/blogs/aws/database-savings-plans/elasticache/serverless-pricing/",
        "2026-06",
    ),
    Alternative(
        "Firestore, a US region: one document written",
        0.90,
        "0.09 for 100,000 writes; a transaction that reads first adds 0.03 for 100,000 reads",
        "a repeat without harm, history (a write more: 0.90)",
        "https://airbyte.com/data-engineering-resources/google-firestore-pricing",
        "2026-11",
    ),
    Alternative(
        "Cloudflare Durable Object: a request and a row written",
        1.15,
        "0.15 a million requests, 1.00 a million rows; besides 12.50 a million GB-s awake",
        "a Worker in front, tokens, history (a row more: 1.00)",
        "https://www.oflight.co.jp/en/columns/cloudflare-durable-objects-2026-07",
        "2026-07",
    ),
    Alternative(
        "Upstash Redis, pay as you go: `INCR`",
        2.00,
        "0.20 for 100,000 commands, over HTTPS",
        "tokens by scope, a repeat without harm, history (a command more: 2.00)",
        "https://docs.flexprice.io/cookbooks/pricing-teardowns/upstash-pricing.md",
        "2026-11",
    ),
)
