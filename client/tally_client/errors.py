"""Errors: what a call raises, and what each error says about the change."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tally_client.batches import Batch
    from tally_client.sums import Refusal


class TallyError(Exception):
    """The root of all errors of this package."""

    def __reduce__(self) -> tuple[object, ...]:
        """Return how to copy the error, also into another process (`pickle`)."""
        return _copy, (type(self), self.args, self.__dict__)


def _copy(
    kind: type[TallyError], arguments: tuple[object, ...], attributes: dict[str, object]
) -> TallyError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class SettingsMissing(TallyError):
    """The address of the service, or the credentials of the client, are missing or invalid."""


class Refused(TallyError):
    """The service refused the request. Nothing was applied.

    Attributes:
        status: the HTTP status of the answer.
        kind: the last part of the problem's `type`, such as `not-found`. Empty if the answer is not
            a problem of Tally.
        request_id: the member `instance` of the problem. The service logs the same id.
        settles: whether the service gives this answer only if no earlier request with the same
            idempotency key was applied. A request that is still on its way can be applied later.
    """

    settles: ClassVar[bool] = False

    def __init__(
        self, detail: str, *, status: int = 400, kind: str = "", request_id: str | None = None
    ) -> None:
        """Describe a refusal by the service; `detail` is a text for people."""
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.request_id = request_id


class InvalidRequest(Refused):
    """The request is not valid (400, 413, 415). The text says which part, and why.

    The client checks arguments before it sends anything, so usually nothing was sent.
    """


class Unauthorized(Refused):
    """The service or the token endpoint refused the credentials, or a scope is missing (401)."""


class Forbidden(Refused):
    """The client may not make this request (403)."""


class NotFound(Refused):
    """There is no such version or route, or this part of the history has expired (404)."""


class BoundExceeded(Refused):
    """The result would be below `min`, above `max`, or outside the range of a counter (409).

    Attributes:
        value: the current value of the counter.
    """

    settles = True

    def __init__(self, detail: str, *, value: int | None, request_id: str | None = None) -> None:
        """Describe the refusal; `value` is the current value of the counter."""
        super().__init__(detail, status=409, kind="bound-exceeded", request_id=request_id)
        self.value = value


class VersionMismatch(Refused):
    """The counter does not have the version in `if_version` (412).

    Attributes:
        version: the current version of the counter.
    """

    def __init__(self, detail: str, *, version: int | None, request_id: str | None = None) -> None:
        """Describe the refusal; `version` is the current version of the counter."""
        super().__init__(detail, status=412, kind="version-mismatch", request_id=request_id)
        self.version = version


class IdempotencyKeyReused(Refused):
    """An earlier request with this key had other content (422)."""

    settles = True


class Unavailable(TallyError):
    """The service did not accept the request before the deadline. Nothing was applied.

    This is certain: every attempt was throttled, or was never sent.
    """


class OutcomeUnknown(TallyError):
    """It is not known whether the change was applied. It was applied once, or not at all.

    Attributes:
        key: the idempotency key of the change. To resume, make the same call with this key. A key
            is valid for at least 24 hours. Another process must wait for a minute before it
            resumes (docs/client.md). None for `set`, which has no key.
        refusal: the refusal of the last attempt. An earlier attempt, or an earlier call with the
            key, may have been applied. None if the last attempt was not refused.
    """

    def __init__(self, reason: str, *, key: str | None, refusal: Refused | None = None) -> None:
        """Describe the last attempt in `reason`, a text for people."""
        resume = f" Resume with the key {key}." if key else ""
        super().__init__(f"It is not known whether the change was applied. {reason}{resume}")
        self.key = key
        self.refusal = refusal


class BufferFull(TallyError):
    """The buffer has no room for another counter. This increment was not accepted."""


class Unsent(TallyError):
    """The buffer could not send everything. The buffer keeps what it did not send.

    Attributes:
        batches: the batches that were not applied for certain, each with its key.
        refused: the sums that the service refused. They were not applied.
    """

    def __init__(self, batches: Sequence[Batch], refused: Sequence[Refusal]) -> None:
        """List what was not sent."""
        self.batches = tuple(batches)
        self.refused = tuple(refused)
        reasons = {batch.reason for batch in batches if batch.reason}
        reasons |= {f"{each.increment.counter_id}: {each.error}" for each in refused}
        super().__init__(
            f"{len(self.batches)} batches are not known to be applied,"
            f" and {len(self.refused)} sums were refused. {' '.join(sorted(reasons))}".rstrip()
        )
