"""AWS clients, created once per process on first use, and helpers that classify their errors.

A client makes one attempt. Whether a request may be repeated depends on what it does, and how often
on the time that is left. So the SDK retries nothing: `answered` repeats idempotent requests, and
`attempt` sends changes again.
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

# The longest that one attempt takes, and a little for all around it, in seconds. No attempt begins
# later than this before a function's timeout.
ATTEMPT = _CONNECT_TIMEOUT + _READ_TIMEOUT + 0.5

# botocore's own is longer and is built twice per request: a fifth of an increment's CPU.
_USER_AGENT = f"tally botocore/{botocore.__version__}"

# Lambda's level INFO holds for every logger: botocore would log where it found its credentials.
logging.getLogger("botocore").setLevel(logging.WARNING)

T = TypeVar("T")

# What a service answers before it has touched the item or the message.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ThrottlingException",
    "TransactionConflictException",
}

# Why DynamoDB cancels a transaction that may be repeated: each of its writes has a reason.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
_CANCELED = {"None", "ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"}

_SERVER_ERRORS = 500  # and above: HTTP statuses

# With the pauses, some ten seconds. A function that has more time does not spend all of it on an
# outage.
_MOST_ATTEMPTS = 20


class UndecidedError(Exception):
    """What was asked is not known: there was no answer, or it shows nothing yet."""


@cache
def dynamodb() -> "DynamoDBClient":
    """Return the client for DynamoDB."""
    return cast("DynamoDBClient", _client("dynamodb"))


@cache
def sqs() -> "SQSClient":
    """Return the client for the queues."""
    return cast("SQSClient", _client("sqs"))


@cache
def _session() -> botocore.session.Session:
    # boto3 creates the same clients, but importing its S3 and resource code takes a fifth of a cold
    # start.
    return botocore.session.get_session()


def _client(service: str) -> object:
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": 1},
        user_agent=_USER_AGENT,
        # The functions' own types make the requests, and the tests validate them: 7 % of an
        # increment's CPU.
        parameter_validation=False,
        # All requests go to the address that the connection is open to.
        account_id_endpoint_mode="disabled",
    )
    client = _session().create_client(service, config=config)
    if init_phase.in_lambda():
        connection.of(client)
    return client


def not_applied(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised this certainly changed nothing and never will.

    Such a request may be repeated.
    """
    if isinstance(error, ClientError):
        codes = {reason["Code"] for reason in cancellation_reasons(error)}
        return not _server_error(error) and (
            error.response["Error"]["Code"] in _THROTTLED or (bool(codes) and codes <= _CANCELED)
        )
    return isinstance(error, (ConnectTimeoutError, EndpointConnectionError))


def may_be_applied(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised this may have made its change, or may still make it.

    A lost reply leaves that open, and so does a 5xx: DynamoDB may complete a write after it. A
    transaction that is in progress is the same one, under the same token.
    """
    if isinstance(error, ClientError):
        in_progress = error.response["Error"]["Code"] == "TransactionInProgressException"
        return in_progress or _server_error(error)
    return not not_applied(error)


def _server_error(error: ClientError) -> bool:
    return error.response["ResponseMetadata"]["HTTPStatusCode"] >= _SERVER_ERRORS


def cancellation_reasons(error: ClientError) -> list[dict[str, Any]]:
    """Return why a transaction was canceled: a reason for each of its writes, with its `Code`.

    A failed condition comes with the `Item` that it was about, if the request asked for it. Other
    errors have no reasons.
    """
    reasons: list[dict[str, Any]] = cast("dict[str, Any]", error.response).get(
        "CancellationReasons", []
    )
    return reasons


def unanswered(error: BotoCoreError | ClientError) -> bool:
    """Return whether an idempotent request that raised this may be repeated.

    Anything else is an answer: a refusal, or a fault of ours.
    """
    return not_applied(error) or may_be_applied(error)


def answered(until: float, request: "Callable[[], T]") -> T:
    """Return the answer to an idempotent request. It is repeated, with pauses, until there is one.

    Args:
        until: latest time to start an attempt, in seconds since the epoch.
        request: makes one attempt.

    Raises:
        UndecidedError: there was no answer in time, or to so many attempts.
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
    """Wrap idempotent requests that the caller may ask for again.

    Raises:
        ThrottledError: there was no answer in time.
    """
    try:
        yield
    except UndecidedError as error:
        detail = "DynamoDB did not answer in time."
        raise ThrottledError(detail) from error


def get_items(
    table: str,
    keys: "Sequence[Any]",
    until: float,
    **more: Any,  # noqa: ANN401
) -> "list[Mapping[str, AttributeValueTypeDef]]":
    """Return those of at most 100 items that exist, in any order (strongly consistent reads).

    DynamoDB may process a part of the keys only. The rest is asked for again.
    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html

    Args:
        table: the table's name.
        keys: the keys, without duplicates.
        until: latest time to start a read, in seconds since the epoch.
        more: what else the request asks for, such as a projection.

    Raises:
        UndecidedError: there was no answer in time.
    """
    items: list[Mapping[str, AttributeValueTypeDef]] = []
    for _ in clock.attempts(until):
        asked: Any = {table: {"Keys": keys, "ConsistentRead": True, **more}}
        reply = answered(until, lambda: dynamodb().batch_get_item(RequestItems=asked))  # noqa: B023
        items += reply.get("Responses", {}).get(table, [])
        left = reply.get("UnprocessedKeys", {}).get(table)
        if not left:
            return items
        keys = left["Keys"]
    raise UndecidedError
