"""A token is fetched once, shared, and shown nowhere; neither is the secret."""

import io
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from rich.console import Console
from rich.traceback import Traceback
from tests.unit.client.fake_service import SECRET, Answer, FakeService, in_threads

from tally_client import Tally, TallyError, Unauthorized, Unavailable, network
from tally_client.settings import Secret, Settings
from tally_client.tokens import NoToken, Token, TokenSource


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
        (200, {"access_token": "t0ken", "token_type": "Bearer", "expires_in": [1]}, {}),
        (200, {"access_token": "t0ken", "token_type": "Bearer", "expires_in": {"a": 1}}, {}),
        (200, {"access_token": "t0ken", "token_type": "Bearer", "expires_in": float("inf")}, {}),
    ],
)
def test_the_token_request_is_retried_if_it_may_succeed_later(
    service: FakeService, answer: tuple[int, dict[str, Any], dict[str, str]]
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


def source_of(service: FakeService) -> TokenSource:
    token_url = service.url.replace("/v1", "/oauth2/token")
    return TokenSource(Settings(service.url, token_url, "client", Secret(SECRET)))


def in_the_last_minute(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> tuple[TokenSource, Token | NoToken]:
    """Return a source and its token of an hour, which is valid for half a minute more."""
    source = source_of(service)
    token = source.current(time.monotonic() + 5)
    monotonic = time.monotonic
    monkeypatch.setattr("tally_client.tokens.time.monotonic", lambda: monotonic() + 3570)
    return source, token


def test_while_one_thread_renews_a_valid_token_the_others_use_it(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, token = in_the_last_minute(service, monkeypatch)
    asked, go_on = threading.Event(), threading.Event()

    def hang() -> Answer:
        asked.set()
        go_on.wait(5)
        return 503, {}, {}

    service.token = hang  # type: ignore[method-assign]
    renewing = threading.Thread(target=lambda: source.current(time.monotonic() + 30))
    renewing.start()
    assert asked.wait(5)
    began = time.monotonic()
    assert source.current(began + 30) is token
    assert time.monotonic() - began < 1
    go_on.set()
    renewing.join()


def test_a_slow_renewal_is_given_up_and_tried_again_after_a_pause(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, token = in_the_last_minute(service, monkeypatch)
    monkeypatch.setattr("tally_client.tokens._LONGEST_RENEWAL", 0.2)
    fetches: list[float] = []
    timeout = network.timeout

    def counted(until: float) -> httpx2.Timeout:
        fetches.append(until)
        return timeout(until)

    def slow() -> Answer:
        time.sleep(2)
        return 503, {}, {}

    monkeypatch.setattr(network, "timeout", counted)
    service.token, working = slow, service.token  # type: ignore[method-assign]
    began = time.monotonic()
    for _ in range(5):
        assert source.current(began + 30) is token
    assert time.monotonic() - began < 1.5
    assert len(fetches) == 1
    service.token = working  # type: ignore[method-assign]
    monkeypatch.setattr("tally_client.tokens._LONGEST_RENEWAL", 5.0)
    time_now = time.monotonic
    monkeypatch.setattr("tally_client.tokens.time.monotonic", lambda: time_now() + 6)
    renewed = source.current(time.monotonic() + 30)
    assert isinstance(renewed, Token)
    assert renewed is not token


def test_the_transport_of_the_caller_is_closed_only_with_the_client(service: FakeService) -> None:
    class Recorded(httpx2.BaseTransport):
        closed = False

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return network_transport.handle_request(request)

        def close(self) -> None:
            self.closed = True
            network_transport.close()

    network_transport, transport = httpx2.HTTPTransport(), Recorded()
    with service.client(transport=transport) as tally:
        tally.get("a")
        assert len(service.tokens) == 1
        assert not transport.closed
    assert transport.closed


def test_requests_to_this_machine_use_no_proxy(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    with service.client(deadline=2) as tally:
        assert tally.increment("a").value == 1
    assert network.options("https://api.example.com/v1", None)["trust_env"]


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

    def token_that_is_no_header() -> object:
        service.faults = str
        service.token_faults = [(200, {"access_token": "t0ken\n", "expires_in": 60}, {})] * 1000
        with service.client(deadline=0.3) as tally:
            return tally.increment("a")

    return [
        unavailable,
        lost,
        unauthorized,
        token_endpoint,
        unreachable,
        bug,
        token_that_is_no_header,
    ]


def everything(error: BaseException) -> str:
    """Return what an error report can show: the errors in the chain, and their local variables."""
    shown = io.StringIO()
    frames = error.__traceback__
    while frames and "tally_client" not in frames.tb_frame.f_code.co_filename:
        frames = frames.tb_next  # the frames of this file have the secret themselves
    assert frames
    console = Console(file=shown, width=1000)
    console.print(Traceback.from_exception(type(error), error, frames, show_locals=True))
    traceback.print_exception(error, file=shown)
    link: BaseException | None = error
    while link:
        shown.write(f"{link!r} {vars(link)} {getattr(link, 'doc', '')}")
        link = link.__cause__ or link.__context__
    return shown.getvalue()


def test_no_log_repr_or_traceback_shows_the_secret_or_a_token(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = io.StringIO()
    for fail in failures(service):
        try:
            fail()
        except (TallyError, ZeroDivisionError) as error:
            shown.write(everything(error))
        else:
            pytest.fail("nothing was raised")
    with service.client() as tally:
        service_of_client = vars(tally)["_service"]
        shown.write(f"{tally} {vars(tally)} {vars(service_of_client)}")
        service.faults, service.token_faults = str, []
        tally.get("a")
        _, client, tokens = vars(service_of_client)["_opened"]
        shown.write(f"{client} {vars(tokens)}")
    text = shown.getvalue() + caplog.text
    assert "/counters/a" in text
    assert SECRET not in text
    assert "t0ken" not in text


VARIABLES = ("TALLY_URL", "TALLY_TOKEN_URL", "TALLY_CLIENT_ID", "TALLY_CLIENT_SECRET")
STACK = {
    "url": "https://a",
    "token_url": "https://b",
    "client_id": "c",
    "client_secret": SECRET,
    "scopes": [],
}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(STACK)[:-1],
        json.dumps({**STACK, "url": "http://example.com"}),
        json.dumps({**STACK, "url": 5}),
        json.dumps({name: value for name, value in STACK.items() if name != "scopes"}),
        json.dumps([SECRET]),
    ],
)
def test_no_error_about_a_stack_file_shows_the_secret(
    content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (*VARIABLES, "TALLY_SCOPES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path(".local").mkdir()
    Path(".local", "stack.json").write_text(content)
    with pytest.raises(TallyError, match=r"stack\.json") as caught:
        Tally.from_env()
    assert SECRET not in everything(caught.value)


@pytest.mark.parametrize("url", ["http://example.com", ""])
def test_no_error_about_the_environment_shows_the_secret(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(VARIABLES, (url, "https://b", "c", SECRET), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(TallyError) as caught:
        Tally.from_env()
    assert SECRET not in everything(caught.value)


def test_a_call_after_close_is_an_error(service: FakeService) -> None:
    tally = service.client()
    tally.close()
    with pytest.raises(RuntimeError, match="closed"):
        tally.increment("a")
