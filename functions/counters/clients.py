"""The AWS clients, each made once a process when it is first asked for, and what they raise."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
)

from counters.model import ThrottledError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

_CONNECT_TIMEOUT = 1  # seconds
_READ_TIMEOUT = 2  # seconds

# The longest that one attempt takes, and a little for all around it, in seconds: no attempt begins
# later than this before a function's timeout.
ATTEMPT = _CONNECT_TIMEOUT + _READ_TIMEOUT + 0.5

# What DynamoDB answers before it has touched the item.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
}


@cache
def dynamodb() -> "DynamoDBClient":
    """Return the client for reads and for writes that may be made twice: the SDK repeats them.

    Once, which together with its pause is over before a function's timeout.
    """
    return boto3.client("dynamodb", config=_config(attempts=2))


@cache
def dynamodb_once() -> "DynamoDBClient":
    """Return the client that changes counters and asks what became of a change.

    It makes one attempt: an `ADD` is not idempotent, and the SDK cannot know whether the attempt
    whose reply it lost was applied. Whoever calls it decides, and minds the time.
    """
    return boto3.client("dynamodb", config=_config(attempts=1))


@cache
def sqs() -> "SQSClient":
    """Return the client for the queues."""
    return boto3.client("sqs", config=_config(attempts=2))


def _config(attempts: int) -> Config:
    return Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )


def not_applied(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised this certainly changed nothing and may be repeated."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"] in _THROTTLED
    return isinstance(error, (ConnectTimeoutError, EndpointConnectionError))


def reply_lost(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised this may have been applied all the same."""
    return answered_500(error) or not (isinstance(error, ClientError) or not_applied(error))


def answered_500(error: BotoCoreError | ClientError) -> bool:
    """Return whether DynamoDB answered with an error of its own.

    That leaves open whether a write was made, but says that it is not under way any more.
    """
    if not isinstance(error, ClientError):
        return False
    return error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500  # noqa: PLR2004


def unanswered(error: BotoCoreError | ClientError) -> bool:
    """Return whether the database did not answer, so that what does no harm twice may be repeated.

    Anything else is an answer: a refusal, or a fault of ours.
    """
    return not_applied(error) or reply_lost(error)


@contextmanager
def reading() -> Iterator[None]:
    """Wrap a read: one that the database did not answer may be asked again.

    Raises:
        ThrottledError: there was no answer.
    """
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        if not unanswered(error):
            raise
        detail = "the database does not answer"
        raise ThrottledError(detail) from error
