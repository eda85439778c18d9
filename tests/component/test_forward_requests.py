"""ForwardEvents: the size of its requests to SQS, its report of failed messages, and its log."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from http import HTTPStatus
from itertools import chain, repeat

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from tests.component.output import silence
from tests.event_queue import EventMessage, bodies, deliver, event_message, forwarded_bodies
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
# The maximum size of a request. A request with only one event may be larger.
MAX_BYTES = 256 * KIB
TIMEOUT = 10  # seconds


@pytest.fixture(autouse=True)
def _silence(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if "caplog" in request.fixturenames else silence():
        yield


# --- Request size --------------------------------------------------------------------------------


def request_sizes(wire: Wire) -> list[list[int]]:
    """Return a list for each request: the size of each message in bytes."""
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
    """Reply as SQS does when SQS throttles the request."""
    body = {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "as the test has it"}
    return answered(request, HTTPStatus.BAD_REQUEST, body)


def refusing(*refused: EventMessage) -> Fault:
    """Return a fault that lets SendMessageBatch refuse these messages and accept all others."""

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
def latest_start(stack: Stack) -> float:
    """Set the timeout of ForwardEvents to 10 s.

    Returns:
        The latest time at which ForwardEvents may send a request, in seconds after the start of the
        invocation.
    """
    stack.functions["ForwardEvents"] = replace(stack.functions["ForwardEvents"], timeout=TIMEOUT)
    return TIMEOUT - ATTEMPT


def test_the_remaining_messages_are_reported_when_time_runs_out(
    stack: Stack, wire: Wire, latest_start: float
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
    assert max(request_times) - began < latest_start
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
