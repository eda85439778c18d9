"""A buffer in trouble loses nothing, and counts nothing twice."""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.aws_template import TEMPLATE
from tests.unit.client.fake_service import LIMIT, Answer, FakeService, Seen, wait_until

from tally_client import (
    Batch,
    BufferFull,
    Increment,
    Refusal,
    Tally,
    Unauthorized,
    Unsent,
    batches,
    buffer,
    exchange,
    retrying,
    unanswered,
)

LATER = 60.0  # an interval that no test waits for


def test_the_service_remembers_a_key_for_longer_than_the_client_uses_it() -> None:
    remembered = TEMPLATE["Parameters"]["ReceiptHours"]["MinValue"] * 3600
    assert remembered >= batches.KEY_LIFE + 3600


def test_a_refused_batch_that_may_still_be_applied_is_not_split(service: FakeService) -> None:
    with service.client(deadline=0.5) as tally:
        tally.set("full", LIMIT)
        service.seen.clear()
        service.plan("late")
        counts = tally.buffer(interval=LATER)
        counts.increment("a")
        counts.increment("full")
        with pytest.raises(Unsent) as caught:
            counts.flush()
        tally.set("full", 0)
        service.deliver_late()
        counts.close()
    assert len(caught.value.batches[0].increments) == 2
    assert len({seen.headers["idempotency-key"] for seen in service.requests("POST")}) == 1
    assert (service.value("a"), service.value("full")) == (1, 1)


def test_a_refused_batch_is_split_when_it_can_no_longer_be_applied(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "_WINDOW", 0.2)
    with service.client() as tally:
        tally.set("full", LIMIT)
        service.plan("lose")
        counts = tally.buffer(interval=LATER)
        counts.increment("a")
        counts.increment("full")
        with pytest.raises(Unsent) as caught:
            counts.close()
    assert [each.increment for each in caught.value.refused] == [Increment("full")]
    assert service.value("a") == 1


def test_slow_batches_do_not_hold_up_new_sums(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "_LONGEST_ATTEMPT", 0.1)
    monkeypatch.setattr(retrying, "backoff", lambda *_: 0.0)
    release = threading.Event()

    def hang(seen: Seen) -> None:
        if seen.body.get("increments", [{}])[0].get("counter_id") in {"slow", "slower"}:
            release.wait(5)

    service.before_answer = hang
    with service.client() as tally:
        counts = tally.buffer(interval=0.05)
        counts.increment("slow")
        wait_until(lambda: len(service.seen) > 0)
        counts.increment("slower")
        wait_until(lambda: len({str(seen.body) for seen in service.seen}) == 2)
        counts.increment("a")
        wait_until(lambda: service.value("a") == 1, seconds=3)
        release.set()
    assert (service.value("slow"), service.value("slower")) == (1, 1)


def no_room(_: threading.Thread) -> None:
    detail = "can't start new thread"
    raise RuntimeError(detail)


def test_a_buffer_without_a_thread_starts_one_at_the_next_increment(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(buffer, "_NEXT_START", 0.0)

    with service.client() as tally, tally.buffer(interval=0.02) as counts:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_room)
            counts.increment("a")
        assert "can't start new thread" in caplog.text
        counts.increment("a")
        counts.increment("a")
        names = [each.name for each in threading.enumerate()]
        assert names.count("tally-buffer") == 1
        wait_until(lambda: service.value("a") == 3)


def test_a_log_handler_may_count(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    with service.client() as tally, tally.buffer(interval=LATER) as counts:

        class Counting(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                counts.increment(record.levelname)

        handler = Counting()
        logger = logging.getLogger("tally_client")
        logger.addHandler(handler)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_room)
            counts.increment("a")
        logger.removeHandler(handler)
    assert service.value("WARNING") == 1


def test_a_thread_that_ended_is_replaced_at_the_next_increment(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.forbidden = "secret"

    def leave(_: Batch | Refusal) -> None:
        raise SystemExit

    with service.client() as tally:
        counts = tally.buffer(interval=0.02, capacity=2, on_problem=leave)
        counts.increment("secret")
        wait_until(lambda: "thread of the Tally buffer has ended" in caplog.text)
        counts.increment("a")
        wait_until(lambda: service.value("a") == 1)
        with pytest.raises(Unsent):
            counts.close()


def test_a_full_buffer_without_a_thread_starts_one(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "_NEXT_START", 0.0)
    with service.client() as tally, tally.buffer(interval=0.02, capacity=2) as counts:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_room)
            counts.increment("a")
            counts.increment("b")
        with pytest.raises(BufferFull):
            counts.increment("c")
        wait_until(lambda: len(service.history) == 2)


def test_a_client_closes_its_buffers_first(service: FakeService) -> None:
    with service.client() as tally:
        counts = tally.buffer(interval=LATER)
        counts.increment("a")
    assert service.value("a") == 1
    with pytest.raises(RuntimeError, match="closed"):
        counts.increment("a")


def test_a_client_reports_what_its_buffers_could_not_send_and_closes(service: FakeService) -> None:
    service.faults = lambda: "503 throttled"
    tally = service.client(deadline=0.2)
    first, second = tally.buffer(interval=LATER), tally.buffer(interval=LATER)
    first.increment("a")
    second.increment("b")
    with pytest.raises(Unsent) as caught:
        tally.close()
    assert {each.increments[0].counter_id for each in caught.value.batches} == {"a", "b"}
    with pytest.raises(RuntimeError, match="closed"):
        tally.get("a")
    tally.close()  # reports nothing twice


def test_a_batch_that_a_closed_client_did_not_send_was_certainly_not_applied(
    service: FakeService,
) -> None:
    service.faults = lambda: "503 throttled"
    tally = service.client(deadline=0.2)
    counts = tally.buffer(interval=LATER)
    counts.increment("a")
    with pytest.raises(Unsent):
        tally.close()
    with pytest.raises(Unsent) as caught:
        counts.flush()
    (batch,) = caught.value.batches
    assert "closed" in batch.reason
    assert batch.first_sent is None


def ask_to_wait(seconds: int) -> Callable[[Seen], Answer]:
    problem = {"type": "urn:tally:problem:throttled"}
    return lambda _: (503, problem, {"Retry-After": str(seconds)})


def test_a_batch_that_waits_is_reported_at_its_deadline_and_waits_a_minute_at_most(
    service: FakeService,
) -> None:
    problems: list[Batch | Refusal] = []
    with service.client(deadline=0.5) as tally:
        answer = service.answer
        service.answer = ask_to_wait(3600)  # type: ignore[assignment,method-assign]
        counts = tally.buffer(interval=0.02, on_problem=problems.append)
        counts.increment("a")
        wait_until(lambda: bool(problems), seconds=3)
        (batch,) = problems
        assert isinstance(batch, Batch)
        assert batch.due < time.monotonic() + 61
        service.answer = answer  # type: ignore[method-assign]
        counts.close()  # does not wait for `due`
    assert service.value("a") == 1
    assert len(problems) == 1


def test_the_pauses_of_a_batch_grow_to_minutes_and_flush_begins_again(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    batch = batches.pack([Increment("a")], 1)
    pauses = []
    for batch.attempts in range(1, 40):
        batches.later(batch, "")
        pauses.append(round(batch.due - time.monotonic(), 1))
    assert pauses[0] < 1
    assert pauses[-1] == 300.0
    assert pauses == sorted(pauses)

    batches.restart(batch)
    assert batch.due <= time.monotonic()
    batches.later(batch, "")
    assert batch.due < time.monotonic() + 1
    assert service.seen == []


def test_a_final_401_lasts_longer_each_time(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_FIRST_FINAL", 0.5)
    service.refused_tokens = {f"t0ken-{number}-of-the-test" for number in range(9)}
    with service.client() as tally:

        def tokens_after(seconds: float) -> int:
            time.sleep(seconds)
            refused(tally)
            return len(service.tokens)

        assert tokens_after(0.0) == 2
        assert tokens_after(0.0) == 2
        assert tokens_after(0.55) == 3
        assert tokens_after(0.55) == 3
        assert tokens_after(0.5) == 4
        service.refused_tokens = set()
        tally.get("a")


def test_a_401_of_many_threads_counts_once(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_FIRST_FINAL", 0.5)
    service.refused_tokens = {f"t0ken-{number}-of-the-test" for number in range(9)}
    barrier = threading.Barrier(8)
    service.before_answer = lambda _: len(service.seen) <= 8 and barrier.wait(5)
    with service.client() as tally:
        threads = [threading.Thread(target=refused, args=[tally]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(service.tokens) == 2
        time.sleep(0.55)
        refused(tally)
    assert len(service.tokens) == 3


def refused(tally: Tally) -> None:
    with pytest.raises(Unauthorized):
        tally.get("a")


def test_an_interrupt_while_sums_become_batches_loses_nothing(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, calls = batches.pack, itertools.count()

    def interrupted(*arguments: Any) -> batches.Batch:  # noqa: ANN401  as the original
        if next(calls) == 1:
            raise KeyboardInterrupt
        return pack(*arguments)

    with service.client() as tally:
        counts = tally.buffer(interval=60)
        for number in range(250):
            counts.increment(f"c{number}")
        monkeypatch.setattr(batches, "pack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            counts.flush()
        counts.close()

    assert [service.value(f"c{number}") for number in range(250)] == [1] * 250


@pytest.mark.parametrize(
    "settings",
    [
        {"interval": float("inf")},
        {"interval": float("nan")},
        {"interval": 0},
        {"capacity": 2.5},
        {"size": True},
        {"size": 0},
    ],
    ids=str,
)
def test_settings_that_would_keep_counts_for_ever_are_refused(
    service: FakeService, settings: dict[str, Any]
) -> None:
    with service.client() as tally, pytest.raises(ValueError, match="must be"):
        tally.buffer(**settings)
