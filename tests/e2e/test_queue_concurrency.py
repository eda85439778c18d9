"""Queue and bus: batches of different message groups are in flight at once, as on AWS."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.fault_proxy import Carried, Reply, serving
from tests.e2e.producer import Producer
from tests.e2e.service import Caller, extra_variables
from tests.sizes import cases

from deployment import Stack

GROUPS = cases(20, part=4)
MESSAGES = 25  # of a group: three batches
WRITE_SECONDS = 0.3
CONNECTIONS = 10  # of a client of boto3


def slow(forward: Callable[[], Reply]) -> Reply:
    """Let a write take long, so that writes of batches in flight at once overlap."""
    time.sleep(WRITE_SECONDS)
    return forward()


@pytest.mark.parametrize("way", ["queue", "bus"])
def test_batches_of_different_groups_overlap_and_batches_of_one_group_do_not(
    stack: Stack, caller: Caller, way: str
) -> None:
    producer = Producer(stack, caller)
    # Each group counts a counter of its own. So the counter of a write tells the group.
    names = [f"in-flight-{uuid.uuid4()}" for _ in range(GROUPS)]
    amounts = range(1, MESSAGES + 1)

    def send(name: str) -> None:
        bodies = [{"counter_id": name, "by": by} for by in amounts]
        if way == "bus":
            producer.put(stack.outputs["EventBusName"], "shop", *bodies)
        else:
            producer.send(name, *bodies)

    with (
        serving(stack.endpoint_url) as (proxy, url),
        extra_variables(stack, "IngestIncrements", AWS_ENDPOINT_URL_DYNAMODB=url),
        proxy.failing(stack.outputs["CounterTable"], slow),
    ):
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(send, names))
        # A message out of order would not be counted: the counter has a later one already.
        assert {producer.value(name, sum(amounts)) for name in names} == {sum(amounts)}
        writes = proxy.met(slow)

    at_once = most_at_once(writes)
    groups = [[each for each in writes if counter_of(each) == name] for name in names]
    print(f"by the {way}: {len(writes)} writes of {GROUPS} groups, at most {at_once} at once")
    assert at_once > 1
    assert [most_at_once(group) for group in groups] == [1] * GROUPS


def counter_of(write: Carried) -> str:
    """Return the counter that a write changes."""
    name: str = write.parameters["Key"]["counter_id"]["S"]
    return name


def most_at_once(writes: list[Carried]) -> int:
    """Return the largest number of writes that were under way at the same time."""
    return max(
        sum(other.began_at <= write.began_at < other.over_at for other in writes)
        for write in writes
    )
