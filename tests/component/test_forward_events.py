"""EventQueue: which group and which id each event gets, and what happens when a request fails."""

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
MOST_BYTES = 256 * KIB  # of a request
TIMEOUT = 10  # seconds
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
ACCEPTED = string.ascii_letters + string.digits + string.punctuation


@pytest.fixture(autouse=True)
def _silence(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if "caplog" in request.fixturenames else silence():
        yield


def counting(counter_id: object = "orders", **fields: object) -> EventMessage:
    """Return an event that counts, as a message of EventQueue."""
    return EventMessage(event_body({"counter_id": counter_id}, **fields))


def arrived(stack: Stack) -> list[str]:
    """Take all messages from IncrementQueue and return their bodies, sorted."""
    messages = forwarded(stack)
    for message in messages:
        for each in (message.group, message.deduplication_id):
            assert 1 <= len(each) <= 128
            assert set(each) <= set(ACCEPTED)
    return sorted(message.body for message in messages)


def bodies(*messages: EventMessage) -> list[str]:
    return sorted(message.body for message in messages)


def event_id(message: EventMessage) -> str:
    value: str = json.loads(message.body)["id"]
    return value


# --- Groups and ids ------------------------------------------------------------------------------


def test_the_sender_of_an_event_is_passed_on(stack: Stack) -> None:
    assert deliver(stack, EventMessage(event_body({"counter_id": "orders"}))) == []

    (message,) = forwarded(stack)
    assert message.sender == SENDER


def test_an_event_is_forwarded_unchanged_in_the_group_of_its_counter_with_its_own_id(
    stack: Stack,
) -> None:
    event = counting("orders:eu")

    assert deliver(stack, event) == []
    assert forwarded(stack) == [Forwarded("orders:eu", event_id(event), event.body)]


def test_the_body_is_forwarded_byte_for_byte(stack: Stack) -> None:
    detail = '{"counter_id":"\\u006frders", "by": 1E0}'
    body = '\n {"id" :\t"7", "d\\u0065tail": ' + detail + ', "\N{OHM SIGN}": 1 }'

    assert deliver(stack, EventMessage(body)) == []
    assert forwarded(stack) == [Forwarded("orders", "7", body)]


def test_events_of_20_counters_are_in_20_groups(stack: Stack) -> None:
    events = [counting(f"counter-{number % 20:02}") for number in range(60)]

    for start in range(0, 60, 10):
        assert deliver(stack, *events[start : start + 10]) == []

    groups = [message.group for message in forwarded(stack)]
    assert groups == sorted([f"counter-{number:02}" for number in range(20)] * 3)


def test_the_longest_name_is_a_group(stack: Stack) -> None:
    name = "o" + "._:-" * 31 + "xyz"

    assert deliver(stack, counting(name)) == []
    assert [message.group for message in forwarded(stack)] == [name]


@pytest.mark.parametrize(
    "accepted", ["1", "i" * 128, string.punctuation, "2026-11-22T10:00:00Z"], ids=repr
)
def test_an_id_that_sqs_accepts_is_the_deduplication_id(stack: Stack, accepted: str) -> None:
    assert deliver(stack, counting(id=accepted)) == []
    assert [message.deduplication_id for message in forwarded(stack)] == [accepted]


@pytest.mark.parametrize(
    "rejected",
    [None, 7, True, ["7"], {}, "", "i" * 129, "a b", "a\n", "a\t", "\N{OHM SIGN}", "a\x7f"],
    ids=repr,
)
def test_the_messages_id_replaces_an_id_that_sqs_does_not_accept(
    stack: Stack, rejected: object
) -> None:
    event = counting(id=rejected)

    assert deliver(stack, event) == []
    assert forwarded(stack) == [Forwarded("orders", event.message_id, event.body)]


def test_the_messages_id_replaces_a_missing_id(stack: Stack) -> None:
    event = EventMessage('{"detail-type": "Count", "detail": {"counter_id": "orders"}}')

    assert deliver(stack, event) == []
    assert forwarded(stack) == [Forwarded("orders", event.message_id, event.body)]


DEEP = 50_000
NO_EVENT = {
    "no JSON": "orders",
    "a half": '{"detail": {"counter_id": "orders"}',
    "more than one": event_body({"counter_id": "orders"}) * 2,
    "a byte order mark": "\ufeff" + event_body({"counter_id": "orders"}),
    "a list": json.dumps([{"detail": {"counter_id": "orders"}}]),
    "a text": '"orders"',
    "a number": "1",
    "null": "null",
    "deep": "[" * DEEP + "]" * DEEP,
    "NaN": '{"id": "7", "detail": {"counter_id": "orders", "by": NaN}}',
    "a detail twice": '{"id": "7", "detail": {"counter_id": "orders"}, "detail": {}}',
    "a counter twice": '{"id": "7", "detail": {"counter_id": "orders", "counter_id": "orders"}}',
}
NO_COUNTER = {
    "no detail": {},
    "detail null": {"detail": None},
    "detail a text": {"detail": '{"counter_id": "orders"}'},
    "detail a list": {"detail": [{"counter_id": "orders"}]},
    "detail empty": {"detail": {}},
    "a counter beside the detail": {"counter_id": "orders", "detail": {}},
    "counter_id null": {"detail": {"counter_id": None}},
    "counter_id a number": {"detail": {"counter_id": 1}},
    "counter_id empty": {"detail": {"counter_id": ""}},
    "counter_id with a space": {"detail": {"counter_id": "orders "}},
    "counter_id with a line end": {"detail": {"counter_id": "orders\n"}},
    "counter_id too long": {"detail": {"counter_id": "o" * 129}},
    "counter_id huge": {"detail": {"counter_id": "o" * 200_000}},
    "counter_id a surrogate": {"detail": {"counter_id": "\ud800"}},
}


@pytest.mark.parametrize("body", NO_EVENT.values(), ids=NO_EVENT)
def test_a_message_that_is_not_an_event_is_forwarded_unchanged_in_a_group_of_its_own(
    stack: Stack, body: str
) -> None:
    malformed, behind = EventMessage(body), counting()

    assert deliver(stack, malformed, behind) == []
    assert forwarded(stack) == sorted(
        [
            Forwarded(malformed.message_id, malformed.message_id, body),
            Forwarded("orders", event_id(behind), behind.body),
        ]
    )


@pytest.mark.parametrize("fields", NO_COUNTER.values(), ids=NO_COUNTER)
def test_an_event_without_a_counter_is_forwarded_in_a_group_of_its_own(
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
def test_the_forwarder_does_not_decide_whether_an_event_counts(
    stack: Stack, fields: dict[str, object]
) -> None:
    event = counting(**fields) if "detail" not in fields else EventMessage(event_body(**fields))

    assert deliver(stack, event) == []
    assert forwarded(stack) == [Forwarded("orders", event_id(event), event.body)]


def test_a_malformed_event_reaches_the_dead_letters_of_the_counters(stack: Stack) -> None:
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


def test_the_records_of_these_tests_have_the_form_of_the_sample_event() -> None:
    record = counting().record()

    for sample in load("forward_events")["Records"]:
        assert record.keys() == sample.keys()
        assert record["attributes"].keys() == sample["attributes"].keys()


# --- Deliveries ----------------------------------------------------------------------------------


def test_a_batch_delivered_twice_arrives_once(stack: Stack) -> None:
    batch = [counting("a"), counting("b"), EventMessage("malformed")]

    assert deliver(stack, *batch) == deliver(stack, *reversed(batch)) == []
    assert arrived(stack) == bodies(*batch)


def test_an_event_that_eventbridge_delivers_twice_arrives_once(stack: Stack) -> None:
    event = counting()
    again = EventMessage(event.body)
    assert event.message_id != again.message_id

    assert deliver(stack, event, again) == deliver(stack, again) == []
    assert arrived(stack) == [event.body]


def test_two_events_with_the_same_detail_are_two(stack: Stack) -> None:
    events = counting(), counting()

    assert deliver(stack, *events) == []
    assert arrived(stack) == bodies(*events)


def test_a_message_twice_in_a_batch_is_sent_and_reported_once(stack: Stack, wire: Wire) -> None:
    one, two = counting("a"), counting("b")
    wire.fail("SendMessageBatch", repeat(denied))
    assert deliver(stack, one, two, one) == [one, two]

    wire.fail("SendMessageBatch", [])
    assert deliver(stack, one, two, one) == []
    assert len(wire.sent[-1].parameters["Entries"]) == 2
    assert arrived(stack) == bodies(one, two)


# --- Requests ------------------------------------------------------------------------------------


def sizes(wire: Wire) -> list[list[int]]:
    """Return the bytes of each message of each request."""
    assert set(wire.operations()) <= {"SendMessageBatch"}
    return [
        [len(entry["MessageBody"].encode()) for entry in sent.parameters["Entries"]]
        for sent in wire.sent
    ]


def large(size: int, letter: str = "x") -> EventMessage:
    """Return an event of so many bytes."""
    shortest = json.dumps({"detail": {"counter_id": "large"}, "note": ""})
    left = size - len(shortest)
    assert left % len(letter.encode()) == 0
    note = letter * (left // len(letter.encode()))
    body = json.dumps({"detail": {"counter_id": "large"}, "note": note}, ensure_ascii=False)
    assert len(body.encode()) == size
    return EventMessage(body)


def test_a_full_batch_is_one_request(stack: Stack, wire: Wire) -> None:
    batch = [counting(f"counter-{number}") for number in range(10)]

    assert deliver(stack, *batch) == []
    assert list(map(len, sizes(wire))) == [10]
    assert arrived(stack) == bodies(*batch)


def test_a_request_has_at_most_10_messages(stack: Stack, wire: Wire) -> None:
    batch = [counting(f"counter-{number}") for number in range(25)]

    assert deliver(stack, *batch) == []
    assert list(map(len, sizes(wire))) == [10, 10, 5]
    assert arrived(stack) == bodies(*batch)


@pytest.mark.parametrize(
    ("given", "requests"),
    [
        ([128 * KIB] * 4, [2, 2]),
        ([MOST_BYTES - KIB, KIB, KIB], [2, 1]),
        ([MOST_BYTES - KIB, KIB + 1, KIB], [1, 2]),
        ([100 * KIB, 100 * KIB, 100 * KIB, 1 * KIB], [2, 2]),
        ([1 * KIB, 1000 * KIB, 1 * KIB], [1, 1, 1]),
    ],
    ids=str,
)
def test_a_request_has_at_most_256_kib_or_one_message(
    stack: Stack, wire: Wire, given: list[int], requests: list[int]
) -> None:
    batch = [large(size) for size in given]

    assert deliver(stack, *batch) == []
    assert list(map(len, sizes(wire))) == requests
    assert all(sum(request) <= MOST_BYTES or len(request) == 1 for request in sizes(wire))
    assert arrived(stack) == bodies(*batch)


def test_bytes_are_counted_and_not_characters(stack: Stack, wire: Wire) -> None:
    batch = [large(129 * KIB - 1, "\N{OHM SIGN}") for _ in range(2)]

    assert deliver(stack, *batch) == []
    assert list(map(len, sizes(wire))) == [1, 1]


# --- What fails ----------------------------------------------------------------------------------


def sqs_throttled(request: AWSPreparedRequest) -> AWSResponse:
    """Refuse the request as SQS does if it is asked too much."""
    body = {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "as the test has it"}
    return answered(request, HTTPStatus.BAD_REQUEST, body)


def refusing(*refused: EventMessage) -> Fault:
    """Return the fault of a SendMessageBatch that takes all messages but these."""

    def fault(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        asked = json.loads(request.body)
        left_out = [entry for entry in asked["Entries"] if entry["MessageBody"] in bodies(*refused)]
        taken = [entry for entry in asked["Entries"] if entry not in left_out]
        reply: dict[str, object] = {}
        if taken:
            request.body = json.dumps({**asked, "Entries": taken}).encode()
            delivered(request)
            reply["Successful"] = [
                {"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "d"} for entry in taken
            ]
        if left_out:
            reply["Failed"] = [
                {"Id": entry["Id"], "Code": "InternalError", "SenderFault": False}
                for entry in left_out
            ]
        return answered(request, HTTPStatus.OK, reply)

    return fault


UNANSWERED = [reply_lost, connection_lost, internal_error, request_lost, refused_internally]
REFUSED = [throttled, sqs_throttled, unreachable, denied]
every_fault = pytest.mark.parametrize(
    "fault", UNANSWERED + REFUSED, ids=[fault.__name__ for fault in UNANSWERED + REFUSED]
)


def test_only_the_messages_that_sqs_refused_are_reported(stack: Stack, wire: Wire) -> None:
    batch = [counting(f"counter-{number}") for number in range(15)]
    refused = [batch[2], batch[9], batch[12]]
    wire.fail("SendMessageBatch", [refusing(*refused)] * 2)

    assert deliver(stack, *batch) == refused
    assert deliver(stack, *refused) == []
    assert arrived(stack) == bodies(*batch)


def test_a_batch_that_sqs_refused_whole_is_reported(stack: Stack, wire: Wire) -> None:
    batch = [counting("a"), counting("b")]
    wire.fail("SendMessageBatch", [refusing(*batch)])

    assert deliver(stack, *batch) == batch
    assert arrived(stack) == []


@every_fault
def test_a_batch_without_an_answer_is_reported_and_arrives_later(
    stack: Stack, wire: Wire, fault: Fault
) -> None:
    batch = [counting("a"), counting("b"), EventMessage("malformed")]
    wire.fail("SendMessageBatch", repeat(fault))
    assert deliver(stack, *batch) == batch

    wire.fail("SendMessageBatch", [])
    assert deliver(stack, *batch) == []
    assert arrived(stack) == bodies(*batch)


@pytest.mark.parametrize(
    "fault", [*UNANSWERED, throttled, unreachable], ids=lambda fault: fault.__name__
)
def test_a_request_without_an_answer_is_repeated(stack: Stack, wire: Wire, fault: Fault) -> None:
    batch = [counting("a"), counting("b"), EventMessage("malformed")]
    wire.fail("SendMessageBatch", [fault] * 3)

    assert deliver(stack, *batch) == []
    assert wire.operations() == ["SendMessageBatch"] * 4
    assert arrived(stack) == bodies(*batch)


def test_a_denied_request_is_not_repeated(stack: Stack, wire: Wire) -> None:
    event = counting()
    wire.fail("SendMessageBatch", repeat(denied))

    assert deliver(stack, event) == [event]
    assert len(wire.sent) == 1


@every_fault
def test_only_the_request_that_failed_is_reported(stack: Stack, wire: Wire, fault: Fault) -> None:
    batch = [large(200 * KIB) for _ in range(3)]

    def second(request: AWSPreparedRequest) -> AWSResponse:
        assert isinstance(request.body, bytes)
        entry = json.loads(request.body)["Entries"][0]
        is_second = entry["MessageDeduplicationId"] == batch[1].message_id
        return (fault if is_second else delivered)(request)

    wire.fail("SendMessageBatch", repeat(second))
    failed = deliver(stack, *batch)

    assert failed[0] == batch[1]
    if fault is denied:
        assert failed == [batch[1]], "there is time for the third"
    wire.fail("SendMessageBatch", [])
    assert deliver(stack, *failed) == []
    assert arrived(stack) == bodies(*batch)


@pytest.fixture
def hasty(stack: Stack) -> float:
    """Let the function have 10 s; return when it may send its last request."""
    stack.functions["ForwardEvents"] = replace(stack.functions["ForwardEvents"], timeout=TIMEOUT)
    return TIMEOUT - ATTEMPT


def test_when_time_runs_out_the_rest_is_reported(stack: Stack, wire: Wire, hasty: float) -> None:
    times: list[float] = []

    def slow(request: AWSPreparedRequest) -> AWSResponse:
        times.append(clock.now())
        clock.sleep(1.9)
        return delivered(request)

    wire.fail("SendMessageBatch", chain([slow] * 10))
    batch = [large(200 * KIB) for _ in range(7)]
    began = clock.now()

    assert deliver(stack, *batch) == batch[4:]
    assert len(times) == 4
    assert max(times) - began < hasty
    wire.fail("SendMessageBatch", [])
    assert deliver(stack, *batch[4:]) == []
    assert arrived(stack) == bodies(*batch)


def test_nothing_is_sent_when_there_is_no_time(stack: Stack, wire: Wire) -> None:
    stack.functions["ForwardEvents"] = replace(stack.functions["ForwardEvents"], timeout=3)
    event = counting()

    assert deliver(stack, event) == [event]
    assert wire.sent == []


# --- The log -------------------------------------------------------------------------------------


def test_one_log_line_says_how_many_events_were_forwarded(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(stack, counting("a"), EventMessage("malformed"))

    assert [record.getMessage() for record in caplog.records] == ["forwarded 2 of 2"]


def test_another_log_line_says_why_an_event_was_not_forwarded(
    stack: Stack, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    batch = [counting("a"), counting("b")]
    wire.fail("SendMessageBatch", [refusing(batch[1])])

    deliver(stack, *batch)

    error, line = caplog.records
    assert (error.levelname, line.getMessage()) == ("ERROR", "forwarded 1 of 2")
    assert "InternalError" in str(vars(error)["failed"])
