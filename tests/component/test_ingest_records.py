"""IncrementQueue: the history, the audit and the metrics of what was counted."""

from http import HTTPStatus
from itertools import repeat
from typing import Any

import pytest
from tests.component.increments import (
    DAY,
    MOST_GROUPS,
    an_event,
    counting,
    history,
    send,
    standing,
)
from tests.component.output import metrics
from tests.fifo_queue import FifoQueue, as_parked, deliver, parked
from tests.stack import CLIENT_ID, FORWARDER_ROLE_ID, Stack
from tests.wire import (
    Wire,
    delivered,
    denied,
    reply_lost,
)

from counters import clock

pytestmark = pytest.mark.usefixtures("silent")


def actor(stack: Stack, queue: FifoQueue, *sent: tuple[str, str]) -> str:
    """Return the actor of the change that messages become, each a body and a sender."""
    assert deliver(stack, *[queue.send(body, sender=sender) for body, sender in sent]) == []
    (entry,) = history(stack)
    found: str = entry["actor"]
    return found


def test_the_actor_of_a_message_is_its_sender(stack: Stack, queue: FifoQueue) -> None:
    assert actor(stack, queue, (counting(), "AROAEXAMPLE:shop")) == "sqs:AROAEXAMPLE:shop"
    (entry,) = history_of(stack)
    assert "sender" not in entry


def test_the_actor_of_an_event_is_its_source_and_the_sender_is_kept(
    stack: Stack, queue: FifoQueue
) -> None:
    event = (an_event("shop.checkout"), "AROAEXAMPLE:forwarder")
    assert actor(stack, queue, event) == "event:shop.checkout"
    (entry,) = history_of(stack)
    assert entry["sender"] == "AROAEXAMPLE:forwarder"


def history_of(stack: Stack, counter_id: str = "orders") -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = stack.request("GET", f"/counters/{counter_id}/history").body
    return entries


def test_a_fold_names_each_actor_and_sender_once_in_order_of_appearance(
    stack: Stack, queue: FifoQueue
) -> None:
    sent = [
        (counting(), "zoe"),
        (an_event("shop"), "AIDAEXAMPLE"),
        (counting(), "adam"),
        (counting(), "zoe"),
        (an_event("shop"), "AIDAOTHER"),
        (an_event("adam"), "AIDAEXAMPLE"),
    ]

    assert actor(stack, queue, *sent) == "sqs:zoe, event:shop, sqs:adam, event:adam"
    (entry,) = history_of(stack)
    assert entry["sender"] == "AIDAEXAMPLE, AIDAOTHER"


FORWARDER = f"{FORWARDER_ROLE_ID}:tally-test-ForwardEvents"


def test_the_sender_of_a_forwarded_event_is_who_sent_it_to_the_event_queue(
    stack: Stack, queue: FifoQueue
) -> None:
    message = queue.send(an_event("shop"), sender=FORWARDER, attribute="AIDAEVENTBRIDGE")

    assert deliver(stack, message) == []
    (entry,) = history(stack)
    assert (entry["actor"], entry["sender"]) == ("event:shop", "AIDAEVENTBRIDGE")


def test_a_forwarded_event_without_an_original_sender_is_counted(
    stack: Stack, queue: FifoQueue
) -> None:
    assert deliver(stack, queue.send(an_event("shop"), sender=FORWARDER)) == []
    (entry,) = history(stack)
    assert (entry["actor"], entry["sender"]) == ("event:shop", FORWARDER)


def test_a_forwarded_message_that_is_not_an_event_is_parked(stack: Stack, queue: FifoQueue) -> None:
    message = queue.send(counting(), sender=FORWARDER, attribute="AIDASOMEBODY")

    assert deliver(stack, message, *send(queue, 2)) == []
    (found,) = parked(stack)
    assert found == as_parked(message)
    assert found.reason == "detail-type: is missing. EventQueue accepts only EventBridge events."
    assert standing(stack) == (2, 1)


@pytest.mark.parametrize("sender", ["AROAEXAMPLE:shop", f"X{FORWARDER}", "AROAFORWARDER:x", "A"])
def test_only_the_forwarder_can_name_another_sender(
    stack: Stack, queue: FifoQueue, sender: str
) -> None:
    for body in (counting(), an_event("shop")):
        assert deliver(stack, queue.send(body, sender=sender, attribute="AIDAVICTIM")) == []

    message, event = history(stack)
    assert message["actor"] == f"sqs:{sender}"
    assert (event["actor"], event["sender"]) == ("event:shop", sender)


def test_no_sender_can_pass_for_another(stack: Stack, queue: FifoQueue) -> None:
    """Whatever a name is, it is one name, and has the prefix of the way that it came in."""
    names = ["a, b", "a", "b", "a,b", "a%2C b", CLIENT_ID, "sqs:a", "event:a", "a, sqs:b", "%"]
    for number, name in enumerate(names):
        event = an_event(name, detail={"counter_id": f"event-{number}"})
        batch = [queue.send(body, sender=name) for body in (event, counting(f"sqs-{number}"))]
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


@pytest.mark.parametrize("letter", ["\N{GRINNING FACE}", ","], ids=["four bytes", "escaped"])
def test_ten_of_the_longest_sources_fit_into_the_history(
    stack: Stack, queue: FifoQueue, letter: str
) -> None:
    sources = [f"{number}" + letter * 255 for number in range(10)]

    found = actor(stack, queue, *((an_event(source), "AIDAEXAMPLE") for source in sources))

    assert found == ", ".join(f"event:{source.replace(',', '%2C')}" for source in sources)
    assert stack.messages("HistoryDeadLetterQueue") == []


def test_the_history_says_how_many_events_a_change_folds(stack: Stack, queue: FifoQueue) -> None:
    stack.request("POST", "/counters/orders", body={"by": 100})
    deliver(stack, *send(queue, 1, 2, -5))
    stack.request("PUT", "/counters/orders", body={"value": 7})
    deliver(stack, *send(queue, 9))

    entries = history(stack)

    assert [entry.get("events") for entry in entries] == [None, 3, None, 1]
    assert [entry["by"] for entry in entries] == [100, -2, -91, 9]
    operations = [entry["operation"] for entry in entries]
    assert operations == ["increment", "increment", "set", "increment"]
    assert ["events" in entry for entry in entries] == [False, True, False, True]
    items = sorted(stack.items("HistoryTable"), key=lambda item: item["version"]["N"])
    assert [item.get("events") for item in items] == [None, {"N": "3"}, None, {"N": "1"}]


def test_the_history_and_the_trend_keep_additions_and_subtractions_apart(
    stack: Stack, queue: FifoQueue
) -> None:
    deliver(stack, *send(queue, 5, -3, 4, -6))
    deliver(stack, *send(queue, 1, -10))
    stack.request("POST", "/counters/orders", body={"by": -2})
    stack.request("PUT", "/counters/orders", body={"value": 7})

    entries = history(stack)
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
    groups = [f"group-{number}" for number in range(MOST_GROUPS + 2)]
    for by in (5, -2, 4):
        deliver(stack, *[queue.send(counting(by=by), group) for group in groups])
        stack.request("POST", "/counters/orders")
    wire.fail("UpdateItem", [reply_lost, delivered, reply_lost])
    deliver(stack, *[queue.send(counting(), groups[0]) for _ in range(3)], *send(queue, 1, -1))
    entries = history(stack)
    later = clock.now() + DAY
    monkeypatch.setattr(clock, "now", lambda: later)

    assert stack.invoke("AuditHistory", {"counter_id": "orders"}) == {
        "counters": 1,
        "entries": len(entries),
        "finished": True,
        "findings": [],
    }


def test_a_version_that_a_fold_made_can_be_read(stack: Stack, queue: FifoQueue) -> None:
    deliver(stack, *send(queue, 1, 2))
    deliver(stack, *send(queue, 4))
    stack.request("POST", "/counters/orders", body={"by": 8})
    history(stack)

    for version, value in enumerate([3, 7, 15], 1):
        reply = stack.request("GET", "/counters/orders", query=f"version={version}")
        assert (reply.status, reply.body["value"]) == (HTTPStatus.OK, value)


def test_the_metrics_say_how_many_messages_were_counted_and_parked(
    stack: Stack, queue: FifoQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = [*send(queue, 1, 2), queue.send("senseless"), *send(queue, 4)]
    capsys.readouterr()

    deliver(stack, *batch)

    given = metrics(capsys.readouterr().out)
    (directive,) = given["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Tally"
    assert directive["Metrics"] == [
        {"Name": "EventsCounted", "Unit": "Count"},
        {"Name": "EventsParked", "Unit": "Count"},
    ]
    assert (given["stack"], given["service"]) == ("tally-test", "tally")
    assert (given["EventsCounted"], given["EventsParked"]) == ([3], [1])


@pytest.mark.parametrize(("operation", "counted"), [("UpdateItem", 0), ("SendMessage", 1)])
def test_the_metrics_leave_out_what_is_delivered_again(  # noqa: PLR0913, PLR0917
    stack: Stack,
    queue: FifoQueue,
    wire: Wire,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    counted: int,
) -> None:
    batch = [*send(queue, 1), queue.send("senseless"), *send(queue, 4)]
    wire.fail(operation, repeat(denied))
    capsys.readouterr()

    deliver(stack, *batch)

    given = metrics(capsys.readouterr().out)
    assert (given["EventsCounted"], given["EventsParked"]) == ([counted], [0])
