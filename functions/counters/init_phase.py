"""Lambda's init phase: the work that a function does before its first event.

In the init phase, a Lambda function has a full CPU. After the init phase, it has only a share of a
CPU. The share depends on the function's memory size. So Tally's functions open their connections in
the init phase.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

import gc
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient


def begin() -> None:
    """Turn garbage collection off. The package `counters` calls this function when it is imported.

    Imports create almost no garbage, but garbage collection takes a part of each cold start.
    Outside Lambda, this function does nothing.
    """
    if in_lambda():
        gc.disable()


def end(*clients: "Callable[[], BaseClient]") -> None:
    """Create the clients, open their connections, and turn garbage collection on again.

    This function also writes a log line, so that cold starts can be counted. Lambda itself writes
    such a line only if its system log level is INFO.

    From now on, the garbage collector ignores all objects that exist at the time of this call.
    Outside Lambda, this function does nothing.

    Args:
        clients: functions of the module `clients` that create the clients. Each Lambda function
            passes only the clients that it uses for almost every event.
    """
    if not in_lambda():
        return
    from counters import connection  # noqa: PLC0415  begin() must run before this import

    for client in clients:
        connection.of(client()).open()
    gc.freeze()
    gc.enable()
    logging.getLogger("tally").info("Cold start")  # the logger of all modules


def in_lambda() -> bool:
    """Return whether this process runs in Lambda."""
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ
