"""Does what API Gateway does: makes an event from a request, and parses the function's answer."""

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests import conformance
from tests.aws_template import GLOBALS, Route

from counters import clock

# The claims with which IssueToken lets a caller use all counters.
ALL_RIGHTS = {"tally:read": "*", "tally:increment": "*", "tally:set": "*"}

TIMEOUT: int = GLOBALS["Timeout"]  # seconds


@dataclass(frozen=True)
class Context:
    """The context object that Lambda passes to a handler. Each invocation has its own id."""

    function_name: str
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    deadline: float = field(default_factory=lambda: clock.now() + TIMEOUT)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.deadline - clock.now()) * 1000)


@dataclass(frozen=True)
class Reply:
    """A function's answer to API Gateway.

    Attributes:
        body: the parsed JSON, or the text if it is not JSON; None if the body is empty.
    """

    status: int
    headers: Mapping[str, str]
    body: Any


def proxy_event(  # noqa: PLR0913, PLR0917
    route: Route,
    path: str,
    parameters: Mapping[str, str],
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    claims: Mapping[str, str],
) -> dict[str, Any]:
    """Return the event that a REST API in API Gateway sends to a function for a request."""
    try:
        text, is_base64 = body.decode(), False
    except UnicodeDecodeError:
        text, is_base64 = base64.b64encode(body).decode(), True
    values = parse_qs(query, keep_blank_values=True)
    return {
        "resource": route.path,
        "path": path,
        "httpMethod": route.method,
        "headers": dict(headers) or None,
        "multiValueHeaders": {name: [value] for name, value in headers.items()} or None,
        "queryStringParameters": {name: texts[-1] for name, texts in values.items()} or None,
        "multiValueQueryStringParameters": values or None,
        "pathParameters": parameters or None,
        "stageVariables": None,
        "requestContext": {
            # A route that needs no token has no authorizer.
            **({} if route.public else {"authorizer": {"claims": dict(claims)}}),
            "resourcePath": route.path,
            "httpMethod": route.method,
            "path": f"/v1{path}",
            "stage": "v1",
            "requestId": str(uuid.uuid4()),
        },
        "body": text or None,
        "isBase64Encoded": is_base64,
    }


def reply(response: Mapping[str, Any]) -> Reply:
    """Parse the response of a function."""
    headers = response["headers"]
    body = conformance.parsed(headers["Content-Type"], response["body"])
    return Reply(response["statusCode"], headers, body)
