"""A change is never lost, never made twice, and never reported wrongly."""

import logging
import random
import socket
import threading
import time

import httpx2
import pytest
from tests.unit.client.fake_service import SECRET, Answer, FakeService, Seen, in_threads

from tally_client import (
    BoundExceeded,
    Counter,
    Forbidden,
    IdempotencyKeyReused,
    Increment,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Refused,
    Tally,
    Unavailable,
    unanswered,
)

# After each of these, the change may have been applied.
UNCERTAIN = [
    "lose",
    "cut",
    "drop",
    "409 in-progress",
    "503 outcome-unknown",
    "500 internal-error",
    "500",
    "502",
    "503",
    "504",
    "429",
    "302",
]


def keys(service: FakeService) -> list[str]:
    return [each.headers["idempotency-key"] for each in service.requests("POST")]


@pytest.mark.parametrize("fault", [*UNCERTAIN, "503 throttled", "429 throttled"])
def test_a_change_is_retried_with_the_same_key_until_it_is_answered(
    service: FakeService, fault: str
) -> None:
    service.plan(fault, fault, fault)
    with service.client() as tally:
        assert tally.increment("a", 5).value == 5

    assert len(keys(service)) == 4
    assert len(set(keys(service))) == 1
    assert service.by_operation("a") == {5: 1}


def test_each_change_has_its_own_key(service: FakeService) -> None:
    with service.client() as tally:
        for _ in range(3):
            tally.increment("a")
        tally.increment_all([Increment("a")])

    assert len(set(keys(service))) == 4
    assert service.value("a") == 4


def test_the_caller_chooses_the_key(service: FakeService) -> None:
    with service.client() as tally:
        first = tally.increment("a", key="order-17")
        assert tally.increment("a", key="order-17") == first
        with pytest.raises(IdempotencyKeyReused):
            tally.increment("a", 2, key="order-17")

    assert keys(service) == ["order-17"] * 3
    assert service.value("a") == 1


@pytest.mark.parametrize("key", ["", "a b", '"a"', "ä", "a\n", "x" * 256])
def test_a_key_that_the_service_could_read_differently_is_refused_at_once(
    service: FakeService, key: str
) -> None:
    with service.client() as tally, pytest.raises(InvalidRequest):
        tally.increment("a", key=key)
    assert service.seen == []


@pytest.mark.parametrize("fault", UNCERTAIN)
def test_if_no_attempt_is_answered_the_outcome_is_unknown_and_the_key_resumes(
    service: FakeService, fault: str
) -> None:
    service.faults = lambda: fault
    with service.client(deadline=0.3) as tally:
        with pytest.raises(OutcomeUnknown) as caught:
            tally.increment("a", 5)
        assert caught.value.key == keys(service)[0]
        service.faults = str
        assert tally.increment("a", 5, key=caught.value.key).value == 5

    assert service.by_operation("a") == {5: 1}


@pytest.mark.parametrize("fault", ["503 throttled", "429 throttled"])
@pytest.mark.usefixtures("three_attempts")
def test_if_every_attempt_was_throttled_the_change_is_not_applied(
    service: FakeService, fault: str
) -> None:
    service.faults = lambda: fault
    with service.client() as tally, pytest.raises(Unavailable):
        tally.increment("a")
    assert len(service.seen) == 3
    assert service.history == {}


def test_the_error_has_the_reason_of_the_service(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tally_client.retrying.pause", lambda *_: False)
    service.plan("503 throttled")  # the problem's detail is the text "throttled"
    with service.client() as tally, pytest.raises(Unavailable, match=r"\. throttled$"):
        tally.increment("a")


def test_if_every_connection_was_refused_the_change_is_not_applied(service: FakeService) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        token_url = service.url.replace("/v1", "/oauth2/token")
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with (
            Tally(
                url, token_url=token_url, client_id="client", client_secret=SECRET, deadline=0.5
            ) as tally,
            pytest.raises(Unavailable),
        ):
            tally.increment("a")
    assert service.tokens


@pytest.mark.usefixtures("three_attempts")
def test_one_lost_answer_among_throttled_ones_makes_the_outcome_unknown(
    service: FakeService,
) -> None:
    faults = iter(["503 throttled", "lose"])
    service.faults = lambda: next(faults, "503 throttled")
    with service.client() as tally, pytest.raises(OutcomeUnknown):
        tally.increment("a")
    assert service.value("a") == 1


@pytest.mark.usefixtures("three_attempts")
def test_with_a_key_of_the_caller_an_earlier_call_may_have_made_the_change(
    service: FakeService,
) -> None:
    service.faults = lambda: "503 throttled"
    with service.client() as tally, pytest.raises(OutcomeUnknown) as caught:
        tally.increment("a", key="order-17")
    assert caught.value.key == "order-17"


@pytest.mark.parametrize("fault", ["400 invalid-request", "401 unauthorized", "403 forbidden"])
def test_a_refusal_after_a_lost_answer_does_not_say_that_nothing_was_applied(
    service: FakeService, fault: str
) -> None:
    service.plan("lose", fault, fault)
    with service.client() as tally, pytest.raises(OutcomeUnknown) as caught:
        tally.increment("a")
    assert isinstance(caught.value.refusal, Refused)
    assert service.value("a") == 1


def test_bound_exceeded_soon_after_a_lost_answer_does_not_say_that_nothing_will_be_applied(
    service: FakeService,
) -> None:
    service.plan("late")
    with service.client() as tally:
        with pytest.raises(OutcomeUnknown) as caught:
            tally.increment("stock", -1, min=0)
        assert isinstance(caught.value.refusal, BoundExceeded)
        with pytest.raises(OutcomeUnknown):  # from this process, so it is known
            tally.increment("stock", -1, min=0, key=caught.value.key)
        tally.set("stock", 5)
        service.deliver_late()
        assert service.value("stock") == 4
        assert tally.increment("stock", -1, min=0, key=caught.value.key).value == 4


def test_bound_exceeded_says_that_nothing_was_applied_if_no_answer_was_lost_lately(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "_WINDOW", 0.0)
    service.plan("lose")
    with service.client() as tally:
        with pytest.raises(BoundExceeded) as caught:
            tally.increment("stock", -1, min=0)
        with pytest.raises(BoundExceeded):
            tally.increment("stock", -1, min=0, key="order-17")
    assert caught.value.value == 0
    assert service.history == {}


@pytest.mark.parametrize("fault", ["401 unauthorized", "403 forbidden", "404 not-found", "410"])
def test_a_refusal_does_not_say_that_an_earlier_call_with_the_key_was_not_applied(
    service: FakeService, fault: str
) -> None:
    with service.client() as tally:
        tally.increment("a", key="order-17")
        service.plan(fault, fault)
        with pytest.raises(OutcomeUnknown) as caught:
            tally.increment("a", key="order-17")
        service.plan("400 invalid-request")  # so was the earlier call, which had the same content
        with pytest.raises(InvalidRequest):
            tally.increment("a", key="order-17")
    assert isinstance(caught.value.refusal, Refused)
    assert caught.value.key == "order-17"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("400 invalid-request", InvalidRequest),
        ("413 invalid-request", InvalidRequest),
        ("403 forbidden", Forbidden),
        ("404 not-found", NotFound),
        ("403", Forbidden),
        ("410", Refused),
        ("422 idempotency-key-reused", IdempotencyKeyReused),
    ],
)
def test_a_refusal_is_raised_at_once(
    service: FakeService, fault: str, error: type[Refused]
) -> None:
    service.plan(fault)
    with service.client() as tally, pytest.raises(error) as caught:
        tally.increment("a")
    assert type(caught.value) is error
    assert caught.value.status == int(fault[:3])
    assert len(service.seen) == 1


def test_an_answer_for_another_counter_counts_as_lost(service: FakeService) -> None:
    answer = service.answer
    wrong: list[dict[str, object]] = [
        {"counter_id": "b"},
        {"value": "1"},
        {"value": True},
        {"version": None},
    ]

    def confuse(seen: Seen) -> Answer:
        status, body, headers = answer(seen)
        return status, body | wrong.pop() if wrong else body, headers

    service.answer = confuse  # type: ignore[method-assign]
    with service.client() as tally:
        assert tally.increment("a").value == 1
    assert len(service.seen) == 5
    assert service.value("a") == 1


def test_retries_wait_as_long_as_the_service_asks(service: FakeService) -> None:
    answer = service.answer
    left = [(503, {"type": "urn:tally:problem:throttled"}, {"Retry-After": "1"})]
    service.answer = lambda seen: left.pop() if left else answer(seen)  # type: ignore[method-assign]
    began = time.monotonic()
    with service.client() as tally:
        tally.increment("a")
    assert 1.0 <= time.monotonic() - began < 2.5


def test_a_call_ends_at_its_deadline_even_if_the_service_is_silent(service: FakeService) -> None:
    release = threading.Event()
    service.before_answer = lambda _: release.wait(5)
    began = time.monotonic()
    with service.client(deadline=0.5) as tally, pytest.raises(OutcomeUnknown):
        tally.increment("a")
    assert 0.4 < time.monotonic() - began < 2.0
    release.set()


def test_a_null_value_is_returned_and_a_repeat_returns_the_value(service: FakeService) -> None:
    service.values_known = False
    with service.client() as tally:
        (counter,) = tally.increment_all([Increment("a", 5)], key="k")
        assert (counter.counter_id, counter.value, counter.version) == ("a", None, None)
        service.receipts[("/increments", "k")][1][1][0].update(value=5, version=1)
        (counter,) = tally.increment_all([Increment("a", 5)], key="k")
    assert (counter.value, counter.version) == (5, 1)
    assert service.value("a") == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_call_tells_its_key(
    service: FakeService, error: type[BaseException]
) -> None:
    def interrupt(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/oauth2/token":
            return httpx2.Response(200, json={"access_token": "t", "expires_in": 60})
        raise error

    transport = httpx2.MockTransport(interrupt)
    with service.client(transport=transport) as tally, pytest.raises(error) as caught:
        tally.increment("a")
    (note,) = caught.value.__notes__
    assert "Resume with the key" in note


@pytest.mark.parametrize("key", [None, "order-17"])
@pytest.mark.parametrize("many", [False, True])
def test_if_another_thread_closes_the_client_before_a_lost_answer_the_key_resumes(
    service: FakeService, *, many: bool, key: str | None
) -> None:
    def change(tally: Tally, key: str | None) -> object:
        if many:
            return tally.increment_all([Increment("a", 5)], key=key)
        return tally.increment("a", 5, key=key)

    tally = service.client()
    service.plan("lose")
    # The service has handled the request. It loses the answer after another thread has closed the
    # client.
    service.before_answer = lambda _: in_threads(1, tally.close)
    with pytest.raises(OutcomeUnknown, match="closed") as caught:
        change(tally, key)
    assert caught.value.key == keys(service)[0]
    assert key in {None, caught.value.key}
    assert len(service.requests("POST")) == 1
    service.before_answer = lambda _: None
    with service.client() as another:
        change(another, caught.value.key)
    assert service.by_operation("a") == {5: 1}


def test_if_the_client_is_closed_during_a_request_for_a_token_the_key_resumes(
    service: FakeService,
) -> None:
    token = service.token

    def fetch() -> Answer:
        if service.tokens:
            tally.close()
        return token()

    service.token_life = 0  # so each attempt fetches a token
    service.token = fetch  # type: ignore[method-assign]
    service.plan("lose")
    tally = service.client()
    with pytest.raises(OutcomeUnknown, match="closed") as caught:
        tally.increment("a", 5)
    assert caught.value.key == keys(service)[0]
    assert service.by_operation("a") == {5: 1}


def test_if_the_client_is_closed_during_an_attempt_the_outcome_is_unknown(
    service: FakeService,
) -> None:
    def close(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/oauth2/token":
            return httpx2.Response(200, json={"access_token": "t", "expires_in": 60})
        tally.close()
        raise RuntimeError

    tally = service.client(transport=httpx2.MockTransport(close))
    with pytest.raises(OutcomeUnknown, match="closed"):
        tally.increment("a")


def test_many_threads_on_a_bad_network_count_exactly(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    chance = random.Random(1)
    faults = ["lose"] * 4 + ["cut", "drop", "503 throttled", "429", "500"] + [""] * 11
    service.faults = lambda: chance.choice(faults)
    with service.client(deadline=30) as tally:
        in_threads(8, lambda: [tally.increment("a") for _ in range(8)])
        in_threads(
            8, lambda: [tally.increment_all([Increment("b"), Increment("c", 2)]) for _ in range(3)]
        )

    assert (service.value("a"), len(service.history["a"])) == (64, 64)
    assert (service.value("b"), service.value("c")) == (24, 48)
    assert len(service.seen) > 88
    assert service.tokens == ["t0ken-0-of-the-test"]


def test_the_answer_is_the_counter(service: FakeService) -> None:
    with service.client() as tally:
        counter = tally.increment("a", 2)
    assert isinstance(counter, Counter)
    assert counter.updated_at is not None
    assert counter.updated_at.isoformat() == "2026-11-22T16:07:13.192000+00:00"
