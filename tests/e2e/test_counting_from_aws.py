"""Other AWS resources count with queue messages and events, as the docs describe."""

import json
import re
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import yaml
from tests.aws_template import ROOT
from tests.e2e.producer import WAIT_SECONDS, Producer
from tests.e2e.service import Caller, client, wait_for

from deployment import Stack

DOCS = (ROOT / "docs" / "counting-from-aws.md").read_text()
MAX = 2**53 - 1


@pytest.fixture
def producer(stack: Stack, caller: Caller) -> Producer:
    return Producer(stack, caller)


def random_id() -> str:
    return str(uuid.uuid4())


def sender_id(producer: Producer) -> str:
    """Return the SenderId that all messages have. In the emulator, this is the account id."""
    account: str = producer.stack.outputs["IncrementQueueArn"].split(":")[4]
    return account


def actors(producer: Producer, counter: str) -> set[str]:
    return {entry["actor"] for entry in producer.entries(counter)}


def test_queue_messages_reach_counter_history_and_trend(producer: Producer) -> None:
    counter, other = random_id(), random_id()
    bodies = [{"counter_id": counter, "by": by} for by in range(1, 41)]

    producer.send(counter, *bodies, {"counter_id": other}, {"counter_id": counter, "by": -5})

    assert producer.value(counter, 815) == 815
    assert producer.value(other, 1) == 1
    entries = producer.entries(counter)
    assert sum(entry["by"] for entry in entries) == 815
    assert sum(entry["events"] for entry in entries) == 41
    assert len(entries) < 41
    assert sum(entry["increase"] for entry in entries) == 820
    assert sum(entry["decrease"] for entry in entries) == 5
    assert {entry["actor"] for entry in entries} == {f"sqs:{sender_id(producer)}"}

    def trend() -> tuple[int, int]:
        hours = producer.caller.get(f"/counters/{counter}/trend").body
        return sum(hour["increase"] - hour["decrease"] for hour in hours), hours[-1]["close"]

    assert wait_for(trend, lambda sums: sums == (815, 815)) == (815, 815)


def test_fold_records_additions_and_subtractions_separately(producer: Producer) -> None:
    counter = random_id()

    producer.send(counter, *[{"counter_id": counter, "by": by} for by in (5, -3, 4, -6)])

    def sums(path: str) -> tuple[int, int]:
        rows = producer.caller.get(f"/counters/{counter}/{path}").body
        return sum(row["increase"] for row in rows), sum(row["decrease"] for row in rows)

    for path in ("history", "trend"):
        assert wait_for(partial(sums, path), lambda sums: sums == (9, 9)) == (9, 9)
    entries = producer.entries(counter)
    print([(entry["by"], entry["increase"], entry["decrease"]) for entry in entries])
    assert producer.value(counter, 0) == 0


def test_bus_events_are_counted_with_their_source_as_actor(producer: Producer) -> None:
    counter = random_id()
    same = [{"counter_id": counter, "by": 2}] * 5

    producer.put(producer.stack.outputs["EventBusName"], "shop.checkout", *same)

    assert producer.value(counter, 10) == 10
    entries = producer.entries(counter)
    assert sum(entry["events"] for entry in entries) == 5
    assert {entry["actor"] for entry in entries} == {"event:shop.checkout"}
    assert {entry["sender"] for entry in entries} == {sender_id(producer)}


def test_events_for_20_counters_are_all_counted(producer: Producer) -> None:
    counters = [random_id() for _ in range(20)]
    events = [
        {"counter_id": counter, "by": by}
        for by in range(1, 4)
        for counter in counters
        for _ in range(2)
    ]

    producer.put(producer.stack.outputs["EventBusName"], "shop", *events)

    assert {producer.value(counter, 12) for counter in counters} == {12}
    for counter in counters:
        assert sum(entry["events"] for entry in producer.entries(counter)) == 6


def send_to_bus(producer: Producer, *increments: dict[str, object]) -> None:
    producer.put(producer.stack.outputs["EventBusName"], "shop", *increments)


def send_to_queue(producer: Producer, *increments: dict[str, object]) -> None:
    for increment in increments:
        producer.send(str(increment["counter_id"]), increment)


@pytest.mark.parametrize("send", [send_to_bus, send_to_queue])
def test_counter_at_its_maximum_does_not_block_other_counters(
    producer: Producer, send: Callable[..., None]
) -> None:
    full, other = random_id(), random_id()
    too_much = {"counter_id": full, "by": MAX}

    send(producer, too_much, too_much, {"counter_id": other})

    assert producer.value(other, 1, seconds=20) == 1
    assert producer.value(full, MAX) == MAX
    (parked,) = parked_messages(producer, full)
    assert str(MAX) in parked.body
    assert parked.reason
    assert producer.caller.get(f"/counters/{full}").body["version"] == 1


@pytest.mark.parametrize("bus", ["the stack's", "default"])
@pytest.mark.usefixtures("examples")
def test_rules_match_an_event_but_not_its_replay(producer: Producer, bus: str) -> None:
    # A replayed event has a `replay-name`, which PutEvents cannot set. So do not send such an
    # event: ask EventBridge whether the rules would match the event.
    name = producer.stack.outputs["EventBusName"] if bus == "the stack's" else bus
    rules = producer.events.list_rules(EventBusName=name)["Rules"]
    event: dict[str, object] = {
        "id": random_id(),
        "detail-type": "Count",
        "source": "shop",
        "account": "123456789012",
        "time": "2026-11-22T10:00:00Z",
        "region": "us-east-1",
        "resources": [],
        "detail": {"counter_id": "orders"},
    }
    uploaded = {**event, "source": "aws.s3", "detail-type": "Object Created"}

    def matches(rule: Any, each: dict[str, object]) -> bool:  # noqa: ANN401  as boto3 has it
        pattern = json.loads(rule["EventPattern"])
        if "bucket" in pattern.get("detail", {}):
            each = {**each, "detail": {"bucket": {"name": pattern["detail"]["bucket"]["name"][0]}}}
        answer = producer.events.test_event_pattern(
            EventPattern=rule["EventPattern"], Event=json.dumps(each)
        )
        return bool(answer["Result"])

    counting = [rule for rule in rules if "EventPattern" in rule]
    assert len(counting) == (1 if bus == "the stack's" else 2)
    for rule in counting:
        (first,) = [each for each in (event, uploaded) if matches(rule, each)]
        assert not matches(rule, {**first, "replay-name": "again"})


def test_invalid_message_is_parked_and_the_rest_of_its_group_is_counted(producer: Producer) -> None:
    counter = random_id()
    poison = json.dumps({"counter_id": counter, "by": "many"})
    good = {"counter_id": counter}

    producer.send(counter, good, poison, good, good)
    producer.put(producer.stack.outputs["EventBusName"], "shop", {"counter": counter}, good)

    assert producer.value(counter, 4) == 4
    assert sum(entry["events"] for entry in producer.entries(counter)) == 4
    parked = parked_messages(producer, counter)
    assert len(parked) == 2
    assert [message.body for message in parked if message.body == poison] == [poison]
    assert any(f'{{"counter": "{counter}"}}' in message.body for message in parked)
    assert all(message.reason for message in parked)


@dataclass(frozen=True)
class Parked:
    """A parked message: a message that Tally moved to the dead-letter queue, and the reason."""

    body: str
    reason: str | None


def parked_messages(producer: Producer, counter: str) -> list[Parked]:
    """Wait until everything that was sent is counted or parked. Return a counter's parked messages.

    This function deletes all messages of the dead-letter queue.
    """
    producer.wait_until_done()
    return [message for message in _dead_letters(producer) if counter in message.body]


def _dead_letters(producer: Producer) -> list[Parked]:
    url = producer.stack.outputs["IncrementDeadLetterQueueUrl"]
    found = []
    while messages := producer.sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    ).get("Messages"):
        for message in messages:
            reason = message.get("MessageAttributes", {}).get("reason", {})
            assert reason.get("DataType", "String") == "String"
            found.append(Parked(message["Body"], reason.get("StringValue")))
            producer.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_message_sent_twice_with_one_deduplication_id_is_counted_once(producer: Producer) -> None:
    counter = random_id()
    for _ in range(2):
        producer.sqs.send_message(
            QueueUrl=producer.stack.outputs["IncrementQueueUrl"],
            MessageBody=json.dumps({"counter_id": counter, "by": 3}),
            MessageGroupId=counter,
            MessageDeduplicationId="order-1",
        )
    producer.send(counter, {"counter_id": counter, "by": 10})

    assert producer.value(counter, 13) == 13


def test_documented_code_for_a_busy_counter_counts_each_order_once(producer: Producer) -> None:
    (code,) = re.findall(r"```python\n([^`]*zlib.crc32[^`]*)```", DOCS)
    (counter,) = set(re.findall(r'"counter_id": "([^"]+)"', code))
    before = int(producer.caller.get(f"/counters/{counter}").body["value"])
    names = {
        "json": json,
        "zlib": zlib,
        "sqs": producer.sqs,
        "increment_queue_url": producer.stack.outputs["IncrementQueueUrl"],
    }

    for number in [*range(20), *range(20)]:
        exec(code, {**names, "order_id": f"order-{number}"})  # noqa: S102  the code is from our docs

    producer.wait_until_done()
    assert producer.value(counter, before + 20) == before + 20


@pytest.fixture(scope="module")
def examples(stack: Stack) -> dict[str, str]:
    """Deploy all CloudFormation examples of the docs as one stack.


    Returns:
        The physical id of each resource, by its logical id.
    """
    template = "\n".join(
        re.sub(r"\AResources:\n", "", block) if number else block
        for number, block in enumerate(re.findall(r"```yaml\n(Resources:.*?)```", DOCS, re.DOTALL))
    )
    (parameters,) = re.findall(r"```yaml\n(Parameters:.*?)```", DOCS, re.DOTALL)
    cloudformation = client(stack, "cloudformation")
    cloudformation.create_stack(
        StackName="examples",
        TemplateBody=parameters + template,
        Parameters=[
            {"ParameterKey": name, "ParameterValue": stack.outputs[name]}
            for name in yaml.safe_load(parameters)["Parameters"]
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="examples", WaiterConfig={"Delay": 1, "MaxAttempts": WAIT_SECONDS}
    )
    resources = cloudformation.describe_stack_resources(StackName="examples")["StackResources"]
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}


@pytest.mark.usefixtures("examples")
def test_documented_rule_counts_events_on_the_default_bus(producer: Producer) -> None:
    counter = random_id()

    producer.put("default", "shop.basket", {"counter_id": counter}, {"counter_id": counter})

    assert producer.value(counter, 2) == 2
    assert actors(producer, counter) == {"event:shop.basket"}


def test_documented_rule_counts_objects_in_a_bucket(
    producer: Producer, examples: dict[str, str]
) -> None:
    s3 = client(producer.stack, "s3")
    for key in ("a", 'b "quoted"', "a"):
        s3.put_object(Bucket=examples["Uploads"], Key=key, Body=b"x")

    counter = f"uploads:{examples['Uploads']}"
    assert producer.value(counter, 3) == 3
    assert actors(producer, counter) == {"event:aws.s3"}


def test_documented_state_machine_counts_its_runs(
    producer: Producer, examples: dict[str, str]
) -> None:
    states = client(producer.stack, "stepfunctions")
    for _ in range(3):
        states.start_execution(stateMachineArn=examples["CountRuns"])

    assert producer.value("runs", 3) == 3
    assert actors(producer, "runs") == {"event:shop.fulfilment"}


def test_documented_schedule_counts(producer: Producer, examples: dict[str, str]) -> None:
    scheduler = client(producer.stack, "scheduler")
    name = examples["CountHours"].rpartition("/")[2]
    schedule = scheduler.get_schedule(Name=name)
    assert schedule["ScheduleExpression"] == "rate(1 hour)"

    # The schedule in the docs is due in an hour, which is too long for a test. Create a copy of
    # this schedule that is due now.
    scheduler.create_schedule(
        Name="now",
        ScheduleExpression=f"at({datetime.now(UTC):%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow=schedule["FlexibleTimeWindow"],
        Target=schedule["Target"],
    )

    assert producer.value("hours", 1) == 1
    assert actors(producer, "hours") == {"event:scheduler"}
