"""Remembers the requests whose answers were lost within the last minute.

The service may still receive such a request, for example after a cold start. It may refuse a repeat
in the meantime and free the key. Then the first request is applied after the refusal. So a refusal
says something about earlier requests with the same key only if the last of them is old enough.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from tally_client.exchange import Request

# How long after a lost answer the request can still be applied, in seconds. API Gateway waits at
# most 29 seconds for a function, and a function of Tally runs for at most 10 seconds
# (template.yaml). The rest is for the network.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
_WINDOW = 60.0


class Unanswered:
    """The requests of one client whose answers were lost within the last minute."""

    def __init__(self, lock: Callable[[], threading.Lock]) -> None:
        """Begin without requests.

        Args:
            lock: returns the client's lock, which is another one after a fork.
        """
        self._lock = lock
        # When each answer was lost (monotonic clock, seconds), by path and key, the oldest first.
        self._lost: OrderedDict[tuple[str, str], float] = OrderedDict()

    def note(self, request: Request) -> None:
        """Remember a request that may be applied, or may have been. Its attempt has just ended."""
        name = _name(request)
        if name is None:
            return
        now = time.monotonic()
        with self._lock():
            self._lost[name] = now
            self._lost.move_to_end(name)
            while now - next(iter(self._lost.values())) > _WINDOW:
                self._lost.popitem(last=False)

    def may_be_applied(self, request: Request) -> bool:
        """Return whether an earlier attempt, with the same key, may still be applied."""
        lost = self._lost.get(_name(request) or ("", ""))
        return lost is not None and time.monotonic() - lost < _WINDOW


def _name(request: Request) -> tuple[str, str] | None:
    """Return the path and the key; None for a request without a key."""
    key = dict(request.headers).get("Idempotency-Key")
    return None if key is None else (request.path, key)
