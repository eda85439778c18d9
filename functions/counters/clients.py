"""The AWS clients, each made once a process when it is first asked for, and what they raise."""

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

from counters import clock
from counters.model import ThrottledError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

_CONNECT_TIMEOUT = 1  # seconds
_READ_TIMEOUT = 2  # seconds

# The longest that one attempt takes, and a little for all around it, in seconds: no attempt begins
# later than this before a function's timeout.
ATTEMPT = _CONNECT_TIMEOUT + _READ_TIMEOUT + 0.5

# Without it botocore makes a longer one, twice a request: a fifth of an increment's CPU.
_USER_AGENT = f"tally botocore/{botocore.__version__}"

T = TypeVar("T")

# What DynamoDB answers before it has touched the item.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",  # under the same token, which it is repeated with
}

# Why DynamoDB cancels a transaction that may be repeated: each of its writes has a reason.
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
_CANCELED = {"None", "ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"}


class UndecidedError(Exception):
    """What became of a request cannot be told yet."""


@cache
def dynamodb() -> "DynamoDBClient":
    """Return the client for reads and for writes that may be made twice: the SDK repeats them.

    Once, which together with its pause is over before a function's timeout.
    """
    return cast("DynamoDBClient", _client("dynamodb", attempts=2))


@cache
def dynamodb_once() -> "DynamoDBClient":
    """Return the client that changes counters and asks what became of a change.

    It makes one attempt: an `ADD` is not idempotent, and the SDK cannot know whether the attempt
    whose reply it lost was applied. Whoever calls it decides, and minds the time.
    """
    return cast("DynamoDBClient", _client("dynamodb", attempts=1))


@cache
def sqs() -> "SQSClient":
    """Return the client for the queues."""
    return cast("SQSClient", _client("sqs", attempts=2))


@cache
def _session() -> botocore.session.Session:
    # Not boto3's, which makes the same clients of it: a fifth of a cold start goes into importing
    # what boto3 has for S3 and for resources.
    return botocore.session.get_session()


def _client(service: str, attempts: int) -> object:
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": attempts},
        user_agent=_USER_AGENT,
        # What the functions ask for is made by their own types, and the tests do validate it: 7 %
        # of an increment's CPU.
        parameter_validation=False,
    )
    return _session().create_client(service, config=config)


def not_applied(error: BotoCoreError | ClientError) -> bool:
    """Return whether the request that raised this certainly changed nothing and may be repeated."""
    if isinstance(error, ClientError):
        codes = {reason["Code"] for reason in cancellation_reasons(error)}
        return error.response["Error"]["Code"] in _THROTTLED or (bool(codes) and codes <= _CANCELED)
    return isinstance(error, (ConnectTimeoutError, EndpointConnectionError))


def cancellation_reasons(error: ClientError) -> list[dict[str, Any]]:
    """Return why a transaction was canceled: a reason for each of its writes, with its `Code`.

    A failed condition comes with the `Item` that it was about, if that was asked for. There is none
    if the error is another.
    """
    reasons: list[dict[str, Any]] = cast("dict[str, Any]", error.response).get(
        "CancellationReasons", []
    )
    return reasons


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


def answered(until: float, request: "Callable[[], T]") -> T:
    """Return what is answered to a request that does no harm twice: it is repeated, with pauses.

    Args:
        until: when it may not be sent any more, in seconds since the epoch.
        request: sends it, once.

    Raises:
        UndecidedError: the database does not answer, and the time is up.
    """
    attempt = 0
    while clock.now() < until:
        try:
            return request()
        except (BotoCoreError, ClientError) as error:
            if not unanswered(error):
                raise
            if not clock.pause(attempt, until):
                raise UndecidedError from error
            attempt += 1
    raise UndecidedError
