"""A call ends by its deadline, and nothing is sent that certainly comes too late."""

import threading
import time
from collections.abc import Iterator

import httpx2
import pytest
from tests.unit.client.fake_service import SECRET, FakeService, Seen

from tally_client import OutcomeUnknown, Unavailable, retrying
from tally_client.exchange import NoReply, Request, Service
from tally_client.settings import Secret, Settings


class Trickle(httpx2.SyncByteStream):
    """A body that arrives byte by byte, for ten seconds."""

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(200):
            time.sleep(0.05)
            yield b" "


def test_an_answer_that_trickles_does_not_hold_up_the_call(service: FakeService) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("token"):
            return httpx2.Response(200, json={"access_token": "t", "expires_in": 60})
        return httpx2.Response(200, stream=Trickle())

    began = time.monotonic()
    with (
        service.client(deadline=0.3, transport=httpx2.MockTransport(answer)) as tally,
        pytest.raises(OutcomeUnknown),
    ):
        tally.increment("a")
    assert time.monotonic() - began < 5


def test_the_look_at_the_history_gets_only_the_rest_of_the_deadline(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float] = []

    def read(*arguments: float) -> None:
        deadlines.append(arguments[-1])
        raise Unavailable

    def slow(seen: Seen) -> None:
        if seen.fault != "lose":
            time.sleep(0.6)

    monkeypatch.setattr(retrying, "read", read)
    service.plan("lose")
    service.before_answer = slow
    with service.client(deadline=5) as tally, pytest.raises(OutcomeUnknown):
        tally.set("a", 1, if_version=0)
    assert len(deadlines) == 1
    assert 0 < deadlines[0] < 4.5


def test_a_request_that_would_come_too_late_is_not_sent(service: FakeService) -> None:
    token_url = service.url.replace("/v1", "/oauth2/token")
    client = Service(Settings(service.url, token_url, "client", Secret(SECRET)))
    request = Request("GET", "/counters/a")
    client.exchange(request, time.monotonic() + 5)
    reply = client.exchange(request, time.monotonic() + 0.03)
    client.close()
    assert isinstance(reply, NoReply)
    assert not reply.sent
    assert len(service.seen) == 1


def test_no_thread_waits_for_the_connection_of_another(service: FakeService) -> None:
    threads_at_once = 120
    all_there = threading.Barrier(threads_at_once)
    service.before_answer = lambda _: all_there.wait(timeout=5)
    failed: list[Unavailable] = []

    def get() -> None:
        try:
            tally.get("a")
        except Unavailable as error:
            failed.append(error)

    with service.client(deadline=20) as tally:
        threads = [threading.Thread(target=get) for _ in range(threads_at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    assert not all_there.broken
