"""One request and its answer. This module makes no retries, except once after a 401."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import httpx2

from tally_client import network
from tally_client.errors import SettingsMissing
from tally_client.tokens import BearerAuth, NoToken, Token, TokenSource
from tally_client.unanswered import Unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tally_client.settings import Settings

# A request with less time than this would be sent, but its answer would come too late.
_SHORTEST_REQUEST = 0.05  # seconds

_UNAUTHORIZED = 401
_CLOSED = "The client is closed."

# How long a 401 is final, in seconds: this long the first time, then twice as long each time.
_FIRST_FINAL = 60.0
_LONGEST_FINAL = 3600.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request.

    Attributes:
        method: the HTTP method.
        path: the path after the base URL, percent-encoded.
        query: the query parameters.
        body: the JSON body; None if there is none.
        headers: the headers, without the token.
    """

    method: Literal["GET", "POST", "PUT"]
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer.

    Attributes:
        status: the HTTP status.
        headers: the headers; names are not case-sensitive.
        document: the body, converted from JSON. None if the body is empty or not JSON.
    """

    status: int
    headers: Mapping[str, str]
    document: object


@dataclass(frozen=True, slots=True)
class NoReply:
    """There is no complete answer.

    Attributes:
        reason: why, as text for people.
        sent: whether the service may have received the request.
    """

    reason: str
    sent: bool


class ClientClosed(RuntimeError):
    """The client is closed. Nothing was sent."""


class Service:
    """Sends requests to the service, each with a token. Threads may share it.

    A process that was forked opens its own connections: if two processes read from the same
    connection, each could take the other's answer for its own.

    Attributes:
        unanswered: the requests whose answers were lost a moment ago.
    """

    def __init__(self, settings: Settings, transport: httpx2.BaseTransport | None = None) -> None:
        """Create the service's side of the client. No request is sent yet.

        Args:
            settings: where the service is, and the credentials.
            transport: replaces the network; for tests.

        Raises:
            SettingsMissing: the network settings of this machine are not valid.
        """
        self.unanswered = Unanswered(self._lock)
        self._url = settings.url.rstrip("/")
        self._settings = settings
        self._transport = transport
        self._locks: dict[int, threading.Lock] = {}  # by process id
        self._closed = False
        self._final_until = 0.0  # until then, a 401 is final (monotonic clock, seconds)
        self._next_final = _FIRST_FINAL  # how long the next 401 is final, in seconds
        self._opened: tuple[int, httpx2.Client, TokenSource] | None = None
        # The HTTP library loads modules here. If a process was forked while another thread loaded a
        # module, it would wait for ever when it needs this module.
        self._open()

    def exchange(self, request: Request, until: float) -> Reply | NoReply:
        """Send a request and return the answer.

        After a 401, the request is sent once more, with a new token. If that is refused, too, then
        a 401 is final for a minute, because each token costs money (docs/cost.md). If new tokens
        are refused again and again, a 401 is final for longer each time, up to an hour.

        Args:
            request: the request.
            until: latest time to wait for the answer (monotonic clock, seconds). docs/client.md
                says when the call can end later.
        """
        client, tokens = self._open()
        token = tokens.current(until)
        if isinstance(token, NoToken):
            return _without_token(token)
        reply = self._send(client, request, token, until)
        if not _is_unauthorized(reply) or time.monotonic() < self._final_until:
            return reply
        token = tokens.renew(token, until)
        if isinstance(token, NoToken):
            return _without_token(token)
        reply = self._send(client, request, token, until)
        self._note_renewed(reply)
        return reply

    def _note_renewed(self, reply: Reply | NoReply) -> None:
        """Note whether the service accepted a new token, or how long a 401 is final."""
        with self._lock():
            now = time.monotonic()
            if isinstance(reply, Reply) and not _is_unauthorized(reply):
                self._next_final = _FIRST_FINAL
            elif isinstance(reply, Reply) and now >= self._final_until:
                self._final_until = now + self._next_final
                self._next_final = min(2 * self._next_final, _LONGEST_FINAL)

    def close(self) -> None:
        """Close the connections. Later requests raise ClientClosed."""
        with self._lock():
            self._closed = True
            if self._opened and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None

    def require_open(self) -> None:
        """Raise ClientClosed if the client is closed."""
        if self._closed:
            raise ClientClosed(_CLOSED)

    def _open(self) -> tuple[httpx2.Client, TokenSource]:
        """Return the HTTP client and the tokens of this process."""
        opened = self._opened
        if opened and opened[0] == os.getpid():
            return opened[1], opened[2]
        with self._lock():
            self.require_open()
            if self._opened is None or self._opened[0] != os.getpid():
                client = self._new_client(self._url)
                if not self._transport:
                    # This only checks the network settings: TokenSource opens its own client.
                    self._new_client(self._settings.token_url).close()
                tokens = TokenSource(self._settings, self._transport)
                self._opened = (os.getpid(), client, tokens)
            return self._opened[1], self._opened[2]

    def _new_client(self, url: str) -> httpx2.Client:
        try:
            return httpx2.Client(**network.options(url, self._transport))
        except (ValueError, ImportError, OSError, httpx2.InvalidURL) as error:
            # Environment variables can name a proxy or a file of certificates that cannot be used.
            detail = f"The network settings of this machine are not valid: {_text(error)}"
            raise SettingsMissing(detail) from error

    def _lock(self) -> threading.Lock:
        """Return the lock of this process. When a process is forked, its locks may be held."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _send(
        self, client: httpx2.Client, request: Request, token: Token, until: float
    ) -> Reply | NoReply:
        if until - time.monotonic() < _SHORTEST_REQUEST:
            return NoReply("Too little time is left for a request.", sent=False)
        self.require_open()  # another thread can close it while this one waits for a token
        try:
            with client.stream(
                request.method,
                self._url + request.path,
                params=list(request.query) or None,
                content=request.body,
                headers=list(request.headers),
                auth=BearerAuth(token),
                timeout=network.timeout(until),
            ) as response:
                body = bytearray()
                for part in response.iter_bytes():
                    if body and time.monotonic() >= until:
                        return NoReply("The answer was too slow.", sent=True)
                    body += part
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return NoReply(f"The service could not be reached: {_text(error)}.", sent=False)
        except httpx2.RequestError as error:
            return NoReply(f"The answer was lost: {_text(error)}.", sent=True)
        except RuntimeError:  # httpx2's error for a client that another thread has closed
            if not client.is_closed:
                raise
            return NoReply(_CLOSED, sent=True)
        return Reply(response.status_code, response.headers, _document(body))


def _is_unauthorized(reply: Reply | NoReply) -> bool:
    return isinstance(reply, Reply) and reply.status == _UNAUTHORIZED


def _without_token(token: NoToken) -> Reply | NoReply:
    if token.denied:
        problem = {"type": "urn:tally:problem:unauthorized", "detail": token.reason}
        return Reply(_UNAUTHORIZED, {}, problem)
    return NoReply(token.reason, sent=False)


def _document(body: bytes | bytearray) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or too deeply nested
        return None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
