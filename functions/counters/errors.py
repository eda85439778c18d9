"""What can go wrong, and what the caller is told: each error is a problem (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import ClassVar

from counters.model import Bounds, Condition, Counter


class CounterError(Exception):
    """What Tally refuses or cannot do.

    `status` is the HTTP status and `kind` the end of the problem's `type`. The text is its
    `detail`, for the caller to read. `members` and `headers` are what else this answer has.
    """

    status: ClassVar[HTTPStatus]
    kind: ClassVar[str]
    members: Mapping[str, object] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})


class InvalidRequestError(CounterError):
    """The request is malformed: the text names the field and says why."""

    status = HTTPStatus.BAD_REQUEST
    kind = "invalid-request"


class UnauthorizedError(CounterError):
    """The request does not say who sends it."""

    status = HTTPStatus.UNAUTHORIZED
    kind = "unauthorized"


class NotFoundError(CounterError):
    """There is no such version, or its history has expired."""

    status = HTTPStatus.NOT_FOUND
    kind = "not-found"


class BoundExceededError(CounterError):
    """The change would leave its bounds or the range of integers; nothing was written."""

    status = HTTPStatus.CONFLICT
    kind = "bound-exceeded"

    def __init__(self, bounds: Bounds, standing: Counter, field: str = "by") -> None:
        """Take the bounds, where the counter stands, and the field that asks for the change."""
        super().__init__(f"{field}: the result would not be from {bounds.low} to {bounds.high}")
        self.members = {"value": standing.value}


class InProgressError(CounterError):
    """An earlier request with this idempotency key is unresolved."""

    status = HTTPStatus.CONFLICT
    kind = "in-progress"

    def __init__(self, retry_after: int) -> None:
        """Take the number of seconds after which it can be resolved."""
        super().__init__("An earlier request with this key is unresolved. Repeat it later.")
        self.headers = {"Retry-After": str(retry_after)}


class VersionMismatchError(CounterError):
    """The condition of the request does not hold; nothing was written."""

    status = HTTPStatus.PRECONDITION_FAILED
    kind = "version-mismatch"

    def __init__(self, condition: Condition, standing: Counter) -> None:
        """Take the condition, and where the counter stands."""
        detail = f"the counter has version {standing.version}"
        match condition.versions:
            case None:
                detail += ": it was never written"
            case (version,):
                detail += f", not {version}"
            case _:
                detail += ", which is not one of those asked for"
        super().__init__(detail)
        self.headers = {"ETag": standing.entity_tag()}


class KeyReusedError(CounterError):
    """The idempotency key was used with another body; nothing was written."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    kind = "idempotency-key-reused"


class ThrottledError(CounterError):
    """Nothing was applied. The same request may succeed later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "throttled"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        """Take the text, and the number of seconds after which a repeat may succeed."""
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after)}


class OutcomeUnknownError(CounterError):
    """A reply of the database was lost, and whether the change was applied is not known."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "outcome-unknown"


class InternalError(CounterError):
    """A fault of the service: an exception that it did not expect."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "internal-error"

    def __init__(self) -> None:
        """Say where the exception is; its own text is not for the caller."""
        super().__init__("This is a fault of the service; its log has it under the request id.")
