"""Lambda's init phase: what a function makes ready before its first event, on all of a CPU.

With the first event comes the smaller share that its memory stands for. What each step brings is
in docs/benchmarks.md.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient


def begin() -> None:
    """Begin, before anything else is imported: in Lambda only.

    Nothing that a function imports becomes garbage, so looking for it is 4 % of a cold start.
    """
    if in_lambda():
        gc.disable()


def end(*clients: "Callable[[], BaseClient]") -> None:
    """Make the clients of the usual path and open their connections: in Lambda only.

    From then on garbage is collected again, without another look at all that was made so far.
    """
    if not in_lambda():
        return
    from counters import connection  # noqa: PLC0415  after begin()

    for client in clients:
        connection.of(client()).open()
    gc.freeze()
    gc.enable()


def in_lambda() -> bool:
    """Return whether this process runs in Lambda."""
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ
