"""The increment with FastAPI and Mangum, and with boto3's resource."""

import datetime as dt
import json
import os

import boto3
from fastapi import FastAPI, Request
from mangum import Mangum
from pydantic import BaseModel, StrictInt

app = FastAPI()
table = boto3.resource("dynamodb").Table(os.environ["COUNTER_TABLE"])


class Increment(BaseModel):
    """The body of a request."""

    by: StrictInt = 1


class Counter(BaseModel):
    """The body of a response."""

    counter_id: str
    value: int
    version: int
    created_at: str
    updated_at: str


@app.post("/counter")
def increment_default(request: Request, body: Increment | None = None) -> Counter:
    """Add to the counter named default."""
    return increment("default", request, body)


@app.post("/counters/{counter_id}")
def increment(counter_id: str, request: Request, body: Increment | None = None) -> Counter:
    """Add to a counter, and return the counter after the change."""
    event, context = request.scope["aws.event"], request.scope["aws.context"]
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    item = table.update_item(
        Key={"counter_id": counter_id},
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
            ":by": (body or Increment()).by,
            ":one": 1,
            ":now": now,
            ":change": {
                "operation": "increment",
                "actor": event["requestContext"]["authorizer"]["claims"]["sub"],
                "request_id": context.aws_request_id,
                "at": now,
            },
        },
        ReturnValues="ALL_NEW",
    )["Attributes"]
    line = {
        "method": request.method,
        "resource": event["resource"],
        "status": 200,
        "request_id": event["requestContext"]["requestId"],
    }
    print(json.dumps(line))
    return Counter.model_validate({**item, "counter_id": counter_id})


handler = Mangum(app, lifespan="off")
