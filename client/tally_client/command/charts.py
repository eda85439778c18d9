"""The chart of the trend: one bar for each interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tally_client.command.output import timestamp
from tally_client.command.streams import standard_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tally_client.model import Interval, Length

# How much of the start's timestamp an interval shows.
_SHOWN = {"minute": slice(11, 16), "hour": slice(0, 13), "day": slice(0, 10)}
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FULL = "█"


def show(intervals: Sequence[Interval], length: Length) -> None:
    """Print a bar for each interval: how much was added, and how much was subtracted.

    An interval that is unusual has a note with what was expected.

    The longest bar is as wide as the terminal allows.

    Raises:
        NotWritten: the bars could not be printed.
    """
    with standard_output() as target:
        _draw(intervals, length, Console(file=target, highlight=False))


def _draw(intervals: Sequence[Interval], length: Length, console: Console) -> None:
    labels = [timestamp(each.start)[_SHOWN[length]].replace("T", " ") for each in intervals]
    numbers = [_numbers(each) for each in intervals]
    number_width = max(map(len, numbers), default=0)
    notes = [_note(each) for each in intervals]
    others = sum(max(map(len, column), default=0) for column in (labels, numbers, notes))
    width = max(10, console.width - others - 3)
    largest = max((each.increase + each.decrease for each in intervals), default=0)
    for each, label, number, note in zip(intervals, labels, numbers, notes, strict=True):
        line = Text(f"{label} {number.rjust(number_width)} ")
        if largest:
            line.append(_bar(each.increase / largest * width), "green")
            line.append(_bar(each.decrease / largest * width), "red")
        line.append(note, "yellow")
        line.rstrip()
        console.print(line, soft_wrap=True)


def _numbers(interval: Interval) -> str:
    parts = [f"+{interval.increase}"] if interval.increase else []
    parts += [f"-{interval.decrease}"] if interval.decrease else []
    return " ".join(parts) or "0"


def _note(interval: Interval) -> str:
    if not interval.unusual or interval.expected is None:
        return ""
    return f" unusual: +{interval.expected.low} to +{interval.expected.high} expected"


def _bar(length: float) -> str:
    """Return a bar; `length` is in characters."""
    eighths = round(length * 8)
    if eighths == 0 and length > 0:
        eighths = 1
    whole, rest = divmod(eighths, 8)
    return _FULL * whole + _EIGHTHS[rest].strip()
