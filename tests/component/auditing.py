"""Helpers for tests of AuditHistory: a counter to audit, and the findings of an audit."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests import state_machine
from tests.contents import prepare_once
from tests.past import Past
from tests.stack import Stack
from tests.times import BEGINNING, DAY

from counters import clock

LATER = BEGINNING + 30 * DAY

Finding = dict[str, Any]


def record_orders(stack: Stack) -> Past:
    """Record the counter "orders" and its 60 changes, one change every ten minutes."""
    past = Past("orders")
    for number in range(60):
        past.change(BEGINNING + 600 * number, -3 if number % 5 == 4 else 2)
    prepare_once(stack, "60 changes of orders", lambda: past.record(stack))
    return past


def audit(stack: Stack, **event: object) -> dict[str, Any]:
    report: dict[str, Any] = stack.invoke("AuditHistory", event)
    return report


def nightly(stack: Stack) -> dict[str, Any]:
    """Run a nightly audit, and return its result.

    Raises:
        FailedError: if a segment was not finished.
    """
    result: dict[str, Any] = state_machine.run("NightlyAudit", stack.invoke)
    return result


def findings(stack: Stack, counter_id: str = "orders", **event: object) -> list[Finding]:
    """Audit a counter, and return the findings: the mismatches that the audit reports."""
    report = audit(stack, counter_id=counter_id, **event)
    assert report["finished"]
    found: list[Finding] = report["findings"]
    return found


def versions(found: list[Finding]) -> list[int | None]:
    return [finding["version"] for finding in found]


def change_hour(stack: Stack, hour: float, **attributes: Any) -> None:  # noqa: ANN401
    """Change attributes of one hour's item in the trend of "orders". Create the item if needed."""
    key: Any = {"counter_id": {"S": "orders"}, "hour": {"S": clock.timestamp(hour)}}
    table = stack.refs["TrendTable"]
    item = stack.dynamodb.get_item(TableName=table, Key=key).get("Item", {})
    stack.dynamodb.put_item(TableName=table, Item={**item, **key, **attributes})


def record_three_changes(stack: Stack, *names: str, time: float = BEGINNING) -> None:
    for name in names:
        past = Past(name)
        for number in range(3):
            past.change(time + number, 1)
        past.record(stack)


def counted(result: Mapping[str, Any]) -> tuple[int, int, int]:
    return result["counters"], result["entries"], result["findings"]


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Return the counters and the versions of the findings in the log."""
    found = [vars(record)["finding"] for record in caplog.records if "finding" in vars(record)]
    return [(finding["counter_id"], finding["version"]) for finding in found]


def saved(stack: Stack) -> Any:  # noqa: ANN401  any JSON value
    """Return what AuditTable stores about the last clean nightly audit."""
    item = stack.item("AuditTable", "*")
    return json.loads(item["state"]["S"]) if item else None
