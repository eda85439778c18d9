"""ForwardEvents: sends each event to IncrementQueue once, in the message group of its counter."""

import json
import string
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from http import HTTPStatus
from itertools import chain, repeat

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.output import silence
from tests.component.samples import load
from tests.event_queue import SENDER, EventMessage, Forwarded, deliver, event_body, forwarded
from tests.stack import Stack
from tests.wire import (
    Fault,
    Wire,
    answered,
    connection_lost,
    delivered,
    denied,
    internal_error,
    refused_internally,
    reply_lost,
    request_lost,
    throttled,
    unreachable,
)

from counters import clock
from counters.clients import ATTEMPT

KIB = 1024
MAX_BYTES = 256 * KIB  # per request, unless one event is larger
TIMEOUT = 10  # seconds
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
ACCEPTED_CHARACTERS = string.ascii_letters + string.digits + string.punctuation


@pytest.fixture(autouse=True)
def _silence(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if "caplog" in request.fixturenames else silence():
        yield


def event_message(counter_id: object = "orders", **fields: object) -> EventMessage:
    """Return a message of EventQueue with an event that adds to a counter."""
    return EventMessage(event_body({"counter_id": counter_id}, **fields))


def forwarded_bodies(stack: Stack) -> list[str]:
    """Receive and delete all messages of IncrementQueue. Return their bodies, sorted."""
    messages = forwarded(stack)
    for message in messages:
        for each in (message.group, message.deduplication_id):
            assert 1 <= len(each) <= 128
            assert set(each) <= set(ACCEPTED_CHARACTERS)
    return sorted(message.body for message in messages)


def bodies(*messages: EventMessage) -> list[str]:
    return sorted(message.body for message in messages)


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


# --- Request size --------------------------------------------------------------------------------


def request_sizes(wire: Wire) -> list[list[int]]:
    """Return the size in bytes of each message of each request."""
    assert set(wire.operations()) <= {"SendMessageBatch"}
    return [
        [len(entry["MessageBody"].encode()) for entry in sent.parameters["Entries"]]
        for sent in wire.sent
    ]


def event_of_size(size: int, character: str = "x") -> EventMessage:
    """Return an event of `size` bytes, filled with a character."""
    shortest = json.dumps({"detail": {"counter_id": "large"}, "note": ""})
    missing = size - len(shortest)
    assert missing % len(character.encode()) == 0
    note = character * (missing // len(character.encode()))
    body = json.dumps({"detail": {"counter_id": "large"}, "note": note}, ensure_ascii=False)
    assert len(body.encode()) == size
    return EventMessage(body)


def test_a_full_batch_is_one_request(stack: Stack, wire: Wire) -> None:
    batch = [event_message(f"counter-{number}") for number in range(10)]

    assert deliver(stack, *batch) == []
    assert list(map(len, request_sizes(wire))) == [10]
    assert forwarded_bodies(stack) == bodies(*batch)


def test_a_request_has_at_most_10_messages(stack: Stack, wire: Wire) -> None:
    batch = [event_message(f"counter-{number}") for number in range(25)]

    assert deliver(stack, *batch) == []
    assert list(map(len, request_sizes(wire))) == [10, 10, 5]
    assert forwarded_bodies(stack) == bodies(*batch)


@pytest.mark.parametrize(
    ("sizes_of_events", "requests"),
    [
        ([128 * KIB] * 4, [2, 2]),
        ([MAX_BYTES - KIB, KIB, KIB], [2, 1]),
        ([MAX_BYTES - KIB, KIB + 1, KIB], [1, 2]),
        ([100 * KIB, 100 * KIB, 100 * KIB, 1 * KIB], [2, 2]),
        ([1 * KIB, 1000 * KIB, 1 * KIB], [1, 1, 1]),
    ],
    ids=str,
)
def test_a_request_has_at_most_256_kib_unless_it_has_one_message(
    stack: Stack, wire: Wire, sizes_of_events: list[int], requests: list[int]
) -> None:
    batch = [event_of_size(size) for size in sizes_of_events]

    assert deliver(stack, *batch) == []
    assert list(map(len, request_sizes(wire))) == requests
    assert all(sum(request) <= MAX_BYTES or len(request) == 1 for request in request_sizes(wire))
    assert forwarded_bodies(stack) == bodies(*batch)


def test_the_size_of_a_request_is_measured_in_bytes_not_characters(
    stack: Stack, wire: Wire
) -> None:
    batch = [event_of_size(129 * KIB - 1, "\N{OHM SIGN}") for _ in range(2)]

    assert deliver(stack, *batch) == []
    assert list(map(len, request_sizes(wire))) == [1, 1]


# --- Failed requests -----------------------------------------------------------------------------


def sqs_throttled(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request as SQS does when it throttles."""
    body = {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "as the test has it"}
    return answered(request, HTTPStatus.BAD_REQUEST, body)


def refusing(*refused: EventMessage) -> Fault:
    """Return a fault by which SendMessageBatch accepts all messages except these."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        parameters = json.loads(request.body)
        refused_entries = [
            entry for entry in parameters["Entries"] if entry["MessageBody"] in bodies(*refused)
        ]
        accepted_entries = [
            entry for entry in parameters["Entries"] if entry not in refused_entries
        ]
        reply: dict[str, object] = {}
        if accepted_entries:
            request.body = json.dumps({**parameters, "Entries": accepted_entries}).encode()
            delivered(request)
            reply["Successful"] = [
                {"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "d"}
                for entry in accepted_entries
            ]
        if refused_entries:
            reply["Failed"] = [
                {"Id": entry["Id"], "Code": "InternalError", "SenderFault": False}
                for entry in refused_entries
            ]
        return answered(request, HTTPStatus.OK, reply)

    return fault


UNANSWERED = [reply_lost, connection_lost, internal_error, request_lost, refused_internally]
REFUSED = [throttled, sqs_throttled, unreachable, denied]
every_fault = pytest.mark.parametrize(
    "fault", UNANSWERED + REFUSED, ids=[fault.__name__ for fault in UNANSWERED + REFUSED]
)


def test_only_the_messages_that_sqs_refused_are_reported(stack: Stack, wire: Wire) -> None:
    batch = [event_message(f"counter-{number}") for number in range(15)]
    refused = [batch[2], batch[9], batch[12]]
    wire.fail("SendMessageBatch", [refusing(*refused)] * 2)

    assert deliver(stack, *batch) == refused
    assert deliver(stack, *refused) == []
    assert forwarded_bodies(stack) == bodies(*batch)


def test_all_messages_are_reported_if_sqs_refuses_all(stack: Stack, wire: Wire) -> None:
    batch = [event_message("a"), event_message("b")]
    wire.fail("SendMessageBatch", [refusing(*batch)])

    assert deliver(stack, *batch) == batch
    assert forwarded_bodies(stack) == []


@every_fault
def test_a_failed_batch_is_reported_and_forwarded_at_its_next_delivery(
    stack: Stack, wire: Wire, fault: Fault
) -> None:
    batch = [event_message("a"), event_message("b"), EventMessage("malformed")]
    wire.fail("SendMessageBatch", repeat(fault))
    assert deliver(stack, *batch) == batch

    wire.fail("SendMessageBatch", [])
    assert deliver(stack, *batch) == []
    assert forwarded_bodies(stack) == bodies(*batch)


@pytest.mark.parametrize(
    "fault", [*UNANSWERED, throttled, unreachable], ids=lambda fault: fault.__name__
)
def test_a_request_without_a_reply_is_retried(stack: Stack, wire: Wire, fault: Fault) -> None:
    batch = [event_message("a"), event_message("b"), EventMessage("malformed")]
    wire.fail("SendMessageBatch", [fault] * 3)

    assert deliver(stack, *batch) == []
    assert wire.operations() == ["SendMessageBatch"] * 4
    assert forwarded_bodies(stack) == bodies(*batch)


def test_a_denied_request_is_not_retried(stack: Stack, wire: Wire) -> None:
    event = event_message()
    wire.fail("SendMessageBatch", repeat(denied))

    assert deliver(stack, event) == [event]
    assert len(wire.sent) == 1


@every_fault
def test_the_messages_of_other_requests_are_not_reported(
    stack: Stack, wire: Wire, fault: Fault
) -> None:
    batch = [event_of_size(200 * KIB) for _ in range(3)]

    def fail_second(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        entry = json.loads(request.body)["Entries"][0]
        is_second = entry["MessageDeduplicationId"] == batch[1].message_id
        return (fault if is_second else delivered)(request)

    wire.fail("SendMessageBatch", repeat(fail_second))
    failed = deliver(stack, *batch)

    assert failed[0] == batch[1]
    if fault is denied:
        assert failed == [batch[1]], (
            "a denied request is not retried, so there is time for the third"
        )
    wire.fail("SendMessageBatch", [])
    assert deliver(stack, *failed) == []
    assert forwarded_bodies(stack) == bodies(*batch)


@pytest.fixture
def short_timeout(stack: Stack) -> float:
    """Set the timeout to 10 s. Return the latest start of a request, in seconds after the start."""
    stack.functions["ForwardEvents"] = replace(stack.functions["ForwardEvents"], timeout=TIMEOUT)
    return TIMEOUT - ATTEMPT


def test_the_remaining_messages_are_reported_when_time_runs_out(
    stack: Stack, wire: Wire, short_timeout: float
) -> None:
    request_times: list[float] = []

    def answer_late(request: AWSPreparedRequest) -> AWSResponse:
        request_times.append(clock.now())
        clock.sleep(1.9)
        return delivered(request)

    wire.fail("SendMessageBatch", chain([answer_late] * 10))
    batch = [event_of_size(200 * KIB) for _ in range(7)]
    began = clock.now()

    assert deliver(stack, *batch) == batch[4:]
    assert len(request_times) == 4
    assert max(request_times) - began < short_timeout
    wire.fail("SendMessageBatch", [])
    assert deliver(stack, *batch[4:]) == []
    assert forwarded_bodies(stack) == bodies(*batch)


def test_no_request_is_sent_without_enough_time(stack: Stack, wire: Wire) -> None:
    stack.functions["ForwardEvents"] = replace(stack.functions["ForwardEvents"], timeout=3)
    event = event_message()

    assert deliver(stack, event) == [event]
    assert wire.sent == []


# --- The log -------------------------------------------------------------------------------------


def test_the_log_says_how_many_messages_were_forwarded(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(stack, event_message("a"), EventMessage("malformed"))

    assert [record.getMessage() for record in caplog.records] == ["forwarded 2 of 2"]


def test_the_log_says_why_a_message_was_not_forwarded(
    stack: Stack, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    batch = [event_message("a"), event_message("b")]
    wire.fail("SendMessageBatch", [refusing(batch[1])])

    deliver(stack, *batch)

    error, line = caplog.records
    assert (error.levelname, line.getMessage()) == ("ERROR", "forwarded 1 of 2")
    assert "InternalError" in str(vars(error)["failed"])
