"""The client: one method for each request of the service."""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Self, TypeVar

from tally_client import building, checks, model, pages, retrying, settings
from tally_client.buffer import Buffer
from tally_client.errors import Unsent
from tally_client.exchange import Reply, Request, Service
from tally_client.model import ChangedCounter, Counter, Entry, Increment, Interval
from tally_client.set_value import set_value
from tally_client.settings import Secret, Settings

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    import httpx2

    from tally_client.model import Length
    from tally_client.reports import OnProblem

    Time = dt.datetime | str

T = TypeVar("T")

_LONGEST_DEADLINE = 3600.0  # seconds; a key is valid for at least 24 hours
_MOST_ENTRIES = 1000  # in one page


class Tally:
    """A client of the service. Threads may share it.

    Every method can raise TallyError. docs/client.md says what each error means. A method that
    changes counters raises one of three errors:

    - Refused: the service refused the change. Nothing was applied.
    - Unavailable: no attempt reached the service. Nothing was applied.
    - OutcomeUnknown: the change was applied once, or not at all. Its `key` resumes the call.

    A time is a `datetime` with an offset, or an RFC 3339 text.
    """

    def __init__(  # noqa: PLR0913  all are settings
        self,
        url: str,
        *,
        token_url: str,
        client_id: str,
        client_secret: str | Secret,
        scopes: Iterable[str] = (),
        deadline: float = 30.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Create a client. No request is sent yet.

        Args:
            url: the base URL of the API, with its stage.
            token_url: the URL of the token endpoint.
            client_id: the id of the app client.
            client_secret: the secret of the app client.
            scopes: the scopes to ask for; all that the app client may have if it is empty.
            deadline: how many seconds each call may take, 1 hour at most.
            transport: replaces the network; for tests.

        Raises:
            SettingsMissing: a setting is not valid.
            ValueError: the deadline is not valid.
        """
        if not isinstance(client_secret, Secret):  # a traceback can show arguments
            client_secret = Secret(client_secret)
        if not 0 < deadline <= _LONGEST_DEADLINE:
            detail = f"The deadline must be more than 0 and at most {_LONGEST_DEADLINE} seconds"
            raise ValueError(detail)
        found = Settings(url, token_url, client_id, client_secret, settings.several_scopes(scopes))
        self._service = Service(found, transport)
        self._deadline = deadline
        self._buffers: weakref.WeakSet[Buffer] = weakref.WeakSet()

    @classmethod
    def from_env(cls, *, deadline: float = 30.0) -> Self:
        """Create a client with the settings of the environment, else of `.local/stack.json`.

        The variables are TALLY_URL, TALLY_TOKEN_URL, TALLY_CLIENT_ID, TALLY_CLIENT_SECRET and, if
        wanted, TALLY_SCOPES. The file is searched in the current directory and its parents.

        Raises:
            SettingsMissing: there are no settings, or only some of them.
        """
        found = settings.find()
        return cls(
            found.url,
            token_url=found.token_url,
            client_id=found.client_id,
            client_secret=found.client_secret,
            scopes=found.scopes,
            deadline=deadline,
        )

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client, as `close` does."""
        self.close()

    def close(self) -> None:
        """Close the buffers of this client that are still open, and then the connections.

        Raises:
            Unsent: a buffer could not send everything.
        """
        unsent: list[Unsent] = []
        for buffer in [each for each in self._buffers if not each.ended]:
            try:
                buffer.close()
            except Unsent as error:
                unsent.append(error)
        self._service.close()
        if unsent:
            raise Unsent(
                [batch for error in unsent for batch in error.batches],
                [refusal for error in unsent for refusal in error.refused],
            )

    def get(
        self, counter_id: str, *, version: int | None = None, at: Time | None = None
    ) -> Counter:
        """Return a counter as it is now, or as it was at an earlier version or time."""
        query: dict[str, str] = {}
        if version is not None:
            query["version"] = str(checks.integer("version", version, lowest=0))
        if at is not None:
            query["at"] = checks.time("at", at)
        return self._read(building.get(counter_id, query), building.counter_of(counter_id))

    def get_if_changed(self, counter_id: str, version: int) -> Counter | None:
        """Return a counter; None if it still has this version."""
        known = checks.integer("version", version, lowest=0)
        convert = building.counter_of(counter_id)

        def parse(reply: Reply) -> Counter | None:
            return None if reply.document is None and reply.status == 304 else convert(reply)  # noqa: PLR2004

        return self._read(building.get(counter_id, {}, unless_version=known), parse)

    def get_many(self, counter_ids: Iterable[str]) -> list[Counter]:
        """Return counters by their names, in the order of the names. A name may be repeated.

        Each request reads up to 100 counters, or fewer if their names are long. The requests are
        made one after the other.
        """
        wanted = [checks.name(each) for each in checks.several("counter_ids", counter_ids)]
        found: dict[str, Counter] = {}
        for names in building.groups(dict.fromkeys(wanted)):
            counters = self._read(building.get_many(names), building.counters_of(names))
            found |= zip(names, counters, strict=True)
        return [found[name] for name in wanted]

    def increment(
        self,
        counter_id: str,
        by: int = 1,
        *,
        min: int | None = None,  # noqa: A002  the name of the field
        max: int | None = None,  # noqa: A002  the name of the field
        key: str | None = None,
    ) -> Counter:
        """Add to a counter, exactly once. Return the counter right after the addition.

        Args:
            counter_id: the name.
            by: the number to add; not 0. A negative number subtracts.
            min: the lowest value that the counter may have after the addition.
            max: the highest value that the counter may have after the addition.
            key: identifies the change, for example by the number of an order. If a call with the
                same key was made before, this call returns its result. A new key if it is None.

        Raises:
            BoundExceeded: the value would be below `min` or above `max`.
        """
        sent, how = _keyed(key)
        request = building.increment(Increment(counter_id, by, min, max), sent)
        return self._change(request, building.counter_of(counter_id), how)

    def increment_all(
        self, increments: Iterable[Increment], *, key: str | None = None
    ) -> list[ChangedCounter]:
        """Add to up to 100 counters, exactly once: all or none.

        Args:
            increments: what to add. No two increments may be of the same counter.
            key: as for `increment`.

        Returns:
            The counters right after the additions, in the order of the increments. The `value` and
            `version` of a counter can be None: the change was applied, but the service could not
            find out the value in time. A later call with the same key returns it.

        Raises:
            BoundExceeded: a value would be outside its bounds. No counter was changed.
        """
        (sent, how), wanted = _keyed(key), checks.several("increments", increments)
        request = building.increment_all(wanted, sent)
        return self._change(request, building.changed_counters_of(wanted), how)

    def set(self, counter_id: str, value: int, *, if_version: int | None = None) -> Counter:
        """Set a counter. Return the counter right after that.

        The service takes no idempotency key for this change. If an answer is lost, the call is
        repeated only with `if_version`, because the repeat cannot be applied twice then.

        Args:
            counter_id: the name.
            value: the new value.
            if_version: set the counter only if it has this version. Version 0 is a counter that has
                never changed.

        Raises:
            VersionMismatch: the counter has another version.
            OutcomeUnknown: an answer was lost. Without `if_version`, look at the counter. With
                `if_version`, somebody may also have set the same value at the same time.
        """
        return set_value(self._service, counter_id, value, if_version, self._deadline)

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the counters that begin with `prefix`, in ASCII order."""
        query = {"prefix": checks.text("prefix", prefix), "limit": str(_MOST_ENTRIES)}
        return self._items("/counters", query, model.name)

    def counters(self, prefix: str = "") -> Iterator[Counter]:
        """Yield the counters whose names begin with `prefix`, in the ASCII order of the names."""
        wanted = checks.text("prefix", prefix)
        query = {"values": "true", "prefix": wanted, "limit": str(building.MOST_NAMES)}
        return self._items("/counters", query, model.counter)

    def history(  # noqa: PLR0913  the parameters of the request
        self,
        counter_id: str,
        *,
        since: Time | None = None,
        until: Time | None = None,
        after: int | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Entry]:
        """Yield the changes of a counter. The next page is fetched when it is needed.

        Args:
            counter_id: the name.
            since: only changes at or after this time.
            until: only changes before this time.
            after: a version: begin with the version that follows it in the chosen order.
            newest_first: the order.
            limit: the maximum number of entries; None for all.

        Raises:
            TallyError: while the entries are read. The entries so far are right, but not all.
        """
        most = None if limit is None else checks.integer("limit", limit, lowest=0)
        size = _MOST_ENTRIES if most is None else min(most, _MOST_ENTRIES)
        query = {"order": "desc" if newest_first else "asc", "limit": str(size)}
        if since is not None:
            query["from"] = checks.time("since", since)
        if until is not None:
            query["to"] = checks.time("until", until)
        if after is not None:
            query["after"] = str(checks.integer("after", after, lowest=0))
        entries = self._items(f"{building.path_of(counter_id)}/history", query, model.entry)
        return itertools.islice(entries, most)

    def trend(
        self,
        counter_id: str,
        interval: Length = "hour",
        *,
        since: Time | None = None,
        until: Time | None = None,
        expected: bool = False,
    ) -> list[Interval]:
        """Return the sums of a counter's changes by minute, hour or day, the oldest first.

        Args:
            counter_id: the name.
            interval: the length of an interval, in UTC.
            since: begin with the interval that contains this time; None for 60 minutes, 24 hours or
                30 days before `until`.
            until: end with the last interval that begins before this time; None for now.
            expected: whether each hour or day also has the range in which its increase was
                expected, and whether it is unusual. Minutes cannot have this.
        """
        query: dict[str, str] = {"interval": checks.length(interval)}
        if since is not None:
            query["from"] = checks.time("since", since)
        if until is not None:
            query["to"] = checks.time("until", until)
        if expected:
            query["expected"] = "true"
        request = Request("GET", f"{building.path_of(counter_id)}/trend", tuple(query.items()))
        return self._read(
            request, lambda reply: [model.interval(each) for each in model.items(reply.document)]
        )

    def buffer(
        self,
        *,
        interval: float = 1.0,
        size: int = 1_000,
        capacity: int = 10_000,
        on_problem: OnProblem | None = None,
    ) -> Buffer:
        """Return a buffer that sums increments and sends them together.

        The arguments are those of Buffer. Use the buffer in a `with` block, or close it.

        Raises:
            RuntimeError: the client is closed.
        """
        self._service.require_open()
        buffer = Buffer(
            self._service,
            interval=interval,
            size=size,
            capacity=capacity,
            deadline=self._deadline,
            on_problem=on_problem,
        )
        self._buffers.add(buffer)
        return buffer

    def _read(self, request: Request, parse: Callable[[Reply], T]) -> T:
        return retrying.read(self._service, request, parse, self._deadline)

    def _change(self, request: Request, parse: Callable[[Reply], T], how: retrying.Change) -> T:
        return retrying.change(self._service, request, parse, how, self._deadline)

    def _items(
        self, path: str, query: dict[str, str], convert: Callable[[object], T]
    ) -> Iterator[T]:
        return pages.items(self._service, path, query, convert, self._deadline)


def _keyed(key: str | None) -> tuple[str, retrying.Change]:
    """Return the key to send, which is new if `key` is None, and how to retry the change."""
    sent = building.new_key() if key is None else checks.key(key)
    return sent, retrying.Change(sent, new_key=key is None)
