"""Counters with a past. For pictures, there are ten weeks of traffic, with unusual hours.

The traffic of an hour depends on the hour only, so a repeat draws the same curves.
"""

import math
import random
import time
from typing import TYPE_CHECKING, Any

from tests.e2e.service import client
from tests.past import Past

from counters import clock
from deployment import Stack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HOUR = 3600
WEEKS = 10
HOURS = WEEKS * 7 * 24
RECENT = 3  # the last hours, which have changes in the history, too
PAUSE = 240  # seconds between two of these changes
BATCH = 25  # items in a BatchWriteItem

# The share of each hour of a day, and of each day of a week, which begins on Thursday, as 1970 did.
_DAY = (
    *(0.3, 0.2, 0.15, 0.12, 0.15, 0.3, 0.5, 0.8, 1.1, 1.3, 1.4, 1.5),
    *(1.5, 1.4, 1.4, 1.4, 1.5, 1.6, 1.7, 1.8, 1.6, 1.2, 0.8, 0.5),
)
_WEEK = (1.05, 1.2, 1.1, 0.8, 0.95, 0.95, 0.95)

MAIN = "shop:orders"
EVENTS_AN_HOUR = {
    "api:requests": 5200,
    "api:errors": 9,
    "newsletter:signups": 14,
    MAIN: 420,
    "shop:returns": 21,
    "shop:reviews": 6,
    "site:downloads": 95,
    "site:visits": 2300,
    "support:tickets": 4,
}


def write(stack: Stack) -> None:
    """Write all counters, with the last day of each, and with ten weeks of `MAIN`."""
    dynamodb: DynamoDBClient = client(stack, "dynamodb")
    for name, mean in EVENTS_AN_HOUR.items():
        _write(stack, dynamodb, name, mean, HOURS if name == MAIN else 24)


def store(stack: Stack, past: Past) -> None:
    """Write the changes of a counter to CounterTable. Its stream brings them to the history."""
    dynamodb: DynamoDBClient = client(stack, "dynamodb")
    for record in past.records:
        item = record["dynamodb"]["NewImage"]
        dynamodb.put_item(TableName=stack.outputs["CounterTable"], Item=item)


def _write(stack: Stack, dynamodb: "DynamoDBClient", name: str, mean: int, hours: int) -> None:
    now = time.time()
    current = now // HOUR * HOUR
    close = mean * 3000
    items: list[Any] = []
    for ago in range(hours, RECENT, -1):
        start = current - ago * HOUR
        increase = _traffic(name, mean, start, HOUR, ago)
        decrease = increase // 40 if name == MAIN else 0
        close += increase - decrease
        values = {"first_version": 1, "last_version": 1, "changes": 1, "close": close}
        values |= {"increase": increase, "decrease": decrease}
        item: dict[str, Any] = {each: {"N": str(value)} for each, value in values.items()}
        item |= {"counter_id": {"S": name}, "hour": {"S": clock.timestamp(start)}}
        items.append({"PutRequest": {"Item": item}})
    for first in range(0, len(items), BATCH):
        batch = {stack.outputs["TrendTable"]: items[first : first + BATCH]}
        assert not dynamodb.batch_write_item(RequestItems=batch)["UnprocessedItems"]
    past = Past(name)
    past.change(current - HOURS * HOUR - 7 * 24 * HOUR, close)
    _continue(past, name, mean, current - RECENT * HOUR, now - 60)
    store(stack, past)


def _continue(past: Past, name: str, mean: int, start: float, end: float) -> None:
    """Add the changes of a period, as a queue would fold them."""
    pause = PAUSE if name == MAIN else HOUR // 2
    at = start + pause * random.Random(name).random()
    while at < end:
        increase = _traffic(name, mean, at, pause, 0)
        if increase:
            past.change(
                at,
                increase,
                actor={"S": "event:shop.checkout"},
                sender={"S": "111122223333"},
                events={"N": str(increase)},
                increase={"N": str(increase)},
                decrease={"N": "0"},
            )
        at += pause


def _traffic(name: str, mean: int, start: float, seconds: float, ago: int) -> int:
    """Return how many events a period has. `ago` is how many hours ago it began, or 0."""
    hour = int(start // HOUR)
    rng = random.Random(f"{name} {start % (70 * 24 * HOUR)}")
    expected = mean * _DAY[hour % 24] * _WEEK[hour // 24 % 7] * seconds / HOUR
    if name == MAIN and hour % 24 == 13 and ago // 24 == 1:
        expected *= 2.2  # a campaign
    if name == MAIN and hour % 24 in {10, 11} and ago // 24 == 4:
        expected *= 0.1  # a fault
    return max(0, round(rng.gauss(expected, math.sqrt(expected))))
