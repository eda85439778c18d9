"""Estimates what AWS itself writes for a request: Lambda's log lines, access log, headers."""

import json
from collections.abc import Mapping

from tests import aws_template
from tests.stack import CLIENT_ID

_ID = "79b4f56e-95b1-4643-9700-2807f4e68189"
_TRACE = "Root=1-5f35ae12-0c0fec141ab77a00bc047aa2;Parent=2be948a625588e32;Sampled=0"

# The two log lines that Lambda writes for an invocation if the parameter SystemLogLevel is INFO. If
# it is WARN, Lambda writes none for an invocation that succeeds.
# https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
_START = {
    "time": "2026-11-22T16:07:13.192Z",
    "type": "platform.start",
    "record": {"requestId": _ID, "version": "$LATEST"},
}
_REPORT = {
    "time": "2026-11-22T16:07:13.207Z",
    "type": "platform.report",
    "record": {
        "requestId": _ID,
        "metrics": {
            "durationMs": 14.203,
            "billedDurationMs": 15,
            "memorySizeMB": 512,
            "maxMemoryUsedMB": 98,
        },
        "tracing": {
            "spanId": "53995c3f42cd8ad8",
            "type": "X-Amzn-Trace-Id",
            "value": _TRACE,
        },
        "status": "success",
    },
}
PLATFORM_BYTES = sum(len(json.dumps(line, separators=(",", ":"))) + 1 for line in (_START, _REPORT))

# Sample values of the variables in the template's format of the access log.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html
_CONTEXT = {
    "$context.requestTimeEpoch": "1795363633192",
    "$context.requestId": _ID,
    "$context.awsEndpointRequestId": _ID,
    "$context.status": "200",
    "$context.authorizer.claims.sub": CLIENT_ID,
    "$context.responseLatency": "18",
    "$context.error.responseType": "-",
}

# The status line and the headers that API Gateway adds before the function's own headers.
_HEADERS = f"""HTTP/1.1 200 OK
Date: Sun, 22 Nov 2026 16:07:13 GMT
Content-Length: 138
Connection: keep-alive
x-amzn-RequestId: {_ID}
x-amz-apigw-id: dHBXkGKhIAMEdYw=
X-Amzn-Trace-Id: {_TRACE}
"""


def access_log(method: str, path: str) -> str:
    """Return the line of the access log for a request, in the template's format.

    Args:
        method: the HTTP method.
        path: the path, with the stage.
    """
    (api,) = aws_template.resources("AWS::Serverless::Api").values()
    line: str = api["Properties"]["AccessLogSetting"]["Format"]
    context = {**_CONTEXT, "$context.httpMethod": method, "$context.path": path}
    # Replace the longest name first, because one name may be the beginning of another.
    for name in sorted(context, key=len, reverse=True):
        line = line.replace(name, context[name])
    return line


def http_response(headers: Mapping[str, str], body: str) -> str:
    """Return an HTTP response as API Gateway sends it, with the headers that API Gateway adds.

    Args:
        headers: the function's own headers.
        body: the body of the response.
    """
    own = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return _HEADERS.replace("\n", "\r\n") + own + "\r\n" + body
