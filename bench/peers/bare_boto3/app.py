"""The increment as a bare handler, with a default boto3 client that is created at import."""

import datetime as dt
import json
import os
import urllib.parse
from typing import Any

import boto3

TABLE = os.environ["COUNTER_TABLE"]

dynamodb = boto3.client("dynamodb")


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
    item = dynamodb.update_item(
        TableName=TABLE,
        Key={"counter_id": {"S": counter_id}},
        UpdateExpression=(
            "SET created_at = if_not_exists(created_at, :now), updated_at = :now,"
            " #change = :change ADD #value :by, #version :one"
        ),
        ExpressionAttributeNames={
            "#change": "change",
            "#value": "value",
            "#version": "version",
        },
        ExpressionAttributeValues={
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
        ReturnValues="ALL_NEW",
    )["Attributes"]
    return {
        "counter_id": counter_id,
        "value": int(item["value"]["N"]),
        "version": int(item["version"]["N"]),
        "created_at": item["created_at"]["S"],
        "updated_at": item["updated_at"]["S"],
    }


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
