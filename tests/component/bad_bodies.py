"""Bad bodies and fields, for the requests in bad_requests.py."""

import gzip

from counters.model import MAX_INTEGER, MIN_INTEGER

LONG_ID = "a" * 129

# JSON values that are not integers, and integers that are out of range. Python's JSON parser
# accepts some of these values as integers.
NOT_INTEGERS = {
    "null": "null",
    "true": "true",
    "false": "false",
    "string": '"1"',
    "empty-string": '""',
    "float": "1.5",
    "whole-float": "1.0",
    "exponent": "1e2",
    "infinite-float": "1e400",
    "negative-infinite-float": "-1e400",
    "tiny-float": "1e-400",
    "list": "[1]",
    "object": '{"by": 1}',
    "too-great": str(MAX_INTEGER + 1),
    "too-small": str(MIN_INTEGER - 1),
    "64-bit": str(2**63),
    "5000-digits": "9" * 5000,
    "5000-digits-negative": "-" + "9" * 5000,
}

# Bodies that are malformed JSON, too large, too deeply nested, or not a JSON object.
NOT_OBJECTS = {
    "nan": b'{"by": NaN}',
    "infinity": b'{"by": Infinity}',
    "negative-infinity": b'{"by": -Infinity}',
    "text": b"one",
    "form": b"by=1",
    "xml": b"<by>1</by>",
    "cut-off": b'{"by": 1',
    "missing-value": b'{"by": }',
    "trailing-comma": b'{"by": 1,}',
    "single-quotes": b"{'by': 1}",
    "no-quotes": b"{by: 1}",
    "comment": b'{"by": 1} // one',
    "two-objects": b'{"by": 1} {"by": 1}',
    "hexadecimal": b'{"by": 0x1}',
    "leading-zero": b'{"by": 01}',
    "plus": b'{"by": +1}',
    "control-character": b'{"by\n": 1}',
    "only-spaces": b"   ",
    "array": b'[{"by": 1}]',
    "number": b"1",
    "string": b'"by"',
    "null": b"null",
    "true": b"true",
    "byte-order-mark": b'\xef\xbb\xbf{"by": 1}',
    "utf-16": '{"by": 1}'.encode("utf-16-le"),
    "deep-arrays": b"[" * 30_000 + b"]" * 30_000,
    "deep-objects": b'{"by":' * 10_000 + b"1" + b"}" * 10_000,
    "deep-and-cut-off": b"[" * 60_000,
    "huge": b'{"by": 1}' + b" " * 65_536,
    "very-huge": b'{"by": "' + b"1" * 1_000_000 + b'"}',
}

# Bodies that are not UTF-8. Gateways differ in how they pass such bytes on.
NOT_UTF_8 = {
    "latin-1": b'{"\xe9": 1}',
    "utf-16-with-mark": '{"by": 1}'.encode("utf-16"),
    "gzip": gzip.compress(b'{"by": 1}', mtime=0),
}

# Bad bodies. Each entry has the field that the error must name, and the body.
BAD_FIELDS = {
    "unknown": ("amount", {"amount": 1}),
    "unknown-beside-known": ("note", {"by": 1, "note": "x"}),
    "wrong-case": ("By", {"By": 1}),
    "counter-id": ("counter_id", {"counter_id": "orders"}),
    "version": ("version", {"by": 1, "version": 1}),
    "min-null": ("min", {"by": 1, "min": None}),
    "max-float": ("max", {"by": 1, "max": 10.0}),
    "max-too-great": ("max", {"by": 1, "max": MAX_INTEGER + 1}),
    "min-above-max": ("min", {"by": 1, "min": 5, "max": 4}),
    "surrogate": ("\ud800", {"\ud800": 1}),
    "nul": ("\0", {"\0": 1}),
    "long": ("x" * 128, {"x" * 10_000: 1}),
}

DUPLICATES = {
    "twice": b'{"by": 1, "by": 1}',
    "twice-and-different": b'{"by": 1, "by": 2}',
    "twice-by-escape": b'{"by": 1, "\\u0062y": 2}',
    "twice-inside": b'{"by": {"by": 1, "by": 2}}',
}

GOOD = {"counter_id": "orders", "by": 1}

# Bad lists of increments. Each entry has the field that the error must name, and the list, which is
# the value of `increments`.
BAD_INCREMENTS: dict[str, tuple[str, object]] = {
    "null": ("increments", None),
    "object": ("increments", GOOD),
    "empty": ("increments", []),
    "101": ("increments", [{"counter_id": f"orders-{number}"} for number in range(101)]),
    "number": ("increments[0]", [1]),
    "list-inside": ("increments[1]", [GOOD, [GOOD]]),
    "no-counter-id": ("increments[0].counter_id", [{"by": 1}]),
    "counter-id-null": ("increments[0].counter_id", [{"counter_id": None}]),
    "counter-id-number": ("increments[0].counter_id", [{"counter_id": 7}]),
    "counter-id-dash-first": ("increments[1].counter_id", [GOOD, {"counter_id": "-a"}]),
    "counter-id-too-long": ("increments[1].counter_id", [GOOD, {"counter_id": LONG_ID}]),
    "twice": ("increments[2].counter_id", [GOOD, {"counter_id": "other"}, {**GOOD, "by": 2}]),
    "by-0": ("increments[3].by", [{"counter_id": f"{n}", "by": 3 - n} for n in range(4)]),
    "by-float": ("increments[0].by", [{**GOOD, "by": 1.5}]),
    "by-null": ("increments[0].by", [{**GOOD, "by": None}]),
    "min-true": ("increments[0].min", [{**GOOD, "min": True}]),
    "max-too-great": ("increments[0].max", [{**GOOD, "max": MAX_INTEGER + 1}]),
    "min-above-max": ("increments[0].min", [{**GOOD, "min": 5, "max": 4}]),
    "unknown": ("increments[1].value", [GOOD, {"counter_id": "other", "value": 1}]),
}
