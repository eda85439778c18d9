"""Access tokens: fetched once, shared by all threads, and replaced shortly before they expire.

Neither a token nor the secret of the client may appear in a log or a traceback. So errors of the
token request are returned as values: an exception would carry the frames of the HTTP library, whose
local variables include the headers.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tally_client.settings import Settings

# A token is replaced this many seconds before it expires. A token that is valid for less than ten
# times as long is replaced after nine tenths of its life.
_LEEWAY = 60.0

# Errors of a token endpoint that a later request may not get (RFC 6749, section 4.1.2.1; RFC 8628,
# section 3.5).
_TEMPORARY = {"temporarily_unavailable", "server_error", "slow_down"}


@dataclass(frozen=True, slots=True)
class Token:
    """An access token.

    Attributes:
        text: the token itself.
        renew_at: when to fetch the next token (monotonic clock, seconds).
        expires_at: when the token expires (monotonic clock, seconds).
    """

    text: str = field(repr=False)
    renew_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class NoToken:
    """There is no token.

    Attributes:
        reason: why, as text for people.
        denied: whether the token endpoint refused the credentials, so that a retry is useless.
    """

    reason: str
    denied: bool


class BearerAuth(httpx2.Auth):
    """Adds a token to a request (RFC 6750, section 2.1)."""

    def __init__(self, token: Token) -> None:
        """Use this token."""
        self._token = token

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the header, and send the request once."""
        request.headers["Authorization"] = f"Bearer {self._token.text}"
        yield request


class TokenSource:
    """Fetches tokens with client credentials (RFC 6749, section 4.4). Threads may share it."""

    def __init__(self, settings: Settings, http_options: Callable[[], dict[str, Any]]) -> None:
        """Create a source that has no token yet.

        Args:
            settings: the token endpoint and the credentials.
            http_options: returns the options of the HTTP client that fetches the tokens.
        """
        self._settings = settings
        self._http_options = http_options
        self._lock = threading.Lock()
        self._token: Token | None = None

    def current(self, until: float) -> Token | NoToken:
        """Return the token. Fetch one if there is none, or if it expires soon.

        Args:
            until: latest time to wait for the token endpoint (monotonic clock, seconds).
        """
        token = self._token
        if token and time.monotonic() < token.renew_at:
            return token
        return self._replace(token, until, keep=True)

    def renew(self, refused: Token, until: float) -> Token | NoToken:
        """Return another token than the one that the service refused.

        Args:
            refused: the refused token. If another thread has replaced it, nothing is fetched.
            until: as in `current`.
        """
        return self._replace(refused, until, keep=False)

    def _replace(self, old: Token | None, until: float, *, keep: bool) -> Token | NoToken:
        """Fetch a token, unless another thread has replaced `old` in the meantime.

        Args:
            old: the token to replace.
            until: as in `current`.
            keep: whether `old` may be used until it expires if there is no new token.
        """
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            return NoToken("The token endpoint did not answer in time.", denied=False)
        try:
            if self._token is not old and self._token is not None:
                return self._token
            fetched = self._fetch(until)
            if isinstance(fetched, Token):
                self._token = fetched
            elif keep and old and time.monotonic() < old.expires_at:
                return old
            return fetched
        finally:
            self._lock.release()

    def _fetch(self, until: float) -> Token | NoToken:
        began = time.monotonic()
        settings = self._settings
        options = {**self._http_options(), "timeout": max(0.01, until - began)}
        try:
            with OAuth2Client(
                settings.client_id,
                settings.client_secret.reveal(),
                scope=" ".join(settings.scopes) or None,
                **options,
            ) as client:
                answer = client.fetch_token(settings.token_url, grant_type="client_credentials")
        except OAuthError as error:
            reason = f"The token endpoint answered {error.error}."
            return NoToken(reason, denied=error.error not in _TEMPORARY)
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            temporary = status == httpx2.codes.TOO_MANY_REQUESTS or status >= 500  # noqa: PLR2004
            return NoToken(f"The token endpoint answered {status}.", denied=not temporary)
        except (httpx2.HTTPError, ValueError) as error:
            return NoToken(f"The token endpoint: {type(error).__name__}.", denied=False)
        return _token(answer, began)


def _token(answer: dict[str, object], began: float) -> Token | NoToken:
    """Convert the answer of the token endpoint (RFC 6749, section 5.1).

    Args:
        answer: the members of the answer.
        began: when the request was sent. The life of the token is counted from then.
    """
    text, seconds = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(text, str):
        return NoToken("The token endpoint's answer has no token.", denied=False)
    try:
        life = float(str(seconds))
    except ValueError:  # no expires_in: use the token until the service refuses it
        life = float("inf")
    return Token(text, began + life - min(_LEEWAY, life / 10), began + life)
