"""Makes a change exactly once, and finds out what became of a lost reply.

A change is sent again only if the attempt before it certainly was not applied and never will be.
After a lost reply, a 5xx or "in progress", the change may have been made or may still be made. Then
it is only looked for: in the counters, whose last change has the id of its attempt, and in the
history, which has the id of every attempt.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from counters import clock, history, store, timeline
from counters.clients import UndecidedError, may_be_applied, not_applied
from counters.errors import (
    BoundExceededError,
    OutcomeUnknownError,
    ThrottledError,
    VersionMismatchError,
)
from counters.model import MAX_INTEGER, Change, ChangedCounter, Condition, Counter, Increment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# How long a request waits for the history to show what its transaction made of the counters, in
# seconds.
_PATIENCE = 3.0

_THROTTLED = "DynamoDB did not accept the change in time. Nothing was applied."
_UNKNOWN = (
    "A reply of the database was lost, and whether the change was applied is not known. Send an"
    " Idempotency-Key with changes that you repeat."
)

T = TypeVar("T")


class _OpenError(Exception):
    """The change may have been made, or may still be made."""


def increment(asked: Increment, change: Change) -> Counter | ChangedCounter:
    """Add to a counter, in one write, and return it as that write left it.

    Raises:
        BoundExceededError: the value would leave the bounds; nothing was written.
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost, and whether the change was made is not known.
    """
    update = store.increment(asked, change)
    try:
        return _change_one(asked.counter_id, update, change)
    except store.RefusedError as refused:
        standing = store.counter(asked.counter_id, refused.item)
        raise BoundExceededError(asked.bounds, standing) from refused


def set_value(
    counter_id: str, value: int, condition: Condition | None, change: Change
) -> Counter | ChangedCounter:
    """Set a counter to `value`, in one write, and return it as that write left it.

    Args:
        counter_id: the counter.
        value: its new value.
        condition: what the counter must be like; None to set it in any case.
        change: who sets it.

    Raises:
        VersionMismatchError: the condition does not hold; nothing was written.
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost, and whether the change was made is not known.
    """
    update = store.set_value(counter_id, value, condition, change)
    try:
        return _change_one(counter_id, update, change)
    except store.RefusedError as refused:
        assert condition is not None  # noqa: S101  what has no condition is not refused
        standing = store.counter(counter_id, refused.item)
        raise VersionMismatchError(condition, standing) from refused


def increment_all(
    asked: "Sequence[Increment]", change: Change
) -> "tuple[Counter | ChangedCounter, ...]":
    """Add to each of some different counters, at most 100, or to none, in one transaction.

    Returns:
        The counters in that order, each as the transaction left it, or a ChangedCounter where that
        is not known in time.

    Raises:
        BoundExceededError: a value would leave its bounds; nothing was written.
        ThrottledError: nothing was written.
        OutcomeUnknownError: the reply was lost, and whether the change was made is not known.
    """
    updates = [store.increment(each, change) for each in asked]
    search = Search([each.counter_id for each in asked], change.request_id, change.at)
    try:
        _send(partial(store.transact, updates, change.request_id), change)
        search.made = True
    except _OpenError:
        pass
    except store.RefusedError as refused:
        each = asked[refused.position]
        field = f"increments[{refused.position}].by"
        standing = store.counter(each.counter_id, refused.item)
        raise BoundExceededError(each.bounds, standing, field) from refused
    return _wait(search, change)


class Search:
    """Looks for what an attempt made of its counters. Each look continues the one before it."""

    def __init__(self, counter_ids: "Sequence[str]", request_id: str, at: str) -> None:
        """Take the attempt: its counters, which change together, its id, and when it began."""
        self.request_id = request_id
        self.made = False  # whether the change is known to be made
        self._counter_ids = counter_ids
        self._at = at
        self._began = clock.seconds(at)
        self._found: dict[str, Counter] = {}
        self._created_at: dict[str, str | None] = {}

    def look(self, until: float) -> "tuple[Counter, ...] | None":
        """Look once.

        Args:
            until: latest time to start a read, in seconds since the epoch.

        Returns:
            The counters as the change left them; None if it was not made and never will be.

        Raises:
            UndecidedError: whether it was made is not known yet, or, if `made` is true, what it
                made of some counters.
        """
        # Look at the time before reading: if the window is over now, what the reads do not show was
        # never made.
        over = clock.now() > self._began + clock.APPLY_WINDOW
        changed_since: list[Counter] = []
        missing = [each for each in self._counter_ids if each not in self._found]
        for counter_id, standing in store.read_all(missing, until).items():
            self._created_at[counter_id] = standing.counter.created_at
            if standing.request_id == self.request_id:
                self._find(standing.counter)
            else:
                changed_since.append(standing.counter)
        for counter in changed_since:
            found, complete = _find(counter, self.request_id, self._began, until)
            if found:
                self._find(found)
            elif not self.made:
                # They change together, so one of them shows whether they did.
                if complete and over:
                    return None
                raise UndecidedError
        if len(self._found) < len(self._counter_ids):
            raise UndecidedError
        return tuple(self._found[each] for each in self._counter_ids)

    def counters(self) -> "tuple[Counter | ChangedCounter, ...]":
        """Return the counters of a change that is made: as it left them, where that is known."""
        return tuple(
            self._found.get(each)
            or ChangedCounter(each, created_at=self._created_at.get(each), updated_at=self._at)
            for each in self._counter_ids
        )

    def _find(self, counter: Counter) -> None:
        self._found[counter.counter_id] = counter
        self.made = True


def _change_one(
    counter_id: str, update: dict[str, Any], change: Change
) -> Counter | ChangedCounter:
    """Make a change of one counter, and return it as the change left it."""
    try:
        return _send(partial(store.send, update), change)
    except _OpenError:
        (counter,) = _wait(Search([counter_id], change.request_id, change.at), change)
        return counter


def _send(send: "Callable[[], T]", change: Change) -> T:
    """Send a change, again if it certainly was not applied, and return what `send` does.

    Raises:
        store.RefusedError: its condition does not hold.
        ThrottledError: no attempt was accepted in time, so nothing was written.
        _OpenError: the change may have been made, or may still be made.
    """
    cause: Exception | None = None
    for _ in clock.attempts(change.until):
        try:
            return send()
        except (BotoCoreError, ClientError) as error:
            if may_be_applied(error):
                raise _OpenError from error
            if not not_applied(error):
                raise
            cause = error
    raise ThrottledError(_THROTTLED) from cause


def _wait(search: Search, change: Change) -> "tuple[Counter | ChangedCounter, ...]":
    """Look until the outcome of the change is known, or the time is up.

    Raises:
        ThrottledError: it was not made and never will be.
        OutcomeUnknownError: whether it was made is not known in time.
    """
    patience = min(change.until, clock.now() + _PATIENCE)
    attempt = 0
    while True:
        try:
            counters = search.look(change.until)
        except UndecidedError as error:
            if clock.pause(attempt, patience if search.made else change.until):
                attempt += 1
                continue
            if search.made:
                return search.counters()
            raise OutcomeUnknownError(_UNKNOWN) from error
        if counters is None:  # the window is over, which is longer than a function runs
            raise ThrottledError(_THROTTLED)
        return counters


def _find(
    standing: Counter, request_id: str, began: float, until: float
) -> tuple[Counter | None, bool]:
    """Look for the change that an attempt made of a counter.

    Args:
        standing: the counter as it is, or was a moment ago.
        request_id: the id of the attempt.
        began: when the attempt began, in seconds since the epoch.
        until: latest time to start a read, in seconds since the epoch.

    Returns:
        The counter as the change left it, or None. And whether the history is complete: it has an
        entry for every version up to that of `standing` that the change could have made.

    Raises:
        UndecidedError: if DynamoDB did not answer in time.
    """
    recent = _find_recent(standing, request_id, began, until)
    if recent:
        return recent
    counter_id, last = standing.counter_id, standing.version
    start = began - clock.APPLY_WINDOW
    boundary = timeline.recent_boundary(counter_id, start, last, until)
    expected = max(1, boundary.below)  # which must be of this counter, too
    complete = True
    while expected <= last:
        entries = history.read(counter_id, expected, last, until)
        if not entries:
            return None, False
        for entry in entries:
            if entry.request_id == request_id:
                return history.counter(entry), True
            complete = complete and entry.is_of(standing, expected)
            # Made when the attempt could not change anything any more, as is all that follows.
            if complete and entry.time > began + clock.APPLY_WINDOW:
                return None, True
            expected = entry.version + 1
    return None, complete


def _find_recent(
    standing: Counter, request_id: str, began: float, until: float
) -> tuple[Counter | None, bool] | None:
    """Return what `_find` does, if the last few changes decide it; otherwise None."""
    # A counter that does not exist has no history, unless somebody deleted its item.
    expected = standing.version
    last = expected or MAX_INTEGER
    for entry in history.read(standing.counter_id, 1, last, until, timeline.FEW, newest_first=True):
        if entry.request_id == request_id:
            return history.counter(entry), True
        if not standing.version:
            return None, False
        if entry.is_of(standing, expected):
            if entry.time < began - clock.APPLY_WINDOW:
                return None, True  # everything below was made before the attempt began
            expected -= 1
    return None if expected else (None, True)
