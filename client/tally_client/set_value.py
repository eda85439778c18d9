"""`set`: a change without an idempotency key, because `PUT` takes none (docs/api.md).

After a lost answer:

- `set` without `if_version` is not repeated: a repeat could overwrite a later change by another
  caller.
- `set` with `if_version` is repeated: a counter has each version only once, so at most one attempt
  is applied.

If a repeat finds another version, an earlier attempt made the change, or another caller did. The
history tells these cases apart if the other caller did something else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tally_client import building, model, pages, retrying
from tally_client.errors import OutcomeUnknown, TallyError, VersionMismatch

if TYPE_CHECKING:
    from tally_client.exchange import Service
    from tally_client.model import Counter


def set_value(
    service: Service, counter_id: str, value: int, if_version: int | None, deadline: float
) -> Counter:
    """Set a counter.

    Args:
        service: where to send the requests.
        counter_id: the name.
        value: the new value.
        if_version: set the counter only if it has this version; None if any version will do.
        deadline: how many seconds the call may take.

    Raises:
        VersionMismatch: the counter has another version, and this call did not set it.
        Refused: the service refused the request. Nothing was applied.
        Unavailable: certainly nothing was applied.
        OutcomeUnknown: this call set the counter once, or not at all.
    """
    request = building.set_value(counter_id, value, if_version)
    how = retrying.Change(key=None, repeatable=if_version is not None)
    parse = building.counter_of(counter_id)
    until = time.monotonic() + deadline
    try:
        return retrying.change(service, request, parse, how, deadline)
    except OutcomeUnknown as unknown:
        refusal = unknown.refusal
        if not isinstance(refusal, VersionMismatch) or if_version is None:
            raise
        if not _is_of_another(service, counter_id, if_version + 1, value, until):
            raise
    raise refusal


def _is_of_another(
    service: Service, counter_id: str, version: int, value: int, until: float
) -> bool:
    """Return whether the change that made `version` certainly was not the change to `value`.

    A caller that set the same value cannot be told apart, even by its `actor`: processes with the
    same app client have the same actor.

    Args:
        service: where to send the request.
        counter_id: the name.
        version: the version.
        value: the value.
        until: latest time to wait for the history (monotonic clock, seconds).
    """
    query = {"after": str(version - 1), "limit": "1"}
    path = f"{building.path_of(counter_id)}/history"
    left = max(0.0, until - time.monotonic())
    try:
        entry = next(pages.items(service, path, query, model.entry, left), None)
    except TallyError:
        return False
    if entry is None or entry.version != version:  # not in the history yet, or not any more
        return False
    return entry.operation != "set" or entry.value != value
