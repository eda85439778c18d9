"""Checks of arguments. If one is not valid, InvalidRequest is raised, and no request is sent."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import NoReturn, TypeGuard, TypeVar, get_args

from tally_client.errors import InvalidRequest
from tally_client.model import MAX_INTEGER, Length

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_KEY = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]{0,254}")


def name(counter_id: object, argument: str = "counter_id") -> str:
    """Return a counter's name.

    Args:
        counter_id: the name.
        argument: the name of the argument, for the error.

    Raises:
        InvalidRequest: the name is not valid. In a path, it could lead to another route.
    """
    if not isinstance(counter_id, str) or not _NAME.fullmatch(counter_id):
        refuse(argument, f"must match {_NAME.pattern}")
    return counter_id


def key(value: object) -> str:
    """Return an idempotency key.

    Raises:
        InvalidRequest: the key is not valid. The client sends keys without quotes, so a key must
            not begin with a quotation mark.
    """
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        refuse("key", "must be 1 to 255 visible ASCII characters, and not begin with a quote")
    return value


def text(argument: str, value: object) -> str:
    """Return a string.

    Args:
        argument: the name of the argument, for the error.
        value: its value.

    Raises:
        InvalidRequest: the value is not a string, or UTF-8 cannot encode it. If an argument of a
            command is not UTF-8, Python makes such a string of it.
    """
    if not is_utf8(value):
        refuse(argument, "must be a string that UTF-8 can encode")
    return value


def integer(argument: str, value: object, lowest: int = -MAX_INTEGER) -> int:
    """Return an integer.

    Args:
        argument: the name of the argument, for the error.
        value: its value.
        lowest: the lowest valid value. The highest one is MAX_INTEGER.

    Raises:
        InvalidRequest: the value is not an integer, or is out of range. True and 1.0 are not valid.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= MAX_INTEGER:
        refuse(argument, f"must be an integer from {lowest} to {MAX_INTEGER}")
    return int(value)


def amount(by: object) -> int:
    """Return the number that an increment adds.

    Raises:
        InvalidRequest: it is not an integer, is out of range, or is 0.
    """
    found = integer("by", by)
    if not found:
        refuse("by", "must not be 0")
    return found


def time(argument: str, value: object) -> str:
    """Return a time as an RFC 3339 string. A string is returned as it is: the service checks it.

    Args:
        argument: the name of the argument, for the error.
        value: its value.

    Raises:
        InvalidRequest: the value is neither a string nor a `datetime`, has no offset from UTC, or
            is out of range in UTC.
    """
    if isinstance(value, str):
        return text(argument, value)
    if not isinstance(value, dt.datetime) or value.utcoffset() is None:
        detail = "must be a string, or a datetime with an offset, such as datetime.now(UTC)"
        refuse(argument, detail)
    try:
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        refuse(argument, "is before the year 1 or after the year 9999 in UTC")


def length(interval: object) -> str:
    """Return the length of an interval of the trend.

    Raises:
        InvalidRequest: there is no such length.
    """
    known = get_args(Length)
    if interval not in known:
        refuse("interval", f"must be one of {', '.join(known)}")
    return str(interval)


def several(argument: str, values: Iterable[T]) -> list[T]:
    """Return the items of an iterable.

    Args:
        argument: the name of the argument, for the error.
        values: the iterable.

    Raises:
        InvalidRequest: it is not iterable, or is a string.
    """
    if not has_items(values):
        refuse(argument, "must be a list, or another iterable that is not a string")
    return list(values)


def instance(argument: str, value: object, kind: type[T]) -> T:
    """Return an instance of a class.

    Args:
        argument: the name of the argument, for the error.
        value: its value.
        kind: the class.

    Raises:
        InvalidRequest: the value is of another type.
    """
    if not isinstance(value, kind):
        refuse(argument, f"each item must be of the type {kind.__name__}")
    return value


def has_items(values: object) -> TypeGuard[Iterable[object]]:
    """Return whether a value is iterable, and is not a string, whose items are characters."""
    return isinstance(values, Iterable) and not isinstance(values, str)


def is_utf8(value: object) -> TypeGuard[str]:
    """Return whether a value is a string that UTF-8 can encode.

    No exception leaves this function: it would carry the string, which can be a secret.
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse(argument: str, rule: str) -> NoReturn:
    """Refuse an argument.

    Args:
        argument: its name.
        rule: the rule that it breaks.

    Raises:
        InvalidRequest: always.
    """
    detail = f"{argument}: {rule}"
    raise InvalidRequest(detail, kind="invalid-request")
