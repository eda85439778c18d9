import json
from copy import deepcopy
from itertools import repeat
from typing import Any

import pytest
from tests.stack import Stack, StreamRecord
from tests.wire import Wire, denied, internal_error, processed, reply_lost, throttled

DEAD_LETTERS = "HistoryDeadLetterQueue"


def make_changes(stack: Stack, count: int, counter_id: str = "orders") -> list[StreamRecord]:
    for number in range(count):
        stack.request("POST", f"/counters/{counter_id}", body={"by": number + 1})
    return stack.changes()


def versions(stack: Stack, counter_id: str = "orders") -> list[int]:
    reply = stack.request("GET", f"/counters/{counter_id}/history", query="limit=1000")
    return [entry["version"] for entry in reply.body]


def numbers(count: int) -> list[int]:
    return list(range(1, count + 1))


def without(record: StreamRecord, *path: str) -> StreamRecord:
    """Return the record without what lies at the path."""
    changed = deepcopy(record)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def test_the_history_of_a_counter_proves_its_value(stack: Stack) -> None:
    stack.request("PUT", "/counter", body={"value": 100})
    for by in (5, -30, 2):
        stack.request("POST", "/counter", body={"by": by})
    stack.record(stack.changes())

    entries = stack.request("GET", "/counter/history").body

    assert sum(entry["by"] for entry in entries) == 77
    assert entries[-1]["value"] == stack.request("GET", "/counter").body["value"] == 77
    previous = [0] + [entry["value"] for entry in entries[:-1]]
    assert [entry["previous_value"] for entry in entries] == previous


def test_an_entry_keeps_what_a_look_into_the_past_will_need(stack: Stack) -> None:
    stack.record(make_changes(stack, 2))

    first, second = sorted(stack.items("HistoryTable"), key=lambda item: item["version"]["N"])
    counter = stack.items("CounterTable")[0]

    assert second["request_id"] == counter["change"]["M"]["request_id"]
    assert first["counter_created_at"] == second["counter_created_at"] == counter["created_at"]


def test_no_records_are_no_work(stack: Stack, wire: Wire) -> None:
    assert stack.record([]) == 0
    assert wire.operations() == []


@pytest.mark.parametrize("count", [1, 24, 25, 26, 50, 60, 100])
def test_a_batch_of_any_size_is_recorded(stack: Stack, wire: Wire, count: int) -> None:
    changes = make_changes(stack, count)
    wire.sent.clear()

    assert stack.record(changes) == count
    *writes, fold = wire.sent
    assert [sent.operation for sent in writes] == ["BatchWriteItem"] * -(-count // 25)
    assert fold.operation == "UpdateItem"
    sizes = [len(items) for sent in writes for items in sent.parameters["RequestItems"].values()]
    assert max(sizes) <= 25, "DynamoDB takes no more; moto would"
    assert versions(stack) == numbers(count)


def test_the_changes_of_many_counters_are_recorded_each_for_its_own(stack: Stack) -> None:
    for _ in range(3):
        for name in ("a", "b", "c"):
            stack.request("POST", f"/counters/{name}")
    stack.record(stack.changes())

    for name in ("a", "b", "c"):
        assert versions(stack, name) == [1, 2, 3]


def test_the_same_batch_twice_changes_nothing(stack: Stack) -> None:
    changes = make_changes(stack, 30)
    stack.record(changes)
    before = stack.items("HistoryTable")

    assert stack.record(changes) == 30
    assert stack.items("HistoryTable") == before


def test_a_batch_that_overlaps_the_last_one_adds_what_is_new(stack: Stack) -> None:
    changes = make_changes(stack, 40)
    stack.record(changes[:30])

    assert stack.record(changes[10:]) == 30
    assert versions(stack) == numbers(40)


def test_a_record_twice_in_a_batch_is_recorded_once(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 20)
    wire.sent.clear()

    assert stack.record([*changes, *changes[5:], changes[0]]) == 36
    sent, _fold = wire.sent
    (writes,) = sent.parameters["RequestItems"].values()
    keys = [write["PutRequest"]["Item"]["version"]["N"] for write in writes]
    assert len(keys) == len(set(keys)) == 20, "DynamoDB refuses a batch with a key twice"
    assert versions(stack) == numbers(20)


def test_of_a_failure_in_the_middle_the_first_record_not_done_is_reported(
    stack: Stack, wire: Wire
) -> None:
    changes = make_changes(stack, 60)
    wire.fail("BatchWriteItem", [processed(25), denied])

    done = stack.record(changes)

    assert done == 25
    assert versions(stack) == numbers(25)


def test_delivery_from_the_reported_record_loses_nothing(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 60)
    wire.fail("BatchWriteItem", [processed(25), denied, processed(10), *[processed(0)] * 4, denied])

    position, deliveries = 0, 0
    while position < len(changes):
        position += stack.record(changes[position:])
        deliveries += 1

    assert deliveries == 4
    assert versions(stack) == numbers(60)


@pytest.mark.parametrize("fault", [denied, throttled, reply_lost, internal_error])
def test_while_the_table_takes_nothing_all_comes_again(
    stack: Stack,
    wire: Wire,
    fault: Any,  # noqa: ANN401
) -> None:
    changes = make_changes(stack, 3)
    wire.fail("BatchWriteItem", repeat(fault))

    assert stack.record([*changes, *changes]) == 0

    wire.fail("BatchWriteItem", [])
    assert stack.record(changes) == 3
    assert versions(stack) == numbers(3)


def test_a_batch_whose_reply_is_lost_is_written_again(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 3)
    wire.fail("BatchWriteItem", [reply_lost])

    assert stack.record(changes) == 3
    assert versions(stack) == numbers(3)


def test_what_the_table_left_unprocessed_is_written_again(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 20)
    wire.fail("BatchWriteItem", [processed(5), processed(0), processed(14)])

    assert stack.record(changes) == 20
    assert versions(stack) == numbers(20)


def test_what_stays_unprocessed_is_reported(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 20)
    wire.fail("BatchWriteItem", [processed(7), *repeat(processed(0), 10)])

    assert stack.record(changes) == 7
    assert versions(stack) == numbers(7)


SENSELESS = [
    pytest.param(("dynamodb",), id="nothing"),
    pytest.param(("dynamodb", "NewImage"), id="no new image"),
    pytest.param(("dynamodb", "OldImage"), id="a version from nowhere"),
    pytest.param(("dynamodb", "OldImage", "version"), id="no old version"),
    pytest.param(("dynamodb", "OldImage", "value"), id="no old value"),
    pytest.param(("dynamodb", "NewImage", "value"), id="no value"),
    pytest.param(("dynamodb", "NewImage", "change"), id="no change"),
    pytest.param(("dynamodb", "NewImage", "change", "M", "actor"), id="no actor"),
    pytest.param(("dynamodb", "NewImage", "change", "M", "request_id"), id="no request"),
    pytest.param(("dynamodb", "NewImage", "created_at"), id="no time"),
    pytest.param(("dynamodb", "NewImage", "value", "N"), id="a value without its type"),
]


@pytest.mark.parametrize("path", SENSELESS)
def test_a_senseless_record_is_parked_whole_and_the_rest_arrives(
    stack: Stack, path: tuple[str, ...]
) -> None:
    changes = make_changes(stack, 5)
    senseless = without(changes[2], *path)

    assert stack.record([*changes[:2], senseless, *changes[3:]]) == 5
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [senseless]
    assert versions(stack) == [1, 2, 4, 5]


@pytest.mark.parametrize("value", ["1.5", "NaN", "x"])
def test_a_value_that_is_no_integer_is_senseless(stack: Stack, value: str) -> None:
    (record,) = make_changes(stack, 1)
    record["dynamodb"]["NewImage"]["value"]["N"] = value

    assert stack.record([record]) == 1
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]
    assert stack.items("HistoryTable") == []


@pytest.mark.parametrize(
    "content", [None, "x", [], {"NewImage": None}, {"NewImage": {"version": "1"}}], ids=str
)
def test_a_record_of_another_shape_is_senseless(stack: Stack, content: object) -> None:
    (record,) = make_changes(stack, 1)
    record["dynamodb"] = content

    assert stack.invoke("RecordHistory", {"Records": [record]}) == {"batchItemFailures": []}
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]


def test_changes_made_behind_the_services_back_are_parked(stack: Stack) -> None:
    stack.request("POST", "/counter")
    table = stack.refs["CounterTable"]
    key: Any = {"counter_id": {"S": "default"}}
    stack.dynamodb.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET #value = :value",
        ExpressionAttributeNames={"#value": "value"},
        ExpressionAttributeValues={":value": {"N": "99"}},
    )
    stack.dynamodb.delete_item(TableName=table, Key=key)
    changes = stack.changes()

    assert stack.record(changes) == 3
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == changes[1:]
    assert versions(stack, "default") == [1]


def test_a_record_that_cannot_be_parked_comes_again(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 5)
    changes[3] = without(changes[3], "dynamodb", "NewImage")
    wire.fail("SendMessage", repeat(denied))

    assert stack.record(changes) == 3

    wire.fail("SendMessage", [])
    assert stack.record(changes[3:]) == 2
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [changes[3]]
    assert versions(stack) == [1, 2, 3, 5]


def test_of_two_failures_the_first_in_the_stream_is_reported(stack: Stack, wire: Wire) -> None:
    changes = make_changes(stack, 30)
    changes[10] = without(changes[10], "dynamodb", "NewImage")
    wire.fail("SendMessage", repeat(denied))
    wire.fail("BatchWriteItem", [processed(25), denied])

    assert stack.record(changes) == 10


def test_an_outage_of_the_history_does_not_park_a_record_again_and_again(
    stack: Stack, wire: Wire
) -> None:
    changes = make_changes(stack, 5)
    changes[3] = without(changes[3], "dynamodb", "NewImage")
    wire.fail("BatchWriteItem", repeat(throttled))
    for _ in range(3):
        assert stack.record(changes) == 0

    wire.fail("BatchWriteItem", [])
    assert stack.record(changes) == 5
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [changes[3]]


def test_an_operation_that_there_is_not_is_senseless(stack: Stack) -> None:
    (record,) = make_changes(stack, 1)
    record["dynamodb"]["NewImage"]["change"]["M"]["operation"] = {"S": "multiply"}

    assert stack.record([record]) == 1
    assert [json.loads(body) for body in stack.messages(DEAD_LETTERS)] == [record]
