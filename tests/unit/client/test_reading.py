"""Reads: retried, in order, and complete or an error."""

import datetime as dt
import itertools
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sizes import examples
from tests.unit.client.fake_service import FakeService, interval

from tally_client import (
    InvalidRequest,
    NotFound,
    Range,
    SettingsMissing,
    Tally,
    Unavailable,
    model,
    settings,
)

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))


@pytest.mark.parametrize("fault", ["lose", "cut", "drop", "500", "503 throttled", "429", "302"])
def test_a_read_is_retried(service: FakeService, fault: str) -> None:
    service.plan(fault, fault)
    with service.client() as tally:
        assert tally.get("a").value == 0
    assert len(service.seen) == 3


def test_a_read_that_gets_no_answer_is_unavailable(service: FakeService) -> None:
    service.faults = lambda: "lose"
    with service.client(deadline=0.2) as tally, pytest.raises(Unavailable):
        tally.get("a")


def test_a_counter_as_it_was(service: FakeService) -> None:
    with service.client() as tally:
        tally.get("a", version=7)
        tally.get("a", at=NOON)
        tally.get("a", at="2026-11-22T10:00:00+02:00")
        with pytest.raises(InvalidRequest):
            tally.get("a", at=NOON.replace(tzinfo=None))
    assert [each.query for each in service.seen] == [
        [("version", "7")],
        [("at", "2026-11-22T10:00:00Z")],
        [("at", "2026-11-22T10:00:00+02:00")],
    ]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "ä", "x" * 129])
def test_an_invalid_name_reaches_no_other_route(service: FakeService, name: str) -> None:
    with service.client() as tally:
        for call in (tally.get, tally.increment, tally.history, tally.trend):
            with pytest.raises(InvalidRequest):
                call(name)
    assert service.seen == []


def test_a_counter_that_has_not_changed_is_none(service: FakeService) -> None:
    with service.client() as tally:
        version = tally.increment("a").version
        assert tally.get_if_changed("a", version) is None
        tally.increment("a")
        counter = tally.get_if_changed("a", version)
    assert counter is not None
    assert counter.value == 2


def test_many_counters_are_read_a_hundred_at_a_time_in_order(service: FakeService) -> None:
    names = [f"c{number}" for number in range(250)]
    with service.client() as tally:
        tally.increment("c7", 7)
        wanted = [*reversed(names), "c7", "c7"]
        counters = tally.get_many(wanted)
        assert tally.get_many([]) == []
    assert [each.counter_id for each in counters] == wanted
    assert counters[-1].value == 7
    assert [len(each.query) for each in service.requests("GET")] == [100, 100, 50]


def test_no_url_is_longer_than_api_gateway_accepts(service: FakeService) -> None:
    wanted = [f"{number:03}:".ljust(128, ":") for number in range(100)]
    with service.client() as tally:
        counters = tally.get_many(wanted)
    assert [each.counter_id for each in counters] == wanted
    names = [[name for _, name in each.query] for each in service.requests("GET")]
    lengths = [sum(len(quote(name, safe="")) + len("&id=") for name in group) for group in names]
    assert max(lengths) <= 9_000


def test_lists_follow_their_pages(service: FakeService) -> None:
    service.page = 3
    for number in range(10):
        service.change(f"c{number}", number + 1, "increment")
    with service.client() as tally:
        assert list(tally.names()) == sorted(service.history)
        assert list(tally.names("c7")) == ["c7"]
        assert [each.value for each in tally.counters()] == list(range(1, 11))


def test_the_history_is_read_page_by_page_as_it_is_needed(service: FakeService) -> None:
    service.page = 4
    for _ in range(10):
        service.change("a", 1, "increment")
    with service.client() as tally:
        entries = tally.history("a")
        assert service.seen == []
        first = [next(entries) for _ in range(4)]
        assert len(service.seen) == 1
        assert [each.version for each in [*first, *entries]] == list(range(1, 11))
        assert len(service.seen) == 3
        assert [each.version for each in tally.history("a", newest_first=True)] == [
            *range(10, 0, -1)
        ]
        assert [each.version for each in tally.history("a", after=8)] == [9, 10]
        assert len(list(tally.history("a", limit=5))) == 5


def test_the_period_of_a_history(service: FakeService) -> None:
    with service.client() as tally:
        assert list(tally.history("a", since=NOON, until="2026-11-23T00:00:00Z")) == []
    query = dict(service.seen[0].query)
    assert (query["from"], query["to"]) == ("2026-11-22T10:00:00Z", "2026-11-23T00:00:00Z")


def test_a_history_that_cannot_be_read_to_its_end_is_an_error(service: FakeService) -> None:
    service.page = 4
    for _ in range(10):
        service.change("a", 1, "increment")
    service.plan("", "404 not-found")
    with service.client() as tally:
        entries = tally.history("a")
        assert len(list(itertools.islice(entries, 4))) == 4
        with pytest.raises(NotFound):
            next(entries)


@pytest.mark.parametrize(
    "link",
    ['<http://127.0.0.1:1/?after=1>; rel="next"', '</other?after=1>; rel="next"', "nonsense"],
)
def test_the_token_follows_no_link_to_another_place(service: FakeService, link: str) -> None:
    service.answer = lambda seen: (200, [seen.method], {"Link": link})  # type: ignore[method-assign]
    with service.client(deadline=0.2) as tally, pytest.raises(Unavailable):
        list(tally.names())
    assert {each.path for each in service.seen} == {"/counters"}


def test_the_trend(service: FakeService) -> None:
    with service.client() as tally:
        (interval,) = tally.trend("a", "day", since=NOON)
    assert (interval.increase, interval.decrease, interval.close) == (10, 4, 6)
    assert service.seen[0].query == [("interval", "day"), ("from", "2026-11-22T10:00:00Z")]


def test_the_trend_says_what_is_unusual(service: FakeService) -> None:
    with service.client() as tally:
        (plain,) = tally.trend("a")
        (compared,) = tally.trend("a", expected=True)
    assert (plain.expected, plain.unusual) == (None, None)
    assert (compared.expected, compared.unusual) == (Range(33, 94), True)
    assert [each.query[1:] for each in service.seen] == [[], [("expected", "true")]]


@pytest.mark.parametrize("member", [{"expected": 1}, {"expected": {"low": 1}}, {"unusual": 1}])
def test_an_interval_with_a_malformed_member_is_not_an_interval(member: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected, not"):
        model.interval(interval("a") | member)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["counter_id", "value", "version", "created_at", "updated_at"]), inner
        )
    ),
)


@examples(full=100, part=25)
@given(JSON)
def test_any_answer_is_a_counter_or_counts_as_lost(document: object) -> None:
    for convert in (model.counter, model.changed_counter, model.entry, model.interval):
        try:
            counter = convert(document)
        except ValueError:
            continue
        assert isinstance(counter, model.ChangedCounter)
        assert isinstance(document, dict)
        assert (counter.counter_id, counter.value) == (
            document["counter_id"],
            document.get("value"),
        )


VARIABLES = ("TALLY_URL", "TALLY_TOKEN_URL", "TALLY_CLIENT_ID", "TALLY_CLIENT_SECRET")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, deep in a project. No variable is set."""
    for name in (*VARIABLES, "TALLY_SCOPES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    return tmp_path


def stack(service: FakeService) -> dict[str, object]:
    token_url = service.url.replace("/v1", "/oauth2/token")
    return {
        "url": service.url,
        "token_url": token_url,
        "client_id": "client",
        "client_secret": "secret",
        "scopes": ["counters/read"],
    }


def test_the_settings_of_a_local_stack_are_found_in_a_parent_directory(
    service: FakeService, project: Path
) -> None:
    (project / ".local").mkdir()
    (project / ".local" / "stack.json").write_text(json.dumps(stack(service)))
    with Tally.from_env() as tally:
        assert tally.get("a").value == 0
    assert settings.find().scopes == ("counters/read",)


def test_the_environment_comes_first(
    service: FakeService, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".local").mkdir()
    (project / ".local" / "stack.json").write_text("{}")
    for name, value in zip(VARIABLES, stack(service).values(), strict=False):
        monkeypatch.setenv(name, str(value))
    with Tally.from_env() as tally:
        assert tally.get("a").value == 0
    monkeypatch.delenv("TALLY_CLIENT_ID")
    with pytest.raises(SettingsMissing, match="TALLY_CLIENT_ID"):
        Tally.from_env()


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"url": "https://x"}'])
def test_missing_settings_are_an_error(project: Path, content: str | None) -> None:
    if content is not None:
        (project / ".local").mkdir()
        (project / ".local" / "stack.json").write_text(content)
    with pytest.raises(SettingsMissing):
        Tally.from_env()


@pytest.mark.parametrize(
    "url", ["http://example.com/v1", "ftp://127.0.0.1", "127.0.0.1", "https://[", ""]
)
def test_credentials_are_not_sent_unencrypted(url: str) -> None:
    with pytest.raises(SettingsMissing):
        Tally(url, token_url="https://x", client_id="i", client_secret="s")  # noqa: S106
    with pytest.raises(SettingsMissing):
        Tally("https://x", token_url=url, client_id="i", client_secret="s")  # noqa: S106


@pytest.mark.parametrize("deadline", [0, -1, 3601, float("nan")])
def test_a_deadline_is_between_0_and_an_hour(service: FakeService, deadline: float) -> None:
    with pytest.raises(ValueError, match="deadline"):
        service.client(deadline=deadline)
