"""Converts problems, the error answers of the service, into exceptions (docs/api.md, Problems)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tally_client.errors import (
    BoundExceeded,
    Forbidden,
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    Refused,
    Unauthorized,
    VersionMismatch,
)

if TYPE_CHECKING:
    from tally_client.exchange import Reply

_PREFIX = "urn:tally:problem:"

_BY_STATUS = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
}


def kind_of(reply: Reply) -> str:
    """Return the last part of the problem's `type`; empty if the answer is not a problem."""
    kind = _members(reply).get("type")
    return kind.removeprefix(_PREFIX) if isinstance(kind, str) and kind.startswith(_PREFIX) else ""


def detail_of(reply: Reply) -> str:
    """Return the problem's `detail`, or the status of an answer that is not a problem."""
    members = _members(reply)
    detail = members.get("detail") or members.get("message")
    return detail if isinstance(detail, str) else f"The service answered {reply.status}."


def refusal(reply: Reply) -> Refused:
    """Convert an answer with a 4xx status.

    The status decides where the kind is missing: the local stack's own errors have other members.
    """
    members, kind = _members(reply), kind_of(reply)
    text = detail_of(reply)
    instance = members.get("instance")
    request_id = instance if isinstance(instance, str) else None
    if kind == "bound-exceeded":
        value = members.get("value")
        known = value if isinstance(value, int) else None
        return BoundExceeded(text, value=known, request_id=request_id)
    if kind == "version-mismatch":
        tag = reply.headers.get("ETag", "").strip('"')
        version = int(tag) if tag.isascii() and tag.isdigit() else None
        return VersionMismatch(text, version=version, request_id=request_id)
    if kind == "idempotency-key-reused":
        return IdempotencyKeyReused(text, status=reply.status, kind=kind, request_id=request_id)
    error = _BY_STATUS.get(reply.status, Refused)
    return error(text, status=reply.status, kind=kind, request_id=request_id)


def _members(reply: Reply) -> dict[str, object]:
    return reply.document if isinstance(reply.document, dict) else {}
