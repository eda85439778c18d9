"""IngestIncrements: counted messages in the history, in audits and in metrics.

A fold is a change that counts one or more messages.
"""

from http import HTTPStatus
from itertools import repeat
from typing import Any

import pytest
from tests.component.increments import (
    GROUPS_IN_ITEM,
    event_body,
    message_body,
    record_and_read_history,
    send,
    value_and_version,
)
from tests.component.output import metrics
from tests.fifo_queue import FifoQueue, as_parked, deliver, parked
from tests.stack import CLIENT_ID, FORWARDER_ROLE_ID, Stack
from tests.times import DAY
from tests.wire import (
    Wire,
    delivered,
    denied,
    reply_lost,
)

from counters import clock

pytestmark = pytest.mark.usefixtures("silent")


def actor(stack: Stack, queue: FifoQueue, *messages: tuple[str, str]) -> str:
    """Deliver messages. Return the actor of the change that counts them.

    Args:
        stack: the stack.
        queue: the queue.
        messages: the body and the sender of each message.
    """
    assert deliver(stack, *[queue.send(body, sender=sender) for body, sender in messages]) == []
    (entry,) = record_and_read_history(stack)
    recorded_actor: str = entry["actor"]
    return recorded_actor


def test_the_actor_of_a_message_is_its_sender(stack: Stack, queue: FifoQueue) -> None:
    assert actor(stack, queue, (message_body(), "AROAEXAMPLE:shop")) == "sqs:AROAEXAMPLE:shop"
    (entry,) = read_history(stack)
    assert "sender" not in entry


def test_the_actor_of_an_event_is_its_source_and_the_history_has_the_sender(
    stack: Stack, queue: FifoQueue
) -> None:
    event = (event_body("shop.checkout"), "AROAEXAMPLE:forwarder")
    assert actor(stack, queue, event) == "event:shop.checkout"
    (entry,) = read_history(stack)
    assert entry["sender"] == "AROAEXAMPLE:forwarder"


def read_history(stack: Stack, counter_id: str = "orders") -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = stack.request("GET", f"/counters/{counter_id}/history").body
    return entries


def test_a_fold_lists_each_actor_and_sender_once_in_order_of_appearance(
    stack: Stack, queue: FifoQueue
) -> None:
    messages = [
        (message_body(), "zoe"),
        (event_body("shop"), "AIDAEXAMPLE"),
        (message_body(), "adam"),
        (message_body(), "zoe"),
        (event_body("shop"), "AIDAOTHER"),
        (event_body("adam"), "AIDAEXAMPLE"),
    ]

    assert actor(stack, queue, *messages) == "sqs:zoe, event:shop, sqs:adam, event:adam"
    (entry,) = read_history(stack)
    assert entry["sender"] == "AIDAEXAMPLE, AIDAOTHER"


FORWARDER = f"{FORWARDER_ROLE_ID}:tally-test-ForwardEvents"


def test_the_sender_of_a_forwarded_event_is_the_one_that_sent_it_to_event_queue(
    stack: Stack, queue: FifoQueue
) -> None:
    message = queue.send(event_body("shop"), sender=FORWARDER, attribute="AIDAEVENTBRIDGE")

    assert deliver(stack, message) == []
    (entry,) = record_and_read_history(stack)
    assert (entry["actor"], entry["sender"]) == ("event:shop", "AIDAEVENTBRIDGE")


def test_a_forwarded_event_without_an_original_sender_is_counted(
    stack: Stack, queue: FifoQueue
) -> None:
    assert deliver(stack, queue.send(event_body("shop"), sender=FORWARDER)) == []
    (entry,) = record_and_read_history(stack)
    assert (entry["actor"], entry["sender"]) == ("event:shop", FORWARDER)


def test_a_forwarded_message_that_is_not_an_event_is_parked(stack: Stack, queue: FifoQueue) -> None:
    message = queue.send(message_body(), sender=FORWARDER, attribute="AIDASOMEBODY")

    assert deliver(stack, message, *send(queue, 2)) == []
    (parked_message,) = parked(stack)
    assert parked_message == as_parked(message)
    assert (
        parked_message.reason
        == "detail-type: is missing. EventQueue accepts only EventBridge events."
    )
    assert value_and_version(stack) == (2, 1)


@pytest.mark.parametrize("sender", ["AROAEXAMPLE:shop", f"X{FORWARDER}", "AROAFORWARDER:x", "A"])
def test_only_the_forwarder_can_name_another_sender(
    stack: Stack, queue: FifoQueue, sender: str
) -> None:
    for body in (message_body(), event_body("shop")):
        assert deliver(stack, queue.send(body, sender=sender, attribute="AIDAVICTIM")) == []

    message, event = record_and_read_history(stack)
    assert message["actor"] == f"sqs:{sender}"
    assert (event["actor"], event["sender"]) == ("event:shop", sender)


def test_no_sender_can_impersonate_another(stack: Stack, queue: FifoQueue) -> None:
    """The actor of a message begins with `sqs:`. The actor of an event begins with `event:`.

    The name of one sender cannot look like the names of two senders.
    """
    names = ["a, b", "a", "b", "a,b", "a%2C b", CLIENT_ID, "sqs:a", "event:a", "a, sqs:b", "%"]
    for number, name in enumerate(names):
        event = event_body(name, detail={"counter_id": f"event-{number}"})
        batch = [queue.send(body, sender=name) for body in (event, message_body(f"sqs-{number}"))]
        assert deliver(stack, *batch) == []
    stack.request("POST", "/counters/http")
    stack.record(stack.changes())

    entries = {item["counter_id"]["S"]: item for item in stack.items("HistoryTable")}

    assert len(entries) == 2 * len(names) + 1
    actors = {counter: entry["actor"]["S"] for counter, entry in entries.items()}
    assert len({*actors.values()}) == len(actors)
    assert actors.pop("http") == CLIENT_ID
    for counter, actor in actors.items():
        assert actor.startswith(f"{counter.partition('-')[0]}:")
        assert ", " not in actor
        assert ", " not in entries[counter].get("sender", {}).get("S", "")


@pytest.mark.parametrize("character", ["\N{GRINNING FACE}", ","], ids=["four bytes", "escaped"])
def test_ten_sources_of_the_greatest_length_fit_into_the_history(
    stack: Stack, queue: FifoQueue, character: str
) -> None:
    sources = [f"{number}" + character * 255 for number in range(10)]

    recorded_actor = actor(
        stack, queue, *((event_body(source), "AIDAEXAMPLE") for source in sources)
    )

    assert recorded_actor == ", ".join(f"event:{source.replace(',', '%2C')}" for source in sources)
    assert stack.messages("HistoryDeadLetterQueue") == []


def test_the_history_has_the_number_of_events_of_each_fold(stack: Stack, queue: FifoQueue) -> None:
    stack.request("POST", "/counters/orders", body={"by": 100})
    deliver(stack, *send(queue, 1, 2, -5))
    stack.request("PUT", "/counters/orders", body={"value": 7})
    deliver(stack, *send(queue, 9))

    entries = record_and_read_history(stack)

    assert [entry.get("events") for entry in entries] == [None, 3, None, 1]
    assert [entry["by"] for entry in entries] == [100, -2, -91, 9]
    operations = [entry["operation"] for entry in entries]
    assert operations == ["increment", "increment", "set", "increment"]
    assert ["events" in entry for entry in entries] == [False, True, False, True]
    items = sorted(stack.items("HistoryTable"), key=lambda item: item["version"]["N"])
    assert [item.get("events") for item in items] == [None, {"N": "3"}, None, {"N": "1"}]


def test_the_history_and_the_trend_have_separate_sums_of_additions_and_subtractions(
    stack: Stack, queue: FifoQueue
) -> None:
    deliver(stack, *send(queue, 5, -3, 4, -6))
    deliver(stack, *send(queue, 1, -10))
    stack.request("POST", "/counters/orders", body={"by": -2})
    stack.request("PUT", "/counters/orders", body={"value": 7})

    entries = record_and_read_history(stack)
    buckets = stack.request("GET", "/counters/orders/trend", query="interval=day").body

    sums = [(entry["by"], entry["increase"], entry["decrease"]) for entry in entries]
    assert sums == [(0, 9, 9), (-9, 1, 10), (-2, 0, 2), (18, 18, 0)]
    changed = [bucket for bucket in buckets if bucket["changes"]]
    assert sum(bucket["changes"] for bucket in changed) == 4
    assert sum(bucket["increase"] for bucket in changed) == 28
    assert sum(bucket["decrease"] for bucket in changed) == 21
    assert changed[-1]["close"] == 7


def test_an_audit_of_folded_events_finds_nothing(
    stack: Stack, queue: FifoQueue, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [f"group-{number}" for number in range(GROUPS_IN_ITEM + 2)]
    for by in (5, -2, 4):
        deliver(stack, *[queue.send(message_body(by=by), group) for group in groups])
        stack.request("POST", "/counters/orders")
    wire.fail("UpdateItem", [reply_lost, delivered, reply_lost])
    deliver(stack, *[queue.send(message_body(), groups[0]) for _ in range(3)], *send(queue, 1, -1))
    entries = record_and_read_history(stack)
    later = clock.now() + DAY
    monkeypatch.setattr(clock, "now", lambda: later)

    assert stack.invoke("AuditHistory", {"counter_id": "orders"}) == {
        "counters": 1,
        "entries": len(entries),
        "finished": True,
        "findings": [],
    }


def test_a_version_made_by_a_fold_can_be_read(stack: Stack, queue: FifoQueue) -> None:
    deliver(stack, *send(queue, 1, 2))
    deliver(stack, *send(queue, 4))
    stack.request("POST", "/counters/orders", body={"by": 8})
    record_and_read_history(stack)

    for version, value in enumerate([3, 7, 15], 1):
        reply = stack.request("GET", "/counters/orders", query=f"version={version}")
        assert (reply.status, reply.body["value"]) == (HTTPStatus.OK, value)


def test_metrics_report_how_many_messages_were_counted_and_parked(
    stack: Stack, queue: FifoQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = [*send(queue, 1, 2), queue.send("malformed"), *send(queue, 4)]
    capsys.readouterr()

    deliver(stack, *batch)

    emitted = metrics(capsys.readouterr().out)
    (directive,) = emitted["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Tally"
    assert directive["Metrics"] == [
        {"Name": "EventsCounted", "Unit": "Count"},
        {"Name": "EventsParked", "Unit": "Count"},
    ]
    assert (emitted["stack"], emitted["service"]) == ("tally-test", "tally")
    assert (emitted["EventsCounted"], emitted["EventsParked"]) == ([3], [1])


@pytest.mark.parametrize(("operation", "counted"), [("UpdateItem", 0), ("SendMessage", 1)])
def test_metrics_exclude_messages_that_will_be_delivered_again(  # noqa: PLR0913, PLR0917
    stack: Stack,
    queue: FifoQueue,
    wire: Wire,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    counted: int,
) -> None:
    batch = [*send(queue, 1), queue.send("malformed"), *send(queue, 4)]
    wire.fail(operation, repeat(denied))
    capsys.readouterr()

    deliver(stack, *batch)

    emitted = metrics(capsys.readouterr().out)
    assert (emitted["EventsCounted"], emitted["EventsParked"]) == ([counted], [0])
