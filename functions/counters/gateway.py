"""API Gateway's event to arguments; a result or an error to a response.

The event is a REST API's proxy event, the response what such an API expects back:
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

import base64
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from counters import clock, model
from counters.clients import ATTEMPT
from counters.model import Change, ChangedCounter, Condition, Counter, invalid

logger = Logger(service="tally")

MAX_BODY = 64 * 1024  # characters; the largest good request is far below
MOST_VERSIONS = 100  # in If-Match: so many fit into a condition of DynamoDB
_LONGEST_KEY = 255  # characters

_BODY_METHODS = {"POST", "PUT"}

# Headers that change what a request means, or which part of the answer comes back. Ignoring
# If-Unmodified-Since would make a change that the caller wanted conditional. So a route refuses
# those that it does not honour, except where another header or the method makes them void.
_MEANINGFUL_HEADERS = {
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "range",
}

# Several lines of a header whose value is a list are one list (RFC 9110, section 5.3).
_LIST_HEADERS = {"if-match", "if-none-match"}

# A member of a list of entity tags, which may be empty, and what ends it (RFC 9110, sections
# 5.6.1.2 and 8.8.3). A comma inside a tag ends nothing.
_MEMBER = re.compile(
    r'[ \t]*(?:(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\U0010ffff]*)"[ \t]*)?(?P<end>,|\Z)'
)
_VERSION = re.compile(r"0|[1-9][0-9]{0,15}")

# Bare, or as a string of RFC 9651, section 3.3.3, of visible characters.
_IDEMPOTENCY_KEY = re.compile(
    r'([\x21\x23-\x7e][\x21-\x7e]*)|"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"'
)

_PROBLEMS: dict[type[model.CounterError], tuple[HTTPStatus, str, str]] = {
    model.InvalidRequestError: (
        HTTPStatus.BAD_REQUEST,
        "invalid-request",
        "Invalid request",
    ),
    model.UnauthorizedError: (HTTPStatus.UNAUTHORIZED, "unauthorized", "Unauthorized"),
    model.NotFoundError: (HTTPStatus.NOT_FOUND, "not-found", "Not found"),
    model.BoundExceededError: (HTTPStatus.CONFLICT, "bound-exceeded", "Bound exceeded"),
    model.VersionMismatchError: (
        HTTPStatus.PRECONDITION_FAILED,
        "version-mismatch",
        "Version mismatch",
    ),
    model.InProgressError: (HTTPStatus.CONFLICT, "in-progress", "In progress"),
    model.KeyReusedError: (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "Idempotency key reused",
    ),
    model.ThrottledError: (HTTPStatus.SERVICE_UNAVAILABLE, "throttled", "Throttled"),
    model.OutcomeUnknownError: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "outcome-unknown",
        "Outcome unknown",
    ),
}


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

    def idempotency_key(self) -> str | None:
        """Return the key of the header Idempotency-Key; None if there is none.

        Raises:
            InvalidRequestError: it is no key.
        """
        text = self.headers.get("idempotency-key")
        if text is None:
            return None
        match = _IDEMPOTENCY_KEY.fullmatch(text)
        key = match and (match[1] or re.sub(r"\\(.)", r"\1", match[2]))
        if not key or len(key) > _LONGEST_KEY:
            invalid(
                "Idempotency-Key",
                f"must be 1 to {_LONGEST_KEY} visible ASCII characters",
            )
        return key

    def condition(self) -> Condition | None:
        """Return what If-Match or If-None-Match asks of the counter; None if neither is given.

        Raises:
            InvalidRequestError: If-Match is not a list of versions in quotes and not `*`,
                If-None-Match is not `*`, or both are given.
        """
        match, none_match = (
            self.headers.get("if-match"),
            self.headers.get("if-none-match"),
        )
        if match is not None and none_match is not None:
            invalid("If-Match", "not together with If-None-Match")
        if none_match is not None:
            if none_match != "*":
                invalid("If-None-Match", "must be * in this request")
            return Condition((0,))
        if match is None:
            return None
        if match == "*":
            return Condition(None)
        tags = _entity_tags(match)
        # Tally issues no other tags: one in the list is a mistake of the caller.
        strange = any(weak or not _VERSION.fullmatch(tag) for weak, tag in tags)
        if not 1 <= len(tags) <= MOST_VERSIONS or strange:
            invalid(
                "If-Match", f'must be *, or 1 to {MOST_VERSIONS} versions in quotes, such as "7"'
            )
        return Condition(tuple(sorted({int(tag) for _, tag in tags})))

    def has(self, version: int) -> bool:
        """Return whether the caller has the counter at `version`, so If-None-Match tells.

        Raises:
            InvalidRequestError: the header is not a list of entity tags and not `*`.
        """
        text = self.headers.get("if-none-match")
        if text is None:
            return False
        if text == "*":
            return version > 0
        tags = _entity_tags(text)
        if not tags:
            invalid("If-None-Match", 'must be versions in quotes, such as "7", or *')
        # RFC 9110, section 13.1.2, compares weakly: W/"7" matches "7".
        return any(tag == str(version) for _, tag in tags)

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
        return None if text is None else model.time(name, text)

    def period(self) -> model.Period:
        """Return the period from the parameter `from` to `to`: all time if not given.

        Raises:
            InvalidRequestError: one is no RFC 3339 time, or nothing is between them.
        """
        return model.period(self.time("from"), self.time("to"))


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
        headers: of the headers that change what a request means, those that the route knows, in
            lower case; any other of them is refused.

    Returns:
        The decorator. Its handler answers every `CounterError`, and what nobody foresaw, as a
        problem (RFC 9457), and writes one log line.
    """

    def decorate(function: Callable[[Request], Response]) -> Handler:
        def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
            request_id = event["requestContext"]["requestId"]
            unforeseen = None
            try:
                response = function(_request(event, context, query, body, headers))
            except model.CounterError as error:
                response = _problem(error, request_id)
            except Exception as error:  # noqa: BLE001  whatever it is, it is logged
                unforeseen = error
                response = _internal_error(request_id)
            log = logger.error if unforeseen else logger.info
            log(
                "%s %s %d",
                event["httpMethod"],
                event["resource"],
                response.status,
                exc_info=unforeseen,
                extra={
                    "request_id": request_id,
                    "invocation_id": context.aws_request_id,
                    **_problem_of(response),
                },
            )
            return {
                "statusCode": int(response.status),
                "headers": {
                    "Content-Type": "application/json",
                    "Cache-Control": "no-cache",
                    **response.headers,
                },
                "body": ""
                if response.body is None
                else json.dumps(response.body, separators=(",", ":")),
            }

        return handler

    return decorate


def counter_response(counter: Counter | ChangedCounter, *, replayed: bool = False) -> Response:
    """Return the answer that shows a counter; `replayed` if an earlier request was answered so."""
    headers = _replayed(replayed=replayed)
    if counter.version is not None:
        headers["ETag"] = _entity_tag(counter.version)
    return Response(counter._asdict(), headers=headers)


def counters_response(
    counters: Iterable[Counter | ChangedCounter], *, replayed: bool = False
) -> Response:
    """Return the answer that lists counters; `replayed` if an earlier request was answered so."""
    members = [counter._asdict() for counter in counters]
    return Response(members, headers=_replayed(replayed=replayed))


def not_modified_response(counter: Counter) -> Response:
    """Return the answer to a caller who has the counter as it is."""
    return Response(None, HTTPStatus.NOT_MODIFIED, {"ETag": _entity_tag(counter.version)})


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
        model.counter_id(unquote(path["counter_id"])),
        _query(event["multiValueQueryStringParameters"] or {}, query),
        _body(event, body),
        _headers(event["multiValueHeaders"] or {}, headers, event["httpMethod"]),
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
            " adds them. sam local start-api and the test page of API Gateway's console have no"
            " authorizer: use the URL of make run, or of a deployed stack, with an access token."
        )
        raise model.UnauthorizedError(detail)
    return actor


def _headers(given: dict[str, list[str]], known: Collection[str], method: str) -> dict[str, str]:
    """Return the values of the headers that the route knows, by their names in lower case."""
    headers: dict[str, str] = {}
    present = {name.lower() for name in given}
    for name, lines in given.items():
        key = name.lower()
        if key not in _MEANINGFUL_HEADERS or _is_void(key, method, present):
            continue
        if key not in known:
            invalid(name, "this request does not support it")
        # API Gateway lists `If-Match` and `if-match` as two headers.
        values = [headers[key], *lines] if key in headers else lines
        if len(values) > 1 and key not in _LIST_HEADERS:
            invalid(name, "given more than once")
        headers[key] = ",".join(values).strip(" \t")
    return headers


def _is_void(name: str, method: str, present: Collection[str]) -> bool:
    """Return whether the method, or another header of `present`, makes a header void (RFC 9110)."""
    match name:
        case "if-modified-since":  # section 13.1.3
            return method != "GET" or "if-none-match" in present
        case "if-unmodified-since":  # section 13.1.4
            return "if-match" in present
        case "range":  # section 14.2
            return method != "GET"
    return False


def _entity_tags(text: str) -> list[tuple[bool, str]]:
    """Return the entity tags of a list: whether each is weak, and what is in its quotes.

    Returns:
        Them in order; none if `text` is not a list of entity tags.
    """
    tags: list[tuple[bool, str]] = []
    position = 0
    while member := _MEMBER.match(text, position):
        if member["opaque"] is not None:
            tags.append((member["weak"] is not None, member["opaque"]))
        if not member["end"]:
            return tags
        position = member.end()
    return []


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
    fields = model.json_object("body", text)
    model.only(known, fields)
    return fields


def _replayed(*, replayed: bool) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if replayed else {}


def _entity_tag(version: int) -> str:
    return f'"{version}"'


def _problem(error: model.CounterError, request_id: str) -> Response:
    status, kind, title = _PROBLEMS[type(error)]
    headers = {"Content-Type": "application/problem+json"}
    members = {}
    match error:
        case model.BoundExceededError():
            members["value"] = error.value
        case model.VersionMismatchError():
            headers["ETag"] = _entity_tag(error.version)
        case model.InProgressError():
            headers["Retry-After"] = str(error.retry_after)
        case model.ThrottledError():
            headers["Retry-After"] = str(error.retry_after)
    return Response(
        {
            "type": f"urn:tally:problem:{kind}",
            "title": title,
            "status": status,
            "detail": str(error),
            "instance": f"urn:uuid:{request_id}",
            **members,
        },
        status,
        headers,
    )


def _problem_of(response: Response) -> dict[str, str]:
    """Return what the log says of a problem: its type and detail; nothing of another response."""
    match response.body:
        case {"type": str(kind), "detail": str(detail)}:
            return {"problem": kind.rpartition(":")[2], "detail": detail}
    return {}


def _internal_error(request_id: str) -> Response:
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return Response(
        {
            "type": "urn:tally:problem:internal-error",
            "title": "Internal error",
            "status": status,
            "detail": "This is a fault of the service; its log has it under the request id.",
            "instance": f"urn:uuid:{request_id}",
        },
        status,
        {"Content-Type": "application/problem+json"},
    )
