"""Builds requests and checks answers: the paths, bodies and headers in docs/api.md."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote

from tally_client import checks, model
from tally_client.exchange import Reply, Request
from tally_client.model import Increment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tally_client.model import ChangedCounter, Counter

MOST_NAMES = 100  # in one request to GET /counters?id=…

# The maximum length of the names in a URL, percent-encoded, in characters. API Gateway accepts URLs
# of 10,240 characters.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
_LONGEST_NAMES = 9_000

_JSON = ("Content-Type", "application/json")


def new_key() -> str:
    """Return a new idempotency key."""
    return str(uuid.uuid4())


def path_of(counter_id: str) -> str:
    """Return the path of a counter.

    Raises:
        InvalidRequest: the name is not valid.
    """
    return f"/counters/{quote(checks.name(counter_id), safe='')}"


def get(counter_id: str, query: Mapping[str, str], unless_version: int | None = None) -> Request:
    """Return a request for a counter.

    Args:
        counter_id: the name.
        query: the query parameters.
        unless_version: the answer is 304 if the counter has this version.
    """
    headers = () if unless_version is None else (("If-None-Match", f'"{unless_version}"'),)
    return Request("GET", path_of(counter_id), tuple(query.items()), headers=headers)


def groups(counter_ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield the names in groups that fit into one request of `get_many`."""
    group: list[str] = []
    length = 0
    for name in counter_ids:
        added = len("&id=") + len(quote(checks.name(name), safe=""))
        if len(group) == MOST_NAMES or length + added > _LONGEST_NAMES:
            yield group
            group, length = [], 0
        group.append(name)
        length += added
    if group:
        yield group


def get_many(counter_ids: Sequence[str]) -> Request:
    """Return a request for at most 100 counters; no two names may be the same."""
    names = tuple(("id", checks.name(each)) for each in counter_ids)
    return Request("GET", "/counters", names)


def increment(one: Increment, key: str) -> Request:
    """Return a request that adds to one counter."""
    fields = _fields(one)
    path = path_of(str(fields.pop("counter_id")))
    return Request("POST", path, body=_json(fields), headers=_with_key(key))


def increment_all(increments: Sequence[Increment], key: str) -> Request:
    """Return a request that adds to several counters, all or none."""
    body = {"increments": [_fields(each) for each in increments]}
    return Request("POST", "/increments", body=_json(body), headers=_with_key(key))


def set_value(counter_id: str, value: int, if_version: int | None) -> Request:
    """Return a request that sets a counter, if it has the version `if_version`."""
    body = _json({"value": checks.integer("value", value)})
    headers = [_JSON]
    if if_version is not None:
        version = checks.integer("if_version", if_version, lowest=0)
        # Version 0 is a counter that has never changed.
        headers.append(("If-Match", f'"{version}"') if version else ("If-None-Match", "*"))
    return Request("PUT", path_of(counter_id), body=body, headers=tuple(headers))


def counter_of(counter_id: str) -> Callable[[Reply], Counter]:
    """Return a function that converts an answer with this counter."""

    def parse(reply: Reply) -> Counter:
        counter = model.counter(reply.document)
        _same([counter_id], [counter])
        return counter

    return parse


def counters_of(counter_ids: Sequence[str]) -> Callable[[Reply], list[Counter]]:
    """Return a function that converts an answer with these counters, in this order."""

    def parse(reply: Reply) -> list[Counter]:
        counters = [model.counter(each) for each in model.items(reply.document)]
        _same(counter_ids, counters)
        return counters

    return parse


def changed_counters_of(increments: Sequence[Increment]) -> Callable[[Reply], list[ChangedCounter]]:
    """Return a function that converts the answer to `increment_all`."""

    def parse(reply: Reply) -> list[ChangedCounter]:
        counters = [model.changed_counter(each) for each in model.items(reply.document)]
        _same([each.counter_id for each in increments], counters)
        return counters

    return parse


def _fields(increment: Increment) -> dict[str, object]:
    """Return an increment as a member of the body of `POST /increments`.

    Raises:
        InvalidRequest: it is not an Increment, or a part of it is not valid.
    """
    one = checks.instance("increments", increment, Increment)
    bounds = (("min", one.min), ("max", one.max))
    return {
        "counter_id": checks.name(one.counter_id),
        "by": checks.amount(one.by),
        **{name: checks.integer(name, bound) for name, bound in bounds if bound is not None},
    }


def _same(counter_ids: Sequence[str], counters: Sequence[ChangedCounter]) -> None:
    """Check that an answer has these counters, in this order. Raises ValueError if it has not."""
    if list(counter_ids) != [each.counter_id for each in counters]:
        detail = "the answer has other counters than the request"
        raise ValueError(detail)


def _with_key(key: str) -> tuple[tuple[str, str], ...]:
    return (("Idempotency-Key", checks.key(key)), _JSON)


def _json(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
