"""What the functions consume of the database: its reports, and the sizes that it charges by."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from counters import clients

FACTORIES = (clients.dynamodb,)
WRITES = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"}
READ_UNIT = 4096  # bytes, read consistently; else half as much is charged


class Meter:
    """Counts what goes through the clients of the functions, which must not be made anew."""

    def __init__(self) -> None:
        self.units = Counter[str]()  # as the database reports them: "write", "read"
        self.requests = Counter[str]()  # by operation
        self.items = 0  # that queries have read
        self.charged = 0.0  # read units of those queries, by their size, as DynamoDB charges them
        for factory in FACTORIES:
            events = factory().meta.events
            events.register("provide-client-params.dynamodb", self._ask)
            events.register("after-call.dynamodb", self._read)

    def clear(self) -> None:
        """Begin at 0."""
        self.units.clear()
        self.requests.clear()
        self.items = 0
        self.charged = 0.0

    def _ask(self, params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"
        self._consistent = params.get("ConsistentRead", False)

    def _read(self, parsed: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401
        kind = "write" if model.name in WRITES else "read"
        self.requests[model.name] += 1
        if parsed.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
            # DynamoDB charges the write all the same, but a refusal carries no report of it.
            # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
            self.units[kind] += 1
        consumed = parsed.get("ConsumedCapacity", [])
        for each in consumed if isinstance(consumed, list) else [consumed]:
            self.units[kind] += each["CapacityUnits"]
        self.items += parsed.get("ScannedCount", 0)
        if model.name == "BatchGetItem" and not consumed:  # the emulator reports none of it
            for items in parsed["Responses"].values():
                self.units[kind] += sum(max(1, math.ceil(size_of(i) / READ_UNIT)) for i in items)
        if model.name == "Query":
            size = sum(map(size_of, parsed["Items"]))
            units = max(1, math.ceil(size / READ_UNIT))
            self.charged += units if self._consistent else units / 2


def size_of(item: Mapping[str, Any]) -> int:
    """Return the bytes of an item of texts, numbers and maps, as DynamoDB counts them.

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
            case {"M": members}:
                size += 3 + len(members) + size_of(members)
    return size
