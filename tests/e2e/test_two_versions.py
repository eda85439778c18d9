"""The last release and the current version count exactly when they run side by side.

While a deployment shifts the traffic, both versions of the functions behind the HTTP API use the
same tables. The other functions change from one version to the other, and back if the deployment is
rolled back. In this test, callers send requests to both versions, and the consumers of the queues
and of the stream change their version several times under load.
"""

import itertools
import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from tests.e2e.chaos_callers import CLAIMS, Callers, Service
from tests.e2e.linearizability import check
from tests.e2e.producer import Producer
from tests.e2e.recorded_run import Call, Run
from tests.e2e.service import Caller, client, wait_for
from tests.e2e.stored import Stored
from tests.e2e.two_versions import CURRENT, RELEASED, TwoVersions, side_by_side
from tests.fifo_queue import FifoQueue
from tests.proxy import proxy_event
from tests.routes import ROUTES
from tests.sizes import cases

from deployment import Stack
from emulator_process import Emulator

OPERATIONS = cases(5_000, part=240)
MESSAGES = cases(100, part=10)  # to the queue, and as many events, for each counter and deployment
# Deployments of the consumers, first of the released version, and then of both in turn.
DEPLOYMENTS = cases(10, part=2)
CALLERS = cases(16, part=8)
SETTLE_SECONDS = 120
AMOUNTS = [number % 7 - 2 or 5 for number in range(MESSAGES)]

# The number of processes of each function behind the HTTP API, and of each version.
WORKERS = {
    "IncrementCounter": cases(4, part=1),
    "IncrementCounters": cases(4, part=1),
    "SetCounter": 1,
    "GetCounter": cases(2, part=1),
    "ListCounters": 1,
    "ListHistory": 1,
    "ListTrend": 1,
}
CONSUMERS = ("IngestIncrements", "ForwardEvents", "RecordHistory")


@pytest.fixture(scope="module")
def versions(
    emulator: Emulator, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoVersions]:
    directory = tmp_path_factory.mktemp("versions")
    with side_by_side(stack, emulator.directory / "build", WORKERS, directory) as versions:
        yield versions
        versions.deploy(CURRENT, [*CONSUMERS, "AuditHistory"])


def test_two_versions_side_by_side_count_exactly(
    stack: Stack, caller: Caller, versions: TwoVersions
) -> None:
    service = Service(versions.invoke, check=lambda *_: None)  # TwoVersions checks the answers
    callers, producer = Callers(service), Producer(stack, caller)
    prefix = callers.hot[0].partition("-")[0]
    queued = [f"{prefix}-queued-{number}" for number in range(2)]
    stored = Stored(stack, [*callers.counters, *queued])
    began = time.monotonic()

    with ThreadPoolExecutor(CALLERS) as pool:
        for deployment in range(DEPLOYMENTS):
            versions.deploy((RELEASED, CURRENT)[deployment % 2], CONSUMERS)
            first = f"{prefix}-after-deployment-{deployment}"
            producer.send(first, {"counter_id": first, "by": 1})
            for name in queued:
                bodies = [{"counter_id": name, "by": by} for by in AMOUNTS]
                producer.send(name, *bodies)
                producer.put(stack.outputs["EventBusName"], "shop", *bodies)
            seeds = range(deployment * CALLERS, (deployment + 1) * CALLERS)
            operations = OPERATIONS * (deployment + 1) // DEPLOYMENTS
            list(pool.map(partial(callers.run, operations=operations), seeds))
            # The version that was just deployed has counted and recorded.
            assert producer.value(first, 1) == 1
            assert caller.whole_history(f"/counters/{first}")
        deadline = time.monotonic() + SETTLE_SECONDS
        assert all(callers.settle(request, deadline) for request in callers.unsettled())
        producer.wait_until_done(SETTLE_SECONDS)
        assert wait_for(stored.caught_up, seconds=SETTLE_SECONDS), "history or trend lacks a change"
        past = callers.counters[:: cases(1, part=4)]
        list(pool.map(partial(callers.read_past, reads=cases(20, part=2)), past))

    requested = Stored(stack, callers.counters)
    run = Run(service.calls, requested.histories(), requested.states())
    violations = check(run)
    crossed = repeats(run.calls, versions.version_of)
    report(run, versions.version_of, crossed, time.monotonic() - began)
    print(f"{2 * DEPLOYMENTS * MESSAGES * len(queued)} messages and events")
    print(f"{len(violations)} differences")
    assert violations == []
    assert crossed.keys() >= {(RELEASED, CURRENT), (CURRENT, RELEASED)}
    for name in queued:
        assert_counted(caller.whole_history(f"/counters/{name}"))
    for version in (RELEASED, CURRENT):
        assert set(listed(versions, version, prefix)) >= set(stored.states())
    # Each version continues the audit of the other one.
    for version in (CURRENT, RELEASED, CURRENT):
        versions.deploy(version, ["AuditHistory"])
        assert Stored(stack, [*past, *queued]).findings() == []


@pytest.mark.parametrize(
    "order", [(RELEASED, CURRENT, RELEASED), (CURRENT, RELEASED, CURRENT)], ids="-".join
)
def test_messages_and_stream_records_that_both_versions_get_count_once(
    stack: Stack, caller: Caller, versions: TwoVersions, order: Sequence[str]
) -> None:
    queue, name = FifoQueue(stack.outputs["IncrementQueueArn"]), str(uuid.uuid4())
    bodies = [json.dumps({"counter_id": name, "by": by}) for by in (5, -2, 4)]
    messages = {"Records": [queue.send(body, name).record() for body in bodies]}

    for version in order:
        assert versions.run(version, "IngestIncrements", messages) == {"batchItemFailures": []}
    (entry,) = caller.whole_history(f"/counters/{name}")
    assert (entry["value"], entry["increase"], entry["decrease"]) == (7, 9, 2)

    records = {"Records": stream_records(stack, name)}
    assert len(records["Records"]) == 1
    for version in order:
        assert versions.run(version, "RecordHistory", records) == {"batchItemFailures": []}
    assert caller.whole_history(f"/counters/{name}") == [entry]
    hours = caller.get(f"/counters/{name}/trend").body
    sums = {part: sum(hour[part] for hour in hours) for part in ("changes", "increase", "decrease")}
    assert sums == {"changes": 1, "increase": 9, "decrease": 2}


def stream_records(stack: Stack, counter_id: str) -> list[Any]:
    """Return a counter's records in the stream of CounterTable, as a function gets them."""
    table = client(stack, "dynamodb").describe_table(TableName=stack.outputs["CounterTable"])
    streams, arn = client(stack, "dynamodbstreams"), table["Table"]["LatestStreamArn"]
    records: list[Any] = []
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        place = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while page := (reply := streams.get_records(ShardIterator=place))["Records"]:
            records += page
            place = reply["NextShardIterator"]
    found = json.loads(json.dumps(records, default=datetime.timestamp))
    return [
        each | {"eventSourceARN": arn}
        for each in found
        if each["dynamodb"]["Keys"]["counter_id"]["S"] == counter_id
    ]


def assert_counted(history: Sequence[Mapping[str, int]]) -> None:
    """Check that a history has the amount of each message and of each event once."""
    for part, sign in (("increase", 1), ("decrease", -1)):
        expected = 2 * DEPLOYMENTS * sum(max(sign * by, 0) for by in AMOUNTS)
        assert sum(entry[part] for entry in history) == expected


def repeats(calls: Sequence[Call], version_of: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """Count the repeats of requests with an Idempotency-Key, by the versions before and after."""
    by_key: dict[str, list[str]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.invoked):
        if call.key:
            by_key[call.key].append(version_of[call.request_id])
    return Counter(pair for used in by_key.values() for pair in itertools.pairwise(used))


def listed(versions: TwoVersions, version: str, prefix: str) -> list[str]:
    """Return the names of the counters that one version lists."""
    ((function, route),) = [each for each in ROUTES if each[1].path == "/counters"]
    event = proxy_event(route, "/counters", {}, f"prefix={prefix}", {}, b"", CLAIMS)
    outcome = versions.invoke_version(version, function.name, event).outcome
    assert outcome
    names: list[str] = json.loads(outcome.body["body"])
    return names


def report(
    run: Run, version_of: Mapping[str, str], crossed: Mapping[tuple[str, str], int], seconds: float
) -> None:
    """Print how much the two versions did."""
    by_version = Counter(version_of[call.request_id] for call in run.calls)
    answers = Counter(f"{call.status} {call.problem or ''}".strip() for call in run.calls)
    changes = Counter(version_of[request_id] for request_id in run.entries_by_request())
    print(f"\n{len(run.calls)} operations in {seconds:.0f} s: {dict(by_version)}")
    print(f"answers: {dict(answers.most_common())}")
    print(f"requests that made changes: {dict(changes)}")
    print(f"repeats of a key, by version before and after: {dict(crossed)}")
