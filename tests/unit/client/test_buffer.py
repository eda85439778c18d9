"""The buffer loses nothing, counts nothing twice, and no counter holds up another."""

import json
import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.unit.client.fake_service import LIMIT, Answer, FakeService, Seen, wait_until

from tally_client import (
    Batch,
    BoundExceeded,
    BufferFull,
    InvalidRequest,
    Refusal,
    Tally,
    Unsent,
    batches,
    sums,
)

LATER = 60.0  # an interval that no test waits for


@pytest.fixture
def tally(service: FakeService) -> Iterator[Tally]:
    with service.client(deadline=2.0) as tally:
        yield tally


def sent(service: FakeService) -> list[dict[str, int]]:
    """What each request added, by counter."""
    return [
        {each["counter_id"]: each["by"] for each in seen.body["increments"]}
        for seen in service.requests("POST")
    ]


def test_increments_are_summed_and_sent_when_the_block_ends(
    service: FakeService, tally: Tally
) -> None:
    with tally.buffer(interval=LATER) as counts:
        for _ in range(1000):
            counts.increment("a")
            counts.increment("b", 2)
        assert service.seen == []
    assert sent(service) == [{"a": 1000, "b": 2000}]


def test_additions_and_subtractions_are_sent_separately(service: FakeService, tally: Tally) -> None:
    with tally.buffer(interval=LATER) as counts:
        for by in (5, -3, 4, -6):
            counts.increment("a", by)
    assert sent(service) == [{"a": 9}, {"a": -9}]
    assert service.value("a") == 0


def test_a_request_has_at_most_100_sums(service: FakeService, tally: Tally) -> None:
    with tally.buffer(interval=LATER) as counts:
        for number in range(250):
            counts.increment(f"c{number}")
    assert sorted(map(len, sent(service))) == [50, 100, 100]
    assert len(service.history) == 250


def test_the_buffer_sends_after_each_interval(service: FakeService, tally: Tally) -> None:
    with tally.buffer(interval=0.05) as counts:
        counts.increment("a")
        wait_until(lambda: service.value("a") == 1)
        counts.increment("a")
        wait_until(lambda: service.value("a") == 2)
    assert len(service.seen) == 2


def test_the_buffer_sends_earlier_if_it_has_many_sums(service: FakeService, tally: Tally) -> None:
    with tally.buffer(interval=LATER, size=3) as counts:
        counts.increment("a")
        counts.increment("b")
        time.sleep(0.1)
        assert service.seen == []
        counts.increment("c")
        wait_until(lambda: len(service.history) == 3)


def test_flush_sends_everything_that_was_added_before(service: FakeService, tally: Tally) -> None:
    with tally.buffer(interval=LATER) as counts:
        counts.increment("a")
        counts.flush()
        assert service.value("a") == 1


@pytest.mark.parametrize("fault", ["lose", "cut", "drop", "503 outcome-unknown", "500", "429"])
def test_a_batch_keeps_its_key_and_its_content_until_its_outcome_is_known(
    service: FakeService, tally: Tally, fault: str
) -> None:
    counts = tally.buffer(interval=0.02)
    faults = [fault] * 3

    def add_and_fail() -> str:
        if len(faults) == 3:  # while the first request is under way
            counts.increment("a", 7)
        return faults.pop() if faults else ""

    service.faults = add_and_fail
    counts.increment("a", 5)
    wait_until(lambda: service.value("a") == 12)
    counts.close()
    requests = service.requests("POST")
    bodies = {(each.headers["idempotency-key"], json.dumps(each.body)) for each in requests}
    assert len(requests) == 5
    assert len({key for key, _ in bodies}) == len(bodies) == 2
    assert service.by_operation("a") == {5: 1, 7: 1}


def test_new_sums_do_not_wait_for_a_batch_whose_outcome_is_unknown(
    service: FakeService, tally: Tally
) -> None:
    stuck: set[str] = set()

    answer = service.answer

    def keep_in_progress(seen: Seen) -> Answer:
        key = seen.headers.get("idempotency-key", "")
        if not stuck:
            stuck.add(key)
        return (
            (409, {"type": "urn:tally:problem:in-progress"}, {}) if key in stuck else answer(seen)
        )

    service.answer = keep_in_progress  # type: ignore[method-assign]
    counts = tally.buffer(interval=0.02)
    counts.increment("a", 5)
    wait_until(lambda: bool(stuck))
    counts.increment("a", 7)
    wait_until(lambda: service.value("a") == 7)
    with pytest.raises(Unsent) as caught:
        counts.close(timeout=0.3)
    (batch,) = caught.value.batches
    assert {batch.key} == stuck
    assert not caught.value.refused
    stuck.clear()
    stuck.add("nothing")
    tally.increment_all(batch.increments, key=batch.key)
    assert service.value("a") == 12


def test_a_refused_counter_does_not_hold_up_the_others(service: FakeService, tally: Tally) -> None:
    tally.set("full", LIMIT)
    service.seen.clear()
    problems: list[Batch | Refusal] = []
    counts = tally.buffer(interval=LATER, on_problem=problems.append)
    for number in range(99):
        counts.increment(f"c{number}", number + 1)
    counts.increment("full", 3)
    with pytest.raises(Unsent) as caught:
        counts.flush()

    assert all(service.value(f"c{number}") == number + 1 for number in range(99))
    assert len(service.seen) <= 15
    (refused,) = caught.value.refused
    assert (refused.increment.counter_id, refused.increment.by) == ("full", 3)
    assert isinstance(refused.error, BoundExceeded)
    assert problems == [refused]
    assert not caught.value.batches

    counts.increment("full", 4)  # joins the refused sum
    tally.set("full", 0)
    counts.close()
    assert service.value("full") == 7


def test_a_held_sum_is_sent_again_later_and_alone(
    service: FakeService, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "_FIRST_WAIT", 0.1)
    service.forbidden = "secret"
    with tally.buffer(interval=0.02) as counts:
        counts.increment("secret")
        wait_until(lambda: bool(counts.unsent()[1]))
        counts.increment("a")
        wait_until(lambda: service.value("a") == 1)
        service.forbidden = "nothing"
        wait_until(lambda: counts.unsent() == ([], []))
        assert service.value("secret") == 1
        counts.increment("secret")
        assert counts.unsent()[1] == []


def test_a_refused_batch_that_may_have_been_applied_is_not_split(
    service: FakeService, tally: Tally
) -> None:
    service.plan("lose", "403 forbidden", "403 forbidden")
    with tally.buffer(interval=LATER) as counts:
        counts.increment("a")
        counts.increment("b")
    assert len({each.headers["idempotency-key"] for each in service.seen}) == 1
    assert (service.value("a"), service.value("b")) == (1, 1)


def test_without_a_valid_token_the_buffer_keeps_everything_and_splits_nothing(
    service: FakeService, tally: Tally
) -> None:
    service.refused_tokens = {f"t0ken-{number}-of-the-test" for number in range(9)}
    counts = tally.buffer(interval=LATER)
    counts.increment("a")
    counts.increment("b")
    with pytest.raises(Unsent) as caught:
        counts.close(timeout=1.0)
    assert [len(each.increments) for each in caught.value.batches] == [2]
    # The last reason is the refusal, or that no time was left for another attempt.
    assert caught.value.batches[0].reason
    assert len(service.tokens) == 2
    service.refused_tokens = set()
    counts.flush(timeout=10)
    assert (service.value("a"), service.value("b")) == (1, 1)


def test_during_an_outage_everything_is_kept_and_memory_is_bounded(
    service: FakeService, tally: Tally
) -> None:
    service.faults = lambda: "500"
    counts = tally.buffer(interval=0.01, capacity=20)
    accepted = 0
    for number in range(30):
        with suppress(BufferFull):
            counts.increment(f"c{number}")
            accepted += 1
    for _ in range(10):
        for number in range(5):
            with suppress(BufferFull):
                counts.increment(f"c{number}")
                accepted += 1
            time.sleep(0.005)
    with pytest.raises(BufferFull):
        counts.increment("new")
    batches, refused = counts.unsent()
    assert sum(len(each.increments) for each in batches) <= 10
    assert not refused
    with pytest.raises(Unsent):
        counts.flush(timeout=0.2)
    service.faults = str
    counts.close(timeout=10)
    assert sum(map(service.value, service.history)) == accepted


def test_an_expired_batch_is_kept_and_not_sent(
    service: FakeService, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.plan("lose")
    monkeypatch.setattr(batches, "KEY_LIFE", 0.0)
    problems: list[Batch | Refusal] = []
    counts = tally.buffer(interval=LATER, on_problem=problems.append)
    counts.increment("a")
    with pytest.raises(Unsent) as caught:
        counts.close()
    (batch,) = caught.value.batches
    assert batch.expired
    assert problems[-1] is batch
    assert len(service.seen) == 1
    assert service.value("a") == 1


def test_a_batch_that_was_never_applied_does_not_expire(
    service: FakeService, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.plan("503 throttled")
    monkeypatch.setattr(batches, "KEY_LIFE", 0.0)
    with tally.buffer(interval=LATER) as counts:
        counts.increment("a")
    assert service.value("a") == 1


@pytest.mark.parametrize(
    ("counter_id", "by"),
    [
        *[(name, 1) for name in ("", "a b", "a/b", "x" * 129, 7)],
        *[("a", by) for by in (0, True, 1.0, LIMIT + 1, "1")],
    ],
)
def test_an_invalid_increment_is_refused_at_once(
    service: FakeService,
    tally: Tally,
    counter_id: str,
    by: int,
) -> None:
    with tally.buffer(interval=LATER) as counts:
        with pytest.raises(InvalidRequest):
            counts.increment(counter_id, by)
        counts.increment("a")
    assert sent(service) == [{"a": 1}]


def test_a_sum_that_is_too_large_for_one_increment_is_sent_in_parts(
    service: FakeService, tally: Tally
) -> None:
    tally.set("a", -LIMIT)
    service.seen.clear()
    with tally.buffer(interval=LATER) as counts:
        for _ in range(2):
            counts.increment("a", LIMIT)
    assert sent(service) == [{"a": LIMIT}, {"a": LIMIT}]
    assert service.value("a") == LIMIT


def test_a_closed_buffer_accepts_nothing(tally: Tally) -> None:
    counts = tally.buffer()
    counts.increment("a")
    counts.close()
    for name in ("a", "b"):
        with pytest.raises(RuntimeError, match="closed"):
            counts.increment(name)


def test_a_closed_client_makes_no_buffer(tally: Tally) -> None:
    tally.close()
    with pytest.raises(RuntimeError, match="closed"):
        tally.buffer()


def test_a_late_batch_is_reported_once(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.faults = lambda: "500"
    problems: list[Batch | Refusal] = []
    with service.client(deadline=0.1) as tally:
        counts = tally.buffer(interval=0.01, on_problem=problems.append)
        counts.increment("a")
        wait_until(lambda: bool(problems))
        time.sleep(0.3)
        service.faults = str
        counts.close(timeout=5)
    assert len(problems) == 1
    assert [each.levelno for each in caplog.records if "keeps" in each.message] == [logging.WARNING]


def test_a_failing_callback_stops_nothing(service: FakeService, tally: Tally) -> None:
    service.forbidden = "secret"

    def fail(_: object) -> None:
        raise ZeroDivisionError

    counts = tally.buffer(interval=0.02, on_problem=fail)
    counts.increment("secret")
    wait_until(lambda: bool(counts.unsent()[1]))
    counts.increment("a")
    wait_until(lambda: service.value("a") == 1)
    with pytest.raises(Unsent):
        counts.close()
    with pytest.raises(RuntimeError, match="closed"):
        counts.increment("secret")  # has a sum that was refused


def test_many_threads_on_a_bad_network_count_exactly(service: FakeService) -> None:
    chance = random.Random(2)
    faults = ["lose"] * 4 + ["cut", "drop", "503 throttled", "429", "500"] + [""] * 11
    service.faults = lambda: chance.choice(faults)
    names = [f"c{number}" for number in range(20)]
    with service.client(deadline=30) as tally, tally.buffer(interval=0.02) as counts:

        def work() -> None:
            for number in range(2000):
                counts.increment(names[number % 20], 1 if number % 3 else -1)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    added = sum(entry["increase"] for each in service.history.values() for entry in each)
    subtracted = sum(entry["decrease"] for each in service.history.values() for entry in each)
    assert (added, subtracted) == (8 * 1333, 8 * 667)


def test_an_increment_takes_microseconds(tally: Tally) -> None:
    with tally.buffer(interval=LATER) as counts:
        began = time.process_time()
        for _ in range(100_000):
            counts.increment("a")
        took = (time.process_time() - began) / 100_000
    print(f"{took * 1e6:.2f} microseconds")
    assert took < 20e-6
