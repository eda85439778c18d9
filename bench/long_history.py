"""A counter with a history of any length. Formulas compute the history, so it need not be stored.

There is one change every 7 seconds. `Database` computes the responses to queries for the counter's
history and trend. It passes every other request to moto, which stores what the functions write.
Every response reports the units that DynamoDB charges for the sizes of its items:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
"""

import json
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from moto.core.botocore_stubber import MockRawResponse
from moto.core.models import botocore_stubber
from tests.meter import FACTORIES, READ_UNIT, size_of
from tests.stack import CLIENT_ID, Item, Stack, StreamRecord

from counters import clock

NAME = "long"
FIRST = 1_790_000_000  # time of the first change, in seconds since the epoch
INTERVAL = 7  # seconds from one change to the next
HOUR = 3600  # seconds
WRITE_UNIT = 1024  # bytes


def value(version: int) -> int:
    """Return the value at a version. Changes 1, 4, 7, … subtract 1. All other changes add 1."""
    return version // 3 - (version % 3 == 1)


def moment(version: float) -> str:
    """Return the time of a version as text. Version 1.5 is between versions 1 and 2."""
    return clock.timestamp(FIRST + INTERVAL * (version - 1))


def counter(version: int) -> Item:
    """Return the counter's item in CounterTable at a version."""
    return {
        "counter_id": {"S": NAME},
        "catalog": {"S": "counters"},
        "value": {"N": str(value(version))},
        "version": {"N": str(version)},
        "created_at": {"S": moment(1)},
        "updated_at": {"S": moment(version)},
        "change": {
            "M": {
                "operation": {"S": "increment"},
                "actor": {"S": CLIENT_ID},
                "request_id": {"S": _request_id(version)},
                "at": {"S": moment(version)},
            }
        },
    }


def change(version: int) -> StreamRecord:
    """Return the stream record of a change, as `record_history` receives it."""
    images: dict[str, Any] = {"NewImage": counter(version)}
    if version > 1:
        images["OldImage"] = counter(version - 1)
    number = f"{version:021}"
    return {"eventID": number, "dynamodb": {"SequenceNumber": number, **images}}


def entry(version: int) -> Item:
    """Return the item in HistoryTable for a change."""
    return {
        "counter_id": {"S": NAME},
        "version": {"N": str(version)},
        "value": {"N": str(value(version))},
        "previous_value": {"N": str(value(version - 1))},
        "by": {"N": str(value(version) - value(version - 1))},
        "operation": {"S": "increment"},
        "actor": {"S": CLIENT_ID},
        "request_id": {"S": _request_id(version)},
        "created_at": {"S": moment(version)},
        "counter_created_at": {"S": moment(1)},
    }


def hour(number: int, changes: int) -> Item:
    """Return the item in TrendTable for an hour.

    Args:
        number: the number of the hour. The hour of the first change is 0.
        changes: how many changes the counter has had.
    """
    start = (FIRST // HOUR + number) * HOUR
    first = max(1, math.ceil((start - FIRST) / INTERVAL) + 1)
    last = min(changes, math.ceil((start + HOUR - FIRST) / INTERVAL))
    count = last - first + 1
    decrease = (last + 2) // 3 - (first + 1) // 3  # how many changes subtract 1
    sums = {
        "changes": count,
        "increase": count - decrease,
        "decrease": decrease,
        "first_version": first,
        "last_version": last,
        "close": value(last),
    }
    key: Item = {"counter_id": {"S": NAME}, "hour": {"S": clock.timestamp(start)}}
    return {**key, **{name: {"N": str(number)} for name, number in sums.items()}}


def hours(changes: int) -> int:
    """Return how many hours the first changes of the history take. Every hour has a change."""
    return (FIRST + INTERVAL * (changes - 1)) // HOUR - FIRST // HOUR + 1


@dataclass(frozen=True)
class _Items(Sequence[Any]):
    """The items of the counter in a table, or the sort keys of these items, in order.

    An item or key is computed when it is read.
    """

    size: int
    item_at: Callable[[int], Any]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401  as in Sequence
        return self.item_at(index)


class Database:
    """Responds to the functions' requests as if DynamoDB had the counter and its history.

    A request of a kind that the functions never send raises a LookupError.

    Attributes:
        seconds: the CPU time that this thread has spent on responses, in seconds.
    """

    def __init__(self, stack: Stack, changes: int, expired: int = 0) -> None:
        """Store the counter with its changes. From now on, respond to the functions' requests.

        Args:
            stack: the stack that stores the counter.
            changes: how many changes the counter has had.
            expired: how many of the oldest changes have expired from the history.
        """
        self._stack = stack
        self._changes = changes
        self._expired = expired
        self._history = stack.refs["HistoryTable"]
        self._trend = stack.refs["TrendTable"]
        self.seconds = 0.0
        stack.dynamodb.put_item(TableName=stack.refs["CounterTable"], Item=counter(changes))
        # The functions add the next change to this item, which is the last hour of the trend.
        stack.dynamodb.put_item(TableName=self._trend, Item=hour(hours(changes) - 1, changes))
        for factory in FACTORIES:
            factory.cache_clear()
            events = factory().meta.events
            # Without this, botocore would call moto's handler even after `_send` has responded.
            moto: Any = botocore_stubber
            events.unregister("before-send", moto)
            send: Any = self._send
            events.register("before-send.dynamodb", send)

    def _send(self, request: AWSPreparedRequest, event_name: str, **_: object) -> AWSResponse:
        began = time.thread_time()
        body: Any = request.body
        parameters = json.loads(body)
        operation = event_name.rpartition(".")[2]
        if operation == "Query" and parameters["TableName"] in {self._history, self._trend}:
            status, reply = 200, self._query(parameters)
        else:
            response = botocore_stubber(event_name, request)
            if response is None:
                raise RuntimeError(event_name)
            status, reply = response.status_code, json.loads(response.content)
        if status == 200:  # noqa: PLR2004  the HTTP status
            reply["ConsumedCapacity"] = self._consumed(operation, parameters, reply)
        raw: Any = MockRawResponse(json.dumps(reply))
        answer = AWSResponse(request.url, status, HTTPHeaders(), raw)
        self.seconds += time.thread_time() - began
        return answer

    def _query(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the response to a Query of one of the forms that the functions use.

        Raises:
            LookupError: if the Query has a different form.
        """
        keys, items = self._tables(parameters["TableName"])
        values = parameters["ExpressionAttributeValues"]
        condition = parameters["KeyConditionExpression"].partition(" AND ")[2]
        low, high = 0, len(keys)
        match condition.split():
            case [_, "BETWEEN", first, "AND", last]:
                low = bisect_left(keys, _plain(values[first]))
                high = bisect_right(keys, _plain(values[last]))
            case [_, "<", end]:
                high = bisect_left(keys, _plain(values[end]))
            case [_, ">", start]:
                low = bisect_right(keys, _plain(values[start]))
            case _:
                raise LookupError(condition)
        if values[":counter_id"] != {"S": NAME} or "ExclusiveStartKey" in parameters:
            raise LookupError(parameters)
        found = range(low, max(low, high))
        if not parameters.get("ScanIndexForward", True):
            found = found[::-1]
        limit = parameters.get("Limit", len(found) + 1)
        reply: dict[str, Any] = {"Items": [items[index] for index in found[:limit]]}
        reply["Count"] = reply["ScannedCount"] = len(reply["Items"])
        if limit <= len(found):  # as in DynamoDB, even if no item follows
            last_item = reply["Items"][-1]
            sort_key = "version" if parameters["TableName"] == self._history else "hour"
            reply["LastEvaluatedKey"] = {name: last_item[name] for name in ("counter_id", sort_key)}
        return reply

    def _tables(self, name: str) -> tuple[_Items, _Items]:
        if name == self._history:
            size = self._changes - self._expired
            return (
                _Items(size, lambda index: self._expired + index + 1),
                _Items(size, lambda index: entry(self._expired + index + 1)),
            )
        count, begin = hours(self._changes), FIRST // HOUR
        return (
            _Items(count, lambda index: clock.timestamp((begin + index) * HOUR)),
            _Items(count, lambda index: hour(index, self._changes)),
        )

    def _consumed(self, operation: str, parameters: dict[str, Any], reply: dict[str, Any]) -> Any:  # noqa: ANN401  depends on the operation
        """Return the units that are charged, in the form in which the operation reports them."""
        units: float
        match operation:
            case "Query" | "GetItem":
                items = reply.get("Items", [reply.get("Item", {})])
                units = _read_units(sum(map(size_of, items)))
                units *= 1 if parameters.get("ConsistentRead") else 0.5
            case "BatchGetItem":
                ((name, wanted),) = parameters["RequestItems"].items()
                items = reply["Responses"][name]
                absent = len(wanted["Keys"]) - len(items)
                # DynamoDB charges for whole items, but a projection returns only a part of an item.
                # That makes no difference here, because each whole item takes only one unit.
                return [_report(absent + sum(_read_units(size_of(item)) for item in items))]
            case "PutItem":
                units = _write_units(parameters["Item"])
            case "UpdateItem":
                units = self._written(parameters)
            case "BatchWriteItem":
                ((_, puts),) = parameters["RequestItems"].items()
                return [_report(sum(_write_units(put["PutRequest"]["Item"]) for put in puts))]
            case "TransactWriteItems":
                updates = [each["Update"] for each in parameters["TransactItems"]]
                return [_report(2 * sum(map(self._written, updates)))]
            case _:
                raise LookupError(operation)
        return _report(units)

    def _written(self, update: dict[str, Any]) -> int:
        """Return the write units of an applied UpdateItem, from the new size of the item."""
        reply = self._stack.dynamodb.get_item(TableName=update["TableName"], Key=update["Key"])
        return _write_units(reply["Item"])


def _request_id(version: int) -> str:
    return f"00000000-0000-4000-8000-{version:012}"


def _plain(value: dict[str, str]) -> int | str:
    return int(value["N"]) if "N" in value else value["S"]


def _report(units: float) -> dict[str, float]:
    return {"CapacityUnits": units}


def _read_units(size: int) -> int:
    return max(1, math.ceil(size / READ_UNIT))


def _write_units(item: Item) -> int:
    return max(1, math.ceil(size_of(item) / WRITE_UNIT))
