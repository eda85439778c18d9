"""Makes a change exactly once. If a reply is lost, finds out whether the change was made.

An attempt is the work of one invocation to make one change. The id of the attempt is stored with
the change. Within an attempt, the change is sent again only if it certainly was not applied and
never will be.

If DynamoDB's reply is lost, is a 5xx, or says "transaction in progress", the change may have been
made, or may still be made. In these cases the change is not sent again. Instead, `Search` looks for
the id of the attempt:
- in the counter, which has the id of the attempt that made its last change;
- in the history, which has the id of the attempt that made each change.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, store, timeline
from counters.clients import UndecidedError, may_be_applied, not_applied
from counters.errors import (
    BoundExceededError,
    OutcomeUnknownError,
    ThrottledError,
    VersionMismatchError,
)
from counters.model import Change, ChangedCounter, Condition, Counter, Increment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# DynamoDB returns no values for a transaction. So after a transaction, Tally reads the counters and
# their history until they show the result, for at most this many seconds. The parameter
# StreamBatchingSeconds must be shorter.
PATIENCE = 3.0

_THROTTLED = "DynamoDB did not accept the change in time. Nothing was applied."
_UNKNOWN = (
    "DynamoDB's reply was lost, and it is unknown whether the change was applied. To make a change"
    " safe to retry, send it with an Idempotency-Key the first time."
)

T = TypeVar("T")


class _UnknownError(Exception):
    """The change may have been made, or may still be made."""


def increment(requested: Increment, change: Change) -> Counter | ChangedCounter:
    """Add to a counter, in one write.

    Returns:
        The counter as the write left it. A ChangedCounter if the write was made, but the counter's
        state after the write was not found in time.

    Raises:
        BoundExceededError: if the result would be outside the bounds. Nothing was written.
        ThrottledError: if DynamoDB did not accept the write in time. Nothing was written.
        OutcomeUnknownError: if the reply was lost, and it is unknown whether the write was made.
    """
    update = store.increment(requested, change)
    try:
        return _change_one(requested.counter_id, update, change)
    except store.RefusedError as refused:
        current = store.counter(requested.counter_id, refused.item)
        raise BoundExceededError(requested.bounds, current) from refused


def set_value(
    counter_id: str, value: int, condition: Condition | None, change: Change
) -> Counter | ChangedCounter:
    """Set a counter, in one write.

    Args:
        counter_id: the counter.
        value: the counter's new value.
        condition: the versions that the counter may have before the change; None for any version.
        change: this attempt.

    Returns:
        As for `increment`.

    Raises:
        VersionMismatchError: if the condition does not hold. Nothing was written.
        ThrottledError: if DynamoDB did not accept the write in time. Nothing was written.
        OutcomeUnknownError: if the reply was lost, and it is unknown whether the write was made.
    """
    update = store.set_value(counter_id, value, condition, change)
    try:
        return _change_one(counter_id, update, change)
    except store.RefusedError as refused:
        assert condition is not None  # noqa: S101  only a condition can make DynamoDB refuse it
        current = store.counter(counter_id, refused.item)
        raise VersionMismatchError(condition, current) from refused


def increment_all(
    requested: "Sequence[Increment]", change: Change
) -> "tuple[Counter | ChangedCounter, ...]":
    """Add to several counters, all or none, in one transaction.

    Args:
        requested: at most 100 increments, each of a different counter.
        change: this attempt.

    Returns:
        The counters in the order of the increments, each as the transaction left it. If the state
        in which the transaction left a counter was not found in time, a ChangedCounter.

    Raises:
        BoundExceededError: if the result of an increment would be outside the bounds of that
            increment. Nothing was written.
        ThrottledError: if DynamoDB did not accept the transaction in time. Nothing was written.
        OutcomeUnknownError: if the reply was lost, and it is unknown whether the transaction was
            made.
    """
    updates = [store.increment(each, change) for each in requested]
    search = Search([each.counter_id for each in requested], change.request_id, change.began)
    try:
        _send(partial(store.transact, updates, change.request_id), change)
        search.made = True
    except _UnknownError:
        pass
    except store.RefusedError as refused:
        each = requested[refused.position]
        field = f"increments[{refused.position}].by"
        current = store.counter(each.counter_id, refused.item)
        raise BoundExceededError(each.bounds, current, field) from refused
    return _wait(search, change)


class Search:
    """Finds out whether an attempt changed its counters, and in which state it left the counters.

    You can call `check` several times. If a check finds the state in which the attempt left a
    counter, later checks do not read this counter again.

    Attributes:
        request_id: the id of the attempt.
        made: whether the change is known to be made.
    """

    def __init__(self, counter_ids: "Sequence[str]", request_id: str, began: float) -> None:
        """Create the search for an attempt.

        Args:
            counter_ids: the counters that the attempt changes. It changes all of them or none.
            request_id: the id of the attempt.
            began: when the attempt began, in seconds since the epoch.
        """
        self.request_id = request_id
        self.made = False
        self._counter_ids = counter_ids
        self._began = began
        self._found: dict[str, Counter] = {}
        self._created_at: dict[str, str | None] = {}

    def check(self, until: float) -> "tuple[Counter, ...] | None":
        """Read the counters once. If the counters do not show the change, also read their history.

        Args:
            until: latest time to start a read, in seconds since the epoch.

        Returns:
            The counters as the change left them. None if the change was not made and never will be.

        Raises:
            UndecidedError: if it is unknown whether the change was made. Also if the change was
                made, but the state in which it left some counter is unknown. In this second case,
                `made` is True.
        """
        # Read the clock before the counters. If the apply window (see `clock`) is over now, and the
        # reads below do not show the change, the change was not made and never will be.
        window_is_over = clock.now() > self._began + clock.APPLY_WINDOW
        not_found: list[Counter] = []
        missing = [each for each in self._counter_ids if each not in self._found]
        for counter_id, stored in store.read_all(missing, until).items():
            self._created_at[counter_id] = stored.counter.created_at
            if stored.request_id == self.request_id:
                self._remember(stored.counter)
            else:
                not_found.append(stored.counter)
        for counter in not_found:
            found, complete = timeline.find_attempt(counter, self.request_id, self._began, until)
            if found:
                self._remember(found)
            elif not self.made:
                # The attempt changes all counters or none. So one counter shows whether the attempt
                # made its change.
                if complete and window_is_over:
                    return None
                raise UndecidedError
        if len(self._found) < len(self._counter_ids):
            raise UndecidedError
        return tuple(self._found[each] for each in self._counter_ids)

    def counters(self) -> "tuple[Counter | ChangedCounter, ...]":
        """Return the counters of a change that was made.

        Returns:
            Each counter as the change left it. If that state is not known, a ChangedCounter.
        """
        updated_at = clock.timestamp(self._began)
        return tuple(
            self._found.get(each)
            or ChangedCounter(each, created_at=self._created_at.get(each), updated_at=updated_at)
            for each in self._counter_ids
        )

    def _remember(self, counter: Counter) -> None:
        self._found[counter.counter_id] = counter
        self.made = True


def _change_one(
    counter_id: str, update: dict[str, Any], change: Change
) -> Counter | ChangedCounter:
    """Send a change of one counter and return the changed counter."""
    try:
        return _send(partial(store.send, update), change)
    except _UnknownError:
        (counter,) = _wait(Search([counter_id], change.request_id, change.began), change)
        return counter


def _send(send: "Callable[[], T]", change: Change) -> T:
    """Send a change. As long as the change certainly was not applied, pause and send it again.

    Args:
        send: sends the change once.
        change: this attempt.

    Returns:
        What `send` returns.

    Raises:
        store.RefusedError: if the condition does not hold. Nothing was written.
        ThrottledError: if DynamoDB did not accept the change in time. Nothing was written.
        _UnknownError: if the change may have been made, or may still be made.
    """
    cause: Exception | None = None
    for _ in clock.attempts(change.until):
        try:
            return send()
        except (BotoCoreError, ClientError) as error:
            if may_be_applied(error):
                raise _UnknownError from error
            if not not_applied(error):
                raise
            cause = error
    raise ThrottledError(_THROTTLED) from cause


def _wait(search: Search, change: Change) -> "tuple[Counter | ChangedCounter, ...]":
    """Repeat a search, with pauses, until it finds the outcome of the change or the time is up.

    Returns:
        The counters of the change, as `Search.counters` returns them.

    Raises:
        ThrottledError: if the change was not made and never will be.
        OutcomeUnknownError: if it is unknown whether the change was made.
    """
    patience = min(change.until, clock.now() + PATIENCE)
    checks = 0
    while True:
        try:
            counters = search.check(change.until)
        except UndecidedError as error:
            if clock.pause(checks, patience if search.made else change.until):
                checks += 1
                continue
            if search.made:
                return search.counters()
            raise OutcomeUnknownError(_UNKNOWN) from error
        # This is unlikely: a function's timeout is shorter than an apply window.
        if counters is None:
            raise ThrottledError(_THROTTLED)
        return counters
