"""Saves the emulator's state while it runs. MiniStack itself saves only when it stops normally.

To save the state, the emulator forks, as Redis does. The child process writes its copy of the
memory to disk. Meanwhile, the emulator goes on. The emulator forks between two requests, in the
thread that answers requests. So a snapshot never contains half a request. For example, it has both
a counter's change and the stream record of this change, or it has neither.

A snapshot also has the position up to which each Lambda function has processed its stream, and
everything that the function has written up to this position. After a restart, the batches that were
in progress when the snapshot was made are delivered again.
"""

import asyncio
import contextlib
import copy
import dataclasses
import gc
import json
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from ministack import app
from ministack.core import persistence
from ministack.services import cloudformation, dynamodb, lambda_svc

import snapshots

SAVE_SECONDS = 1.0  # the shortest pause between two saves
PACE = 5  # the pause after a save is at least this many times the CPU time of the save
SETTLE_SECONDS = 2.0  # how long queues and streams may still change the state after a request
POLL_SECONDS = 0.02
GIVE_UP_SECONDS = 120  # the longest time that a save may take
LOGS = {"cloudwatch_logs", "cloudwatch"}  # large, so they are saved only when the emulator stops
CHECKS = "/_ministack/"  # requests to paths that start with this text change nothing

_log = logging.getLogger("saving")

Scope = MutableMapping[str, Any]


class Saver:
    """Loads the saved state, and saves the state whenever it may have changed."""

    def __init__(self, directory: Path, port: int, lock: int) -> None:
        """Read the saved state.

        Args:
            directory: the directory of the saved state.
            port: the port that the emulator will listen on.
            lock: the file descriptor of the lock that keeps other runs out of the directory. If the
                emulator is killed during a save, the child process holds the lock until the save is
                finished.

        Raises:
            DamagedError: the saved state cannot be read.
        """
        self._directory, self._port, self._lock = directory, port, lock
        self._loaded = {
            service: _parsed(directory, service, text)
            for service, text in snapshots.read(directory, port).items()
        }
        self._active = time.monotonic()  # when the last request or Lambda invocation ended
        self._child: int | None = None
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def install(self, *, save: bool) -> None:
        """Replace MiniStack's own loading and saving.

        Args:
            save: whether to save the state of this run.
        """
        app.load_state = lambda service: self._loaded.pop(service, None)
        if not save:
            app.save_all = lambda _services: None
            return
        app.save_all = self._save_at_the_end
        app.app = self._watch(app.app)
        execute = lambda_svc._execute_function

        def watched(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  MiniStack's own
            try:
                return execute(*arguments, **options)
            finally:
                self._active = time.monotonic()

        lambda_svc._execute_function = watched

    def _watch(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the ASGI application, to record when requests come in."""

        async def watched(scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401  ASGI
            async def send_and_begin(message: Scope) -> None:
                await send(message)
                if message["type"] == "lifespan.startup.complete":
                    self._task = asyncio.create_task(self._save_often())

            if scope["type"] == "lifespan":
                await application(scope, receive, send_and_begin)
                return
            try:
                await application(scope, receive, send)
            finally:
                if not scope["path"].startswith(CHECKS):
                    self._active = time.monotonic()

        return watched

    async def _save_often(self) -> None:
        saved = float("-inf")  # save at once, so that the snapshot says that a run has started
        while not self._ended.is_set():
            pause = SAVE_SECONDS
            if saved < self._active + SETTLE_SECONDS and not deploying():
                begun = time.monotonic()
                self._child = self._fork(snapshots.RUNNING)
                while (done := self._end_of_child()) is None:
                    await asyncio.sleep(POLL_SECONDS)
                    if self._ended.is_set():
                        return
                status, cpu_seconds = done
                if status:
                    _log.error("the state could not be saved (%s)", status)
                else:
                    saved = begun
                pause = max(pause, PACE * cpu_seconds)
            await asyncio.sleep(pause)

    def _end_of_child(self) -> tuple[int, float] | None:
        """Return the exit status and the CPU seconds of the current save; None if it still runs."""
        assert self._child  # noqa: S101  for mypy
        pid, status, used = os.wait4(self._child, os.WNOHANG)
        if not pid:
            return None
        self._child = None
        return status, used.ru_utime + used.ru_stime

    def _save_at_the_end(self, _services: object) -> None:
        self._ended.set()
        if self._child:
            # Kill the save that is in progress, because the save below has a newer state.
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        if deploying():
            # Do not save half a deployment, because it would obstruct the next deployment. Keep the
            # last snapshot, which is from before the deployment.
            if snapshot := snapshots.read_index(self._directory):
                snapshots.write_index(
                    self._directory, dataclasses.replace(snapshot, end=snapshots.DEPLOYING)
                )
            return
        _pid, status = os.waitpid(self._fork(snapshots.STOPPED), 0)
        if status:
            _log.error("the state could not be saved (%s)", status)

    def _fork(self, end: str) -> int:
        """Start a save and return its process id.

        Call this only in the thread that answers requests.

        Args:
            end: the value for `Snapshot.end`.
        """
        saved_at = time.time()
        with warnings.catch_warnings():
            # Python 3.12 and later warn at a fork that the other threads may hold locks. The child
            # process needs none of those locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child:
            return child
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.alarm(GIVE_UP_SECONDS)
            # The two processes share their memory until one of them writes to it. Garbage
            # collection writes to every object, so the operating system would have to copy all of
            # the memory.
            gc.disable()
            close_files({0, 1, 2, self._lock})
            self._write(saved_at, end)
            status = 0
        except BaseException:  # noqa: BLE001  the child process must end here
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _write(self, saved_at: float, end: str) -> None:
        """Write the state in memory to disk. Only the child process of `_fork` may call this."""
        # To save its state, MiniStack copies data that other threads could change. The child
        # process has no other threads, so it needs no copies.
        copy.deepcopy = _itself  # type: ignore[assignment]
        referenced = set[str]()
        prune, lambda_svc._prune_orphan_code_blobs = (
            lambda_svc._prune_orphan_code_blobs,
            referenced.update,
        )
        texts = {}
        leave_out_read_records()
        for service, get_state in app._build_persistence_save_dict().items():
            if service in LOGS and end == snapshots.RUNNING:
                continue
            try:
                if (state := get_state()) is not None:
                    texts[service] = json.dumps(
                        {
                            "__ministack_format__": persistence._state_format_version(service),
                            "payload": state,
                        },
                        default=persistence._json_default,
                    )
            except Exception:  # noqa: BLE001  MiniStack may raise anything; save the other services
                _log.exception("the state of %s could not be saved", service)
        snapshots.write(self._directory, texts, saved_at=saved_at, port=self._port, end=end)
        prune(referenced)  # delete files that only the previous snapshot needed


def deploying() -> bool:
    """Return whether CloudFormation is creating, updating or deleting a stack."""
    return any(
        stack["StackStatus"].endswith("_IN_PROGRESS")
        and stack["StackStatus"] != "REVIEW_IN_PROGRESS"
        for stack in cloudformation._stacks.all_values()
    )


def leave_out_read_records() -> None:
    """Delete each stream record that all Lambda functions of its stream have read.

    Without this, most of the saved state would be such records.
    """
    for (account, region, table), records in dynamodb._stream_records.all_items():
        stream = dynamodb._tables.get_scoped(account, region, table, {}).get("LatestStreamArn")
        read = [
            lambda_svc._dynamodb_stream_positions.get_scoped(account, region, mapping["UUID"], 0)
            for _account, _region, mapping in lambda_svc._iter_all_esms()
            if mapping["EventSourceArn"] == stream
        ]
        trimmed = dynamodb._stream_trimmed.get_scoped(account, region, table, 0)
        if (expendable := min(read, default=0) - trimmed) > 0:
            del records[:expendable]
            dynamodb._stream_trimmed.set_scoped(account, region, table, trimmed + expendable)


def close_files(kept: set[int]) -> None:
    """Close all open files except `kept`.

    This also closes the emulator's port in the child process, because the next run may need it.

    Args:
        kept: the file descriptors to keep open.
    """
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208  numbers, not paths
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _parsed(directory: Path, service: str, text: str) -> Any:  # noqa: ANN401  MiniStack's own
    try:
        data = json.loads(text, object_hook=persistence._json_object_hook)
    except ValueError as error:
        raise snapshots.damaged(directory, f"{service}: {error}") from error
    if not isinstance(data, dict) or "__ministack_format__" not in data:
        return data
    if data["__ministack_format__"] > persistence._state_format_version(service):
        raise snapshots.damaged(directory, f"{service}: written by a newer MiniStack")
    return data["payload"]


def _itself(value: Any, _memo: object = None) -> Any:  # noqa: ANN401  anything
    return value
