"""Settings: where the service is, and the credentials of the client."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from tally_client.checks import has_items, is_utf8
from tally_client.errors import SettingsMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The file that `make run` writes: see docs/local-stack.md.
STACK_FILE = Path(".local", "stack.json")

_VARIABLES = {
    "url": "TALLY_URL",
    "token_url": "TALLY_TOKEN_URL",
    "client_id": "TALLY_CLIENT_ID",
}
_SECRET = "TALLY_CLIENT_SECRET"  # noqa: S105  the name of a variable
_SCOPES = "TALLY_SCOPES"
_MISSING = (
    f"There are no settings. Set {', '.join(_VARIABLES.values())} and {_SECRET}, or start a"
    f" local stack with make run, and work in its directory:"
    f" there is no {STACK_FILE} here or above."
)

T = TypeVar("T")


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
        """Check the settings.

        Raises:
            SettingsMissing: a URL is not valid, or would send the credentials unencrypted. Or the
                id, the secret or a scope is empty, or is not a string that UTF-8 can encode.
        """
        for name, url in (("url", self.url), ("token_url", self.token_url)):
            if not _is_safe(url):
                # The error does not show the value: it could be a secret in the wrong place.
                detail = f"{name} must be a valid URL that begins with https://"
                raise SettingsMissing(detail)
        unusable = self._unusable()
        if unusable:
            detail = f"{unusable} must be a string that is not empty and that UTF-8 can encode"
            raise SettingsMissing(detail)

    def _unusable(self) -> str | None:
        """Return the name of a credential that cannot be sent; None if all can be sent.

        The frame that raises must not have the secret: error reports can show local variables.
        """
        texts: list[tuple[str, object]] = [
            ("client_id", self.client_id),
            ("client_secret", self.client_secret.reveal()),
            *(("scopes", scope) for scope in self.scopes),
        ]
        return next((name for name, value in texts if not value or not is_utf8(value)), None)


def find() -> Settings:
    """Return the settings from the environment or, if they are not there, from `stack.json`.

    `.local/stack.json` is searched in the current directory, and then in each of its parents.

    Raises:
        SettingsMissing: there are no settings, or only some of them.
    """
    # An error report can show local variables, so none may have the plain secret.
    secret = Secret(os.environ.get(_SECRET, ""))
    found = {name: os.environ.get(variable, "") for name, variable in _VARIABLES.items()}
    missing = [_VARIABLES[name] for name, value in found.items() if not value]
    missing += [] if secret.reveal() else [_SECRET]
    if len(missing) > len(found):
        return from_stack_file(_settings, _MISSING)
    if missing:
        detail = f"These environment variables are missing: {', '.join(missing)}"
        raise SettingsMissing(detail)
    return Settings(**found, client_secret=secret, scopes=tuple(_scopes()))


def from_stack_file(take: Callable[[Any], T], missing: str) -> T:
    """Return what the nearest `.local/stack.json` has.

    The file is searched in the current directory, and then in each of its parents.

    Args:
        take: a function that takes what is wanted out of the content of the file. If the content is
            not valid, it raises SettingsMissing, KeyError, TypeError or AttributeError.
        missing: what to say if there is no such file.

    Raises:
        SettingsMissing: there is no such file, or it is not valid.
    """
    try:
        here = Path.cwd()
    except OSError:
        detail = "There are no settings, and the current directory does not exist any more."
        raise SettingsMissing(detail) from None
    for directory in (here, *here.parents):
        file = directory / STACK_FILE
        found = _read(file, take)
        if isinstance(found, _Wrong):
            detail = f"{file} {found.reason}"
            raise SettingsMissing(detail)
        if found is not None:
            return found
    raise SettingsMissing(missing)


def _settings(stack: Any) -> Settings:  # noqa: ANN401  content of a JSON file
    return Settings(
        stack["url"],
        stack["token_url"],
        stack["client_id"],
        Secret(stack["client_secret"]),
        several_scopes(_scopes() or stack["scopes"]),
    )


@dataclass(frozen=True, slots=True)
class _Wrong:
    """What is wrong with a file."""

    reason: str


def _read(file: Path, take: Callable[[Any], T]) -> T | _Wrong | None:
    """Return what `take` finds in a file, or what is wrong with the file. None if there is no file.

    An exception would carry the content of the file, with the secret. So this function raises none.
    """
    try:
        return take(json.loads(file.read_text(encoding="utf-8")))
    except PermissionError:
        return _Wrong("cannot be read by this user")
    except OSError:
        return None
    except (ValueError, RecursionError):
        return _Wrong("is not JSON. Is make run starting or stopping?")
    except (KeyError, TypeError, AttributeError) as error:
        return _Wrong(f"lacks a member: {error}")
    except SettingsMissing as error:
        return _Wrong(f"is not valid: {error}")


def several_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return scopes as a tuple.

    Raises:
        SettingsMissing: they are not iterable, or are one string, whose items are characters.
    """
    if not has_items(scopes):
        detail = "scopes must be a list of strings"
        raise SettingsMissing(detail)
    return tuple(scopes)


def _scopes() -> list[str]:
    return os.environ.get(_SCOPES, "").split()


def _is_safe(url: object) -> bool:
    """Return whether a URL is valid, and its requests are encrypted or stay on this machine."""
    if not isinstance(url, str) or any(character.isspace() for character in url):
        return False
    try:
        parts, parsed = urlsplit(url), httpx2.URL(url)
        # Both raise ValueError: `port` above 65535, `encode` for an empty or long part of a host.
        port, host = parts.port, parsed.raw_host.decode().encode("idna")
        if "xn--" in parsed.host:  # not valid in IDNA 2008, but perhaps in IDNA 2003
            host.decode("idna")
    except (ValueError, httpx2.InvalidURL):
        return False
    if port == 0 or parts.query or parts.fragment:
        return False
    if parts.scheme == "http":
        return is_this_machine(parts.hostname)
    return parts.scheme == "https" and bool(parts.hostname)


def is_this_machine(host: str | None) -> bool:
    """Return whether a host of a URL is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
