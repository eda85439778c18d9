"""Checks of arguments. If one is not valid, InvalidRequest is raised, and no request is sent."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn, TypeGuard, TypeVar, get_args

from tally_client.errors import InvalidRequest
from tally_client.model import MAX_INTEGER, Increment, Length

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_KEY = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]{0,254}")


def name(counter_id: object) -> str:
    """Return a counter's name.

    Raises:
        InvalidRequest: the name is not valid. In a path, it could lead to another route.
    """
    if not isinstance(counter_id, str) or not _NAME.fullmatch(counter_id):
        _refuse("counter_id", f"must match {_NAME.pattern}")
    return counter_id


def key(value: object) -> str:
    """Return an idempotency key.

    Raises:
        InvalidRequest: the key is not valid. The client sends keys without quotes, so a key must
            not begin with a quotation mark.
    """
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        _refuse("key", "must be 1 to 255 visible ASCII characters, and not begin with a quote")
    return value


def text(argument: str, value: object) -> str:
    """Return a text.

    Args:
        argument: the name of the argument, for the error.
        value: its value.

    Raises:
        InvalidRequest: the value is not a text, or cannot be sent as UTF-8. An argument of a
            command that is not UTF-8 becomes such a text.
    """
    if not is_utf8(value):
        _refuse(argument, "must be a text that can be sent as UTF-8")
    return value


def integer(argument: str, value: object, lowest: int = -MAX_INTEGER) -> int:
    """Return an integer.

    Args:
        argument: the name of the argument, for the error.
        value: its value.
        lowest: the lowest valid value. The highest one is MAX_INTEGER.

    Raises:
        InvalidRequest: the value is not an integer, or is out of range. True and 1.0 are no
            integers.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= MAX_INTEGER:
        _refuse(argument, f"must be an integer from {lowest} to {MAX_INTEGER}")
    return int(value)


def amount(by: object) -> int:
    """Return the number that an increment adds.

    Raises:
        InvalidRequest: it is not an integer, is out of range, or is 0.
    """
    found = integer("by", by)
    if not found:
        _refuse("by", "must not be 0")
    return found


def time(argument: str, value: object) -> str:
    """Return a time as RFC 3339 text. A text is returned as it is.

    Args:
        argument: the name of the argument, for the error.
        value: its value.

    Raises:
        InvalidRequest: the value is no text and no `datetime`, has no offset from UTC, or is out of
            range in UTC.
    """
    if isinstance(value, str):
        return text(argument, value)
    if not isinstance(value, dt.datetime) or value.utcoffset() is None:
        detail = "must be a text, or a datetime with an offset from UTC, such as datetime.now(UTC)"
        _refuse(argument, detail)
    try:
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        _refuse(argument, "is before the year 1 or after the year 9999 in UTC")


def length(interval: object) -> str:
    """Return the length of an interval of the trend.

    Raises:
        InvalidRequest: there is no such length.
    """
    known = get_args(Length)
    if interval not in known:
        _refuse("interval", f"must be one of {', '.join(known)}")
    return str(interval)


def several(argument: str, values: Iterable[T]) -> list[T]:
    """Return the items of an iterable.

    Args:
        argument: the name of the argument, for the error.
        values: the iterable.

    Raises:
        InvalidRequest: it is not iterable, or is a text, whose items are letters.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        _refuse(argument, "must be a list, or another iterable that is not a text")
    return list(values)


def fields(increment: object) -> dict[str, object]:
    """Return an increment as a member of the body of `POST /increments`.

    Raises:
        InvalidRequest: it is no Increment, or a part of it is not valid.
    """
    if not isinstance(increment, Increment):
        _refuse("increments", "each item must be an Increment")
    bounds: Mapping[str, object] = {"min": increment.min, "max": increment.max}
    return {
        "counter_id": name(increment.counter_id),
        "by": amount(increment.by),
        **{each: integer(each, value) for each, value in bounds.items() if value is not None},
    }


def is_utf8(value: object) -> TypeGuard[str]:
    """Return whether a value is a text that can be sent as UTF-8.

    No exception leaves this function: it would carry the text, which can be a secret.
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(argument: str, rule: str) -> NoReturn:
    detail = f"{argument}: {rule}"
    raise InvalidRequest(detail, kind="invalid-request")
