"""Lambda's init phase: what a function makes ready before its first event, on all of a CPU.

With the first event comes the smaller share that its memory stands for. What each step brings is
in docs/benchmarks.md.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

import gc
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient


def begin() -> None:
    """Begin, before anything else is imported: in Lambda only.

    Nothing that a function imports becomes garbage, so looking for it is 4 % of a cold start.
    """
    if _in_lambda():
        gc.disable()


def end(*clients: "Callable[[], BaseClient]") -> None:
    """Make the clients of the usual path and open their connections: in Lambda only.

    From then on garbage is collected again, without another look at all that was made so far.
    """
    if not _in_lambda():
        return
    for client in clients:
        _connect(client())
    gc.freeze()
    gc.enable()


def _in_lambda() -> bool:
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ


def _connect(client: Any) -> None:  # noqa: ANN401  its session has no public name
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415  behind begin()
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    # DynamoDB answers this with its health; any answer will do, and without one the first request
    # opens the connection.
    probe = AWSRequest("GET", client.meta.endpoint_url).prepare()
    try:
        client._endpoint.http_session.send(probe).content  # noqa: B018, SLF001  read to its end
    except BotoCoreError:
        return
