"""Retries: sends a request until the service has answered it, or until the deadline.

The rules follow docs/guarantees.md, section "What each answer promises".
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tally_client.errors import (
    InvalidRequest,
    OutcomeUnknown,
    Refused,
    TallyError,
    Unavailable,
    VersionMismatch,
)
from tally_client.exchange import ClientClosed, NoReply
from tally_client.problems import detail_of, kind_of, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tally_client.exchange import Reply, Request, Service

T = TypeVar("T")

_FIRST_PAUSE = 0.1  # seconds; the longest first pause
_LONGEST_PAUSE = 3.0  # seconds; Retry-After can ask for more
_SUCCESS = range(200, 300)
_NOT_MODIFIED = 304
_CLIENT_ERRORS = range(400, 500)
_THROTTLED = {429, 503}

# A retry can succeed after these 4xx statuses: request timeout (RFC 9110, section 15.5.9), too
# early (RFC 8470), too many requests (RFC 6585).
_TEMPORARY = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Again:
    """The request has to be sent again.

    Attributes:
        reason: what happened, as text for people.
        may_be_applied: whether this attempt, or an earlier one with the same key, may have made the
            change, or may still make it.
        after: in how many seconds the service wants the retry; 0 if it did not say.
    """

    reason: str
    may_be_applied: bool
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """How to retry a change.

    Attributes:
        key: the idempotency key; None for `set`.
        new_key: whether no earlier call can have used the key.
        repeatable: whether the request may be sent again when an earlier attempt may have been
            applied.
    """

    key: str | None
    new_key: bool = True
    repeatable: bool = True


def attempt(
    service: Service, request: Request, parse: Callable[[Reply], T], until: float
) -> T | Refused | Again:
    """Send a request once.

    Args:
        service: where to send the request.
        request: the request.
        parse: converts a successful answer. It raises ValueError if the answer is not what the
            request asks for. Then the answer counts as lost.
        until: latest time to wait for the answer (monotonic clock, seconds).

    Returns:
        What `parse` returns, a refusal by the service, or why the request has to be sent again.

    Raises:
        ClientClosed: the client is closed. Nothing was sent.
    """
    try:
        result = _attempt(service, request, parse, until)
    except ClientClosed:
        raise
    except BaseException:  # such as KeyboardInterrupt
        service.unanswered.note(request)
        raise
    if isinstance(result, Again) and result.may_be_applied:
        service.unanswered.note(request)
    return result


def _attempt(
    service: Service, request: Request, parse: Callable[[Reply], T], until: float
) -> T | Refused | Again:
    reply = service.exchange(request, until)
    if isinstance(reply, NoReply):
        return Again(reply.reason, may_be_applied=reply.sent)
    status = reply.status
    if status in _SUCCESS or (status == _NOT_MODIFIED and request.method == "GET"):
        try:
            return parse(reply)
        except ValueError as error:
            return Again(f"The answer is not valid: {error}.", may_be_applied=True)
    return _judge(reply)


def _judge(reply: Reply) -> Refused | Again:
    """Return what an answer without success says about the change."""
    status, kind = reply.status, kind_of(reply)
    if kind != "in-progress" and status in _CLIENT_ERRORS and status not in _TEMPORARY:
        return refusal(reply)
    throttled = kind == "throttled" and status in _THROTTLED
    return Again(detail_of(reply), may_be_applied=not throttled, after=_retry_after(reply))


def read(service: Service, request: Request, parse: Callable[[Reply], T], deadline: float) -> T:
    """Send a `GET` until it is answered.

    Args:
        service: where to send the request.
        request: the request.
        parse: as in `attempt`.
        deadline: how many seconds the call may take.

    Raises:
        Refused: the service refused the request.
        Unavailable: there was no answer before the deadline.
    """
    until = time.monotonic() + deadline
    number = 0
    while True:
        result = attempt(service, request, parse, until)
        if isinstance(result, Refused):
            raise result
        if not isinstance(result, Again):
            return result
        if not pause(number, result.after, until):
            raise Unavailable(result.reason)
        number += 1


def change(
    service: Service,
    request: Request,
    parse: Callable[[Reply], T],
    how: Change,
    deadline: float,
) -> T:
    """Send a change until its outcome is known.

    Args:
        service: where to send the request.
        request: the request. If `how` has a key, it has this key in its headers.
        parse: as in `attempt`.
        how: how to retry the change.
        deadline: how many seconds the call may take.

    Raises:
        Refused: the service refused the change. Nothing was applied.
        Unavailable: the deadline has passed, and certainly nothing was applied.
        OutcomeUnknown: the change was applied once, or not at all.
    """
    try:
        return _change(service, request, parse, how, time.monotonic() + deadline)
    except (TallyError, ClientClosed):
        raise
    except BaseException as error:  # such as KeyboardInterrupt
        if how.key:
            error.add_note(f"The change may have been applied. Resume with the key {how.key}")
        raise


def _change(
    service: Service, request: Request, parse: Callable[[Reply], T], how: Change, until: float
) -> T:
    lost = False  # whether an attempt of this call may have been applied
    number = 0
    while True:
        try:
            result = attempt(service, request, parse, until)
        except ClientClosed as closed:
            if lost or not how.new_key:
                raise OutcomeUnknown(str(closed), key=how.key) from None
            raise
        if isinstance(result, Refused):
            # An earlier call with the key sent the same content, so it was as invalid as this one.
            earlier = lost or not (how.new_key or isinstance(result, InvalidRequest))
            if earlier and not settles(service, request, result):
                raise OutcomeUnknown(_refused_later(result), key=how.key, refusal=result)
            raise result
        if not isinstance(result, Again):
            return result
        lost = lost or result.may_be_applied
        if (lost and not how.repeatable) or not pause(number, result.after, until):
            if lost or not how.new_key:
                raise OutcomeUnknown(result.reason, key=how.key)
            detail = f"The change was not applied. {result.reason}"
            raise Unavailable(detail)
        number += 1


def settles(service: Service, request: Request, refused: Refused) -> bool:
    """Return whether a refusal says that no attempt with the key was applied, or ever will be."""
    return refused.settles and not service.unanswered.may_be_applied(request)


def _refused_later(refused: Refused) -> str:
    if isinstance(refused, VersionMismatch):
        return "An answer was lost, and then the counter had another version: perhaps the new one."
    return f"An earlier attempt may have been applied, and the last one was refused: {refused}"


def pause(number: int, after: float, until: float) -> bool:
    """Sleep before the next attempt: exponential backoff with full jitter.

    Args:
        number: number of the attempt that just failed, starting at 0.
        after: at least how many seconds to sleep.
        until: latest time to start the next attempt (monotonic clock, seconds).

    Returns:
        False, without sleeping, if the pause would end after `until`.
    """
    seconds = after + backoff(number)
    if time.monotonic() + seconds >= until:
        return False
    time.sleep(seconds)
    return True


def backoff(number: int, longest: float = _LONGEST_PAUSE) -> float:
    """Return a random number of seconds to wait after attempt `number`, starting at 0.

    Args:
        number: number of the attempt.
        longest: the maximum, in seconds.
    """
    # Without the limit on the exponent, the power of two would overflow a float.
    most = min(longest, _FIRST_PAUSE * 2 ** min(number, 20))
    return random.uniform(0, most)  # noqa: S311  not used for security


def _retry_after(reply: Reply) -> float:
    """Return the header Retry-After in seconds; 0 if it is missing or is a date."""
    text = reply.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0  # noqa: PLR2004
