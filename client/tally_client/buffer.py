"""Buffers: sum increments in the process, and send them together."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Self

from tally_client import batches, checks, model, reports
from tally_client.errors import BufferFull, Unsent
from tally_client.sums import Refusal, Sums

if TYPE_CHECKING:
    from tally_client.batches import Batch
    from tally_client.exchange import Service
    from tally_client.reports import OnProblem

logger = logging.getLogger("tally_client")

_DAY = 24 * 60 * 60  # seconds
_LONGEST_ATTEMPT = 15.0  # seconds; the service answers within 10 seconds
_NEXT_START = 1.0  # seconds; how long to wait after the thread could not be started
_MAX = model.MAX_INTEGER


class Buffer:
    """Sums increments by counter, and sends the sums in the background. Threads may share it.

    Each request has up to 100 sums, under a key that stays with them until their outcome is known.
    Additions and subtractions of a counter are sent separately.

    The buffer drops nothing. It keeps what it could not send, tries again, and reports it: with a
    log line, with `on_problem`, and with Unsent from `flush` and `close`. Only the end of the
    process loses something: what is in the buffer then.
    """

    def __init__(  # noqa: PLR0913  all are settings
        self,
        service: Service,
        *,
        interval: float,
        size: int,
        capacity: int,
        deadline: float,
        on_problem: OnProblem | None,
    ) -> None:
        """Create an empty buffer. `Tally.buffer` calls this.

        Args:
            service: where to send the sums.
            interval: how many seconds the buffer waits before it sends the sums.
            size: the buffer sends at once when it holds this many sums.
            capacity: the maximum number of sums, those in unfinished requests included.
            deadline: how many seconds `flush` and `close` may take. A batch that is older is
                reported.
            on_problem: is called once for each batch that is not applied before the deadline, and
                for each sum that the service refuses. It runs in the thread of the buffer, or in
                the thread that calls `flush` or `close`. It must not call `flush` or `close`.

        Raises:
            ValueError: a number is not greater than 0, `interval` or `deadline` is more than a day,
                or `size` or `capacity` is not an integer.
        """
        if not (0 < interval <= _DAY and 0 < deadline <= _DAY):
            detail = f"interval and deadline must be more than 0 and at most {_DAY} seconds"
            raise ValueError(detail)
        if not all(type(each) is int and each > 0 for each in (size, capacity)):
            detail = "size and capacity must be integers greater than 0"
            raise ValueError(detail)
        self._service = service
        self._interval = interval
        self._size = size
        self._capacity = capacity
        self._deadline = deadline
        self._on_problem = on_problem
        self._closed = False
        self.ended = False  # whether `close` has sent everything, or has raised Unsent
        self._begin()
        _buffers.add(self)
        atexit.register(self._at_exit)

    def _begin(self) -> None:
        """Begin without sums, in this process."""
        self._lock = threading.Lock()  # guards the attributes below, and `_closed`
        # What the buffer keeps: sums, and batches. A signal such as Ctrl-C can interrupt the main
        # thread anywhere. So what moves between sums and batches moves in one assignment.
        self._kept: tuple[Sums, list[Batch]] = Sums(), []
        self._order = 0  # of the last batch
        self._thread: threading.Thread | None = None  # None if it is not running
        self._start_at = 0.0  # when to try again to start it (monotonic clock, seconds)
        self._sending = threading.Lock()  # held while a batch is sent
        self._wake = threading.Event()

    def __enter__(self) -> Self:
        """Return the buffer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the buffer."""
        self.close()

    def increment(self, counter_id: str, by: int = 1) -> None:
        """Add to a sum. No request is made, and the call does not wait for one.

        Args:
            counter_id: the name of the counter.
            by: the number to add; not 0. A negative number subtracts.

        Raises:
            InvalidRequest: the name or the number is not valid. Nothing was added.
            BufferFull: the buffer has no room for another sum. Nothing was added.
            RuntimeError: the buffer is closed. Nothing was added.
        """
        # These two conditions avoid two function calls for each increment.
        if type(by) is not int or not by or not -_MAX <= by <= _MAX:
            by = checks.amount(by)
        if type(counter_id) is not str:
            counter_id = checks.name(counter_id)
        try:
            with self._lock:
                sums = self._sums.additions if by > 0 else self._sums.subtractions
                if counter_id in sums and not self._closed:
                    sums[counter_id] += by
                else:
                    self._admit(counter_id, by)
        finally:  # also if the buffer is full
            if self._thread is None:
                self._start()

    def _admit(self, counter_id: str, by: int) -> None:
        """Begin a sum. The caller holds the lock."""
        if self._closed:
            detail = "The buffer is closed."
            raise RuntimeError(detail)
        checks.name(counter_id)
        if len(self._sums) + self._sealed() >= self._capacity:
            detail = f"The buffer has {self._capacity} sums that are not sent yet."
            raise BufferFull(detail)
        self._sums.add(counter_id, by)
        if len(self._sums) >= self._size:
            self._wake.set()

    def _start(self) -> None:
        """Start the thread if it is not running. If that fails, a later increment tries again."""
        try:
            with self._lock:
                if self._closed or self._thread or time.monotonic() < self._start_at:
                    return
                thread = threading.Thread(target=self._run, name="tally-buffer", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError as error:  # also at the end of the interpreter: `_at_exit` sends then
            self._start_at = time.monotonic() + _NEXT_START
            logger.warning("The Tally buffer has no thread, and keeps what it has: %s", error)

    def flush(self, timeout: float | None = None) -> None:
        """Send everything that was added before this call.

        Args:
            timeout: how many seconds to wait; the deadline of the buffer if it is None.

        Raises:
            Unsent: something was not sent in time, or was refused. The buffer keeps it, and goes on
                trying until it is closed.
        """
        until = time.monotonic() + (self._deadline if timeout is None else timeout)
        with self._lock:
            self._sums.release()
            while self._seal(self._capacity):  # a large sum needs several batches
                pass
            for each in self._batches:
                batches.restart(each)
            last = self._order
        while self._send_next(last, until, wait=True):
            pass
        with self._lock:
            left = [each for each in self._batches if each.order <= last]
            refused = self._sums.refusals()
        if left or refused:
            raise Unsent(left, refused)

    def close(self, timeout: float | None = None) -> None:
        """Accept no more increments, and send everything.

        Args:
            timeout: as for `flush`.

        Raises:
            Unsent: something was not sent in time, or was refused. The buffer keeps it. A later
                `flush` tries again.
        """
        with self._lock:
            self._closed = True
        self._wake.set()
        try:
            self.flush(timeout)
        except Unsent:
            self._end()
            raise
        self._end()  # not after another exception, such as KeyboardInterrupt: `_at_exit` goes on

    def _end(self) -> None:
        self.ended = True
        atexit.unregister(self._at_exit)

    def unsent(self) -> tuple[list[Batch], list[Refusal]]:
        """Return the batches that are not known to be applied, and the sums that were refused."""
        with self._lock:
            return list(self._batches), self._sums.refusals()

    def _run(self) -> None:
        """Run the thread of the buffer. If it ends early, the next increment starts another."""
        try:
            self._send_in_rounds()
        except BaseException:  # such as SystemExit, raised by on_problem
            with self._lock:
                self._thread = None
            logger.exception("The thread of the Tally buffer has ended")

    def _send_in_rounds(self) -> None:
        """Send the sums after each interval, until the buffer is closed."""
        seal_at = time.monotonic() + self._interval
        while True:
            self._wake.wait(max(0.0, min(seal_at, self._next_event()) - time.monotonic()))
            if self._is_closed():
                return
            self._report_late()
            if self._wake.is_set() or time.monotonic() >= seal_at:
                self._wake.clear()
                seal_at = time.monotonic() + self._interval
                with self._lock:
                    # While the service cannot be reached, further increments are cheaper as sums
                    # than as batches. So batches may take only half of the room.
                    self._seal((self._capacity + 1) // 2 - self._sealed())
            # Slow batches must not keep new sums waiting: at `seal_at`, go on with the next round.
            while self._send_next(self._order, math.inf, wait=False):
                if self._is_closed() or self._wake.is_set() or time.monotonic() >= seal_at:
                    break

    def _is_closed(self) -> bool:
        return self._closed

    @property
    def _sums(self) -> Sums:
        return self._kept[0]

    @property
    def _batches(self) -> list[Batch]:
        return self._kept[1]

    def _seal(self, most: int) -> bool:
        """Make batches of at most `most` sums. The caller holds the lock.

        Returns:
            Whether there were any sums.
        """
        sums = self._sums.copy()
        sealed: list[Batch] = []
        for group in sums.take(most, time.monotonic()):
            self._order += 1
            sealed.append(batches.pack(group, self._order))
        self._kept = sums, [*self._batches, *sealed]
        return bool(sealed)

    def _sealed(self) -> int:
        return sum(len(each.increments) for each in self._batches)

    def _next_event(self) -> float:
        """Return when the next batch has to be sent, or reported (monotonic clock, seconds)."""
        with self._lock:
            due = [each.due for each in self._batches]
            late = [each.made + self._deadline for each in self._batches if not each.reported]
        return min(due + late, default=math.inf)

    def _send_next(self, last: int, until: float, *, wait: bool) -> bool:
        """Send the batch that is due next.

        Args:
            last: only batches with this number or a lower one.
            until: latest time to wait (monotonic clock, seconds).
            wait: whether to wait for a batch that is due later.

        Returns:
            Whether there may be another batch to send before `until`.
        """
        if not self._sending.acquire(timeout=_seconds_until(until)):
            return False
        try:
            with self._lock:
                waiting = [each for each in self._batches if each.order <= last]
                batch = min(waiting, key=lambda each: each.due, default=None)
            now = time.monotonic()
            if batch is None or now >= until or batch.due > (until if wait else now):
                return False
            if batch.due <= now:
                self._send(batch, min(until, now + _LONGEST_ATTEMPT))
                return True
        finally:
            self._sending.release()
        time.sleep(min(batch.due - now, 0.1))  # another thread may change what is due
        return True

    def _send(self, batch: Batch, until: float) -> None:
        """Send a batch, and note the result. The caller holds `_sending`."""
        try:
            result = batches.attempt(self._service, batch, until)
        except Exception as error:  # noqa: BLE001  the batch is kept, and the error reported
            result = batches.later(batch, f"{type(error).__name__}: {error}")
        is_new = False
        with self._lock:
            others = [each for each in self._batches if each is not batch]
            if isinstance(result, Refusal):
                sums = self._sums.copy()
                is_new = sums.put_back(result, time.monotonic())
                self._kept = sums, others
            else:
                self._kept = self._sums, [*others, *result]
                if not result:
                    self._sums.applied(batch.increments)
        if isinstance(result, Refusal) and is_new:
            reports.report(result, self._on_problem)
        self._report_late()

    def _report_late(self) -> None:
        """Report each batch that is late, once."""
        before = time.monotonic() - self._deadline
        with self._lock:
            late = [each for each in self._batches if each.expired or each.made <= before]
        for each in late:
            with self._lock:
                is_new, each.reported = not each.reported, True
            if is_new:
                reports.report(each, self._on_problem)

    def _at_exit(self) -> None:
        """Close the buffer at the end of the interpreter. Log what is lost now."""
        try:
            self.close()
        except BaseException as error:
            with self._lock:
                left, sums = list(self._batches), self._sums.increments()
            reports.log_lost(error, left, sums)
            if not isinstance(error, Unsent):
                raise


def _seconds_until(until: float) -> float:
    """Return how many seconds to wait for a lock; -1, which means no limit, if `until` is never."""
    seconds = max(0.0, until - time.monotonic())
    return seconds if seconds <= threading.TIMEOUT_MAX else -1


# A forked process has a copy of each buffer, but not its thread. The parent sends what was in the
# buffer. So the copies begin empty: otherwise, both processes would send it.
_buffers: weakref.WeakSet[Buffer] = weakref.WeakSet()


def _after_fork() -> None:
    for buffer in _buffers:
        buffer._begin()  # noqa: SLF001  this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
