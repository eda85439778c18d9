"""A rehearsal of the runbook: each test breaks the stack in one way, and follows the runbook.

The commands come from the pages in docs/ when the tests run. Each test ends with an audit of its
counters, by the command of the runbook, and the last one audits all counters. The log of the run is
the file `.aws-sam/rehearsal.log`.
"""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.e2e import runbook
from tests.e2e.fault_proxy import serving, throttled
from tests.e2e.function_pids import function_pids, needs_proc
from tests.e2e.producer import Producer
from tests.e2e.restored_counter import RestoredCounter
from tests.e2e.runbook import Runbook
from tests.e2e.service import (
    REQUEST_SECONDS,
    Caller,
    client,
    extra_variables,
    physical_name,
    stored_counters,
    token_for,
    wait_for,
)
from tests.sizes import FULL

import deployment
import restore_tables
from deployment import Stack, deploy
from emulator_process import Emulator, free_port, run_emulator
from local_settings import CREDENTIALS, STACK_NAME

pytestmark = [
    pytest.mark.skipif(not FULL, reason="runs only in `make test-full`"),
    needs_proc,
]

HIGHEST = 2**53 - 1
REDELIVERY_SECONDS = 2  # the template sets 60
KILLS = 5
RESTORING = "restoring.md"
EXAMPLE = "2026-11-22T16:00:00Z"  # the time in docs/restoring.md


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """An emulator for this module alone: with the code of the functions in S3, as on AWS."""
    with (
        tempfile.TemporaryDirectory(prefix="tally-") as name,
        run_emulator(Path(name), free_port()) as emulator,
    ):
        yield emulator


@pytest.fixture(scope="module")
def stack(emulator: Emulator) -> Stack:
    return deploy(emulator)


@pytest.fixture(scope="module")
def caller(stack: Stack) -> Iterator[Caller]:
    with Caller(stack.url, token_for(stack, stack.scopes)) as caller:
        yield caller


@pytest.fixture(scope="module")
def producer(stack: Stack, caller: Caller) -> Producer:
    producer = Producer(stack, caller)
    producer.set_visibility_timeout(REDELIVERY_SECONDS)
    return producer


@pytest.fixture(scope="module")
def book(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runbook]:
    with runbook.opened(stack, tmp_path_factory.mktemp("clone")) as book:
        yield book


def waiting(stack: Stack, queue: str) -> int:
    """Return how many messages a queue has, whether they are visible or not."""
    counts = client(stack, "sqs").get_queue_attributes(
        QueueUrl=stack.outputs[queue],
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    return sum(map(int, counts.values()))


def entries(caller: Caller, counter: str) -> int:
    answer = caller.get(f"/counters/{counter}/history?limit=1000")
    return len(answer.body) if answer.status == 200 else 0


def edit(stack: Stack, counter: str, name: str, value: Any) -> None:  # noqa: ANN401
    """Edit an attribute of a counter's item by hand, as nobody should."""
    client(stack, "dynamodb").update_item(
        TableName=stack.outputs["CounterTable"],
        Key={"counter_id": {"S": counter}},
        UpdateExpression="SET #name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": value},
    )


def audit(book: Runbook, *counters: str) -> None:
    """Audit the whole history of counters as the runbook says. There must be no finding."""
    for counter in counters:

        def of_this_counter(command: str, counter: str = counter) -> str:
            # The page says what `after` does. 0 means: also what earlier audits have verified.
            return command.replace('"default"', f'{json.dumps(counter)}, "after": 0')

        (printed,) = book.follow(
            "operations.md", "Run an audit", only='"counter_id"', change=of_this_counter
        )
        report = last_object(printed)
        assert report["entries"] > 0
        assert (report["counters"], report["findings"], report["finished"]) == (1, [], True)


def audit_all(book: Runbook) -> None:
    """Audit all counters that have changed, as the runbook says. There must be no finding."""
    (printed,) = book.follow("operations.md", "Run an audit", only="NightlyAudit")
    report = last_object(printed)
    assert report["counters"] > 0
    assert (report["findings"], report["finished"]) == (0, True)


def last_object(printed: str) -> Any:  # noqa: ANN401  JSON
    return json.loads(printed[printed.index("{") : printed.rindex("}") + 1])


def redrive(book: Runbook) -> Any:  # noqa: ANN401  JSON
    (printed,) = book.follow("operations.md", "Redrive parked records", only="RedriveHistory")
    return last_object(printed)


def delete_parked_records(book: Runbook, stack: Stack) -> None:
    """Read the parked records that stay, and delete each, as the runbook says."""
    page, heading = "operations.md", "HistoryParkedAlarm"
    while waiting(stack, "HistoryDeadLetterQueueUrl"):
        (printed,) = book.follow(page, heading, only="receive-message")
        for line in printed.splitlines():

            def of_this_record(command: str, handle: str = line.split("\t")[0]) -> str:
                return command.replace("HANDLE", handle)

            book.follow(page, heading, only="delete-message", change=of_this_record)


def test_history_table_refuses_writes(stack: Stack, caller: Caller, book: Runbook) -> None:
    counter = "refused"
    with (
        serving(stack.endpoint_url) as (proxy, url),
        extra_variables(stack, "RecordHistory", AWS_ENDPOINT_URL_DYNAMODB=url),
    ):
        with proxy.failing(stack.outputs["HistoryTable"], throttled):
            book.log("BREAK: HistoryTable refuses writes")
            for _ in range(20):
                assert caller.post(f"/counters/{counter}").status == 200
            wait_for(lambda: proxy.has_injected(throttled, times=5), seconds=REQUEST_SECONDS)
            assert proxy.has_injected(throttled, times=5)
            assert not entries(caller, counter)
            book.log("SYMPTOM (HistoryLateAlarm): 20 changes, 0 entries in the history")
        book.log("HistoryTable takes writes again")
        assert len(caller.history(f"/counters/{counter}", 20, seconds=60)) == 20
    audit(book, counter)
    book.log("WELL: all 20 changes are recorded")


def test_poison_records(stack: Stack, caller: Caller, book: Runbook) -> None:
    counter, path = "poisoned", "/counters/poisoned"
    caller.post(path)
    assert len(caller.history(path, 1)) == 1
    book.log("BREAK: somebody edits a counter's item by hand")
    edit(stack, counter, "note", {"S": "do not reset"})
    book.log("BREAK: the history has an entry of another change under the next version")
    key = {"counter_id": {"S": counter}, "version": {"N": "2"}}
    dynamodb = client(stack, "dynamodb")
    dynamodb.put_item(
        TableName=stack.outputs["HistoryTable"], Item={**key, "request_id": {"S": "another"}}
    )
    caller.post(path)
    caller.post(path)

    assert wait_for(lambda: waiting(stack, "HistoryDeadLetterQueueUrl") == 2)
    book.log("SYMPTOM (HistoryParkedAlarm): HistoryDeadLetterQueue has 2 records")
    assert redrive(book) == {"redriven": 0, "parked": 2}
    book.log("The wrong entry is removed")
    dynamodb.delete_item(TableName=stack.outputs["HistoryTable"], Key=key)
    assert redrive(book) == {"redriven": 1, "parked": 1}
    delete_parked_records(book, stack)

    assert len(caller.history(path, 3)) == 3
    audit(book, counter)
    book.log("WELL: the queue is empty, and all 3 changes are recorded")


def test_full_counter(stack: Stack, caller: Caller, producer: Producer, book: Runbook) -> None:
    counter, path = "full", "/counters/full"
    book.log(f"BREAK: a counter has the value {HIGHEST}, and a message adds to it")
    caller.put(path, value=HIGHEST)
    producer.send("full", {"counter_id": counter, "by": 5}, {"counter_id": counter, "by": -1})

    assert wait_for(lambda: waiting(stack, "IncrementDeadLetterQueueUrl") == 1)
    book.log("SYMPTOM (IncrementParkedAlarm): IncrementDeadLetterQueue has 1 message")
    assert producer.value(counter, HIGHEST - 1) == HIGHEST - 1  # the later message is counted
    page, heading = "counting-from-aws.md", "IncrementDeadLetterQueue"
    (shown,) = book.follow(page, heading, only="receive-message")
    assert "no room" in shown
    book.log("The counter is set to 0")
    caller.put(path, value=0)
    book.follow(page, heading, only="start-message-move-task")

    assert producer.value(counter, 5) == 5
    assert not waiting(stack, "IncrementDeadLetterQueueUrl")
    assert len(caller.history(path, 4)) == 4
    audit(book, counter)
    book.log("WELL: the message is counted once")


def test_stuck_group(stack: Stack, caller: Caller, producer: Producer, book: Runbook) -> None:
    counter, path = "stuck", "/counters/stuck"
    caller.post(path, by=40)
    assert len(caller.history(path, 1)) == 1
    book.log("BREAK: somebody makes the value and the version of a counter a text")
    edit(stack, counter, "value", {"S": "40"})
    edit(stack, counter, "version", {"S": "1"})
    producer.send(counter, *[{"counter_id": counter}] * 3)
    producer.send("moving", {"counter_id": "moving"})

    assert producer.value("moving", 1) == 1
    time.sleep(2 * REDELIVERY_SECONDS)
    assert waiting(stack, "IncrementQueueUrl") == 3
    book.log("SYMPTOM (IncrementsLateAlarm): IncrementQueue keeps 3 messages of one group")
    book.follow("operations.md", "A message group that does not move on", counter=counter)

    assert producer.value(counter, 43) == 43
    producer.wait_until_done()
    assert wait_for(lambda: waiting(stack, "HistoryDeadLetterQueueUrl") == 3)
    assert redrive(book) == {"redriven": 0, "parked": 3}
    delete_parked_records(book, stack)
    audit(book, counter, "moving")
    book.log("WELL: the group has moved on, and each message is counted once")


def test_killed_consumers(
    emulator: Emulator, stack: Stack, caller: Caller, producer: Producer, book: Runbook
) -> None:
    counters = [f"killed:{number}" for number in range(4)]
    ingest, record = (physical_name(stack, name) for name in ("IngestIncrements", "RecordHistory"))
    killed = 0
    for _ in range(KILLS):
        for counter in counters:
            producer.send(counter, *[{"counter_id": counter}] * 10)
        pids = wait_for(
            lambda: [*function_pids(emulator, ingest), *function_pids(emulator, record)]
        )
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed += len(pids)
    book.log(f"BREAK: killed {killed} processes of IngestIncrements and RecordHistory")
    assert killed
    book.log(f"SYMPTOM: IncrementQueue has {waiting(stack, 'IncrementQueueUrl')} messages")

    producer.wait_until_done(seconds=REQUEST_SECONDS)
    for counter in counters:
        assert producer.value(counter, 10 * KILLS) == 10 * KILLS
        caller.whole_history(f"/counters/{counter}", seconds=REQUEST_SECONDS)
    audit(book, *counters)
    book.log("WELL: each message is counted once, without anybody's help")


def interrupted(*_: object, **__: object) -> None:
    message = "interrupted"
    raise ClientError({"Error": {"Code": message, "Message": message}}, "CreateChangeSet")


def copy_while_counting(
    book: Runbook,
    caller: Caller,
    counter: RestoredCounter,
    before: Mapping[str, object],
    define: str,
) -> None:
    """Copy the tables. Meanwhile, the history gets what it lacked, and the data is damaged."""
    (printed,) = book.follow(RESTORING, "1. Copy the tables", first=define)
    assert "restored: 3 changes up to version 5 have no entry\n" in printed
    counter.record_history(runs=True)
    counter.count_after()
    book.log("BREAK: a program sets all counters to -1")
    for name in before.keys() ^ {"restored", "new"}:
        assert caller.put(f"/counters/{name}", value=-1).status == 200
    book.log("The history has got the 3 changes. So the copy is repeated")
    (printed,) = book.follow(RESTORING, "1. Copy the tables", first=define)
    assert "copied 3 entries" in printed
    assert printed.endswith("\n0 counters have changes without an entry\n")


def interrupt_the_switch(stack: Stack, moment: str) -> None:
    """Begin the switch to the restored tables, and stop before the stack adopts them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": stack.region}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", stack.endpoint_url)
        patch.setattr(restore_tables, "adopt", interrupted)
        assert restore_tables.main(["switch", STACK_NAME, moment]) == 1
        assert restore_tables.tables_of(STACK_NAME).keys() == {"GrantTable"}
    assert not uploaded_templates(stack)


def uploaded_templates(stack: Stack) -> list[str]:
    """Return the names of the templates that the switch has left in S3."""
    s3 = client(stack, "s3")
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    names = [
        each["Key"] for b in buckets for each in s3.list_objects_v2(Bucket=b).get("Contents", [])
    ]
    return [name for name in names if name.endswith("-restored.template")]


def assert_complete(caller: Caller, *counters: str) -> None:
    """Check that the history has each version of each counter."""
    for counter in counters:
        caller.whole_history(f"/counters/{counter}")


def test_tables_restored_to_an_earlier_time(  # noqa: PLR0913, PLR0917  the last test needs all
    emulator: Emulator,
    stack: Stack,
    caller: Caller,
    producer: Producer,
    book: Runbook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = RESTORING
    counter = RestoredCounter(stack, caller, producer)
    counter.count_before()
    before = {each["counter_id"]["S"]: each for each in stored_counters(stack)}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    define = "\n".join(runbook.commands(page, "Before you begin"))
    define = define.replace("tally-prod", STACK_NAME).replace(EXAMPLE, now)
    book.log(f"The time to restore is {now}. At this time, the history lacks 3 changes")
    copy_while_counting(book, caller, counter, before, define)

    book.follow(page, "2. Stop the changes", only="for each", first=define)
    counter.send(1000)
    assert not counter.can_count()
    assert_complete(caller, *before, "new")
    book.follow(page, "2. Stop the changes", only="$RecordHistory", first=define)
    counter.park_a_lost_change()
    book.log("The switch is interrupted, and then repeated")
    interrupt_the_switch(stack, now)
    _, printed = book.follow(page, "3. Switch to the new tables", first=define)
    assert last_object(printed) == {"redriven": 0, "parked": 0}
    restored = deployment.describe(emulator)
    changed = {name for name, value in restored.outputs.items() if value != stack.outputs[name]}
    assert changed == restore_tables.SECONDS_AFTER.keys()
    assert {each["counter_id"]["S"]: each for each in stored_counters(restored)} == before
    assert_complete(caller, *before)
    counter.assert_as_at_the_time()
    assert not counter.can_count()
    audit_all(book)
    audit(book, *before)

    book.follow(page, "5. Start again", only="delete-function-concurrency", first=define)
    counter.assert_counts_again()
    old = " ".join(stack.outputs[name] for name in restore_tables.SECONDS_AFTER)
    (printed,) = book.follow(page, "6. Look at what is lost", first=define, OLD=old)
    lost = [tuple(line.split("\t")[:3]) for line in printed.splitlines()]
    assert sorted(each for each in lost if each[0] == "restored") == [*counter.LOST]
    assert {counter_id for counter_id, *_ in lost} == {*before, "new"}

    assert any("make deploy" in each for each in runbook.commands(page, "5. Start again"))
    book.log("The stack is deployed, as `make deploy` does")
    monkeypatch.setattr(deployment, "is_deployed", lambda *_: False)
    again = deploy(emulator)
    assert again.outputs == restored.outputs
    assert caller.post(counter.PATH).body["value"] == 1019
    assert len(caller.whole_history(counter.PATH)) == 8
    book.log("The time was wrong: the old tables are copied again, as they were a minute earlier")
    earlier = (datetime.fromisoformat(now) - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    book.follow(page, "If the time was wrong", first=define.replace(now, earlier), OLD=old)
    book.log("WELL: the stack counts with the restored tables. An audit of all counters:")
    names = sorted(each["counter_id"]["S"] for each in stored_counters(again))
    audit_all(book)
    audit(book, *names)
    book.log(f"END: {book.ran} commands. {len(names)} counters audited: no findings")
