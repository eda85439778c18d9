"""A database with very many counters that all have the same changes, so that few items are stored.

`Database` takes the place of the SDK's client for DynamoDB. It answers the requests of an audit, in
memory, and reports a LookupError for any other request. It counts the units that DynamoDB charges:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
"""

import math
import zlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from tests.meter import READ_UNIT, size_of
from tests.stack import Item
from tests.wire import Killed

WRITE_UNIT = 1024  # bytes


class RefusedError(Exception):
    """The condition of a write does not hold."""


class Database:
    """Answers the requests of an audit as if DynamoDB had the counters and their histories.

    Attributes:
        exceptions: the exceptions that the SDK's client would raise, by name.
        states: what AuditTable stores, by key.
        requests: the number of requests, by operation and table.
        units: the read and write units that DynamoDB would charge, by operation and table.
        seconds: how long all requests took together, in simulated seconds.
        killed_after: kill the function after this many more requests; None to never kill it.
    """

    def __init__(
        self,
        names: Sequence[str],
        tables: Mapping[str, str],
        contents: Mapping[str, Sequence[Item]],
        request_seconds: float,
    ) -> None:
        """Give every counter the items of one counter.

        Args:
            names: the names of the counters.
            tables: the name of each table, by its logical id.
            contents: the items of the one counter, by the logical id of their table. The names of
                the counters must be as long as its name, so that all items have the same size.
            request_seconds: how long a request takes.
        """
        self.exceptions = SimpleNamespace(ConditionalCheckFailedException=RefusedError)
        self.states: dict[str, str] = {}
        self.requests = Counter[tuple[str, str]]()
        self.units: dict[tuple[str, str], float] = defaultdict(float)
        self.seconds = 0.0
        self.killed_after: int | None = None
        self._request_seconds = request_seconds
        self._names = names
        self._tables = {name: logical_id for logical_id, name in tables.items()}
        self._contents = contents
        self._segments: dict[int, list[list[str]]] = {}
        self._sizes: dict[tuple[str, str, int], float] = {}

    def get_item(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Answer a GetItem request, which must be strongly consistent."""
        table, name = self._tables[request["TableName"]], request["Key"]["counter_id"]["S"]
        if not request["ConsistentRead"] or table not in {"CounterTable", "AuditTable"}:
            raise LookupError(request)
        if table == "AuditTable":
            items = [_state(name, self.states[name])] if name in self.states else []
        else:
            items = [_named(item, name) for item in self._contents[table]]
        self._count("GetItem", table, self._read_units("GetItem", table, items))
        return {"Item": items[0]} if items else {}

    def query(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Answer a Query of a counter's entries or hours, which must be strongly consistent."""
        table, values = self._tables[request["TableName"]], request["ExpressionAttributeValues"]
        name = values[":counter_id"]["S"]
        items = self._contents[table]
        match request["KeyConditionExpression"].partition(" AND ")[2]:
            case "" if table == "HistoryTable":
                pass
            case "#version > :after":
                after = int(values[":after"]["N"])
                items = [item for item in items if int(item["version"]["N"]) > after]
            case "#hour BETWEEN :first AND :last":
                first, last = values[":first"]["S"], values[":last"]["S"]
                items = [item for item in items if first <= item["hour"]["S"] <= last]
            case _:
                raise LookupError(request)
        if not request["ConsistentRead"]:
            raise LookupError(request)
        found = [_named(item, name) for item in items]
        self._count("Query", table, self._read_units("Query", table, found))
        return {"Items": found}

    def put_item(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Answer a PutItem request for AuditTable, whose condition must be on the old state.

        Raises:
            RefusedError: if the condition does not hold.
        """
        table, item = self._tables[request["TableName"]], request["Item"]
        name, state = item["counter_id"]["S"], item["state"]["S"]
        if table != "AuditTable":
            raise LookupError(request)
        self._count("PutItem", table, math.ceil(size_of(item) / WRITE_UNIT))
        before = request.get("ExpressionAttributeValues", {":before": {"S": None}})[":before"]["S"]
        expected = "attribute_not_exists(#state)" if before is None else "#state = :before"
        if request["ConditionExpression"] != expected:
            raise LookupError(request)
        if self.states.get(name) != before:
            raise RefusedError
        self.states[name] = state
        return {}

    def scan(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        """Answer a Scan of a segment of CounterTable."""
        table, segment, limit = request["TableName"], request["Segment"], request["Limit"]
        if self._tables[table] != "CounterTable":
            raise LookupError(request)
        if request["FilterExpression"] != (
            "NOT (updated_at >= :first AND updated_at < :updated_at)"
        ):
            raise LookupError(request)
        names = self._in_segments(request["TotalSegments"])[segment]
        after = request.get("ExclusiveStartKey", {"counter_id": {"S": ""}})["counter_id"]["S"]
        start = bisect_right(names, after)
        page = names[start : start + limit]
        (counter,) = self._contents["CounterTable"]
        size = size_of(counter) * len(page)
        self._count("Scan", "CounterTable", max(1, math.ceil(size / READ_UNIT)) / 2)
        changed = (
            counter["updated_at"]["S"] >= request["ExpressionAttributeValues"][":updated_at"]["S"]
        )
        reply: dict[str, Any] = {"Items": [{"counter_id": {"S": name}} for name in page if changed]}
        if len(page) == limit:  # as in DynamoDB, even if no item follows
            reply["LastEvaluatedKey"] = {"counter_id": {"S": page[-1]}}
        return reply

    def _in_segments(self, count: int) -> list[list[str]]:
        if count not in self._segments:
            segments: list[list[str]] = [[] for _ in range(count)]
            for name in sorted(self._names):
                segments[zlib.crc32(name.encode()) % count].append(name)
            self._segments[count] = segments
        return self._segments[count]

    def _read_units(self, operation: str, table: str, items: Sequence[Item]) -> float:
        key = (operation, table, len(items))
        if key not in self._sizes:
            self._sizes[key] = max(1, math.ceil(sum(map(size_of, items)) / READ_UNIT))
        return self._sizes[key]

    def _count(self, operation: str, table: str, units: float) -> None:
        """Count a request and its units.

        Raises:
            Killed: if this request is the one after which the function is killed.
        """
        self.requests[operation, table] += 1
        self.units[operation, table] += units
        self.seconds += self._request_seconds
        if self.killed_after is not None:
            self.killed_after -= 1
            if self.killed_after < 0:
                self.killed_after = None
                raise Killed


def _named(item: Item, name: str) -> Item:
    return {**item, "counter_id": {"S": name}}


def _state(name: str, state: str) -> Item:
    return {"counter_id": {"S": name}, "state": {"S": state}}
