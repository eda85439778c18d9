"""Settings that cannot be used are reported as such, and not as a service that does not answer."""

from pathlib import Path
from typing import Any

import pytest

from tally_client import SettingsMissing, Tally, network

SETTINGS: dict[str, Any] = {
    "url": "https://a.example/v1",
    "token_url": "https://b.example/token",
    "client_id": "id",
    "client_secret": "s3cret",
    "scopes": ["counters/read"],
}
NOT_UTF8 = "\udcff"
URLS: list[Any] = [
    "https://a.example:99999/v1",
    "https://a.example:0/v1",
    "https://a.example:x/v1",
    "https://xn--a/v1",
    "https://api.xn--a.example/v1",
    "https://a..example",
    f"https://{'a' * 64}.example",
    f"https://a.example/{NOT_UTF8}",
    f"https://{NOT_UTF8}.example",
    "https://a.example/a b",
    "https://a.example/v1?stage=dev",
    "https://a.example/v1#top",
    None,
    5,
    b"https://a.example",
]
TEXTS: list[Any] = [NOT_UTF8, "", None, 5, b""]
UNUSABLE: list[tuple[str, Any]] = [
    *[(name, url) for name in ("url", "token_url") for url in URLS],
    *[(name, text) for name in ("client_id", "client_secret") for text in TEXTS],
    *[("scopes", scopes) for scopes in ([NOT_UTF8], [""], [5], "counters/read", None, 5)],
]


@pytest.mark.parametrize(("name", "value"), UNUSABLE, ids=ascii)
def test_a_setting_that_cannot_be_used_is_an_error_at_once(name: str, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(SettingsMissing, match=f"^{name} must be ") as caught:
        Tally(**{**SETTINGS, name: value})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example:65535/v1",
        "https://straße.example",
        "https://xn--strae-oqa.example",
        "https://xn--ls8h.example",  # a name by the rules of 2003
        "http://127.0.0.1:4566/v1",
        "http://[::1]:4566/v1",
    ],
)
def test_a_valid_url_is_accepted(url: str) -> None:
    Tally(**{**SETTINGS, "url": url, "token_url": url}).close()


def test_without_a_current_directory_the_settings_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TALLY_URL", "TALLY_TOKEN_URL", "TALLY_CLIENT_ID", "TALLY_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    here = tmp_path / "gone"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    with pytest.raises(SettingsMissing, match="directory"):
        Tally.from_env()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:9"), ("SSL_CERT_FILE", "/missing/certificates")],
)
@pytest.mark.parametrize("remote", ["url", "token_url"])
def test_network_settings_that_cannot_be_used_are_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, remote: str
) -> None:
    monkeypatch.setattr(network, "_tls_context", network._tls_context.__wrapped__)  # noqa: SLF001
    monkeypatch.setenv(variable, value)
    local = {"url": "http://127.0.0.1:9/v1", "token_url": "http://127.0.0.1:9/token"}
    with pytest.raises(SettingsMissing, match="network settings"):
        Tally(**{**SETTINGS, **local, remote: SETTINGS[remote]})
