"""AWS clients, created once per process on first use, and helpers that classify their errors.

The SDK never retries: each client sends a request once. `answered` retries idempotent requests
until the time is up. The module `attempt` retries changes, and only those that certainly were not
applied.
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

# The longest time that one attempt takes, plus half a second for the work around it, in seconds.
# A function starts no attempt when less than this is left before its timeout.
ATTEMPT = _CONNECT_TIMEOUT + _READ_TIMEOUT + 0.5

# botocore builds its default user agent twice per request. That is a fifth of an increment's CPU.
_USER_AGENT = f"tally botocore/{botocore.__version__}"

# Lambda sets the level of all loggers to INFO, at which botocore logs where it found credentials.
logging.getLogger("botocore").setLevel(logging.WARNING)

T = TypeVar("T")

# Error codes that say that the service did not start to process the request.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ThrottlingException",
    "TransactionConflictException",
}

# DynamoDB gives a reason for each write of a canceled transaction. If all reasons are among these,
# the transaction may be retried.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
_CANCELED = {"None", "ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"}

_SERVER_ERRORS = 500  # the lowest HTTP status that is a server error

# Twenty attempts and their pauses take about ten seconds if each attempt fails at once. So a
# function with minutes left does not spend all of them on an outage.
_MOST_ATTEMPTS = 20


class UndecidedError(Exception):
    """There is no result: the service did not answer, or its answers do not decide it yet."""


@cache
def dynamodb() -> "DynamoDBClient":
    """Return the client for DynamoDB."""
    return cast("DynamoDBClient", _client("dynamodb"))


@cache
def sqs() -> "SQSClient":
    """Return the client for SQS."""
    return cast("SQSClient", _client("sqs"))


@cache
def _session() -> botocore.session.Session:
    # boto3 would create the same clients, but importing its unused S3 and resource code takes a
    # fifth of a cold start.
    return botocore.session.get_session()


def _client(service: str) -> object:
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": 1},
        user_agent=_USER_AGENT,
        # Validation takes 7 % of an increment's CPU. The tests run with validation instead.
        parameter_validation=False,
        # An endpoint with the account's id would be a second address, with a connection of its own.
        account_id_endpoint_mode="disabled",
    )
    client = _session().create_client(service, config=config)
    if init_phase.in_lambda():
        connection.of(client)
    return client


def not_applied(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised `error` certainly was not applied and never will be.

    Such a request may always be retried.
    """
    if isinstance(error, ClientError):
        codes = {reason["Code"] for reason in cancellation_reasons(error)}
        return not _server_error(error) and (
            error.response["Error"]["Code"] in _THROTTLED or (bool(codes) and codes <= _CANCELED)
        )
    return isinstance(error, (ConnectTimeoutError, EndpointConnectionError))


def may_be_applied(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised `error` may have been applied, or may still be.

    There are three such cases:
    - The reply was lost.
    - The reply is a 5xx: DynamoDB can complete a write after it returned an error.
    - The reply is "transaction in progress": an earlier attempt, with the same token, still runs.
    """
    if isinstance(error, ClientError):
        in_progress = error.response["Error"]["Code"] == "TransactionInProgressException"
        return in_progress or _server_error(error)
    return not not_applied(error)


def _server_error(error: ClientError) -> bool:
    return error.response["ResponseMetadata"]["HTTPStatusCode"] >= _SERVER_ERRORS


def cancellation_reasons(error: ClientError) -> list[dict[str, Any]]:
    """Return why a transaction was canceled: one reason, with a `Code`, for each of its writes.

    The reason of a failed condition also has the `Item`, if the request asked for it. For any other
    error the list is empty.
    """
    reasons: list[dict[str, Any]] = cast("dict[str, Any]", error.response).get(
        "CancellationReasons", []
    )
    return reasons


def unanswered(error: BotoCoreError | ClientError) -> bool:
    """Return whether an idempotent request that raised `error` may be retried.

    Any other error is an answer, such as a failed condition or a malformed request.
    """
    return not_applied(error) or may_be_applied(error)


def answered(until: float, request: "Callable[[], T]") -> T:
    """Send an idempotent request until it is answered, with pauses, and return the answer.

    Args:
        until: latest time to start an attempt, in seconds since the epoch.
        request: sends the request once.

    Raises:
        UndecidedError: if there was no answer by `until`, or after 20 attempts.
        ClientError: if the answer is an error, such as a failed condition.
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
def reading() -> Iterator[None]:
    """Turn UndecidedError into ThrottledError, which asks the caller to retry.

    Use it only around requests that the caller may repeat.

    Raises:
        ThrottledError: if there was no answer in time.
    """
    try:
        yield
    except UndecidedError as error:
        detail = "DynamoDB did not answer in time."
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
        The item; empty if there is none.

    Raises:
        ThrottledError: if there was no answer in time.
    """
    with reading():
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

    DynamoDB may leave some keys unprocessed. Those are requested again.
    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html

    Args:
        table: the table's name.
        keys: at most 100 keys, without duplicates.
        until: latest time to start a read, in seconds since the epoch.
        options: additional members of the request for this table, such as a projection.

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
