"""AWS clients, created once per process on first use, and helpers that classify AWS errors.

The SDK never retries: each client sends a request once. Tally retries requests in two places:
- `answered` retries an idempotent request until the time is up.
- The module `attempt` retries a change, but only if the change certainly was not applied.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
)

from counters import clock, connection, init_phase
from counters.errors import ThrottledError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
    from mypy_boto3_sqs import SQSClient

_CONNECT_TIMEOUT = 1  # seconds
_READ_TIMEOUT = 2  # seconds

# The longest time that one request to AWS takes after the address was looked up, plus half a second
# for the function's own work, in seconds. A function that has less time than this before its
# timeout starts no request.
ATTEMPT = _CONNECT_TIMEOUT + _READ_TIMEOUT + 0.5

# botocore builds its default user agent twice per request. A fixed user agent saves this CPU time.
# docs/benchmarks.md has the figures.
_USER_AGENT = f"tally botocore/{botocore.__version__}"

# Lambda sets the level of all loggers to INFO. At that level, botocore would write a log line that
# says where it found its credentials.
logging.getLogger("botocore").setLevel(logging.WARNING)

T = TypeVar("T")

# A service returns one of these error codes only if it did not start to process the request.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ThrottlingException",
    "TransactionConflictException",
}

# DynamoDB gives a reason for each write of a canceled transaction. If all reasons are in this set,
# the transaction may be retried.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
_CANCELED = {"None", "ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"}

_SERVER_ERRORS = 500  # the lowest HTTP status that is a server error

# `answered` sends a request at most this many times. If each try fails at once, all tries and the
# pauses between them take about ten seconds. Without this limit, a function that may run for
# minutes would spend all its time on one request during an outage.
_MOST_ATTEMPTS = 20


class UndecidedError(Exception):
    """The result is not known: AWS did not answer, or the answers do not show the result yet."""


@cache
def dynamodb() -> "DynamoDBClient":
    """Return the client for DynamoDB."""
    return cast("DynamoDBClient", _client("dynamodb"))


@cache
def sqs() -> "SQSClient":
    """Return the client for SQS."""
    return cast("SQSClient", _client("sqs"))


@cache
def ssm() -> Any:  # noqa: ANN401  only GetParameter is used, and its types would be a package
    """Return the client for Systems Manager, whose Parameter Store has the dashboard's settings."""
    return _client("ssm")


@cache
def _session() -> botocore.session.Session:
    # boto3 would create the same clients. But boto3 also imports code for S3 and for its resource
    # API. Tally does not use that code, and the import makes each cold start slower.
    return botocore.session.get_session()


def _client(service: str) -> object:
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": 1},
        user_agent=_USER_AGENT,
        # botocore's validation of parameters takes CPU time. Only the tests turn it on.
        parameter_validation=False,
        # botocore could send some requests to an address that contains the account's id. These
        # requests would need a second connection.
        account_id_endpoint_mode="disabled",
    )
    client = _session().create_client(service, config=config)
    if init_phase.in_lambda():
        connection.of(client)
    return client


def not_applied(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised `error` certainly was not applied and never will be.

    If so, the request may be retried, even if it is not idempotent.
    """
    if isinstance(error, ClientError):
        codes = {reason["Code"] for reason in cancellation_reasons(error)}
        return not _server_error(error) and (
            error.response["Error"]["Code"] in _THROTTLED or (bool(codes) and codes <= _CANCELED)
        )
    return isinstance(error, (ConnectTimeoutError, EndpointConnectionError))


def may_be_applied(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised `error` may have been applied or may still be applied.

    The result is True in these cases:
    - There is no reply: it was lost, or the SDK failed for any reason other than that it could not
      connect.
    - The reply is a 5xx: DynamoDB can complete a write after it returned an error.
    - The reply is "transaction in progress": an earlier request with the same transaction token is
      still running.
    """
    if isinstance(error, ClientError):
        in_progress = error.response["Error"]["Code"] == "TransactionInProgressException"
        return in_progress or _server_error(error)
    return not not_applied(error)


def _server_error(error: ClientError) -> bool:
    return error.response["ResponseMetadata"]["HTTPStatusCode"] >= _SERVER_ERRORS


def cancellation_reasons(error: ClientError) -> list[dict[str, Any]]:
    """Return why DynamoDB canceled a transaction: one reason for each write of the transaction.

    Each reason has a `Code`. If the condition of a write failed, and the request asked for the
    item, the reason of this write also has the `Item`. If `error` is not the error of a canceled
    transaction, the list is empty.
    """
    reasons: list[dict[str, Any]] = cast("dict[str, Any]", error.response).get(
        "CancellationReasons", []
    )
    return reasons


def unanswered(error: BotoCoreError | ClientError) -> bool:
    """Return whether an idempotent request that raised `error` has no answer yet.

    If so, the request may be retried. If not, `error` is itself the answer: for example, that a
    condition failed, or that the request is malformed.
    """
    return not_applied(error) or may_be_applied(error)


def answered(until: float, request: "Callable[[], T]") -> T:
    """Send an idempotent request, and repeat it with pauses until it is answered.

    Args:
        until: latest time to send the request, in seconds since the epoch.
        request: a function that sends the request once and returns the answer.

    Returns:
        The answer.

    Raises:
        UndecidedError: if there was no answer by `until`, or after 20 tries.
        ClientError: if the answer is an error, for example that a condition failed.
    """
    cause: Exception | None = None
    for _ in clock.attempts(until, _MOST_ATTEMPTS):
        try:
            return request()
        except (BotoCoreError, ClientError) as error:
            if not unanswered(error):
                raise
            cause = error
    raise UndecidedError from cause


@contextmanager
def must_answer() -> Iterator[None]:
    """Turn UndecidedError into ThrottledError, which tells the caller of Tally to retry.

    Use this context manager only around AWS requests that may be repeated: reads, and writes that
    have no further effect if they are repeated.

    Raises:
        ThrottledError: if there was no answer in time.
    """
    try:
        yield
    except UndecidedError as error:
        detail = "An AWS service did not answer in time."
        raise ThrottledError(detail) from error


def get_item(
    table: str, key: "Mapping[str, AttributeValueTypeDef]", until: float
) -> "Mapping[str, AttributeValueTypeDef]":
    """Return the item with the given key, with a strongly consistent read.

    Args:
        table: the table's name.
        key: the key.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The item; empty if there is no item with that key.

    Raises:
        ThrottledError: if there was no answer in time.
    """
    with must_answer():
        reply = answered(
            until, lambda: dynamodb().get_item(TableName=table, Key=key, ConsistentRead=True)
        )
    return reply.get("Item", {})


def get_items(
    table: str,
    keys: "Sequence[Any]",
    until: float,
    **options: Any,  # noqa: ANN401
) -> "list[Mapping[str, AttributeValueTypeDef]]":
    """Return the items with the given keys, with strongly consistent reads.

    DynamoDB may leave some keys unprocessed. This function then requests those keys again.
    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html

    Args:
        table: the table's name.
        keys: at most 100 keys, without duplicates.
        until: latest time to start a read, in seconds since the epoch.
        options: additional parameters of the read, such as ProjectionExpression.

    Returns:
        The items that exist, in any order.

    Raises:
        UndecidedError: if there was no answer in time.
    """
    items: list[Mapping[str, AttributeValueTypeDef]] = []
    for _ in clock.attempts(until):
        request: Any = {table: {"Keys": keys, "ConsistentRead": True, **options}}
        reply = answered(
            until,
            lambda: dynamodb().batch_get_item(RequestItems=request),  # noqa: B023
        )
        items += reply.get("Responses", {}).get(table, [])
        left = reply.get("UnprocessedKeys", {}).get(table)
        if not left:
            return items
        keys = left["Keys"]
    raise UndecidedError
