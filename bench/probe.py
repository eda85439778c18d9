"""A handler that measures the start of another handler: its imports, clients and first call.

The other handler belongs to an artifact: a built program. This module runs in the process of that
program, so it imports nothing from `bench`. It needs two environment variables:
- `BENCH_HANDLER`: the name of the other handler;
- `BENCH_STARTED`: the value of `time.perf_counter` when the process was started.
"""

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_now = time.perf_counter  # all processes share this clock
_clients = 0.0  # seconds spent in create_client so far


class _Timer(importlib.abc.MetaPathFinder):
    """When botocore.session is imported, wraps its `Session.create_client` in a timer."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "botocore.session":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                module.Session.create_client = _timed(module.Session.create_client)

            # Only botocore.session uses this loader object, so this changes no other import.
            setattr(spec.loader, "exec_module", exec_module)  # noqa: B010  mypy forbids assignment
        return spec


def _timed(create_client: Callable[..., Any]) -> Callable[..., Any]:
    def create(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  botocore's own
        global _clients  # noqa: PLW0603  a sum over the whole process
        start = _now()
        client = create_client(*arguments, **options)
        _clients += _now() - start
        return client

    return create


_runtime = _now() - float(os.environ["BENCH_STARTED"])
sys.meta_path.insert(0, _Timer())
_module, _name = os.environ["BENCH_HANDLER"].rsplit(".", 1)
_start = _now()
_handler = getattr(importlib.import_module(_module), _name)
_imported = _now() - _start
_clients_of_import = _clients


def handler(event: Any, context: Any) -> dict[str, float]:  # noqa: ANN401  Lambda's own
    """Call the handler that is measured. Return how long each part of the cold start took.

    The result is in seconds.
    """
    start = _now()
    _handler(event, context)
    called = _now() - start
    return {
        "runtime": _runtime,
        "import": _imported - _clients_of_import,
        "client": _clients,
        "call": called - (_clients - _clients_of_import),
    }
