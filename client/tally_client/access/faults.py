"""Errors of AWS requests, as the errors of this package."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tally_client.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Refused,
    SettingsMissing,
    TallyError,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.exceptions import BotoCoreError, ClientError

_THROTTLED = {
    "ConcurrentModificationException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionConflictException",
}
# Cognito tried to send a message. It does not say whether it created the person.
_UNDELIVERED = "CodeDeliveryFailureException"
_SERVER_ERRORS = 500  # the lowest HTTP status that is a server error

# The class of a refusal, by the error code of AWS. Other codes raise Refused.
_REFUSALS: dict[str, type[Refused]] = {
    **dict.fromkeys(
        (
            "AccessDenied",
            "AccessDeniedException",
            "NotAuthorizedException",
            "UnauthorizedException",
            "UnauthorizedOperation",
        ),
        Forbidden,
    ),
    **dict.fromkeys(
        (
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "IncompleteSignatureException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "OptInRequired",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ),
        Unauthorized,
    ),
    **dict.fromkeys(("ResourceNotFoundException", "UserNotFoundException"), NotFound),
    **dict.fromkeys(
        (
            "InvalidParameterException",
            "InvalidPasswordException",
            "ValidationError",
            "ValidationException",
        ),
        InvalidRequest,
    ),
}


@contextmanager
def reported(*, changes: bool) -> Iterator[None]:
    """Raise errors of this package for the errors of an AWS request.

    Args:
        changes: whether the request changes something. Without an answer, its outcome is unknown.

    Raises:
        Refused: AWS refused the request. `kind` is the error code of AWS.
        SettingsMissing: the request could not be sent, for example because there are no
            credentials.
        Unavailable: AWS could not be reached, or throttled the request. Or AWS did not answer a
            request that changes nothing.
        OutcomeUnknown: AWS did not answer a request that changes something.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        raise _of_answer(error, changes=changes) from error
    except BotoCoreError as error:
        raise _without_answer(error, changes=changes) from error
    except (ResponseParserError, KeyError) as error:  # KeyError: the answer lacks a member
        detail = "AWS did not answer: the answer came from something else."
        raise _unanswered(detail, changes=changes) from error
    except OSError as error:  # a file or a program that AWS's configuration names
        raise SettingsMissing(_settings_detail(error)) from error


@contextmanager
def of_settings() -> Iterator[None]:
    """Raise SettingsMissing for the errors of creating AWS sessions and clients."""
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        yield
    except (BotoCoreError, OSError, ValueError) as error:
        raise SettingsMissing(_settings_detail(error)) from error


def _of_answer(error: ClientError, *, changes: bool) -> TallyError:
    """Return the error for an answer of AWS that is an error."""
    code = error.response.get("Error", {}).get("Code", "")
    metadata = error.response.get("ResponseMetadata", {})
    message = error.response.get("Error", {}).get("Message", "").strip()
    detail = f"AWS refused {error.operation_name}: {code}: {message}".rstrip(": ")
    status = metadata.get("HTTPStatusCode", 400)
    if code in _THROTTLED:
        return Unavailable(detail)
    if status >= _SERVER_ERRORS or code == _UNDELIVERED:
        return _unanswered(detail, changes=changes)
    kind = _REFUSALS.get(code, Refused)
    return kind(detail, status=status, kind=code, request_id=metadata.get("RequestId"))


def _without_answer(error: BotoCoreError, *, changes: bool) -> TallyError:
    """Return the error for a request to which AWS did not answer."""
    from botocore import exceptions  # noqa: PLC0415

    never_connected = (
        exceptions.ConnectTimeoutError,
        exceptions.EndpointConnectionError,
        exceptions.ProxyConnectionError,
    )
    if isinstance(error, never_connected):
        return Unavailable(f"AWS could not be reached: {error}")
    if isinstance(error, (exceptions.ConnectionError, exceptions.HTTPClientError)):
        return _unanswered(f"AWS did not answer: {error}", changes=changes)
    if isinstance(error, exceptions.ParamValidationError):
        return InvalidRequest(str(error))
    return SettingsMissing(_settings_detail(error))


def _unanswered(detail: str, *, changes: bool) -> TallyError:
    return OutcomeUnknown(detail, key=None) if changes else Unavailable(detail)


def _settings_detail(error: Exception) -> str:
    return f"The AWS settings of this user cannot be used: {error}"
