"""The HTTP edge: turns API Gateway's event into a Request, and results and errors into responses.

The formats are those of a REST API with Lambda proxy integration:
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

import base64
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlencode

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clock, model, rules
from counters.clients import ATTEMPT
from counters.errors import CounterError, InternalError, UnauthorizedError
from counters.headers import none_match, supported_headers
from counters.model import Change, ChangedCounter, Counter
from counters.request import Request
from counters.rights import Rights, Scope, of_token
from counters.rules import invalid

logger = Logger(service="tally")

MAX_BODY = 64 * 1024  # characters; the largest valid request is much smaller

# template.yaml has the same list, for API Gateway's own responses.
EXPOSED_HEADERS = "ETag, Idempotent-Replayed, Link, Retry-After"

_BODY_METHODS = {"POST", "PUT"}
# The scope that each method needs. template.yaml has the same scopes, in `AuthorizationScopes`.
_SCOPES: Mapping[str, Scope] = {"GET": "read", "POST": "increment", "PUT": "set"}

_NO_RIGHTS = Rights(())
_ANYBODY = "anybody"  # the actor of a request without a token; such a request changes nothing


class Text(str):
    """A body that is not JSON. It is sent unchanged. The header Content-Type says what it is."""

    __slots__ = ()


class Response(NamedTuple):
    """A response. `body` is sent as JSON, or unchanged if it is a Text. None sends no body."""

    body: object = None
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = MappingProxyType({})


# Who may use a route:
# - counter: callers who have the route's scope for the counter that the path names. The handler
#   checks this.
# - counters: callers who have the route's scope. The route's function checks for which counters.
# - public: everybody, without a token.
Access = Literal["counter", "counters", "public"]


class _Route(NamedTuple):
    """What a route supports. The attributes are the arguments of `endpoint`."""

    query: Collection[str] | None
    lists: Collection[str]
    body: Collection[str]
    headers: Collection[str]
    access: Access


Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def endpoint(
    *,
    query: Collection[str] | None = (),
    lists: Collection[str] = (),
    body: Collection[str] = (),
    headers: Collection[str] = (),
    access: Access = "counter",
) -> Callable[[Callable[[Request], Response]], Handler]:
    """Return a decorator that turns a function into a Lambda handler.

    The function takes a Request and returns a Response. For each request, the handler:
    1. validates the request;
    2. calls the function;
    3. turns an exception, if there is one, into a problem document (RFC 9457);
    4. writes a log line, if the answer is a problem. API Gateway's access log has a line for each
       request, so a line about a success would only repeat it.

    Args:
        query: the query parameters that a request may have once. The handler rejects a request
            with any parameter that is neither in `query` nor in `lists`. None accepts every
            parameter, any number of times; they are all in the Request's `lists`.
        lists: the query parameters that a request may have several times.
        body: the fields that the body may have. The handler rejects a request with any other field.
        headers: the headers that the route supports, in lower case. The handler rejects a request
            with any other header that changes the meaning of the request (see the module
            `headers`). The handler ignores headers that do not change the meaning.
        access: who may use the route: see `Access`. If the route needs a token, the handler rejects
            a request whose sender API Gateway did not verify.
    """
    route = _Route(query, lists, body, headers, access)

    def decorate(function: Callable[[Request], Response]) -> Handler:
        def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
            problem: CounterError | None = None
            fault: Exception | None = None
            try:
                response = function(_request(event, context, route))
            except CounterError as error:
                problem = error
            except Exception as error:  # noqa: BLE001  every exception is logged and answered
                problem, fault = InternalError(), error
                _count_internal_error()
            if problem is not None:
                response = _problem_response(problem, event)
                _log(event, context, problem, fault)
            return _proxy_response(response)

        return handler

    return decorate


def counter_response(counter: Counter | ChangedCounter, *, replayed: bool = False) -> Response:
    """Return a response with a counter.

    Args:
        counter: the counter. For a ChangedCounter, the response has no ETag, because the version is
            not known.
        replayed: whether an earlier request with the same idempotency key made the change.
    """
    headers = _replayed(replayed=replayed)
    if isinstance(counter, Counter):
        headers["ETag"] = counter.entity_tag()
    return Response(counter._asdict(), headers=headers)


def counters_response(
    counters: Iterable[Counter | ChangedCounter], *, replayed: bool = False
) -> Response:
    """Return a response with a list of counters; `replayed` is as in `counter_response`."""
    members = [counter._asdict() for counter in counters]
    return Response(members, headers=_replayed(replayed=replayed))


def unless_known(request: Request, version: int | str, response: Response) -> Response:
    """Return the response; 304 with its headers if the caller already has this version.

    Raises:
        InvalidRequestError: if If-None-Match is neither `*` nor a list of entity tags.
    """
    if none_match(request.headers, version):
        return response
    return Response(None, HTTPStatus.NOT_MODIFIED, response.headers)


def page_response(items: list[Any], next_page: Mapping[str, object]) -> Response:
    """Return a page of a list.

    Args:
        items: the items on the page.
        next_page: the query parameters of the next page; empty if this is the last page.
    """
    if not next_page:
        return Response(items)
    # API Gateway does not say which host and base path the caller used. So the link to the next
    # page is relative (RFC 3986, section 5.2).
    return Response(items, headers={"Link": f'<?{urlencode(next_page)}>; rel="next"'})


def _request(event: dict[str, Any], context: LambdaContext, route: _Route) -> Request:
    actor, rights = (_ANYBODY, _NO_RIGHTS) if route.access == "public" else _caller(event)
    # A REST API does not decode the path, so its parameters are still percent-encoded.
    path = {name: unquote(text) for name, text in (event["pathParameters"] or {}).items()}
    counter_id = rules.counter_id(path.get("counter_id", model.DEFAULT_COUNTER_ID))
    if route.access == "counter":
        rights.require([counter_id])
    all_headers, method = event["multiValueHeaders"] or {}, event["httpMethod"]
    supported = supported_headers(all_headers, route.headers, method)
    parameters = event["multiValueQueryStringParameters"] or {}
    until = clock.deadline(context, ATTEMPT)
    return Request(
        counter_id,
        path,
        event["requestContext"]["path"],
        _query(parameters, route),
        {
            name: values
            for name, values in parameters.items()
            if route.query is None or name in route.lists
        },
        _body(event, route.body),
        supported,
        supported.get("idempotency-key"),
        # Callers can choose API Gateway's request id. So an attempt is identified by Lambda's
        # request id instead.
        Change(actor, context.aws_request_id, clock.now(), until),
        rights,
        until,
    )


def _caller(event: dict[str, Any]) -> tuple[str, Rights]:
    """Return the caller and their rights, both from the access token.

    The caller is the token's `sub` or, if there is none, its `client_id`.

    Raises:
        UnauthorizedError: if the event has neither `sub` nor `client_id`, or if the token has no
            rights. `sam local start-api` and the method test in API Gateway's console send events
            without claims, because they skip the authorizer.
    """
    authorizer = event["requestContext"].get("authorizer") or {}
    claims = authorizer.get("claims") or {}
    actor: str | None = claims.get("sub") or claims.get("client_id")
    if not actor:
        detail = (
            "requestContext.authorizer.claims: must have sub or client_id. The Cognito authorizer"
            " adds them. sam local start-api and the console's method test skip the authorizer: use"
            " the URL of make run, or of a deployed stack, with an access token."
        )
        raise UnauthorizedError(detail)
    return actor, of_token(claims, _SCOPES[event["httpMethod"]])


def _query(parameters: dict[str, list[str]], route: _Route) -> dict[str, str]:
    if route.query is None:
        return {}
    for name, values in parameters.items():
        if name not in route.query and name not in route.lists:
            invalid(name, "unknown parameter")
        if len(values) > 1 and name not in route.lists:
            invalid(name, "must be given only once")
    return {name: values[0] for name, values in parameters.items() if name in route.query}


def _body(event: dict[str, Any], known: Collection[str]) -> dict[str, object]:
    text = event["body"] or ""
    if len(text) > MAX_BODY:
        invalid("body", f"must be at most {MAX_BODY} characters")
    if event["isBase64Encoded"]:
        try:
            text = base64.b64decode(text, validate=True).decode()
        except ValueError:  # not base64, or not UTF-8
            invalid("body", "must be UTF-8")
    if not text:
        return {}
    if event["httpMethod"] not in _BODY_METHODS:
        invalid("body", "must be empty in this request")
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
    problem: CounterError,
    fault: Exception | None,
) -> None:
    """Write the log line of a request whose answer is a problem.

    Args:
        event: API Gateway's event.
        context: the Lambda context.
        problem: the error that is reported to the caller.
        fault: an unexpected exception; None if there is none. It is logged as an error, with its
            traceback.
    """
    extra = {
        "request_id": event["requestContext"]["requestId"],
        "invocation_id": context.aws_request_id,
        "problem": problem.kind,
        "status": problem.status,
        # The name of a field can have lone surrogates. UTF-8 cannot encode these characters.
        "detail": str(problem).encode(errors="backslashreplace").decode(),
    }
    log = logger.error if fault else logger.info
    route = event["httpMethod"], event["resource"]
    log("%s %s %d", *route, problem.status, exc_info=fault, extra=extra)


def _count_internal_error() -> None:
    """Publish the metric that InternalErrorsAlarm watches."""
    from counters import metrics  # noqa: PLC0415  most processes never need it

    metrics.publish({"InternalErrors": 1})


def _proxy_response(response: Response) -> dict[str, Any]:
    """Return the response in the format that API Gateway expects."""
    body = ""
    if isinstance(response.body, Text):
        body = str(response.body)
    elif response.body is not None:
        body = json.dumps(response.body, separators=(",", ":"))
    return {
        "statusCode": int(response.status),
        "headers": {
            "Content-Type": "application/json",
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",  # API Gateway can compress the response
            # Web pages of this origin may read the response, and these of its headers:
            # https://fetch.spec.whatwg.org/#http-cors-protocol
            "Access-Control-Allow-Origin": os.environ["ALLOWED_ORIGIN"],
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
            **response.headers,
        },
        "body": body,
    }
