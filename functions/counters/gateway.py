"""API Gateway's event to arguments; a result or an error to a response.

The event is a REST API's proxy event, the response what such an API expects back:
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

import base64
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clock, model, rules
from counters.clients import ATTEMPT
from counters.errors import CounterError, InternalError, UnauthorizedError
from counters.headers import supported_headers
from counters.model import Change, ChangedCounter, Counter
from counters.rules import invalid

logger = Logger(service="tally")

MAX_BODY = 64 * 1024  # characters; the largest good request is far below

_BODY_METHODS = {"POST", "PUT"}


class Request(NamedTuple):
    """What a caller asks for: the parameters and fields are those that the route knows."""

    counter_id: str
    query: Mapping[str, str]
    body: Mapping[str, object]
    headers: Mapping[str, str]
    actor: str
    invocation_id: str
    until: float

    def change(self) -> Change:
        """Return the change that this request makes, beginning now."""
        # Callers can choose API Gateway's request id, so use Lambda's.
        at = clock.timestamp(clock.now())
        return Change(self.actor, self.invocation_id, at, self.until)

    def limit(self) -> int:
        """Return the parameter `limit`: 1 to 1000, 100 if not given.

        Raises:
            InvalidRequestError: it is something else.
        """
        return self.integer("limit", 1, 1000) or 100

    def integer(self, name: str, least: int, most: int) -> int | None:
        """Return the parameter `name` as an integer from `least` to `most`; None if not given.

        Raises:
            InvalidRequestError: it is something else.
        """
        text = self.query.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most))):
            invalid(name, f"must be an integer from {least} to {most}")
        value = int(text)
        if not least <= value <= most:
            invalid(name, f"must be an integer from {least} to {most}")
        return value

    def time(self, name: str) -> float | None:
        """Return the parameter `name`, a time, in seconds since the epoch; None if not given.

        Raises:
            InvalidRequestError: it is no RFC 3339 time.
        """
        text = self.query.get(name)
        return None if text is None else rules.time(name, text)

    def period(self) -> model.Period:
        """Return the period from the parameter `from` to `to`: all time if not given.

        Raises:
            InvalidRequestError: one is no RFC 3339 time, or nothing is between them.
        """
        return rules.period(self.time("from"), self.time("to"))


class Response(NamedTuple):
    """What goes back: `body` becomes JSON, None nothing."""

    body: object = None
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = MappingProxyType({})


Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def endpoint(
    *,
    query: Collection[str] = (),
    body: Collection[str] = (),
    headers: Collection[str] = (),
) -> Callable[[Callable[[Request], Response]], Handler]:
    """Make a Lambda handler of a function from a request to a response.

    Args:
        query: the parameters that the route knows; any other is refused.
        body: the fields that the body may have; any other is refused.
        headers: the meaningful headers that the route supports, in lower case; any other of them
            is refused.

    Returns:
        The decorator. Its handler answers every `CounterError`, and what nobody foresaw, as a
        problem (RFC 9457), and writes one log line.
    """

    def decorate(function: Callable[[Request], Response]) -> Handler:
        def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
            problem: CounterError | None = None
            fault: Exception | None = None
            try:
                response = function(_request(event, context, query, body, headers))
            except CounterError as error:
                problem = error
            except Exception as error:  # noqa: BLE001  whatever it is, it is logged
                problem, fault = InternalError(), error
            if problem is not None:
                response = _problem_response(problem, event)
            _log(event, context, response.status, problem, fault)
            return _proxy_response(response)

        return handler

    return decorate


def counter_response(counter: Counter | ChangedCounter, *, replayed: bool = False) -> Response:
    """Return the answer that shows a counter; `replayed` if an earlier request was answered so."""
    headers = _replayed(replayed=replayed)
    if isinstance(counter, Counter):
        headers["ETag"] = counter.entity_tag()
    return Response(counter._asdict(), headers=headers)


def counters_response(
    counters: Iterable[Counter | ChangedCounter], *, replayed: bool = False
) -> Response:
    """Return the answer that lists counters; `replayed` if an earlier request was answered so."""
    members = [counter._asdict() for counter in counters]
    return Response(members, headers=_replayed(replayed=replayed))


def not_modified_response(counter: Counter) -> Response:
    """Return the answer to a caller who has the counter as it is."""
    return Response(None, HTTPStatus.NOT_MODIFIED, {"ETag": counter.entity_tag()})


def page_response(items: list[Any], following: Mapping[str, object]) -> Response:
    """Return a page of a list.

    Args:
        items: what is on it.
        following: the parameters that ask for the next page; none if there is none. Its link is
            relative to the address of this page (RFC 3986, section 5.2): API Gateway does not tell
            under which host and base path the caller knows it.
    """
    if not following:
        return Response(items)
    return Response(items, headers={"Link": f'<?{urlencode(following)}>; rel="next"'})


def _request(
    event: dict[str, Any],
    context: LambdaContext,
    query: Collection[str],
    body: Collection[str],
    headers: Collection[str],
) -> Request:
    path = event["pathParameters"] or {"counter_id": model.DEFAULT_COUNTER_ID}
    return Request(
        # A REST API hands the path on as it came, percent-encoded.
        rules.counter_id(unquote(path["counter_id"])),
        _query(event["multiValueQueryStringParameters"] or {}, query),
        _body(event, body),
        supported_headers(event["multiValueHeaders"] or {}, headers, event["httpMethod"]),
        _actor(event),
        context.aws_request_id,
        clock.deadline(context, ATTEMPT),
    )


def _actor(event: dict[str, Any]) -> str:
    """Return who sends a request: the `sub` or `client_id` of its access token.

    Raises:
        UnauthorizedError: the event has neither. API Gateway's console test and `sam local
            start-api` send such events, because they leave the authorizer out.
    """
    authorizer = event["requestContext"].get("authorizer") or {}
    claims = authorizer.get("claims") or {}
    actor: str | None = claims.get("sub") or claims.get("client_id")
    if not actor:
        detail = (
            "requestContext.authorizer.claims: must have sub or client_id. The Cognito authorizer"
            " adds them; a test of the method in the console and sam local start-api do not."
        )
        raise UnauthorizedError(detail)
    return actor


def _query(given: dict[str, list[str]], known: Collection[str]) -> dict[str, str]:
    for name, values in given.items():
        if name not in known:
            invalid(name, "unknown parameter")
        if len(values) > 1:
            invalid(name, "given more than once")
    return {name: values[0] for name, values in given.items()}


def _body(event: dict[str, Any], known: Collection[str]) -> dict[str, object]:
    text = event["body"] or ""
    if len(text) > MAX_BODY:
        invalid("body", f"longer than {MAX_BODY} characters")
    if event["isBase64Encoded"]:
        try:
            text = base64.b64decode(text, validate=True).decode()
        except ValueError:  # no base64, or no UTF-8
            invalid("body", "must be UTF-8")
    if not text:
        return {}
    if event["httpMethod"] not in _BODY_METHODS:
        invalid("body", "this request takes none")
    fields = rules.json_object("body", text)
    rules.only(known, fields)
    return fields


def _replayed(*, replayed: bool) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if replayed else {}


def _problem_response(problem: CounterError, event: dict[str, Any]) -> Response:
    body = {
        "type": f"urn:tally:problem:{problem.kind}",
        "title": problem.kind.replace("-", " ").capitalize(),
        "status": problem.status,
        "detail": str(problem),
        "instance": f"urn:uuid:{event['requestContext']['requestId']}",
        **problem.members,
    }
    headers = {"Content-Type": "application/problem+json", **problem.headers}
    return Response(body, problem.status, headers)


def _log(
    event: dict[str, Any],
    context: LambdaContext,
    status: HTTPStatus,
    problem: CounterError | None,
    fault: Exception | None,
) -> None:
    """Write the log line of a request: an error with its traceback if the fault is Tally's."""
    extra = {
        "request_id": event["requestContext"]["requestId"],
        "invocation_id": context.aws_request_id,
    }
    if problem is not None:
        extra |= {"problem": problem.kind, "detail": str(problem)}
    log = logger.error if fault else logger.info
    log("%s %s %d", event["httpMethod"], event["resource"], status, exc_info=fault, extra=extra)


def _proxy_response(response: Response) -> dict[str, Any]:
    """Return a response in the form that API Gateway expects."""
    body = ""
    if response.body is not None:
        body = json.dumps(response.body, separators=(",", ":"))
    return {
        "statusCode": int(response.status),
        "headers": {
            "Content-Type": "application/json",
            "Cache-Control": "no-cache",
            **response.headers,
        },
        "body": body,
    }
