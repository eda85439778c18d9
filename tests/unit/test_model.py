import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counters import model
from counters.model import MAX_INTEGER, MIN_INTEGER, Bounds, Increment, InvalidRequestError

FIRST = string.ascii_letters + string.digits
REST = FIRST + "._:-"
counter_ids = st.builds(str.__add__, st.sampled_from(FIRST), st.text(REST, max_size=127))
in_range = st.integers(MIN_INTEGER, MAX_INTEGER)
out_of_range = st.integers(min_value=MAX_INTEGER + 1) | st.integers(max_value=MIN_INTEGER - 1)
no_integers = st.none() | st.booleans() | st.floats() | st.text() | st.lists(in_range) | st.binary()


@given(counter_ids)
def test_a_name_of_the_right_characters_is_a_counters(counter_id: str) -> None:
    assert model.counter_id(counter_id) == counter_id
    assert model.prefix(counter_id) == counter_id


@given(st.text())
def test_whatever_is_taken_as_a_name_is_safe_everywhere(text: str) -> None:
    try:
        model.counter_id(text)
    except InvalidRequestError:
        return
    assert 1 <= len(text) <= 128
    assert text[0] in FIRST
    assert set(text) <= set(REST)


@given(
    counter_ids,
    st.sampled_from(sorted(set(string.printable + "é\0\uff10\u0663") - set(REST))),
    st.data(),
)
def test_one_wrong_character_spoils_a_name(
    counter_id: str, wrong: str, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(counter_id)))
    spoilt = counter_id[:position] + wrong + counter_id[position:]

    with pytest.raises(InvalidRequestError, match=r"^counter_id: "):
        model.counter_id(spoilt)
    with pytest.raises(InvalidRequestError, match=r"^prefix: "):
        model.prefix(spoilt)


def test_a_name_has_from_1_to_128_characters() -> None:
    assert model.counter_id("a" * 128)
    for counter_id in ("", "a" * 129):
        with pytest.raises(InvalidRequestError, match=r"^counter_id: "):
            model.counter_id(counter_id)


@pytest.mark.parametrize("first", "._:-")
def test_punctuation_begins_no_name(first: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^counter_id: "):
        model.counter_id(f"{first}a")


@given(counter_ids, st.integers(0, 128))
def test_every_beginning_of_a_name_is_a_prefix(counter_id: str, length: int) -> None:
    assert model.prefix(counter_id[:length]) == counter_id[:length]


@given(in_range)
def test_an_integer_in_range_is_taken_as_it_is(value: int) -> None:
    assert model.integer("value", value) == value


@pytest.mark.parametrize("limit", [MAX_INTEGER, MIN_INTEGER])
def test_the_limits_are_in_range(limit: int) -> None:
    assert abs(limit) == 2**53 - 1
    assert model.integer("value", limit) == limit


@pytest.mark.parametrize("value", [MAX_INTEGER + 1, MIN_INTEGER - 1])
def test_one_past_a_limit_is_out_of_range(value: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"^value: must be from "):
        model.integer("value", value)


@given(out_of_range)
def test_an_integer_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"^value: must be from "):
        model.integer("value", value)


@given(no_integers)
def test_what_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"^value: must be an integer$"):
        model.integer("value", value)


@given(in_range)
def test_a_reader_that_knows_only_doubles_reads_every_integer_exactly(value: int) -> None:
    assert json.loads(json.dumps(value), parse_int=float) == value


@given(in_range.filter(bool))
def test_a_counter_can_be_incremented_by_any_integer_in_range(by: int) -> None:
    assert model.increment("orders", {"by": by}) == Increment("orders", by, Bounds())


def test_a_counter_cannot_be_incremented_by_0() -> None:
    with pytest.raises(InvalidRequestError, match=r"^by: must not be 0$"):
        model.increment("orders", {"by": 0})


@given(out_of_range | no_integers)
def test_what_is_no_integer_of_ours_is_no_increment(by: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"^by: "):
        model.increment("orders", {"by": by})


@given(st.text())
def test_there_are_two_orders(text: str) -> None:
    assert (model.order("asc"), model.order("desc")) == ("asc", "desc")
    if text not in {"asc", "desc"}:
        with pytest.raises(InvalidRequestError, match=r"^order: "):
            model.order(text)


@given(st.floats(0, 2**33), st.floats(0, 2**33))
def test_a_time_is_past_if_it_is_not_above_now(time: float, now: float) -> None:
    if time <= now:
        assert model.past("at", time, now) == time
    else:
        with pytest.raises(InvalidRequestError, match=r"^at: must not be in the future$"):
            model.past("at", time, now)


@given(
    st.sampled_from(["minute", "hour", "day"]),
    st.integers(0, 2**33) | st.none(),
    st.integers(0, 2**33) | st.none(),
    st.integers(1, 2**33),
)
def test_a_window_is_of_whole_intervals_and_never_of_the_future(
    text: str, start: int | None, end: int | None, now: int
) -> None:
    interval = model.interval(text)
    step = model.SECONDS[interval]
    if start is not None and end is not None and start >= end:
        return
    try:
        window = model.window(interval, model.period(start, end), now)
    except InvalidRequestError as error:
        field = str(error).partition(":")[0]
        assert field == ("to" if start is None and end == 0 else "from")
        return
    assert end != 0
    assert start is None or start <= now
    assert 0 <= window.start < window.end <= now // step * step + step
    assert window.start % step == window.end % step == 0
    last = now if end is None else min(now, end - 1)
    assert window.holds(last)
    assert start is None or window.start <= start < window.start + step
