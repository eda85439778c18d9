"""List prices in US dollars, without free tiers: AWS in us-east-1, and alternatives to Tally."""

from dataclasses import dataclass

MILLION = 1_000_000
GIGABYTE = 1_000_000_000  # bytes


@dataclass(frozen=True)
class Price:
    """The price of one unit.

    Attributes:
        name: what is charged for.
        dollars: the price of one unit.
        unit: the unit, in the singular.
        source: the page that has the price.
        date: the month in which the page was read.
    """

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
TRANSITION = Price(
    "Step Functions, standard workflows",
    0.025 / 1000,
    "state transition",
    "https://aws.amazon.com/step-functions/pricing/",
)
DATA_OUT = Price(
    "Data out to the internet",
    0.09 / GIGABYTE,
    "byte",
    "https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer",
)
# Cognito does not charge for app clients. It stopped in November 2025.
# https://aws.amazon.com/about-aws/whats-new/2025/11/amazon-cognito-removes-machine-machine-app-client-price-dimension/
TOKEN = Price(
    "Cognito, tokens for programs",
    2.25 / 1000,
    "token",
    "https://aws.amazon.com/cognito/pricing/",
    "2026-09",
)
PERSON = Price(
    "Cognito Essentials, people beyond the first 10,000",
    0.015,
    "person and month",
    "https://aws.amazon.com/cognito/pricing/",
    "2026-09",
)
AWS = (
    *(WRITE_UNIT, READ_UNIT, API_REQUEST, LAMBDA_REQUEST, LAMBDA_TIME),
    *(LOGS, SQS_REQUEST, SQS_STANDARD_REQUEST, EVENT, TRACE, DATA_OUT),
    *(TOKEN, PERSON),
)


@dataclass(frozen=True)
class Alternative:
    """Another managed service that can count, and what it charges for a million increments.

    Attributes:
        name: the service, and the operation that counts.
        dollars: the price of a million increments, beyond what a plan includes.
        how: the published prices from which `dollars` is calculated.
        lacks: what an increment of Tally includes and this service does not.
        source: the public page that has the prices.
        date: the month that the page gives for its prices. If the page gives no month, the month in
            which the page was read.
    """

    name: str
    dollars: float
    how: str
    lacks: str
    source: str
    date: str


_FRONT = "an HTTPS endpoint, tokens"
_REST = "a function, a database, tokens, history"

ALTERNATIVES = (
    Alternative(
        "API Gateway HTTP API alone",
        1.00,
        "1.00 per million requests",
        _REST,
        "https://docs.aws.amazon.com/pt_br/whitepapers/latest/best-practices-api-gateway-private-apis-integration/cost-optimization.html",
        "2026-11",
    ),
    Alternative(
        "API Gateway REST API alone",
        3.50,
        "3.50 per million requests",
        _REST,
        "https://docs.aws.amazon.com/pt_br/whitepapers/latest/best-practices-api-gateway-private-apis-integration/cost-optimization.html",
        "2026-11",
    ),
    Alternative(
        "ElastiCache Serverless, Valkey: `INCR`",
        0.0023,
        "0.0023 per million ECPUs, one per `INCR`; plus at least 0.1 GB at 0.084 per GB-hour, which"
        " is 6.1 per month",
        f"{_FRONT}, a function in its VPC, safe repeats, history",
        "https://www.usage.ai/blogs/aws/database-savings-plans/elasticache/serverless-pricing/",
        "2026-06",
    ),
    Alternative(
        "Firestore, a US region: one document written",
        0.90,
        "0.09 per 100,000 writes; a transaction that reads first adds 0.03 per 100,000 reads",
        "safe repeats, history (one more write: 0.90)",
        "https://airbyte.com/data-engineering-resources/google-firestore-pricing",
        "2026-11",
    ),
    Alternative(
        "Cloudflare Durable Object: a request and a row written",
        1.15,
        "0.15 per million requests, 1.00 per million rows; plus 12.50 per million GB-s awake",
        "a Worker in front, tokens, history (one more row: 1.00)",
        "https://www.oflight.co.jp/en/columns/cloudflare-durable-objects-2026-07",
        "2026-07",
    ),
    Alternative(
        "Upstash Redis, pay as you go: `INCR`",
        2.00,
        "0.20 per 100,000 commands, over HTTPS",
        "tokens with scopes, safe repeats, history (one more command: 2.00)",
        "https://docs.flexprice.io/cookbooks/pricing-teardowns/upstash-pricing.md",
        "2026-11",
    ),
)
