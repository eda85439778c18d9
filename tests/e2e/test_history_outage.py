"""The way into the history: tables that refuse writes, how long it takes, and what was parked."""

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
CHANGES = cases(180, part=40)  # answered while the table refuses writes
COUNTERS = 3
PAUSE_SECONDS = 0.08

LAG_CLIENTS = 8
LAG_TIMES = 50


@pytest.fixture(scope="module")
def detour(stack: Stack) -> Iterator[FaultProxy]:
    """Lead RecordHistory's requests to the database through a proxy, until the module ends."""
    with (
        serving(stack.endpoint_url) as (proxy, url),
        extra_variables(stack, "RecordHistory", AWS_ENDPOINT_URL_DYNAMODB=url),
    ):
        yield proxy


@pytest.fixture
def proxy(detour: FaultProxy) -> FaultProxy:
    """What RecordHistory's requests go through; it has carried none yet."""
    detour.carried.clear()
    return detour


@pytest.fixture
def dead_letters(stack: Stack) -> Iterator["DeadLetters"]:
    """The queue of the parked records, which is empty."""
    queue = DeadLetters(stack)
    assert queue.bodies() == []
    yield queue
    queue.purge()


class DeadLetters:
    """HistoryDeadLetterQueue."""

    def __init__(self, stack: Stack) -> None:
        self._sqs: SQSClient = client(stack, "sqs")
        self._url = stack.outputs["HistoryDeadLetterQueueUrl"]

    def park(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self._url, MessageBody=body)

    def bodies(self) -> list[str]:
        """Return the messages that are to be had, and leave them there."""
        messages = self._sqs.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=10, VisibilityTimeout=0
        ).get("Messages", [])
        return [message["Body"] for message in messages]

    def purge(self) -> None:
        self._sqs.purge_queue(QueueUrl=self._url)


@pytest.mark.parametrize("table", ["HistoryTable", "TrendTable"])
def test_an_outage_of_a_table_loses_nothing_and_doubles_nothing(
    stack: Stack, caller: Caller, proxy: FaultProxy, dead_letters: DeadLetters, table: str
) -> None:
    prefix = uuid.uuid4()
    paths = [f"/counters/{prefix}:{number}" for number in range(COUNTERS)]
    answers: dict[str, list[tuple[Answer, int]]] = {path: [] for path in paths}

    over = threading.Event()

    def send(client: Caller, number: int) -> list[Answer]:
        for turn in itertools.takewhile(lambda _: not over.is_set(), itertools.count()):
            path = paths[(number + turn) % COUNTERS]
            by = (number + turn) % 7 - 2 or 10  # up and down
            answers[path].append((client.post(path, by=by), by))
            time.sleep(PAUSE_SECONDS)
        return []

    def answered() -> int:
        return sum(map(len, answers.values()))

    def suffered() -> bool:
        return answered() >= before + CHANGES and proxy.has_met(throttled, times=2)

    with ThreadPoolExecutor(1) as pool, ExitStack() as stopping:
        stopping.callback(over.set)
        clients = pool.submit(run_clients, stack, INCREMENT, CLIENTS, send)
        # Otherwise the faults could all hit the changes that the clients warm up with.
        wait_for(lambda: all(trend(caller, path) for path in paths), seconds=REQUEST_SECONDS)
        with proxy.failing(stack.outputs[table], throttled):
            began, before = time.monotonic(), answered()
            wait_for(suffered, seconds=REQUEST_SECONDS)
            during, seconds = answered() - before, time.monotonic() - began
            behind = answered() - sum(
                bucket["changes"] for path in paths for bucket in trend(caller, path)
            )
        # It comes back badly: two more writes fail, each way.
        for fault in (refused_internally, reply_lost):
            with proxy.failing(stack.outputs[table], fault):
                wait_for(partial(proxy.has_met, fault, times=2), seconds=REQUEST_SECONDS)
        ended = time.monotonic()
        over.set()
        clients.result()

    for path in paths:
        assert_recorded(caller, path, answers[path])
    print(
        f"{table}: {answered()} changes, {during} of them in the {seconds:.1f} s in which it"
        f" refused {len(proxy.met(throttled))} writes, and then {behind} were not in the trend;"
        f" {len(proxy.met(refused_internally))} errors and {len(proxy.met(reply_lost))} lost"
        f" replies later it took {len(proxy.met(None))} writes in all, and everything was in"
        f" {time.monotonic() - ended:.1f} s after the last fault"
    )
    assert during >= CHANGES
    assert proxy.has_met(throttled, times=2)
    assert proxy.has_met(refused_internally, times=2)
    assert proxy.has_met(reply_lost, times=2)
    # A late record of the clients' warm-up may have met a fault, too.
    hit = [each for each in proxy.carried if str(prefix) in json.dumps(each.parameters)]
    assert {each.fault for each in hit} == {throttled, refused_internally, reply_lost, None}
    # What each client had under way may have been recorded just before.
    assert behind >= during - CLIENTS
    assert dead_letters.bodies() == []


@pytest.mark.skipif(not FULL, reason="measures, and proves nothing that no other test proves")
def test_how_long_a_change_takes_into_the_history(
    stack: Stack, caller: Caller, proxy: FaultProxy, counter: str
) -> None:
    # The first write of a new process of RecordHistory is not what is measured.
    caller.post(counter)
    assert len(caller.history(counter, entries=1)) == 1
    answered_at: dict[int, float] = {}

    def send(client: Caller, _number: int) -> list[Answer]:
        for _ in range(LAG_TIMES):
            version = client.post(counter).body["version"]
            answered_at[version] = time.monotonic()
        return []

    run_clients(stack, INCREMENT, LAG_CLIENTS, send)
    total = LAG_CLIENTS * LAG_TIMES
    assert len(caller.history(counter, entries=total + 1)) == total + 1

    # The proxy sees each write as it is over. To ask the table every 20 ms slows the clients by a
    # quarter, and tells the time to 40 ms only.
    written_at: dict[int, float] = {}
    counter_id = {"S": counter.rpartition("/")[2]}
    for carried in proxy.carried:
        if carried.operation != "BatchWriteItem":
            continue
        for write in carried.parameters["RequestItems"].get(stack.outputs["HistoryTable"], []):
            item = write["PutRequest"]["Item"]
            if item["counter_id"] == counter_id:
                written_at.setdefault(int(item["version"]["N"]), carried.over_at)
    lags = [1000 * (written_at[version] - at) for version, at in answered_at.items()]
    assert len(lags) == total
    seconds = max(answered_at.values()) - min(answered_at.values())
    print(
        f"{total} changes by {LAG_CLIENTS} clients, {total / seconds:.0f} a second: in the history"
        f" {statistics.median(lags):.0f} ms (median), {statistics.quantiles(lags, n=100)[-1]:.0f}"
        f" ms (99th percentile), {max(lags):.0f} ms (most) after the answer;"
        f" {sum(lag < 0 for lag in lags)} before it"
    )


def test_a_parked_record_is_redriven_and_what_makes_no_sense_stays(
    stack: Stack, caller: Caller, counter: str, dead_letters: DeadLetters
) -> None:
    parked = json.dumps(record_of_a_first_change(counter.rpartition("/")[2]))
    senseless = json.dumps({"eventID": "senseless", "dynamodb": {"NewImage": {}}})
    dead_letters.park(parked)
    dead_letters.park(senseless)

    assert invoke(stack, "RedriveHistory") == {"redriven": 1, "parked": 1}
    history = caller.get(f"{counter}/history").body
    assert [(entry["version"], entry["value"]) for entry in history] == [(1, 1)]
    assert trend(caller, counter) == by_the_hour(history)
    assert dead_letters.bodies() == [senseless]

    assert invoke(stack, "RedriveHistory") == {"redriven": 0, "parked": 1}
    dead_letters.park(parked)
    assert invoke(stack, "RedriveHistory") == {"redriven": 1, "parked": 1}
    assert caller.get(f"{counter}/history").body == history
    assert trend(caller, counter) == by_the_hour(history)
    assert dead_letters.bodies() == [senseless]


def assert_recorded(caller: Caller, counter: str, answers: list[tuple[Answer, int]]) -> None:
    """Hold the history and the trend to the counter, and to what was asked for and answered."""
    entries = caller.whole_history(counter)
    assert [
        (entry["version"], entry["by"], entry["value"], entry["created_at"]) for entry in entries
    ] == sorted(
        (answer.body["version"], by, answer.body["value"], answer.body["updated_at"])
        for answer, by in answers
    )
    expected = by_the_hour(entries)
    assert wait_for(lambda: trend(caller, counter), lambda seen: seen == expected) == expected


def trend(caller: Caller, counter: str) -> list[Any]:
    """Return the hours of a counter that have changes."""
    answer = caller.get(f"{counter}/trend?interval=hour")
    assert answer.status == 200, answer
    return [bucket for bucket in answer.body if bucket["changes"]]


def by_the_hour(entries: list[Any]) -> list[Any]:
    """Return what the trend must be, by the history."""
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


def record_of_a_first_change(counter_id: str) -> Any:  # noqa: ANN401
    """Return the sample of a stream record of a first change, as one of this counter, of now."""
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
