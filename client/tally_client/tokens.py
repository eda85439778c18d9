"""Access tokens: fetched once, shared by all threads, and replaced shortly before they expire.

Neither a token nor the secret of the client may appear in a log or a traceback. So errors of the
token request are returned as values: an exception would carry the frames of the HTTP library, whose
local variables include the headers.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx2
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

from tally_client import network

if TYPE_CHECKING:
    from collections.abc import Generator

    from tally_client.settings import Settings

# A token is replaced this many seconds before it expires. A token that is valid for less than ten
# times as long is replaced after nine tenths of its life.
_LEEWAY = 60.0

# While a token is valid, a slow token endpoint must not hold up the requests that can use it.
_LONGEST_RENEWAL = 3.0  # seconds
_PAUSE = 5.0  # seconds between a failed renewal and the next one

# Errors of the HTTP library show a header that is not valid. So only valid tokens become headers.
_VALID = re.compile(r"[\x21-\x7e]+")

# What the libraries can raise if the answer is not as RFC 6749 says.
_BROKEN = (ValueError, TypeError, ArithmeticError, RecursionError)

# A later request can succeed after these errors of a token endpoint (RFC 6749, section 4.1.2.1; RFC
# 8628, section 3.5).
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

    def __init__(self, settings: Settings, transport: httpx2.BaseTransport | None = None) -> None:
        """Create a source that has no token yet.

        Args:
            settings: the token endpoint and the credentials.
            transport: replaces the network; for tests.
        """
        self._settings = settings
        self._transport = network.KeptOpen(transport) if transport else None
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._next_renewal = 0.0  # earliest time after a failed one (monotonic clock, seconds)

    def current(self, until: float) -> Token | NoToken:
        """Return the token. Fetch one if there is none, or if it expires soon.

        Args:
            until: latest time to wait for the token endpoint (monotonic clock, seconds).
        """
        token, now = self._token, time.monotonic()
        if token and now < token.renew_at:
            return token
        if token and now < token.expires_at:
            return self._renew_early(token, until)
        return self.renew(token, until)

    def renew(self, refused: Token | None, until: float) -> Token | NoToken:
        """Return another token than one that has expired, or that the service refused.

        Args:
            refused: this token. If another thread has replaced it, nothing is fetched.
            until: as in `current`.
        """
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            return NoToken("The token endpoint did not answer in time.", denied=False)
        try:
            return self._replace(refused, until)
        finally:
            self._lock.release()

    def _renew_early(self, token: Token, until: float) -> Token | NoToken:
        """Return a new token, or this valid one if a new one cannot be had quickly."""
        now = time.monotonic()
        if now < self._next_renewal or not self._lock.acquire(blocking=False):
            return token
        try:
            fetched = self._replace(token, min(until, now + _LONGEST_RENEWAL))
            if isinstance(fetched, Token):
                return fetched
            now = time.monotonic()
            self._next_renewal = now + _PAUSE
            return token if now < token.expires_at else fetched
        finally:
            self._lock.release()

    def _replace(self, old: Token | None, until: float) -> Token | NoToken:
        """Fetch a token, unless another thread has replaced `old`. The caller holds the lock."""
        if self._token is not old and self._token is not None:
            return self._token
        fetched = self._fetch(until)
        if isinstance(fetched, Token):
            self._token = fetched
        return fetched

    def _fetch(self, until: float) -> Token | NoToken:
        began = time.monotonic()
        settings = self._settings
        try:
            with OAuth2Client(
                settings.client_id,
                settings.client_secret.reveal(),
                scope=" ".join(settings.scopes) or None,
                timeout=network.timeout(until),
                **network.options(settings.token_url, self._transport),
            ) as client:
                answer = client.fetch_token(settings.token_url, grant_type="client_credentials")
        except OAuthError as error:
            reason = f"The token endpoint answered {error.error}."
            return NoToken(reason, denied=str(error.error) not in _TEMPORARY)
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            temporary = status == httpx2.codes.TOO_MANY_REQUESTS or status >= 500  # noqa: PLR2004
            return NoToken(f"The token endpoint answered {status}.", denied=not temporary)
        except (httpx2.HTTPError, *_BROKEN) as error:
            return NoToken(f"The token endpoint: {type(error).__name__}.", denied=False)
        return _token(answer, began)


def _token(answer: dict[str, object], began: float) -> Token | NoToken:
    """Convert the answer of the token endpoint (RFC 6749, section 5.1).

    Args:
        answer: the members of the answer.
        began: when the request was sent. The life of the token is counted from then.
    """
    text, seconds = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(text, str) or not _VALID.fullmatch(text):
        return NoToken("The token endpoint's answer has no valid token.", denied=False)
    try:
        life = float(str(seconds))
    except ValueError:  # no expires_in: use the token until the service refuses it
        life = float("inf")
    return Token(text, began + life - min(_LEEWAY, life / 10), began + life)
