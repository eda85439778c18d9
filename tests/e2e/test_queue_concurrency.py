"""Batches of different message groups overlap. Batches of the same group never overlap."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.dynamodb_proxy import Reply
from tests.e2e.fault_proxy import HandledRequest, serving
from tests.e2e.producer import Producer
from tests.e2e.service import Caller, extra_variables
from tests.sizes import cases

from deployment import Stack

GROUPS = cases(20, part=4)
MESSAGES = 25  # in each group, which makes three batches
WRITE_SECONDS = 0.3
CONNECTIONS = 10  # as many as a boto3 client has


def slow(forward: Callable[[], Reply]) -> Reply:
    """Delay a write, so that the writes of concurrent batches overlap."""
    time.sleep(WRITE_SECONDS)
    return forward()


@pytest.mark.parametrize("source", ["queue", "bus"])
def test_batches_overlap_only_between_different_groups(
    stack: Stack, caller: Caller, source: str
) -> None:
    producer = Producer(stack, caller)
    # Each message group has its own counter. So the counter of a write identifies the group.
    names = [f"in-flight-{uuid.uuid4()}" for _ in range(GROUPS)]
    amounts = range(1, MESSAGES + 1)

    def send(name: str) -> None:
        bodies = [{"counter_id": name, "by": by} for by in amounts]
        if source == "bus":
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
        # This also proves the order in each group: a message is not counted if a later message of
        # its group has been counted already.
        assert {producer.value(name, sum(amounts)) for name in names} == {sum(amounts)}
        writes = proxy.requests_with(slow)

    overlap = max_overlap(writes)
    groups = [[each for each in writes if counter_of(each) == name] for name in names]
    print(
        f"from the {source}: {len(writes)} writes of {GROUPS} groups, at most {overlap} concurrent"
    )
    assert overlap > 1
    assert [max_overlap(group) for group in groups] == [1] * GROUPS


def counter_of(write: HandledRequest) -> str:
    """Return the counter that a write changes."""
    name: str = write.parameters["Key"]["counter_id"]["S"]
    return name


def max_overlap(writes: list[HandledRequest]) -> int:
    """Return the largest number of writes that were under way at the same time."""
    return max(
        sum(other.started_at <= write.started_at < other.ended_at for other in writes)
        for write in writes
    )
