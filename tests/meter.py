"""Measures the DynamoDB capacity that the functions consume."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

from counters import clients

FACTORIES = (clients.dynamodb,)
WRITES = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"}
READ_UNIT = 4096  # bytes for one unit in a strongly consistent read


class Meter:
    """Counts the requests of the functions' AWS clients, and the capacity that they consume.

    A meter counts only the requests of clients that already exist when the meter is created. It
    counts until the end of the `with` block, if there is one.
    """

    def __init__(self) -> None:
        self.units = Counter[str]()  # that DynamoDB reports, by "write" and "read"
        self.requests = Counter[str]()  # the number of requests, by operation
        self.items = 0  # items that queries have read
        self.absent = 0  # keys of BatchGetItem without an item; each takes a read unit
        self.charged = 0.0  # read units of the queries, computed from the items' sizes
        self._keys = 0  # of the BatchGetItem that waits for its reply
        self._consistent = False  # whether the read that waits for its reply is strongly consistent
        self._events = [factory().meta.events for factory in FACTORIES]
        for events in self._events:
            events.register("provide-client-params.dynamodb", self._request_report)
            events.register("after-call.dynamodb", self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for events in self._events:
            events.unregister("provide-client-params.dynamodb", self._request_report)
            events.unregister("after-call.dynamodb", self._count)

    def clear(self) -> None:
        """Reset all counts to 0."""
        self.units.clear()
        self.requests.clear()
        self.items = self.absent = 0
        self.charged = 0.0

    def _request_report(self, params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"
        self._keys = sum(
            len(each["Keys"]) for each in params.get("RequestItems", {}).values() if "Keys" in each
        )
        self._consistent = params.get("ConsistentRead", False)

    def _count(self, parsed: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401
        unit = "write" if model.name in WRITES else "read"
        self.requests[model.name] += 1
        if parsed.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
            # DynamoDB also charges a write whose condition fails, but does not report its units.
            # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
            self.units[unit] += 1
        consumed = parsed.get("ConsumedCapacity", [])
        for each in consumed if isinstance(consumed, list) else [consumed]:
            self.units[unit] += each["CapacityUnits"]
        self.items += parsed.get("ScannedCount", 0)
        if model.name == "BatchGetItem" and not consumed:  # the emulator reports no units
            for items in parsed["Responses"].values():
                self.units[unit] += sum(max(1, math.ceil(size_of(i) / READ_UNIT)) for i in items)
                self.absent += self._keys - len(items)
        if model.name == "Query":
            size = sum(map(size_of, parsed["Items"]))
            units = max(1, math.ceil(size / READ_UNIT))
            self.charged += units if self._consistent else units / 2


def size_of(item: Mapping[str, Any]) -> int:
    """Return the size of an item in bytes, as DynamoDB counts it.

    The item may contain only strings, numbers, maps and sets of strings.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    size = 0
    for name, value in item.items():
        size += len(name)
        match value:
            case {"S": text}:
                size += len(text.encode())
            case {"N": digits}:
                size += (len(digits) + 1) // 2 + 1
            case {"SS": texts}:
                size += sum(len(text.encode()) for text in texts)
            case {"M": members}:
                size += 3 + len(members) + size_of(members)
    return size
