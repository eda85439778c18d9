"""An argument that is not valid raises InvalidRequest, and no request is sent."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.client.fake_service import FakeService

from tally_client import Increment, InvalidRequest, Tally

# Each list has only values that the argument must not have. `Any` keeps the type checker silent.
NOT_UTF8 = "\udcff"
NAMES: list[Any] = [None, 5, True, b"a", ["a"], {}, NOT_UTF8, ""]
KEYS: list[Any] = [5, True, b"k", ["k"], NOT_UTF8, ""]
INTEGERS: list[Any] = [True, 1.0, float("nan"), "1", b"1", [1], 2**53, -(2**53), 10**5000]
AMOUNTS: list[Any] = [*INTEGERS, None, 0]
COUNTS: list[Any] = [*INTEGERS, -1, False]
TEXTS: list[Any] = [None, 5, True, b"a", ["a"], NOT_UTF8]
LISTS: list[Any] = [None, 5, "orders", b"a"]
TIMES: list[Any] = [
    5,
    True,
    b"2026-11-22T10:00:00Z",
    dt.date(2026, 11, 22),
    dt.datetime(2026, 11, 22),  # noqa: DTZ001  it must not be accepted
    dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
    NOT_UTF8,
]
INTERVALS: list[Any] = [None, 5, "week", ["hour"], b"hour", NOT_UTF8]

Call = Callable[[Tally, Any], object]

CALLS: dict[str, tuple[Call, list[Any]]] = {
    "get": (lambda tally, value: tally.get(value), NAMES),
    "get version": (lambda tally, value: tally.get("a", version=value), COUNTS),
    "get at": (lambda tally, value: tally.get("a", at=value), TIMES),
    "get_if_changed": (lambda tally, value: tally.get_if_changed(value, 1), NAMES),
    "get_if_changed version": (
        lambda tally, value: tally.get_if_changed("a", value),
        [*COUNTS, None],
    ),
    "get_many": (lambda tally, value: tally.get_many(value), LISTS),
    "get_many item": (lambda tally, value: tally.get_many(["a", value]), NAMES),
    "increment": (lambda tally, value: tally.increment(value), NAMES),
    "increment by": (lambda tally, value: tally.increment("a", value), AMOUNTS),
    "increment min": (lambda tally, value: tally.increment("a", min=value), INTEGERS),
    "increment max": (lambda tally, value: tally.increment("a", max=value), INTEGERS),
    "increment key": (lambda tally, value: tally.increment("a", key=value), KEYS),
    "increment_all": (lambda tally, value: tally.increment_all(value), LISTS),
    "increment_all item": (
        lambda tally, value: tally.increment_all([value]),
        [*NAMES, "a", ("a", 1)],
    ),
    "increment_all name": (lambda tally, value: tally.increment_all([Increment(value)]), NAMES),
    "increment_all by": (
        lambda tally, value: tally.increment_all([Increment("a", value)]),
        AMOUNTS,
    ),
    "increment_all key": (
        lambda tally, value: tally.increment_all([Increment("a")], key=value),
        KEYS,
    ),
    "set": (lambda tally, value: tally.set(value, 1), NAMES),
    "set value": (lambda tally, value: tally.set("a", value), [*INTEGERS, None]),
    "set if_version": (lambda tally, value: tally.set("a", 1, if_version=value), COUNTS),
    "names": (lambda tally, value: tally.names(value), TEXTS),
    "counters": (lambda tally, value: tally.counters(value), TEXTS),
    "history": (lambda tally, value: tally.history(value), NAMES),
    "history since": (lambda tally, value: tally.history("a", since=value), TIMES),
    "history until": (lambda tally, value: tally.history("a", until=value), TIMES),
    "history after": (lambda tally, value: tally.history("a", after=value), COUNTS),
    "history limit": (lambda tally, value: tally.history("a", limit=value), COUNTS),
    "trend": (lambda tally, value: tally.trend(value), NAMES),
    "trend interval": (lambda tally, value: tally.trend("a", value), INTERVALS),
    "trend since": (lambda tally, value: tally.trend("a", since=value), TIMES),
    "trend until": (lambda tally, value: tally.trend("a", until=value), TIMES),
    "buffer increment": (lambda tally, value: tally.buffer().increment(value), NAMES),
    "buffer increment by": (lambda tally, value: tally.buffer().increment("a", value), AMOUNTS),
}


@pytest.mark.parametrize(
    ("call", "value"),
    [
        pytest.param(call, value, id=f"{name} {number}")
        for name, (call, values) in CALLS.items()
        for number, value in enumerate(values)
    ],
)
def test_an_argument_of_another_type_or_out_of_range_is_an_invalid_request(
    service: FakeService,
    call: Call,
    value: Any,  # noqa: ANN401
) -> None:
    with (
        service.client() as tally,
        pytest.raises(InvalidRequest, match=r"^\w+: ") as caught,
    ):
        call(tally, value)
    assert (caught.value.status, caught.value.kind) == (400, "invalid-request")
    assert service.seen == []


def test_the_limits_of_the_arguments_are_valid(service: FakeService) -> None:
    largest = 2**53 - 1
    with service.client() as tally:
        assert tally.increment("a", largest, min=-largest, max=largest).value == largest
        assert tally.increment("a", -largest).value == 0
        assert tally.set("a", -largest, if_version=2).value == -largest
        assert tally.get("a", version=0).version == 3
        assert len(list(tally.history("a", limit=largest, after=0))) == 3
        assert list(tally.history("a", limit=0)) == []
        assert tally.get_many(iter(["a"])) == [tally.get("a")]
        assert list(tally.names("ä")) == []


def test_a_buffer_checks_a_name_that_it_has_a_sum_of(service: FakeService) -> None:
    with service.client() as tally, tally.buffer(interval=60) as counts:
        counts.increment("a")
        unhashable: Any = ["a"]
        with pytest.raises(InvalidRequest):
            counts.increment(unhashable)
        counts.increment("a")
    assert service.by_operation("a") == {2: 1}
