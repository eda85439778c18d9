"""A token is fetched once, shared, and shown nowhere; neither is the secret."""

import io
import logging
import threading
import traceback
from collections.abc import Callable

import httpx2
import pytest
from rich.console import Console
from rich.traceback import Traceback
from tests.unit.client.fake_service import SECRET, FakeService

from tally_client import Tally, TallyError, Unauthorized, Unavailable


def in_threads(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_many_threads_fetch_one_token_and_one_more_after_it_expires(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = 0.0
    monotonic = __import__("time").monotonic
    monkeypatch.setattr("tally_client.tokens.time.monotonic", lambda: monotonic() + later)
    with service.client() as tally:
        in_threads(16, lambda: [tally.get("a") for _ in range(10)])
        assert len(service.tokens) == 1
    with service.client() as tally:
        tally.get("a")
        service.token_life = 1000
        later = 3600 - 30  # less than the leeway is left
        in_threads(16, lambda: [tally.get("a") for _ in range(3)])
        assert len(service.tokens) == 3


def test_a_refused_token_is_replaced_once_by_one_of_many_threads(service: FakeService) -> None:
    with service.client() as tally:
        tally.get("a")
        service.refused_tokens = {service.tokens[0]}
        in_threads(16, lambda: tally.increment("a"))
    assert len(service.tokens) == 2
    assert service.value("a") == 16


def test_a_second_401_is_final_and_costs_no_further_tokens(service: FakeService) -> None:
    service.faults = lambda: "401 unauthorized"
    with service.client() as tally:
        for _ in range(5):
            with pytest.raises(Unauthorized):
                tally.increment("a")
    assert len(service.tokens) == 2
    assert len(service.seen) == 6


@pytest.mark.parametrize(
    "answer",
    [
        (503, {}, {}),
        (429, {"message": "Too Many Requests"}, {}),
        (400, {"error": "temporarily_unavailable"}, {}),
        (200, {"no": "token"}, {}),
    ],
)
def test_the_token_request_is_retried_if_it_may_succeed_later(
    service: FakeService, answer: tuple[int, dict[str, str], dict[str, str]]
) -> None:
    service.token_faults = [answer] * 2
    with service.client() as tally:
        assert tally.increment("a").value == 1


def test_without_a_token_the_change_is_not_applied(service: FakeService) -> None:
    service.token_faults = [(503, {}, {})] * 1000
    with service.client(deadline=0.3) as tally, pytest.raises(Unavailable):
        tally.increment("a")
    assert service.seen == []


def test_refused_credentials_are_reported_at_once(service: FakeService) -> None:
    service.token_faults = [(400, {"error": "invalid_client"}, {})] * 2
    with service.client() as tally, pytest.raises(Unauthorized, match="invalid_client"):
        tally.increment("a")
    assert len(service.token_faults) == 1


def test_if_no_new_token_is_to_be_had_the_old_one_is_used_until_it_expires(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tally_client.tokens._LEEWAY", 1e9)
    service.token_life = 3600
    with service.client() as tally:
        tally.get("a")
        service.token_faults = [(503, {}, {})] * 10
        monotonic = __import__("time").monotonic
        monkeypatch.setattr("tally_client.tokens.time.monotonic", lambda: monotonic() + 3500)
        assert tally.get("a").value == 0


def failures(service: FakeService) -> list[Callable[[], object]]:
    def unavailable() -> object:
        service.faults = lambda: "503 throttled"
        with service.client(deadline=0.1) as tally:
            return tally.increment("a")

    def lost() -> object:
        service.faults = lambda: "lose"
        with service.client(deadline=0.1) as tally:
            return tally.increment("a")

    def unauthorized() -> object:
        service.faults = lambda: "401 unauthorized"
        with service.client(deadline=0.1) as tally:
            return tally.increment("a")

    def token_endpoint() -> object:
        service.faults = str
        service.token_faults = [(400, {"error": "invalid_client"}, {})]
        with service.client(deadline=0.1) as tally:
            return tally.increment("a")

    def unreachable() -> object:
        url = "http://127.0.0.1:9/"
        with Tally(
            url, token_url=url, client_id="client", client_secret=SECRET, deadline=0.1
        ) as tally:
            return tally.increment("a")

    def bug() -> object:
        def fail(request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("token"):
                return httpx2.Response(200, json={"access_token": "t0" + "ken", "expires_in": 60})
            raise ZeroDivisionError

        with service.client(deadline=0.1, transport=httpx2.MockTransport(fail)) as tally:
            return tally.increment("a")

    return [unavailable, lost, unauthorized, token_endpoint, unreachable, bug]


def test_no_log_repr_or_traceback_shows_the_secret_or_a_token(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = io.StringIO()
    console = Console(file=shown, width=1000)
    for fail in failures(service):
        try:
            fail()
        except (TallyError, ZeroDivisionError) as error:
            frames = error.__traceback__
            while frames and "tally_client" not in frames.tb_frame.f_code.co_filename:
                frames = frames.tb_next  # the frames of this file have the secret themselves
            assert frames
            console.print(Traceback.from_exception(type(error), error, frames, show_locals=True))
            traceback.print_exception(error, file=shown)
        else:
            pytest.fail("nothing was raised")
    with service.client() as tally:
        service_of_client = vars(tally)["_service"]
        shown.write(f"{tally} {vars(tally)} {vars(service_of_client)}")
        service.faults = str
        tally.get("a")
        _, client, tokens = vars(service_of_client)["_opened"]
        shown.write(f"{client} {vars(tokens)}")
    text = shown.getvalue() + caplog.text
    assert "/counters/a" in text
    assert SECRET not in text
    assert "t0ken" not in text


def test_a_call_after_close_is_an_error(service: FakeService) -> None:
    tally = service.client()
    tally.close()
    with pytest.raises(RuntimeError, match="closed"):
        tally.increment("a")
