"""Takes the place of the network between the SDK and AWS.

A wire records the requests that the SDK sends. It can refuse requests, and can lose replies.
"""

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

# Handles a request: returns the answer, or raises an exception as the SDK would.
Fault = Callable[[AWSPreparedRequest], AWSResponse]


@dataclass(frozen=True)
class Sent:
    """A request that left the SDK."""

    operation: str
    parameters: dict[str, Any]


class Wire:
    """Carries the requests of its clients to moto, with the faults that a test plans."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.through: Fault = delivered  # handles requests without a planned fault
        self._faults: dict[str, Iterator[Fault]] = {}
        self._clients: list[BaseClient] = []

    def attach(self, client: BaseClient) -> None:
        # moto answers requests in a handler of the SDK's event `before-send`. The SDK calls all
        # handlers of an event. So moto's handler would also apply the requests that a fault
        # refuses. Remove that handler.
        client.meta.events.unregister("before-send", botocore_stubber)
        # The type stubs do not know that a handler of this event may return a response.
        client.meta.events.register("before-send", self._carry)  # type: ignore[arg-type]
        self._clients.append(client)

    def detach(self) -> None:
        """Let the clients send their requests directly to moto again."""
        for client in self._clients:
            client.meta.events.unregister("before-send", self._carry)  # type: ignore[arg-type]
            client.meta.events.register("before-send", botocore_stubber)
        self._clients.clear()

    def fail(self, operation: str, faults: Iterable[Fault]) -> None:
        """Plan one fault for each of the next requests of an operation, in order."""
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
    """Let moto answer the request."""
    response: AWSResponse | None = botocore_stubber("before-send", request)
    assert response is not None, "moto does not know this address"
    return response


def reply_lost(request: AWSPreparedRequest) -> NoReturn:
    """Let moto apply the request. The reply never arrives."""
    delivered(request)
    raise ReadTimeoutError(endpoint_url=request.url)


def connection_lost(request: AWSPreparedRequest) -> NoReturn:
    """Let moto apply the request and break the connection before the reply."""
    delivered(request)
    raise ConnectionClosedError(endpoint_url=request.url)


def request_lost(request: AWSPreparedRequest) -> NoReturn:
    """Lose the request. Nothing is applied. The caller cannot tell this from a lost reply."""
    raise ReadTimeoutError(endpoint_url=request.url)


def internal_error(request: AWSPreparedRequest) -> AWSResponse:
    """Let moto apply the request, but answer with a 500. DynamoDB can do that, too."""
    delivered(request)
    return _error(request, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError")


def refused_internally(request: AWSPreparedRequest) -> AWSResponse:
    """Answer with a 500. Nothing is applied."""
    return _error(request, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError")


def conflict(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request as DynamoDB does while a transaction changes the same item."""
    return _error(request, HTTPStatus.BAD_REQUEST, "TransactionConflictException")


def in_progress(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse a transaction as DynamoDB does while another one with the same token is running."""
    return _error(request, HTTPStatus.BAD_REQUEST, "TransactionInProgressException")


def canceled(*codes: str) -> Fault:
    """Return a fault that cancels a transaction.

    Args:
        codes: the reasons that the answer gives for the first writes of the transaction.
    """

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        writes = len(_parameters(request)["TransactItems"])
        reasons = [{"Code": code} for code in (*codes, *["None"] * (writes - len(codes)))]
        error_type = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
        body = {"__type": error_type, "Message": "set by the test", "CancellationReasons": reasons}
        return answered(request, HTTPStatus.BAD_REQUEST, body)

    return fault


def unreachable(request: AWSPreparedRequest) -> NoReturn:
    """Fail to connect: nothing is applied."""
    raise ConnectTimeoutError(endpoint_url=request.url)


def throttled(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request as DynamoDB does when it throttles. Nothing is applied."""
    return _error(request, HTTPStatus.BAD_REQUEST, "ThrottlingException")


def denied(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request as AWS does if the role lacks the action. Nothing is applied."""
    return _error(request, HTTPStatus.BAD_REQUEST, "AccessDeniedException")


class Killed(BaseException):
    """Ends a function as if the function was killed."""


def dies(_request: AWSPreparedRequest) -> NoReturn:
    """Kill the function before it sends the request."""
    raise Killed


def dies_after(request: AWSPreparedRequest) -> NoReturn:
    """Kill the function after moto has applied the request and before the reply arrives."""
    delivered(request)
    raise Killed


def meanwhile(action: Callable[[], object], fault: Fault = delivered) -> Fault:
    """Return a fault that first runs `action`, and then does what `fault` does."""

    def act_first(request: AWSPreparedRequest) -> AWSResponse:
        action()
        return fault(request)

    return act_first


LOST = [reply_lost, connection_lost, internal_error]  # applied, but the caller cannot know it
NOT_APPLIED = [throttled, conflict, unreachable]  # not applied, and the caller knows it


def processed(count: int) -> Fault:
    """Return a fault that lets a BatchWriteItem write only its first `count` items."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        ((table, writes),) = _parameters(request)["RequestItems"].items()
        if count:
            request.body = json.dumps({"RequestItems": {table: writes[:count]}}).encode()
            delivered(request)
        unprocessed = {table: writes[count:]} if writes[count:] else {}
        return answered(request, HTTPStatus.OK, {"UnprocessedItems": unprocessed})

    return fault


def read_in_part(count: int) -> Fault:
    """Return a fault that lets a BatchGetItem read only its first `count` keys."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        ((table, get),) = _parameters(request)["RequestItems"].items()
        keys = get["Keys"]
        body: dict[str, Any] = {"Responses": {table: []}}
        if keys[:count]:
            asked = {"RequestItems": {table: {**get, "Keys": keys[:count]}}}
            request.body = json.dumps(asked).encode()
            body = json.loads(delivered(request).content)
        if keys[count:]:
            body["UnprocessedKeys"] = {table: {**get, "Keys": keys[count:]}}
        return answered(request, HTTPStatus.OK, body)

    return fault


def _parameters(request: AWSPreparedRequest) -> dict[str, Any]:
    assert isinstance(request.body, bytes)
    parameters: dict[str, Any] = json.loads(request.body)
    return parameters


def _error(request: AWSPreparedRequest, status: HTTPStatus, code: str) -> AWSResponse:
    error_type = f"com.amazonaws.dynamodb.v20120810#{code}"
    return answered(request, status, {"__type": error_type, "message": "set by the test"})


def answered(request: AWSPreparedRequest, status: HTTPStatus, body: object) -> AWSResponse:
    """Return an answer to the request, with this status and body."""
    headers = HTTPHeaders.from_dict({"Content-Type": "application/x-amz-json-1.0"})
    return AWSResponse(request.url, status, headers, _Raw(json.dumps(body).encode()))


class _Raw(io.BytesIO):
    """A response body with the interface that botocore expects."""

    def stream(self, **_kwargs: object) -> Iterator[bytes]:
        yield self.read()
