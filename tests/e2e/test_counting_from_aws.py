"""What other AWS resources count: by messages to the queue and by events, as the docs tell it."""

import json
import re
import uuid
from datetime import UTC, datetime

import pytest
import yaml
from tests.aws_template import ROOT
from tests.e2e.producer import SECONDS, Producer
from tests.e2e.service import Caller, client, wait_for

from local_stack import Stack

DOCS = (ROOT / "docs" / "counting-from-aws.md").read_text()


@pytest.fixture
def producer(stack: Stack, caller: Caller) -> Producer:
    return Producer(stack, caller)


def new() -> str:
    return str(uuid.uuid4())


def test_messages_arrive_in_counter_history_and_trend(producer: Producer) -> None:
    counter, other = new(), new()
    bodies = [{"counter_id": counter, "by": by} for by in range(1, 41)]

    producer.send(counter, *bodies, {"counter_id": other}, {"counter_id": counter, "by": -5})

    assert producer.value(counter, 815) == 815
    assert producer.value(other, 1) == 1
    entries = producer.entries(counter)
    assert sum(entry["by"] for entry in entries) == 815
    assert sum(entry["events"] for entry in entries) == 41
    assert len(entries) < 41
    assert all(entry["actor"] for entry in entries)

    def trend() -> tuple[int, int]:
        hours = producer.caller.get(f"/counters/{counter}/trend").body
        return sum(hour["increase"] - hour["decrease"] for hour in hours), hours[-1]["close"]

    assert wait_for(trend, lambda seen: seen == (815, 815)) == (815, 815)


def test_events_on_the_bus_arrive_and_their_source_has_counted(producer: Producer) -> None:
    counter = new()
    same = [{"counter_id": counter, "by": 2}] * 5

    producer.put(producer.stack.outputs["EventBusName"], "shop.checkout", *same)

    assert producer.value(counter, 10) == 10
    entries = producer.entries(counter)
    assert sum(entry["events"] for entry in entries) == 5
    assert {entry["actor"] for entry in entries} == {"shop.checkout"}


def test_a_message_that_makes_no_sense_is_parked_and_its_group_goes_on(producer: Producer) -> None:
    counter = new()
    poison = json.dumps({"counter_id": counter, "by": "many"})
    good = {"counter_id": counter}

    producer.send(counter, good, poison, good, good)
    producer.put(producer.stack.outputs["EventBusName"], "shop", {"counter": counter}, good)

    assert producer.value(counter, 4) == 4
    assert sum(entry["events"] for entry in producer.entries(counter)) == 4
    parked = parked_messages(producer)
    assert poison in parked
    assert any(f'{{"counter": "{counter}"}}' in body for body in parked)


def parked_messages(producer: Producer) -> list[str]:
    url = producer.stack.outputs["IncrementDeadLetterQueueUrl"]
    bodies = []
    while messages := producer.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get(
        "Messages"
    ):
        for message in messages:
            bodies.append(message["Body"])
            producer.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def test_a_message_sent_twice_under_one_id_is_counted_once(producer: Producer) -> None:
    counter = new()
    for _ in range(2):
        producer.sqs.send_message(
            QueueUrl=producer.stack.outputs["IncrementQueueUrl"],
            MessageBody=json.dumps({"counter_id": counter, "by": 3}),
            MessageGroupId=counter,
            MessageDeduplicationId="order-1",
        )
    producer.send(counter, {"counter_id": counter, "by": 10})

    assert producer.value(counter, 13) == 13


@pytest.fixture(scope="module")
def examples(stack: Stack) -> dict[str, str]:
    """Deploy the examples of the docs, all as one stack; return the names of its resources."""
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
        StackName="examples", WaiterConfig={"Delay": 1, "MaxAttempts": SECONDS}
    )
    resources = cloudformation.describe_stack_resources(StackName="examples")["StackResources"]
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}


@pytest.mark.usefixtures("examples")
def test_events_on_the_default_bus_are_counted_as_the_docs_say(producer: Producer) -> None:
    counter = new()

    producer.put("default", "shop.basket", {"counter_id": counter}, {"counter_id": counter})

    assert producer.value(counter, 2) == 2
    assert {entry["actor"] for entry in producer.entries(counter)} == {"shop.basket"}


def test_objects_in_a_bucket_are_counted_as_the_docs_say(
    producer: Producer, examples: dict[str, str]
) -> None:
    s3 = client(producer.stack, "s3")
    for key in ("a", 'b "quoted"', "a"):
        s3.put_object(Bucket=examples["Uploads"], Key=key, Body=b"x")

    counter = f"uploads:{examples['Uploads']}"
    assert producer.value(counter, 3) == 3
    assert {entry["actor"] for entry in producer.entries(counter)} == {"aws.s3"}


def test_runs_of_a_state_machine_are_counted_as_the_docs_say(
    producer: Producer, examples: dict[str, str]
) -> None:
    states = client(producer.stack, "stepfunctions")
    for _ in range(3):
        states.start_execution(stateMachineArn=examples["CountRuns"])

    assert producer.value("runs", 3) == 3
    assert {entry["actor"] for entry in producer.entries("runs")} == {"shop.fulfilment"}


def test_a_schedule_counts_as_the_docs_say(producer: Producer, examples: dict[str, str]) -> None:
    scheduler = client(producer.stack, "scheduler")
    name = examples["CountHours"].rpartition("/")[2]
    schedule = scheduler.get_schedule(Name=name)
    assert schedule["ScheduleExpression"] == "rate(1 hour)"

    # Nobody waits an hour: another is due now.
    scheduler.create_schedule(
        Name="now",
        ScheduleExpression=f"at({datetime.now(UTC):%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow=schedule["FlexibleTimeWindow"],
        Target=schedule["Target"],
    )

    assert producer.value("hours", 1) == 1
    assert {entry["actor"] for entry in producer.entries("hours")} == {"scheduler"}
