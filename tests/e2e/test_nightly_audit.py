"""The nightly audit on the deployed stack: Step Functions invokes AuditHistory for each segment."""

import json
import uuid
from typing import Any

from tests.e2e.service import Caller, client, physical_name, wait_for

from deployment import Stack

COUNTERS = 30
AUDIT_SECONDS = 60


def test_a_nightly_audit_covers_the_counters_of_all_segments_and_publishes_one_metric(
    stack: Stack, caller: Caller
) -> None:
    names = {f"night-{uuid.uuid4()}" for _ in range(COUNTERS)}
    for name in names:
        caller.post(f"/counters/{name}")
    for name in names:
        caller.history(f"/counters/{name}", entries=1)
    earlier_metrics = metrics(stack)

    states = client(stack, "stepfunctions")
    run = states.start_execution(stateMachineArn=physical_name(stack, "NightlyAudit"))
    ended: Any = wait_for(
        lambda: states.describe_execution(executionArn=run["executionArn"]),
        lambda execution: execution["status"] != "RUNNING",
        AUDIT_SECONDS,
    )

    assert ended["status"] == "SUCCEEDED", ended
    result = json.loads(ended["output"])
    assert result["finished"]
    assert result["counters"] >= COUNTERS
    assert names <= verified(stack)
    published = wait_for(lambda: metrics(stack)[len(earlier_metrics) :])
    assert [each["CountersAudited"] for each in published] == [[result["counters"]]]
    assert [each["AuditFindings"] for each in published] == [[result["findings"]]]


def verified(stack: Stack) -> set[str]:
    """Return the counters of which an audit has verified version 1."""
    pages = client(stack, "dynamodb").get_paginator("scan")
    return {
        item["counter_id"]["S"]
        for page in pages.paginate(TableName=stack.outputs["AuditTable"])
        for item in page["Items"]
        if json.loads(item["state"]["S"]).get("version") == 1
    }


def metrics(stack: Stack) -> list[dict[str, Any]]:
    """Return the metrics that AuditHistory has published, oldest first."""
    events = client(stack, "logs").get_paginator("filter_log_events")
    return [
        json.loads(event["message"])
        for page in events.paginate(logGroupName=physical_name(stack, "AuditHistoryLogGroup"))
        for event in page["events"]
        if "AuditFindings" in event["message"] and "_aws" in event["message"]
    ]
