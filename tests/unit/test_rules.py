import contextlib
import datetime as dt
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counters import model, rules
from counters.errors import InvalidRequestError
from counters.model import MAX_INTEGER, MIN_INTEGER, Bounds, Increment

FIRST = string.ascii_letters + string.digits
REST = FIRST + "._:-"
counter_ids = st.builds(str.__add__, st.sampled_from(FIRST), st.text(REST, max_size=127))
in_range = st.integers(MIN_INTEGER, MAX_INTEGER)
out_of_range = st.integers(min_value=MAX_INTEGER + 1) | st.integers(max_value=MIN_INTEGER - 1)
not_integers = (
    st.none() | st.booleans() | st.floats() | st.text() | st.lists(in_range) | st.binary()
)


@given(counter_ids)
def test_a_name_of_the_right_characters_is_valid(counter_id: str) -> None:
    assert rules.counter_id(counter_id) == counter_id
    assert rules.prefix(counter_id) == counter_id


@given(st.text())
def test_a_valid_name_has_only_safe_characters(text: str) -> None:
    try:
        rules.counter_id(text)
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
def test_one_wrong_character_makes_a_name_invalid(
    counter_id: str, wrong: str, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(counter_id)))
    invalid = counter_id[:position] + wrong + counter_id[position:]

    with pytest.raises(InvalidRequestError, match=r"^counter_id: "):
        rules.counter_id(invalid)
    with pytest.raises(InvalidRequestError, match=r"^prefix: "):
        rules.prefix(invalid)


def test_a_name_has_from_1_to_128_characters() -> None:
    assert rules.counter_id("a" * 128)
    for counter_id in ("", "a" * 129):
        with pytest.raises(InvalidRequestError, match=r"^counter_id: "):
            rules.counter_id(counter_id)


@pytest.mark.parametrize("first", "._:-")
def test_a_name_cannot_begin_with_punctuation(first: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^counter_id: "):
        rules.counter_id(f"{first}a")


@given(counter_ids, st.integers(0, 128))
def test_every_beginning_of_a_name_is_a_valid_prefix(counter_id: str, length: int) -> None:
    assert rules.prefix(counter_id[:length]) == counter_id[:length]


@given(in_range)
def test_an_integer_in_range_is_accepted(value: int) -> None:
    assert rules.integer("value", value) == value


@pytest.mark.parametrize("limit", [MAX_INTEGER, MIN_INTEGER])
def test_the_limits_are_in_range(limit: int) -> None:
    assert abs(limit) == 2**53 - 1
    assert rules.integer("value", limit) == limit


@pytest.mark.parametrize("value", [MAX_INTEGER + 1, MIN_INTEGER - 1])
def test_an_integer_just_past_a_limit_is_out_of_range(value: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"^value: must be from "):
        rules.integer("value", value)


@given(out_of_range)
def test_an_integer_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"^value: must be from "):
        rules.integer("value", value)


@given(not_integers)
def test_anything_but_an_integer_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"^value: must be an integer$"):
        rules.integer("value", value)


@given(in_range)
def test_a_json_reader_with_only_doubles_reads_every_integer_exactly(value: int) -> None:
    assert json.loads(json.dumps(value), parse_int=float) == value


@given(in_range.filter(bool))
def test_a_counter_can_be_incremented_by_any_integer_in_range(by: int) -> None:
    assert rules.increment("orders", {"by": by}) == Increment("orders", by, Bounds())


def test_a_counter_cannot_be_incremented_by_0() -> None:
    with pytest.raises(InvalidRequestError, match=r"^by: must not be 0$"):
        rules.increment("orders", {"by": 0})


@given(out_of_range | not_integers)
def test_anything_but_an_integer_in_range_is_refused_as_by(by: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"^by: "):
        rules.increment("orders", {"by": by})


@given(st.text())
def test_only_asc_and_desc_are_orders(text: str) -> None:
    assert (rules.order("asc"), rules.order("desc")) == ("asc", "desc")
    if text not in {"asc", "desc"}:
        with pytest.raises(InvalidRequestError, match=r"^order: "):
            rules.order(text)


# --- Times (RFC 3339, section 5.6) ---------------------------------------------------------------

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MINUTES_OF_DAY = 24 * 60

# Times in seconds since the epoch. Each differs by at least a day from the first and the last time
# that Tally accepts.
moments = st.integers(MINUTES_OF_DAY * 60, 253_402_128_000)
offsets = st.integers(-MINUTES_OF_DAY + 1, MINUTES_OF_DAY - 1)
offsets_written = st.sampled_from(["Z", "z", "-00:00", "+00:00"]).map(lambda z: (0, z)) | (
    offsets.map(
        lambda minutes: (
            minutes,
            f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}",
        )
    )
)
fractions = st.just("") | st.text(string.digits, min_size=1, max_size=12).map(".{}".format)


@given(moments, offsets_written, fractions, st.sampled_from("Tt"))
def test_every_rfc_3339_time_is_read_exactly(
    moment: int, offset: tuple[int, str], fraction: str, separator: str
) -> None:
    minutes, written = offset
    time = EPOCH + dt.timedelta(seconds=moment)
    local = (time + dt.timedelta(minutes=minutes)).strftime("%Y-%m-%d %H:%M:%S")
    text = f"{local.zfill(19).replace(' ', separator)}{fraction}{written}"

    seconds = rules.time("at", text)

    microseconds = int(fraction[1:7].ljust(6, "0") or 0)
    exact = (time - EPOCH) + dt.timedelta(microseconds=microseconds)
    assert seconds == exact.total_seconds()


@given(
    st.integers(0, 9999),
    *(st.integers(0, 99) for _ in range(7)),
    st.sampled_from("Z+-"),
)
def test_a_time_out_of_range_is_refused(  # noqa: PLR0913, PLR0917  the parts of a time
    year: int,
    month: int,
    day: int,
    hour: int,
    minute: int,
    second: int,
    offset_hour: int,
    offset_minute: int,
    sign: str,
) -> None:
    offset = sign if sign == "Z" else f"{sign}{offset_hour:02}:{offset_minute:02}"
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{offset}"
    shift = dt.timedelta(hours=offset_hour, minutes=offset_minute)
    seconds = -1.0
    if sign == "Z" or (offset_hour < 24 and offset_minute < 60):
        with contextlib.suppress(ValueError):
            local = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
            seconds = (local - EPOCH + {"Z": 0, "+": -1, "-": 1}[sign] * shift).total_seconds()

    if 0 <= seconds < 253_402_300_800:
        assert rules.time("at", text) == seconds
    elif second != 60:
        with pytest.raises(InvalidRequestError, match=r"^at: must be an RFC 3339 time "):
            rules.time("at", text)


@pytest.mark.parametrize(
    "text",
    [
        "1990-12-31T23:59:60Z",
        "1969-12-31T23:59:61Z",
        "9999-12-31T23:59:59-00:01",
        "0001-01-01T00:00:00+00:01",
        "2026-11-22T24:00:00Z",
        "2026-11-22T10:00:00+00:60",
        "2026-11-22T10:00:00-24:00",
        "٢٠٢٦-11-22T10:00:00Z",
        "2026-11-22T10:00:00Z\n",
    ],
)
def test_a_text_that_is_almost_an_rfc_3339_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^at: must be an RFC 3339 time "):
        rules.time("at", text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:30:00-01:00", 1800),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799.999),
        ("9999-12-31T23:59:59+23:59", 253_402_214_459),
        ("1970-01-01T00:00:01.0000019999Z", 1.000001),
    ],
)
def test_the_first_and_the_last_time_are_accepted(text: str, seconds: float) -> None:
    assert rules.time("at", text) == seconds


@given(st.text() | st.text("0123456789-+:.TZtz ", min_size=18, max_size=30))
def test_any_text_is_a_time_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert 0 <= rules.time("at", text) < 253_402_300_800


@given(
    st.sampled_from(["minute", "hour", "day"]),
    st.integers(0, 2**33) | st.none(),
    st.integers(0, 2**33) | st.none(),
    st.integers(1, 2**33),
)
def test_a_window_has_whole_intervals_up_to_the_current_one_at_most(
    text: str, start: int | None, end: int | None, now: int
) -> None:
    interval = rules.interval(text)
    step = model.SECONDS[interval]
    if start is not None and end is not None and start >= end:
        return
    try:
        window = rules.window(interval, rules.period(start, end), now)
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
