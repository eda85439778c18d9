"""Requests that get a 400. For each request, the answer must name a certain field."""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tests.component.bad_bodies import (
    BAD_FIELDS,
    BAD_INCREMENTS,
    DUPLICATES,
    GOOD,
    LONG_ID,
    NOT_INTEGERS,
    NOT_OBJECTS,
    NOT_UTF_8,
)
from tests.routes import ROUTES, takes_any_query

from counters.model import MAX_INTEGER


class BadRequest(NamedTuple):
    """A request that must get a 400.

    Attributes:
        field: the name of the bad field. The `detail` of the answer must begin with this name.
        carried: whether HTTP clients and gateways pass the request on unchanged.
    """

    id: str
    method: str
    path: str
    field: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    carried: bool = True


# Invalid counter ids, encoded as in the path of a URL.
INVALID_IDS = {
    "dash-first": "-a",
    "underscore-first": "_a",
    "colon-first": ":a",
    "dot-first": ".a",
    "space": "a%20b",
    "plus": "a+b",
    "at": "a@b",
    "comma": "a,b",
    "tilde": "a~b",
    "trailing-newline": "a%0A",
    "tab": "a%09b",
    "accent": "caf%C3%A9",
    "full-width": "%EF%BC%A1",
    "arabic-digit": "%D9%A3",
    "too-long": LONG_ID,
    "much-too-long": "a" * 2000,
}
# Invalid counter ids that gateways change or refuse.
INVALID_IDS_INTERPRETED = {
    "slash": "a%2Fb",
    "backslash": "a%5Cb",
    "dots": "%2E%2E",
    "nul": "a%00",
    "not-utf-8": "a%FF",
    "encoded-twice": "a%252Fb",
    "bare-percent": "a%",
    "not-hexadecimal": "a%zz",
    "question-mark": "a%3Fb",
    "hash": "a%23b",
}

INVALID_LIMITS = {
    "zero": "0",
    "negative": "-1",
    "too-great": "1001",
    "huge": "9" * 5000,
    "text": "ten",
    "float": "1.5",
    "exponent": "1e2",
    "nan": "NaN",
    "empty": "",
    "space": "%201",
    "plus": "%2B1",
    "underscore": "1_0",
    "hexadecimal": "0x10",
    "arabic-digit": "%D9%A3",
    "superscript": "%C2%B2",
}

MORNING, NOON = "2026-11-22T10:00:00Z", "2026-11-22T12:00:00Z"

INVALID_TIMES = {
    "empty": "",
    "word": "now",
    "number": "1795341600",
    "date": "2026-11-22",
    "no-offset": "2026-11-22T10:00:00",
    "bare-plus": "2026-11-22T10:00:00+01:00",
    "basic": "20261122T100000Z",
    "week": "2026-W47-7T10:00:00Z",
    "space": "2026-11-22%2010:00:00Z",
    "no-day": "2026-02-30T10:00:00Z",
    "no-hour": "2026-11-22T25:00:00Z",
    "hour-24": "2026-11-22T24:00:00Z",
    "no-minute": "2026-11-22T10:60:00Z",
    "no-second": "2026-11-22T10:00:61Z",
    "no-leap-second": "2026-11-22T23:59:60Z",
    "impossible-offset": "2026-11-22T10:00:00%2B25:00",
    "offset-of-60-minutes": "2026-11-22T10:00:00%2B00:60",
    "offset-of-24-hours": "2026-11-22T10:00:00-24:00",
    "offset-without-minutes": "2026-11-22T10:00:00%2B01",
    "offset-without-colon": "2026-11-22T10:00:00-0100",
    "offset-with-seconds": "2026-11-22T10:00:00-01:00:00",
    "no-seconds": "2026-11-22T10:00Z",
    "before-1970": "1969-12-31T23:59:59Z",
    "before-1970-by-its-offset": "1970-01-01T00:59:59%2B01:00",
    "year-0": "0000-01-01T00:00:00Z",
    "no-fraction": "2026-11-22T10:00:00.Z",
    "comma": "2026-11-22T10:00:00,5Z",
    "space-before": "%202026-11-22T10:00:00Z",
    "space-after": "2026-11-22T10:00:00Z%20",
    "newline-after": "2026-11-22T10:00:00Z%0A",
    "year-10000": "9999-12-31T23:59:59-01:00",
    "other-digits": "٢٠٢٦-11-22T10:00:00Z",
}

BAD_QUERIES = [
    ("counter-unknown-empty", "GET", "/counter", "pretty", "pretty="),
    ("version-negative", "GET", "/counter", "version", "version=-1"),
    ("version-text", "GET", "/counters/orders", "version", "version=x"),
    ("version-float", "GET", "/counter", "version", "version=1.0"),
    ("version-empty", "GET", "/counter", "version", "version="),
    ("version-too-great", "GET", "/counter", "version", f"version={MAX_INTEGER + 1}"),
    ("version-twice", "GET", "/counter", "version", "version=1&version=1"),
    ("version-to-post", "POST", "/counter", "version", "version=1"),
    ("at-and-version", "GET", "/counter", "at", "version=1&at=2026-11-22T10:00:00Z"),
    ("at-to-put", "PUT", "/counter", "at", "at=2026-11-22T10:00:00Z"),
    ("at-the-future", "GET", "/counter", "at", "at=9000-01-01T00:00:00Z"),
    ("history-at", "GET", "/counter/history", "at", "at=2026-11-22T10:00:00Z"),
    ("counter-limit", "GET", "/counters/orders", "limit", "limit=1"),
    ("by-in-query", "POST", "/counter", "by", "by=2"),
    ("value-in-query", "PUT", "/counters/orders", "value", "value=2"),
    ("wrong-case", "GET", "/counters", "Limit", "Limit=1"),
    ("brackets", "GET", "/counters", "limit[]", "limit%5B%5D=1"),
    ("limit-twice", "GET", "/counters", "limit", "limit=1&limit=2"),
    ("prefix-twice", "GET", "/counters", "prefix", "prefix=a&prefix=a"),
    ("counters-order", "GET", "/counters", "order", "order=asc"),
    ("prefix-dash-first", "GET", "/counters", "prefix", "prefix=-a"),
    ("prefix-slash", "GET", "/counters", "prefix", "prefix=a%2F"),
    ("prefix-newline", "GET", "/counters", "prefix", "prefix=a%0A"),
    ("prefix-wildcard", "GET", "/counters", "prefix", "prefix=a*"),
    ("prefix-too-long", "GET", "/counters", "prefix", f"prefix={LONG_ID}"),
    ("after-not-a-name", "GET", "/counters", "after", "after=-x"),
    ("after-space", "GET", "/counters", "after", "after=a%20b"),
    ("after-too-long", "GET", "/counters", "after", f"after={LONG_ID}"),
    ("history-prefix", "GET", "/counter/history", "prefix", "prefix=a"),
    ("from-after-to", "GET", "/counter/history", "from", f"from={NOON}&to={MORNING}"),
    ("from-is-to", "GET", "/counter/history", "from", f"from={NOON}&to={NOON}"),
    ("counters-from", "GET", "/counters", "from", f"from={NOON}"),
    ("trend-limit", "GET", "/counter/trend", "limit", "limit=1"),
    ("trend-from-after-to", "GET", "/counter/trend", "from", f"from={NOON}&to={MORNING}"),
    ("trend-from-the-future", "GET", "/counter/trend", "from", "from=9000-01-01T00:00:00Z"),
    ("trend-to-1970", "GET", "/counter/trend", "to", "to=1970-01-01T00:00:00Z"),
    ("trend-to-1970-days", "GET", "/counter/trend", "to", "interval=day&to=1970-01-01T00:00:00Z"),
    (
        "trend-in-the-future",
        "GET",
        "/counter/trend",
        "from",
        "from=9000-01-01T00:00:00Z&to=9000-01-02T00:00:00Z",
    ),
    ("trend-twice", "GET", "/counter/trend", "interval", "interval=hour&interval=hour"),
    ("expected-minutes", "GET", "/counter/trend", "expected", "expected=true&interval=minute"),
    ("expected-empty", "GET", "/counter/trend", "expected", "expected="),
    ("expected-case", "GET", "/counters/orders/trend", "expected", "expected=True"),
    ("expected-twice", "GET", "/counter/trend", "expected", "expected=true&expected=true"),
    ("history-expected", "GET", "/counter/history", "expected", "expected=true"),
    ("interval-week", "GET", "/counter/trend", "interval", "interval=week"),
    ("interval-empty", "GET", "/counter/trend", "interval", "interval="),
    ("interval-case", "GET", "/counters/orders/trend", "interval", "interval=Hour"),
    (
        "trend-1001-hours",
        "GET",
        "/counter/trend",
        "from",
        "from=2026-01-01T00:00:00Z&to=2026-02-11T17:00:00Z",
    ),
    (
        "trend-1001-days",
        "GET",
        "/counter/trend",
        "from",
        "interval=day&from=2020-01-01T00:00:00Z&to=2022-09-28T00:00:00Z",
    ),
    (
        "trend-181-minutes",
        "GET",
        "/counter/trend",
        "from",
        "interval=minute&from=2026-01-01T09:59:59Z&to=2026-01-01T13:00:00Z",
    ),
    ("order-upper-case", "GET", "/counter/history", "order", "order=ASC"),
    ("order-word", "GET", "/counter/history", "order", "order=newest"),
    ("order-empty", "GET", "/counter/history", "order", "order="),
    ("order-twice", "GET", "/counter/history", "order", "order=asc&order=desc"),
    ("after-negative", "GET", "/counter/history", "after", "after=-1"),
    ("after-float", "GET", "/counter/history", "after", "after=1.0"),
    ("after-text", "GET", "/counter/history", "after", "after=abc"),
    ("after-empty", "GET", "/counter/history", "after", "after="),
    ("after-too-great", "GET", "/counter/history", "after", f"after={MAX_INTEGER + 1}"),
    ("public-version", "GET", "/public/orders", "version", "version=1"),
    ("public-label", "GET", "/public/orders", "label", "label=a"),
    ("label-empty", "GET", "/public/orders/badge.svg", "label", "label="),
    ("label-too-long", "GET", "/public/orders/badge.svg", "label", f"label={'a' * 65}"),
    ("label-newline", "GET", "/public/orders/badge.svg", "label", "label=a%0Ab"),
    ("label-nul", "GET", "/public/orders/badge.svg", "label", "label=%00"),
    ("label-c1", "GET", "/public/orders/badge.svg", "label", "label=%C2%85"),
    ("label-not-xml", "GET", "/public/orders/badge.svg", "label", "label=%EF%BF%BF"),
    ("color-empty", "GET", "/public/orders/badge.svg", "color", "color="),
    ("color-hash", "GET", "/public/orders/badge.svg", "color", "color=%23ff0000"),
    ("color-four-digits", "GET", "/public/orders/badge.svg", "color", "color=ff00"),
    ("color-not-hex", "GET", "/public/orders/badge.svg", "color", "color=ggg"),
    ("color-unknown", "GET", "/public/orders/badge.svg", "color", "color=tomato"),
    ("color-upper-case", "GET", "/public/orders/badge.svg", "color", "color=RED"),
    ("color-newline", "GET", "/public/orders/badge.svg", "color", "color=fff%0A"),
]

SUNDAY = "Sun, 22 Nov 2026 10:00:00 GMT"

BAD_HEADERS = [
    # The route does not support this header.
    ("PUT", "Idempotency-Key", "k"),
    ("GET", "idempotency-key", "k"),
    ("POST", "If-Match", '"7"'),
    ("POST", "If-None-Match", "*"),
    ("GET", "If-Match", '"7"'),
    # The route supports this header, but the value is malformed.
    ("POST", "Idempotency-Key", ""),
    ("POST", "Idempotency-Key", '""'),
    ("POST", "Idempotency-Key", '"k'),
    ("POST", "Idempotency-Key", 'k" l'),
    ("POST", "Idempotency-Key", "two words"),
    ("POST", "Idempotency-Key", "k" * 256),
    ("PUT", "If-Match", "7"),
    ("PUT", "If-Match", 'W/"7"'),
    ("PUT", "If-Match", '"7", W/"8"'),
    ("PUT", "If-Match", '"7", *'),
    ("PUT", "If-Match", '"7,8"'),
    ("PUT", "If-Match", ", ,"),
    ("PUT", "If-Match", ", ".join(f'"{version}"' for version in range(101))),
    ("PUT", "If-Match", '"07"'),
    ("PUT", "If-Match", '"-1"'),
    ("PUT", "If-None-Match", '"7"'),
    ("GET", "If-None-Match", "7"),
    ("GET", "If-None-Match", '"7" "8"'),
    ("GET", "If-None-Match", ","),
    # If the route ignored the header, the caller would get a result that it did not ask for.
    ("GET", "If-Modified-Since", SUNDAY),
    ("GET", "If-Unmodified-Since", SUNDAY),
    ("POST", "If-Unmodified-Since", SUNDAY),
    ("PUT", "If-Unmodified-Since", SUNDAY),
    ("PUT", "if-unmodified-since", "yesterday"),
    ("GET", "Range", "bytes=0-1"),
]


def _every_route() -> Iterator[BadRequest]:
    """Yield bad requests for every route of the template: one for each kind of mistake."""
    for function, route in ROUTES:
        path = route.path.replace("{counter_id}", "orders")
        name = f"{route.method}-{path}"
        if not takes_any_query(function):
            yield BadRequest(f"unknown-parameter-{name}", route.method, path, "pretty", "pretty=1")
        if route.method == "GET":
            yield BadRequest(f"body-to-{name}", "GET", path, "body", body=b"{}")
        else:
            body = b'{"unknown": 1}'
            yield BadRequest(f"unknown-field-{name}", route.method, path, "unknown", body=body)
        if "{counter_id}" in route.path:
            path = route.path.replace("{counter_id}", LONG_ID)
            yield BadRequest(f"long-id-{name}", route.method, path, "counter_id")


def _bodies() -> Iterator[BadRequest]:
    for name, number in NOT_INTEGERS.items():
        by = f'{{"by": {number}}}'.encode()
        value = f'{{"value": {number}}}'.encode()
        yield BadRequest(f"by-{name}", "POST", "/counter", "by", body=by)
        yield BadRequest(f"value-{name}", "PUT", "/counters/orders", "value", body=value)
    yield BadRequest("by-zero", "POST", "/counters/orders", "by", body=b'{"by": 0}')
    yield BadRequest("by-negative-zero", "POST", "/counter", "by", body=b'{"by": -0}')
    yield BadRequest("value-missing", "PUT", "/counter", "value", body=b"{}")
    yield BadRequest("no-body", "PUT", "/counter", "value")
    for name, body in NOT_OBJECTS.items():
        yield BadRequest(f"body-{name}", "POST", "/counter", "body", body=body)
    for name, body in NOT_UTF_8.items():
        yield BadRequest(f"body-{name}", "PUT", "/counter", "body", body=body, carried=False)
    for name, (field, fields) in BAD_FIELDS.items():
        body = json.dumps(fields).encode()
        yield BadRequest(f"field-{name}", "POST", "/counter", field, body=body)
    yield BadRequest("value-to-post", "POST", "/counter", "value", body=b'{"value": 1}')
    yield BadRequest("by-to-put", "PUT", "/counter", "by", body=b'{"value": 1, "by": 1}')
    for name, body in DUPLICATES.items():
        yield BadRequest(f"field-{name}", "POST", "/counter", "by", body=body)
    for name, (field, increments) in BAD_INCREMENTS.items():
        body = json.dumps({"increments": increments}).encode()
        yield BadRequest(f"increments-{name}", "POST", "/increments", field, body=body)
    yield BadRequest("increments-missing", "POST", "/increments", "increments")
    alone = json.dumps(GOOD).encode()
    yield BadRequest("increments-alone", "POST", "/increments", "counter_id", body=alone)
    again = b'{"increments": [{"counter_id": "a", "by": 1, "by": 2}]}'
    yield BadRequest("increments-by-twice", "POST", "/increments", "by", body=again)


def _ids() -> Iterator[BadRequest]:
    for name, counter_id in INVALID_IDS.items():
        yield BadRequest(f"id-{name}", "POST", f"/counters/{counter_id}", "counter_id")
    for name, counter_id in INVALID_IDS_INTERPRETED.items():
        path = f"/counters/{counter_id}"
        yield BadRequest(f"id-{name}", "POST", path, "counter_id", carried=False)


def _parameters() -> Iterator[BadRequest]:
    for name, limit in INVALID_LIMITS.items():
        query = f"limit={limit}"
        yield BadRequest(f"limit-{name}", "GET", "/counters", "limit", query)
        yield BadRequest(f"history-limit-{name}", "GET", "/counter/history", "limit", query)
    for name, time in INVALID_TIMES.items():
        yield BadRequest(f"at-{name}", "GET", "/counters/orders", "at", f"at={time}")
        yield BadRequest(f"from-{name}", "GET", "/counter/history", "from", f"from={time}")
        yield BadRequest(f"to-{name}", "GET", "/counter/trend", "to", f"to={time}")
    for name, method, path, field, query in BAD_QUERIES:
        yield BadRequest(f"query-{name}", method, path, field, query)
    for number, (method, header, value) in enumerate(BAD_HEADERS):
        name = f"header-{method}-{header}-{number}"
        # A PUT needs a `value`. If `value` was missing, the error would name it instead of the
        # header.
        body = b'{"value": 1}' if method == "PUT" else b""
        headers = {header: value}
        yield BadRequest(name, method, "/counters/orders", header, headers=headers, body=body)


BAD_REQUESTS = [*_every_route(), *_bodies(), *_ids(), *_parameters()]
