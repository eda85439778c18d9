"""Arguments of the command: times and names."""

from __future__ import annotations

import datetime as dt
import itertools
import re

import typer

from tally_client.errors import TallyError
from tally_client.tally import Tally

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_COMPLETIONS = 50
_COMPLETION_DEADLINE = 2.0  # seconds; a person waits for it


def time(text: str) -> dt.datetime:
    """Convert a time that a person typed: an RFC 3339 time, or a duration such as `2h`.

    Returns:
        The time in UTC; for a duration, the moment that long ago.

    Raises:
        typer.BadParameter: the text is neither. Typer adds the name of the option.
    """
    try:
        if ago := _AGO.fullmatch(text):
            return dt.datetime.now(dt.UTC) - dt.timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = dt.datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # OverflowError: the time is before the year 1, or too late
        pass
    detail = "give a time such as 2026-11-22T10:00:00Z, or 90s, 15m, 2h or 7d for that long ago"
    raise typer.BadParameter(detail)


def names(incomplete: str) -> list[str]:
    """Return names of counters for shell completion. Return none if the service does not answer."""
    try:
        with Tally.from_env(deadline=_COMPLETION_DEADLINE) as tally:
            return list(itertools.islice(tally.names(incomplete), _COMPLETIONS))
    except TallyError:
        return []
