"""Errors that Tally reports to the caller, each as a problem document (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import ClassVar

from counters.model import Bounds, Condition, Counter


class CounterError(Exception):
    """The base class of all errors in this module.

    The text of an error becomes the `detail` of the problem document.

    Attributes:
        status: the HTTP status.
        kind: the last part of the problem's `type`.
        members: additional members of the problem document.
        headers: additional headers of the response.
    """

    status: ClassVar[HTTPStatus]
    kind: ClassVar[str]
    members: Mapping[str, object] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})


class InvalidRequestError(CounterError):
    """The request is malformed. The error's text names the invalid part and says what is wrong."""

    status = HTTPStatus.BAD_REQUEST
    kind = "invalid-request"


class UnauthorizedError(CounterError):
    """API Gateway did not verify who sent the request, or the access token lacks its rights."""

    status = HTTPStatus.UNAUTHORIZED
    kind = "unauthorized"


class ForbiddenError(CounterError):
    """The access token does not allow the counter."""

    status = HTTPStatus.FORBIDDEN
    kind = "forbidden"


class NotFoundError(CounterError):
    """The requested version does not exist or has expired, or the counter is not public."""

    status = HTTPStatus.NOT_FOUND
    kind = "not-found"


class BoundExceededError(CounterError):
    """The result of an increment would be outside its bounds. Nothing was written."""

    status = HTTPStatus.CONFLICT
    kind = "bound-exceeded"

    def __init__(self, bounds: Bounds, current: Counter, field: str = "by") -> None:
        """Describe a refused increment.

        Args:
            bounds: the bounds of the increment.
            current: the counter, which the increment did not change.
            field: where the request has the field `by` of this increment, for the error's text.
        """
        super().__init__(f"{field}: the result would be outside {bounds.low} to {bounds.high}")
        self.members = {"value": current.value}


class InProgressError(CounterError):
    """It is not known yet whether an earlier request with this idempotency key made its change."""

    status = HTTPStatus.CONFLICT
    kind = "in-progress"

    def __init__(self, retry_after: int) -> None:
        """Describe the conflict.

        Args:
            retry_after: in how many seconds the outcome of the earlier request is final.
        """
        super().__init__(
            "It is not known yet whether an earlier request with this key was applied. Retry after"
            " the number of seconds in Retry-After."
        )
        self.headers = {"Retry-After": str(retry_after)}


class VersionMismatchError(CounterError):
    """The condition in If-Match or If-None-Match does not hold. Nothing was written."""

    status = HTTPStatus.PRECONDITION_FAILED
    kind = "version-mismatch"

    def __init__(self, condition: Condition, current: Counter) -> None:
        """Describe a condition that does not hold.

        Args:
            condition: the condition.
            current: the counter as it is now.
        """
        match condition.versions:
            case None:
                detail = "The counter was never written: its version is 0."
            case (0,):
                detail = f"The counter already exists: its version is {current.version}."
            case (version,):
                detail = f"The counter has version {current.version}, not {version}."
            case _:
                detail = f"The counter has version {current.version}, which If-Match does not list."
        super().__init__(detail)
        self.headers = {"ETag": current.entity_tag()}


class KeyReusedError(CounterError):
    """An earlier request had this idempotency key and a different body. Nothing was written."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    kind = "idempotency-key-reused"


class ThrottledError(CounterError):
    """Nothing was applied. The same request may succeed later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "throttled"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        """Describe the error.

        Args:
            detail: the text of the error.
            retry_after: in how many seconds a retry may succeed.
        """
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after)}


class OutcomeUnknownError(CounterError):
    """DynamoDB's reply was lost, and it is unknown whether the change was applied."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "outcome-unknown"


class InternalError(CounterError):
    """Tally has a bug: a function raised an exception that is not a CounterError."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "internal-error"

    def __init__(self) -> None:
        """Describe the error without the exception's text, which may contain private data."""
        super().__init__("Tally failed. Search the function's log for the id in `instance`.")
