"""RecordHistory, which writes the history.

The tests cover outages of the tables that RecordHistory writes, its delay, and the records that it
parks (moves to a dead-letter queue).
"""

import datetime as dt
import itertools
import json
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.aws_template import ROOT
from tests.e2e.fault_proxy import FaultProxy, refused_internally, reply_lost, serving, throttled
from tests.e2e.service import (
    REQUEST_SECONDS,
    Answer,
    Caller,
    client,
    extra_variables,
    physical_name,
    run_clients,
    wait_for,
)
from tests.sizes import FULL, cases

from deployment import Stack

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_sqs import SQSClient

INCREMENT = ["counters/increment"]

CLIENTS = cases(6, part=4)
CHANGES = cases(180, part=40)  # number of changes that are answered during the outage
COUNTERS = 3
PAUSE_SECONDS = 0.08

LAG_CLIENTS = 8
LAG_CHANGES = 50


@pytest.fixture(scope="module")
def module_proxy(stack: Stack) -> Iterator[FaultProxy]:
    """A proxy between RecordHistory and DynamoDB, for all tests of this module."""
    with (
        serving(stack.endpoint_url) as (proxy, url),
        extra_variables(stack, "RecordHistory", AWS_ENDPOINT_URL_DYNAMODB=url),
    ):
        yield proxy


@pytest.fixture
def proxy(module_proxy: FaultProxy) -> FaultProxy:
    """The proxy of RecordHistory. It has not handled any requests yet."""
    module_proxy.requests.clear()
    return module_proxy


@pytest.fixture
def dead_letters(stack: Stack) -> Iterator["DeadLetters"]:
    """The queue of parked records. It is empty when a test begins."""
    queue = DeadLetters(stack)
    assert queue.bodies() == []
    yield queue
    queue.purge()


class DeadLetters:
    """HistoryDeadLetterQueue: the queue that gets the records that RecordHistory parks."""

    def __init__(self, stack: Stack) -> None:
        self._sqs: SQSClient = client(stack, "sqs")
        self._url = stack.outputs["HistoryDeadLetterQueueUrl"]

    def park(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self._url, MessageBody=body)

    def bodies(self) -> list[str]:
        """Return the bodies of the available messages, and leave the messages in the queue."""
        messages = self._sqs.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=10, VisibilityTimeout=0
        ).get("Messages", [])
        return [message["Body"] for message in messages]

    def purge(self) -> None:
        self._sqs.purge_queue(QueueUrl=self._url)


@pytest.mark.parametrize("table", ["HistoryTable", "TrendTable"])
def test_every_change_is_recorded_once_despite_an_outage_of_a_table(
    stack: Stack, caller: Caller, proxy: FaultProxy, dead_letters: DeadLetters, table: str
) -> None:
    prefix = uuid.uuid4()
    paths = [f"/counters/{prefix}:{number}" for number in range(COUNTERS)]
    answers: dict[str, list[tuple[Answer, int]]] = {path: [] for path in paths}

    stopped = threading.Event()

    def send(client: Caller, number: int) -> list[Answer]:
        for turn in itertools.takewhile(lambda _: not stopped.is_set(), itertools.count()):
            path = paths[(number + turn) % COUNTERS]
            by = (number + turn) % 7 - 2 or 10  # positive or negative
            answers[path].append((client.post(path, by=by), by))
            time.sleep(PAUSE_SECONDS)
        return []

    def answered() -> int:
        return sum(map(len, answers.values()))

    def outage_was_long_enough() -> bool:
        return answered() >= before + CHANGES and proxy.has_injected(throttled, times=2)

    with ThreadPoolExecutor(1) as pool, ExitStack() as stopping:
        stopping.callback(stopped.set)
        clients = pool.submit(run_clients, stack, INCREMENT, CLIENTS, send)
        # Wait until the trend has the changes with which the clients warm up. Without this wait,
        # all faults could hit the records of these changes.
        wait_for(lambda: all(trend(caller, path) for path in paths), seconds=REQUEST_SECONDS)
        with proxy.failing(stack.outputs[table], throttled):
            began, before = time.monotonic(), answered()
            wait_for(outage_was_long_enough, seconds=REQUEST_SECONDS)
            during, seconds = answered() - before, time.monotonic() - began
            missing = answered() - sum(
                bucket["changes"] for path in paths for bucket in trend(caller, path)
            )
        # After the outage, let writes fail in two other ways: first they get a 500, and next they
        # lose their reply.
        for fault in (refused_internally, reply_lost):
            with proxy.failing(stack.outputs[table], fault):
                wait_for(partial(proxy.has_injected, fault, times=2), seconds=REQUEST_SECONDS)
        ended = time.monotonic()
        stopped.set()
        clients.result()

    for path in paths:
        assert_recorded(caller, path, answers[path])
    print(
        f"{table}: {answered()} changes, {during} of them during the outage of {seconds:.1f} s. It"
        f" refused {len(proxy.requests_with(throttled))} writes. Then the trend lacked {missing}."
        f" Next came {len(proxy.requests_with(refused_internally))} errors and"
        f" {len(proxy.requests_with(reply_lost))} lost replies. {len(proxy.requests_with(None))}"
        f" requests met no fault. Everything was recorded {time.monotonic() - ended:.1f} s after"
        " the last fault."
    )
    assert during >= CHANGES
    assert proxy.has_injected(throttled, times=2)
    assert proxy.has_injected(refused_internally, times=2)
    assert proxy.has_injected(reply_lost, times=2)
    # Ignore the requests for the warm-up changes. These requests may be late, so they may meet a
    # fault, too.
    requests = [each for each in proxy.requests if str(prefix) in json.dumps(each.parameters)]
    assert {each.fault for each in requests} == {throttled, refused_internally, reply_lost, None}
    # When the outage began, each client may have had one change under way.
    assert missing >= during - CLIENTS
    assert dead_letters.bodies() == []


@pytest.mark.skipif(not FULL, reason="only measures the delay")
def test_measure_delay_between_a_change_and_its_history_entry(
    stack: Stack, caller: Caller, proxy: FaultProxy, counter: str
) -> None:
    # Start a process of RecordHistory now, so that the test does not measure the time of its start.
    caller.post(counter)
    assert len(caller.history(counter, entries=1)) == 1
    answered_at: dict[int, float] = {}

    def send(client: Caller, _number: int) -> list[Answer]:
        for _ in range(LAG_CHANGES):
            version = client.post(counter).body["version"]
            answered_at[version] = time.monotonic()
        return []

    run_clients(stack, INCREMENT, LAG_CLIENTS, send)
    total = LAG_CLIENTS * LAG_CHANGES
    assert len(caller.history(counter, entries=total + 1)) == total + 1

    # Take the times of the writes to HistoryTable from the proxy. If the test read the table every
    # 20 ms instead, the clients would be a quarter slower, and the times would be accurate only to
    # 40 ms.
    written_at: dict[int, float] = {}
    counter_id = {"S": counter.rpartition("/")[2]}
    for request in proxy.requests:
        if request.operation != "BatchWriteItem":
            continue
        for write in request.parameters["RequestItems"].get(stack.outputs["HistoryTable"], []):
            item = write["PutRequest"]["Item"]
            if item["counter_id"] == counter_id:
                written_at.setdefault(int(item["version"]["N"]), request.ended_at)
    lags = [1000 * (written_at[version] - at) for version, at in answered_at.items()]
    assert len(lags) == total
    seconds = max(answered_at.values()) - min(answered_at.values())
    print(
        f"{total} changes by {LAG_CLIENTS} clients, {total / seconds:.0f} a second. Delay between"
        f" answer and history: median {statistics.median(lags):.0f} ms, 99th percentile"
        f" {statistics.quantiles(lags, n=100)[-1]:.0f} ms, maximum {max(lags):.0f} ms."
        f" {sum(lag < 0 for lag in lags)} were recorded before the answer."
    )


def test_redrive_records_a_valid_record_and_leaves_an_invalid_one_in_the_queue(
    stack: Stack, caller: Caller, counter: str, dead_letters: DeadLetters
) -> None:
    parked = json.dumps(sample_insert_record(counter.rpartition("/")[2]))
    invalid = json.dumps({"eventID": "invalid", "dynamodb": {"NewImage": {}}})
    dead_letters.park(parked)
    dead_letters.park(invalid)

    assert invoke(stack, "RedriveHistory") == {"redriven": 1, "parked": 1}
    history = caller.get(f"{counter}/history").body
    assert [(entry["version"], entry["value"]) for entry in history] == [(1, 1)]
    assert trend(caller, counter) == expected_trend(history)
    assert dead_letters.bodies() == [invalid]

    assert invoke(stack, "RedriveHistory") == {"redriven": 0, "parked": 1}
    dead_letters.park(parked)
    assert invoke(stack, "RedriveHistory") == {"redriven": 1, "parked": 1}
    assert caller.get(f"{counter}/history").body == history
    assert trend(caller, counter) == expected_trend(history)
    assert dead_letters.bodies() == [invalid]


def assert_recorded(caller: Caller, counter: str, answers: list[tuple[Answer, int]]) -> None:
    """Check a counter's history against the counter's value, the requests and the answers.

    Also check that the counter's trend matches the history.
    """
    entries = caller.whole_history(counter)
    assert [
        (entry["version"], entry["by"], entry["value"], entry["created_at"]) for entry in entries
    ] == sorted(
        (answer.body["version"], by, answer.body["value"], answer.body["updated_at"])
        for answer, by in answers
    )
    expected = expected_trend(entries)
    assert wait_for(lambda: trend(caller, counter), lambda buckets: buckets == expected) == expected


def trend(caller: Caller, counter: str) -> list[Any]:
    """Return the hourly buckets of a counter that have changes."""
    answer = caller.get(f"{counter}/trend?interval=hour")
    assert answer.status == 200, answer
    return [bucket for bucket in answer.body if bucket["changes"]]


def expected_trend(entries: list[Any]) -> list[Any]:
    """Return the hourly trend that these history entries add up to."""
    hours = sorted({entry["created_at"][:13] for entry in entries})
    buckets = []
    for hour in hours:
        changes = [entry for entry in entries if entry["created_at"][:13] == hour]
        so_far = [entry for entry in entries if entry["created_at"][:13] <= hour]
        buckets.append(
            {
                "start": f"{hour}:00:00.000Z",
                "changes": len(changes),
                "increase": sum(entry["by"] for entry in changes if entry["by"] > 0),
                "decrease": -sum(entry["by"] for entry in changes if entry["by"] < 0),
                "first_version": min(entry["version"] for entry in changes),
                "last_version": max(entry["version"] for entry in changes),
                "close": max(so_far, key=lambda entry: entry["version"])["value"],
            }
        )
    return buckets


def sample_insert_record(counter_id: str) -> Any:  # noqa: ANN401
    """Return the stream record of a counter's first change, made now.

    The record is a copy of the sample event of RecordHistory, with another counter and time.
    """
    sample = json.loads((ROOT / "events" / "record_history.json").read_text())
    record = sample["Records"][0]
    assert record["eventName"] == "INSERT"
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    image = record["dynamodb"]["NewImage"]
    for key in (record["dynamodb"]["Keys"], image):
        key["counter_id"] = {"S": counter_id}
    image["created_at"] = image["updated_at"] = image["change"]["M"]["at"] = {"S": now}
    return record


def invoke(stack: Stack, function: str) -> Any:  # noqa: ANN401
    lambda_: LambdaClient = client(stack, "lambda")
    reply = lambda_.invoke(FunctionName=physical_name(stack, function))
    answer = json.load(reply["Payload"])
    assert not reply.get("FunctionError"), answer
    return answer
