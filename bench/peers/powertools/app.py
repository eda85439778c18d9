"""The increment with the usual stack: everything that Powertools offers, and boto3's resource."""

import datetime as dt
import os
import urllib.parse
from typing import Annotated, Any

import boto3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.openapi.params import Body
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, StrictInt

logger = Logger(service="counters")
tracer = Tracer(service="counters")
metrics = Metrics(namespace="Counters", service="counters")
app = APIGatewayRestResolver(enable_validation=True)
table = boto3.resource("dynamodb").Table(os.environ["COUNTER_TABLE"])
receipts = DynamoDBPersistenceLayer(table_name=os.environ["RECEIPT_TABLE"])
config = IdempotencyConfig(
    event_key_jmespath="idempotency_key",
    payload_validation_jmespath="[counter_id, by]",
    expires_after_seconds=24 * 60 * 60,
)


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
def increment_default(body: Annotated[Increment | None, Body()] = None) -> Counter:
    """Add to the counter named default."""
    return increment("default", body)


@app.post("/counters/<counter_id>")
@tracer.capture_method
def increment(counter_id: str, body: Annotated[Increment | None, Body()] = None) -> Counter:
    """Add to a counter, and return the counter after the change. Under a key, add only once."""
    wanted = {"counter_id": urllib.parse.unquote(counter_id), "by": (body or Increment()).by}
    key = app.current_event.headers.get("Idempotency-Key")
    counter = add_once(wanted={**wanted, "idempotency_key": key}) if key else add(wanted)
    metrics.add_metric("Increments", MetricUnit.Count, 1)
    logger.info("incremented", extra={"status": 200})
    return Counter.model_validate(counter)


@idempotent_function(data_keyword_argument="wanted", persistence_store=receipts, config=config)
def add_once(*, wanted: dict[str, Any]) -> dict[str, Any]:
    """Add to a counter once for all requests with the same key."""
    return add(wanted)


def add(wanted: dict[str, Any]) -> dict[str, Any]:
    """Add to a counter, and return the counter after the change."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    item = table.update_item(
        Key={"counter_id": wanted["counter_id"]},
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
            ":by": wanted["by"],
            ":one": 1,
            ":now": now,
            ":change": {
                "operation": "increment",
                "actor": app.current_event.request_context.authorizer.claims["sub"],
                "request_id": app.lambda_context.aws_request_id,
                "at": now,
            },
        },
        ReturnValues="ALL_NEW",
    )["Attributes"]
    return {
        "counter_id": wanted["counter_id"],
        "value": int(item["value"]),
        "version": int(item["version"]),
        "created_at": item["created_at"],
        "updated_at": item["updated_at"],
    }


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST)
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Handle POST /counter and POST /counters/{counter_id}."""
    config.register_lambda_context(context)
    return app.resolve(event, context)
