"""Settings: where the service is, and the credentials of the client."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tally_client.errors import SettingsMissing

# The file that `make run` writes: see docs/local-stack.md.
STACK_FILE = Path(".local", "stack.json")

_VARIABLES = {
    "url": "TALLY_URL",
    "token_url": "TALLY_TOKEN_URL",
    "client_id": "TALLY_CLIENT_ID",
    "client_secret": "TALLY_CLIENT_SECRET",
}
_SCOPES = "TALLY_SCOPES"


class Secret:
    """A text that no log, traceback or `repr` shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Keep a text."""
        self._text = text

    def __repr__(self) -> str:
        """Return a placeholder."""
        return "Secret(…)"

    def reveal(self) -> str:
        """Return the text."""
        return self._text


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the service is, and the credentials of the client.

    Attributes:
        url: the base URL of the API, with its stage.
        token_url: the URL of the token endpoint.
        client_id: the id of the app client.
        client_secret: the secret of the app client.
        scopes: the scopes to ask for. If it is empty, the token endpoint grants all scopes that the
            app client may have.
    """

    url: str
    token_url: str
    client_id: str
    client_secret: Secret
    scopes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the URLs.

        Raises:
            SettingsMissing: a URL is not valid, or would send the credentials unencrypted.
        """
        for url in (self.url, self.token_url):
            parts = urlsplit(url)
            if parts.scheme == "http" and _is_this_machine(parts.hostname):
                continue
            if parts.scheme != "https" or not parts.hostname:
                detail = f"{url} must be a URL that begins with https://"
                raise SettingsMissing(detail)


def find() -> Settings:
    """Return the settings from the environment or, if they are not there, from `stack.json`.

    `.local/stack.json` is searched in the current directory, and then in each of its parents.

    Raises:
        SettingsMissing: there are no settings, or only some of them.
    """
    found = {name: os.environ.get(variable, "") for name, variable in _VARIABLES.items()}
    if not any(found.values()):
        return _from_stack_file()
    if missing := [_VARIABLES[name] for name, value in found.items() if not value]:
        detail = f"These environment variables are missing: {', '.join(missing)}"
        raise SettingsMissing(detail)
    secret = Secret(found.pop("client_secret"))
    return Settings(**found, client_secret=secret, scopes=tuple(_scopes()))


def _from_stack_file() -> Settings:
    here = Path.cwd()
    for directory in (here, *here.parents):
        file = directory / STACK_FILE
        try:
            stack = json.loads(file.read_text(encoding="utf-8"))
        except OSError:
            continue
        except ValueError as error:
            detail = f"{file} is not JSON. Is make run starting or stopping?"
            raise SettingsMissing(detail) from error
        try:
            return Settings(
                stack["url"],
                stack["token_url"],
                stack["client_id"],
                Secret(stack["client_secret"]),
                tuple(_scopes() or stack["scopes"]),
            )
        except (KeyError, TypeError) as error:
            detail = f"{file} lacks a member: {error}"
            raise SettingsMissing(detail) from None
    detail = (
        f"There are no settings. Set {', '.join(_VARIABLES.values())}, or start a local stack with"
        f" make run, and work in its directory: there is no {STACK_FILE} here or above."
    )
    raise SettingsMissing(detail)


def _scopes() -> list[str]:
    return os.environ.get(_SCOPES, "").split()


def _is_this_machine(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
