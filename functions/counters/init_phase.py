"""Lambda's init phase: the work that a function does before its first event.

In the init phase a function has a full CPU. Afterwards it has only the share that its memory size
pays for. So it opens its connections in the init phase. docs/benchmarks.md shows what each step
saves.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient


def begin() -> None:
    """Turn garbage collection off. Call this before the other modules are imported.

    Imports create almost no garbage, and looking for it takes 4 % of a cold start. Outside Lambda
    this does nothing.
    """
    if in_lambda():
        gc.disable()


def end(*clients: "Callable[[], BaseClient]") -> None:
    """Create the clients, open their connections, and turn garbage collection on again.

    The collector ignores everything that exists by then. Outside Lambda this does nothing.

    Args:
        clients: the functions that create the clients. A function passes the clients that it uses
            for almost every event.
    """
    if not in_lambda():
        return
    from counters import connection  # noqa: PLC0415  begin() must run before this import

    for client in clients:
        connection.of(client()).open()
    gc.freeze()
    gc.enable()


def in_lambda() -> bool:
    """Return whether this process runs in Lambda."""
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ
