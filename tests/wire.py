"""What lies between the SDK and AWS: it notes each request, and can refuse it or lose its reply."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.client import BaseClient
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, ConnectTimeoutError, ReadTimeoutError
from moto.core.models import botocore_stubber

Fault = Callable[[AWSPreparedRequest], AWSResponse]


@dataclass(frozen=True)
class Sent:
    """A request that left the SDK."""

    operation: str
    parameters: dict[str, Any]


class Wire:
    """Carries the requests of the clients that are on it to moto."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.through: Fault = delivered  # where a request goes that no fault is planned for
        self._faults: dict[str, Iterator[Fault]] = {}
        self._clients: list[BaseClient] = []

    def attach(self, client: BaseClient) -> None:
        # moto answers as a handler of this event, and every handler runs: it must not be on its
        # own, or it would apply what is to be refused.
        # The stubs do not know that a handler of this event may answer.
        client.meta.events.unregister("before-send", botocore_stubber)  # type: ignore[arg-type]
        client.meta.events.register("before-send", self._carry)  # type: ignore[arg-type]
        self._clients.append(client)

    def detach(self) -> None:
        """Let the clients send their requests to moto themselves again."""
        for client in self._clients:
            client.meta.events.unregister("before-send", self._carry)  # type: ignore[arg-type]
            client.meta.events.register("before-send", botocore_stubber)  # type: ignore[arg-type]
        self._clients.clear()

    def fail(self, operation: str, faults: Iterable[Fault]) -> None:
        """Let the next requests for an operation meet these faults, one each, in this order."""
        self._faults[operation] = iter(faults)

    def operations(self) -> list[str]:
        return [sent.operation for sent in self.sent]

    def _carry(
        self, request: AWSPreparedRequest, event_name: str, **_kwargs: object
    ) -> AWSResponse:
        operation = event_name.rpartition(".")[2]
        self.sent.append(Sent(operation, _parameters(request)))
        return next(self._faults.get(operation, iter(())), self.through)(request)


def delivered(request: AWSPreparedRequest) -> AWSResponse:
    """Let moto answer."""
    response = botocore_stubber("before-send", request)
    assert response is not None, "moto does not know this address"
    return response


def reply_lost(request: AWSPreparedRequest) -> NoReturn:
    """Let moto apply the request and lose its reply."""
    delivered(request)
    raise ReadTimeoutError(endpoint_url=request.url)


def connection_lost(request: AWSPreparedRequest) -> NoReturn:
    """Let moto apply the request and break the connection before the reply."""
    delivered(request)
    raise ConnectionClosedError(endpoint_url=request.url)


def request_lost(request: AWSPreparedRequest) -> NoReturn:
    """Let the request get lost: nothing is applied, but from here that looks like a lost reply."""
    raise ReadTimeoutError(endpoint_url=request.url)


def internal_error(request: AWSPreparedRequest) -> AWSResponse:
    """Let moto apply the request and answer that something went wrong, as DynamoDB may."""
    delivered(request)
    return _error(request, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError")


def refused_internally(request: AWSPreparedRequest) -> AWSResponse:
    """Answer that something went wrong, before anything was applied."""
    return _error(request, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError")


def conflict(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request as DynamoDB does during a transaction on the item."""
    return _error(request, HTTPStatus.BAD_REQUEST, "TransactionConflictException")


def in_progress(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the transaction as DynamoDB does while one with its token is under way."""
    return _error(request, HTTPStatus.BAD_REQUEST, "TransactionInProgressException")


def canceled(*codes: str) -> Fault:
    """Return the fault of a transaction that is canceled: its first writes for these reasons."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        writes = len(_parameters(request)["TransactItems"])
        reasons = [{"Code": code} for code in (*codes, *["None"] * (writes - len(codes)))]
        kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
        body = {"__type": kind, "Message": "as the test has it", "CancellationReasons": reasons}
        return answered(request, HTTPStatus.BAD_REQUEST, body)

    return fault


def unreachable(request: AWSPreparedRequest) -> NoReturn:
    """Make no connection: nothing is applied."""
    raise ConnectTimeoutError(endpoint_url=request.url)


def throttled(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request as DynamoDB does if it is asked too much: nothing is applied."""
    return _error(request, HTTPStatus.BAD_REQUEST, "ThrottlingException")


def denied(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request as AWS does if the role lacks the action: nothing is applied."""
    return _error(request, HTTPStatus.BAD_REQUEST, "AccessDeniedException")


def processed(count: int) -> Fault:
    """Return the fault of a BatchWriteItem that takes the first `count` items and no more."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        ((table, writes),) = _parameters(request)["RequestItems"].items()
        if count:
            request.body = json.dumps({"RequestItems": {table: writes[:count]}}).encode()
            delivered(request)
        left = {table: writes[count:]} if writes[count:] else {}
        return answered(request, HTTPStatus.OK, {"UnprocessedItems": left})

    return fault


def _parameters(request: AWSPreparedRequest) -> dict[str, Any]:
    assert isinstance(request.body, bytes)
    parameters: dict[str, Any] = json.loads(request.body)
    return parameters


def _error(request: AWSPreparedRequest, status: HTTPStatus, code: str) -> AWSResponse:
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    return answered(request, status, {"__type": kind, "message": "as the test has it"})


def answered(request: AWSPreparedRequest, status: HTTPStatus, body: object) -> AWSResponse:
    headers = HTTPHeaders.from_dict({"Content-Type": "application/x-amz-json-1.0"})
    return AWSResponse(request.url, status, headers, _Raw(json.dumps(body).encode()))


class _Raw(io.BytesIO):
    """A body as urllib3 hands it to botocore."""

    def stream(self, **_kwargs: object) -> Iterator[bytes]:
        yield self.read()
