"""Reads what the database stores about some counters, without the functions."""

import json
from typing import Any

from tests.e2e.recorded_run import CounterState, Entry
from tests.e2e.service import client, physical_name

from deployment import Stack


class Stored:
    """The stored state of some counters: values, history and trend."""

    def __init__(self, stack: Stack, counters: list[str]) -> None:
        self._stack = stack
        self._counters = counters
        self._dynamodb = client(stack, "dynamodb")

    def histories(self) -> dict[str, list[Entry]]:
        return {
            name: list(map(_entry, self._items("HistoryTable", name))) for name in self._counters
        }

    def states(self) -> dict[str, CounterState]:
        return {
            name: CounterState(
                int(item["value"]["N"]),
                int(item["version"]["N"]),
                item["change"]["M"]["request_id"]["S"],
            )
            for name in self._counters
            for item in self._items("CounterTable", name)
        }

    def caught_up(self) -> bool:
        """Return whether the history and the trend include every change."""
        for name, state in self.states().items():
            hours = self._items("TrendTable", name)
            trend_version = max((int(hour["last_version"]["N"]) for hour in hours), default=0)
            if not trend_version == len(self._items("HistoryTable", name)) == state.version:
                return False
        return True

    def findings(self) -> list[Any]:
        """Run the deployed audit of each counter, and return all findings."""
        lambda_, name = client(self._stack, "lambda"), physical_name(self._stack, "AuditHistory")
        findings = []
        for counter_id in self._counters:
            payload = json.dumps({"counter_id": counter_id})
            report = json.load(lambda_.invoke(FunctionName=name, Payload=payload)["Payload"])
            assert report["finished"], report
            findings += report["findings"]
        return findings

    def _items(self, table: str, counter_id: str) -> list[Any]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._stack.outputs[table],
            KeyConditionExpression="counter_id = :counter_id",
            ExpressionAttributeValues={":counter_id": {"S": counter_id}},
            ConsistentRead=True,
        )
        return [item for page in pages for item in page["Items"]]


def _entry(item: dict[str, Any]) -> Entry:
    fields: dict[str, Any] = {
        name: int(item[name]["N"]) if "N" in item[name] else item[name]["S"]
        for name in Entry._fields
    }
    return Entry(**fields)
