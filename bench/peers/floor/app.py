"""The increment without an SDK: one HTTP connection that stays open, and a signature by hand.

This is the least work that an increment takes in Python. It has no retries, no error messages for
callers, and no handling of failures, so do not use it. It signs requests as described here:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import urllib.parse
from functools import cache
from typing import Any

TABLE = os.environ["COUNTER_TABLE"]
REGION = os.environ["AWS_REGION"]
ENDPOINT = urllib.parse.urlsplit(
    os.environ.get("AWS_ENDPOINT_URL", f"https://dynamodb.{REGION}.amazonaws.com")
)
TARGET = "DynamoDB_20120810.UpdateItem"
CONTENT_TYPE = "application/x-amz-json-1.0"
SIGNED = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
TIMEOUT = 5  # seconds

connection = (
    http.client.HTTPSConnection if ENDPOINT.scheme == "https" else http.client.HTTPConnection
)(ENDPOINT.netloc, timeout=TIMEOUT)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  Lambda's own
    """Handle POST /counter and POST /counters/{counter_id}: return the counter after the change."""
    parameters = event["pathParameters"] or {"counter_id": "default"}
    try:
        by = json.loads(event["body"] or "{}").get("by", 1)
    except (ValueError, AttributeError):
        by = None
    if type(by) is not int:
        return answer(event, 400, {"message": "by: must be an integer"})
    counter_id = urllib.parse.unquote(parameters["counter_id"])
    actor = event["requestContext"]["authorizer"]["claims"]["sub"]
    return answer(event, 200, increment(counter_id, by, actor, context.aws_request_id))


def increment(counter_id: str, by: int, actor: str, request_id: str) -> dict[str, Any]:
    """Add to the counter, and return the counter after the change."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    item = update_item(
        {
            "TableName": TABLE,
            "Key": {"counter_id": {"S": counter_id}},
            "UpdateExpression": (
                "SET created_at = if_not_exists(created_at, :now), updated_at = :now,"
                " #change = :change ADD #value :by, #version :one"
            ),
            "ExpressionAttributeNames": {
                "#change": "change",
                "#value": "value",
                "#version": "version",
            },
            "ExpressionAttributeValues": {
                ":by": {"N": str(by)},
                ":one": {"N": "1"},
                ":now": {"S": now},
                ":change": {
                    "M": {
                        "operation": {"S": "increment"},
                        "actor": {"S": actor},
                        "request_id": {"S": request_id},
                        "at": {"S": now},
                    }
                },
            },
            "ReturnValues": "ALL_NEW",
        }
    )
    return {
        "counter_id": counter_id,
        "value": int(item["value"]["N"]),
        "version": int(item["version"]["N"]),
        "created_at": item["created_at"]["S"],
        "updated_at": item["updated_at"]["S"],
    }


def update_item(request: dict[str, Any]) -> dict[str, Any]:
    """Send an UpdateItem, and return the item after the change.

    Raises:
        RuntimeError: DynamoDB refused it.
    """
    body = json.dumps(request).encode()
    connection.request("POST", "/", body, signed_headers(body))
    reply = connection.getresponse()
    content = reply.read()
    if reply.status != http.client.OK:
        raise RuntimeError(content.decode())
    attributes: dict[str, Any] = json.loads(content)["Attributes"]
    return attributes


def signed_headers(body: bytes) -> dict[str, str]:
    """Return the headers of a request to DynamoDB, including its signature (SigV4)."""
    moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    day = moment[:8]
    token = os.environ["AWS_SESSION_TOKEN"]
    canonical = "\n".join(
        [
            "POST",
            "/",
            "",
            f"content-type:{CONTENT_TYPE}",
            f"host:{ENDPOINT.netloc}",
            f"x-amz-date:{moment}",
            f"x-amz-security-token:{token}",
            f"x-amz-target:{TARGET}",
            "",
            SIGNED,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{day}/{REGION}/dynamodb/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    key = signing_key(os.environ["AWS_SECRET_ACCESS_KEY"], day)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    return {
        "Content-Type": CONTENT_TYPE,
        "X-Amz-Date": moment,
        "X-Amz-Security-Token": token,
        "X-Amz-Target": TARGET,
        "Authorization": (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={SIGNED},"
            f" Signature={signature}"
        ),
    }


@cache
def signing_key(secret: str, day: str) -> bytes:
    """Return the key that signs a day's requests to DynamoDB.

    Args:
        secret: the secret access key.
        day: the day, as YYYYMMDD.
    """
    key = f"AWS4{secret}".encode()
    for part in (day, REGION, "dynamodb", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def answer(event: dict[str, Any], status: int, body: dict[str, Any]) -> dict[str, Any]:
    """Return a response for API Gateway, and write the request's log line."""
    line = {
        "method": event["httpMethod"],
        "resource": event["resource"],
        "status": status,
        "request_id": event["requestContext"]["requestId"],
    }
    print(json.dumps(line))
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps(body),
    }
