"""ForwardEvents sends each event to IncrementQueue once, in the event's message group.

The message group of an event is the name of the counter that the event changes.
"""

import json
import string
from itertools import repeat

import pytest
from tests.component.samples import load
from tests.event_queue import (
    SENDER,
    EventMessage,
    Forwarded,
    bodies,
    deliver,
    event_body,
    event_message,
    forwarded,
    forwarded_bodies,
)
from tests.stack import Stack
from tests.wire import (
    Wire,
    denied,
)

pytestmark = pytest.mark.usefixtures("silent")


def event_id(message: EventMessage) -> str:
    value: str = json.loads(message.body)["id"]
    return value


# --- Groups and deduplication ids ----------------------------------------------------------------


def test_the_sender_of_an_event_is_passed_on(stack: Stack) -> None:
    assert deliver(stack, EventMessage(event_body({"counter_id": "orders"}))) == []

    (message,) = forwarded(stack)
    assert message.sender == SENDER


def test_an_event_is_forwarded_unchanged_in_the_group_of_its_counter_with_its_own_id(
    stack: Stack,
) -> None:
    event = event_message("orders:eu")

    assert deliver(stack, event) == []
    assert forwarded(stack) == [Forwarded("orders:eu", event_id(event), event.body)]


def test_the_body_is_forwarded_byte_for_byte(stack: Stack) -> None:
    detail = '{"counter_id":"\\u006frders", "by": 1E0}'
    body = '\n {"id" :\t"7", "d\\u0065tail": ' + detail + ', "\N{OHM SIGN}": 1 }'

    assert deliver(stack, EventMessage(body)) == []
    assert forwarded(stack) == [Forwarded("orders", "7", body)]


def test_each_counter_has_its_own_group(stack: Stack) -> None:
    events = [event_message(f"counter-{number % 20:02}") for number in range(60)]

    for start in range(0, 60, 10):
        assert deliver(stack, *events[start : start + 10]) == []

    groups = [message.group for message in forwarded(stack)]
    assert groups == sorted([f"counter-{number:02}" for number in range(20)] * 3)


def test_the_longest_counter_name_is_used_as_the_group(stack: Stack) -> None:
    name = "o" + "._:-" * 31 + "xyz"

    assert deliver(stack, event_message(name)) == []
    assert [message.group for message in forwarded(stack)] == [name]


@pytest.mark.parametrize(
    "accepted", ["1", "i" * 128, string.punctuation, "2026-11-22T10:00:00Z"], ids=repr
)
def test_an_event_id_that_sqs_accepts_is_the_deduplication_id(stack: Stack, accepted: str) -> None:
    assert deliver(stack, event_message(id=accepted)) == []
    assert [message.deduplication_id for message in forwarded(stack)] == [accepted]


@pytest.mark.parametrize(
    "rejected",
    [None, 7, True, ["7"], {}, "", "i" * 129, "a b", "a\n", "a\t", "\N{OHM SIGN}", "a\x7f"],
    ids=repr,
)
def test_the_message_id_replaces_an_event_id_that_sqs_rejects(
    stack: Stack, rejected: object
) -> None:
    event = event_message(id=rejected)

    assert deliver(stack, event) == []
    assert forwarded(stack) == [Forwarded("orders", event.message_id, event.body)]


def test_the_message_id_replaces_a_missing_event_id(stack: Stack) -> None:
    event = EventMessage('{"detail-type": "Count", "detail": {"counter_id": "orders"}}')

    assert deliver(stack, event) == []
    assert forwarded(stack) == [Forwarded("orders", event.message_id, event.body)]


DEEP = 50_000

NOT_EVENTS = {
    "not JSON": "orders",
    "an unclosed object": '{"detail": {"counter_id": "orders"}',
    "two objects": event_body({"counter_id": "orders"}) * 2,
    "a byte order mark": "\ufeff" + event_body({"counter_id": "orders"}),
    "a list": json.dumps([{"detail": {"counter_id": "orders"}}]),
    "a string": '"orders"',
    "a number": "1",
    "null": "null",
    "deeply nested": "[" * DEEP + "]" * DEEP,
    "NaN": '{"id": "7", "detail": {"counter_id": "orders", "by": NaN}}',
    "detail twice": '{"id": "7", "detail": {"counter_id": "orders"}, "detail": {}}',
    "counter_id twice": '{"id": "7", "detail": {"counter_id": "orders", "counter_id": "orders"}}',
}

WITHOUT_COUNTER = {
    "no detail": {},
    "detail null": {"detail": None},
    "detail a string": {"detail": '{"counter_id": "orders"}'},
    "detail a list": {"detail": [{"counter_id": "orders"}]},
    "detail empty": {"detail": {}},
    "counter_id outside detail": {"counter_id": "orders", "detail": {}},
    "counter_id null": {"detail": {"counter_id": None}},
    "counter_id a number": {"detail": {"counter_id": 1}},
    "counter_id empty": {"detail": {"counter_id": ""}},
    "counter_id with a space": {"detail": {"counter_id": "orders "}},
    "counter_id with a newline": {"detail": {"counter_id": "orders\n"}},
    "counter_id too long": {"detail": {"counter_id": "o" * 129}},
    "counter_id of 200 KB": {"detail": {"counter_id": "o" * 200_000}},
    "counter_id a surrogate": {"detail": {"counter_id": "\ud800"}},
}


@pytest.mark.parametrize("body", NOT_EVENTS.values(), ids=NOT_EVENTS)
def test_a_message_that_is_not_an_event_is_forwarded_unchanged_in_its_own_group(
    stack: Stack, body: str
) -> None:
    malformed, valid = EventMessage(body), event_message()

    assert deliver(stack, malformed, valid) == []
    assert forwarded(stack) == sorted(
        [
            Forwarded(malformed.message_id, malformed.message_id, body),
            Forwarded("orders", event_id(valid), valid.body),
        ]
    )


@pytest.mark.parametrize("fields", WITHOUT_COUNTER.values(), ids=WITHOUT_COUNTER)
def test_an_event_without_a_valid_counter_is_forwarded_in_its_own_group(
    stack: Stack, fields: dict[str, object]
) -> None:
    malformed = EventMessage(json.dumps({"id": "7", "detail-type": "Count", **fields}))

    assert deliver(stack, malformed) == []
    assert forwarded(stack) == [Forwarded(malformed.message_id, "7", malformed.body)]


@pytest.mark.parametrize(
    "fields",
    [
        {"detail": {"counter_id": "orders", "by": "many"}},
        {"detail-type": "Uncount"},
        {"source": None},
        {"replay-name": "again"},
    ],
    ids=repr,
)
def test_events_that_ingestion_will_reject_are_forwarded_all_the_same(
    stack: Stack, fields: dict[str, object]
) -> None:
    event = (
        event_message(**fields) if "detail" not in fields else EventMessage(event_body(**fields))
    )

    assert deliver(stack, event) == []
    assert forwarded(stack) == [Forwarded("orders", event_id(event), event.body)]


def test_a_malformed_event_ends_in_the_dead_letter_queue_of_increment_queue(stack: Stack) -> None:
    malformed = EventMessage(event_body({"counter": "orders"}))
    assert deliver(stack, malformed) == []

    (message,) = forwarded(stack)
    (record,) = [
        {
            **each,
            "body": message.body,
            "attributes": {**each["attributes"], "MessageGroupId": message.group},
        }
        for each in load("ingest_increments")["Records"][:1]
    ]
    assert stack.invoke("IngestIncrements", {"Records": [record]}) == {"batchItemFailures": []}

    assert stack.messages("IncrementDeadLetterQueue") == [malformed.body]


def test_the_records_in_these_tests_have_the_structure_of_the_sample_event() -> None:
    record = event_message().record()

    for sample in load("forward_events")["Records"]:
        assert record.keys() == sample.keys()
        assert record["attributes"].keys() == sample["attributes"].keys()


# --- Repeated deliveries -------------------------------------------------------------------------


def test_a_batch_that_is_delivered_twice_is_forwarded_once(stack: Stack) -> None:
    batch = [event_message("a"), event_message("b"), EventMessage("malformed")]

    assert deliver(stack, *batch) == deliver(stack, *reversed(batch)) == []
    assert forwarded_bodies(stack) == bodies(*batch)


def test_an_event_that_eventbridge_delivers_twice_is_forwarded_once(stack: Stack) -> None:
    event = event_message()
    again = EventMessage(event.body)
    assert event.message_id != again.message_id

    assert deliver(stack, event, again) == deliver(stack, again) == []
    assert forwarded_bodies(stack) == [event.body]


def test_two_events_with_the_same_detail_are_both_forwarded(stack: Stack) -> None:
    events = event_message(), event_message()

    assert deliver(stack, *events) == []
    assert forwarded_bodies(stack) == bodies(*events)


def test_a_message_that_is_twice_in_a_batch_is_sent_and_reported_once(
    stack: Stack, wire: Wire
) -> None:
    one, two = event_message("a"), event_message("b")
    wire.fail("SendMessageBatch", repeat(denied))
    assert deliver(stack, one, two, one) == [one, two]

    wire.fail("SendMessageBatch", [])
    assert deliver(stack, one, two, one) == []
    assert len(wire.sent[-1].parameters["Entries"]) == 2
    assert forwarded_bodies(stack) == bodies(one, two)
