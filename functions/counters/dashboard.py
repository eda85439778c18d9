"""The dashboard: its page, the files that the page loads (the assets), and its settings."""

import hashlib
import html
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Template
from typing import NamedTuple
from urllib.parse import urlsplit

from counters import clock
from counters.clients import answered, must_answer, ssm
from counters.errors import ThrottledError

# The build puts the dashboard beside the functions: scripts/dashboard.py packs it.
DIRECTORY = Path(__file__).parents[1] / "dashboard"

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

# How long a process uses the settings that it has read. An update of the stack can change them.
_SETTINGS_SECONDS = 300


class Asset(NamedTuple):
    """A file that the page loads."""

    text: str
    media_type: str


class Settings(NamedTuple):
    """What the page must know about its stack.

    Attributes:
        client_id: the id of the app client with which people sign in.
        sign_in: the base URL of the sign-in service.
    """

    client_id: str
    sign_in: str

    def origin(self) -> str:
        """Return the origin of the sign-in service, such as `https://example.com`."""
        parts = urlsplit(self.sign_in)
        return f"{parts.scheme}://{parts.netloc}"


@cache
def assets() -> Mapping[str, Asset]:
    """Return the assets, by the names of their files."""
    return {
        path.name: Asset(path.read_text("utf-8"), _MEDIA_TYPES[path.suffix])
        for path in sorted((DIRECTORY / "assets").iterdir())
    }


@cache
def digest() -> str:
    """Return a hash of all assets. It is in the path of each asset.

    The modules of the page import each other by their names. So a change of one asset must change
    the paths of all.
    """
    content = json.dumps([(name, asset.text) for name, asset in assets().items()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def page(settings: Settings) -> str:
    """Return the page of a stack with these settings."""
    return template().substitute(
        assets=f"assets/{digest()}",
        client_id=html.escape(settings.client_id),
        sign_in=html.escape(settings.sign_in),
    )


@cache
def template() -> Template:
    """Return the page, with placeholders for what differs between stacks."""
    return Template((DIRECTORY / "index.html").read_text("utf-8"))


_known: dict[str, tuple[Settings, float]] = {}


def settings(until: float) -> Settings:
    """Return the settings. They are read from Parameter Store every five minutes.

    The template cannot pass them in environment variables: the app client must know the address of
    the API, and the API needs this function first.

    Args:
        until: latest time to start a read, in seconds since the epoch.

    Raises:
        ThrottledError: if Parameter Store did not answer in time, and this process has not read the
            settings before.
    """
    name = os.environ["DASHBOARD_PARAMETER"]
    found, expires_at = _known.get(name, (None, 0.0))
    if found is None or expires_at <= clock.now():
        try:
            with must_answer():
                reply = answered(until, lambda: ssm().get_parameter(Name=name))
        except ThrottledError:
            if found is None:
                raise
            return found  # the settings hardly ever change
        value = json.loads(reply["Parameter"]["Value"])
        found = Settings(value["client_id"], value["sign_in"])
        _known[name] = found, clock.now() + _SETTINGS_SECONDS
    return found
