"""Formats the results of a benchmark as Markdown: sections, tables and charts."""

import datetime as dt
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Section:
    """A section of docs/benchmarks.md.

    Attributes:
        title: the heading.
        command: the command that measures only this section.
        text: the content, as Markdown.
    """

    title: str
    command: str
    text: str

    def markdown(self) -> str:
        """Return the section as it stands in docs/benchmarks.md."""
        return f"## {self.title}\n\n`{self.command}`\n\n{self.text.strip()}\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table. The first column is aligned left, and all others right."""
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (columns, rule, *rows))


def cents(dollars: float) -> str:
    """Return an amount with two decimal places. Half a cent is rounded up."""
    return f"{dollars + 1e-9:.2f}"


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """Return a bar chart in Mermaid.

    Args:
        title: the heading of the chart.
        unit: the unit of the values.
        values: the height of each bar, by the name of the bar.
    """
    names = ", ".join(f'"{name}"' for name in values)
    heights = ", ".join(f"{value:.4g}" for value in values.values())
    return _chart(title, f"x-axis [{names}]", unit, f"bar [{heights}]")


def lines(
    title: str, unit: str, across: Sequence[object], series: Sequence[Sequence[float]]
) -> str:
    """Return a line chart in Mermaid.

    Args:
        title: the heading of the chart.
        unit: the unit of the values.
        across: the labels of the horizontal axis.
        series: the lines. Each one has a value for every label.
    """
    steps = ", ".join(f'"{step}"' for step in across)
    drawn = (f"line [{', '.join(f'{value:.4g}' for value in values)}]" for values in series)
    return _chart(title, f"x-axis [{steps}]", unit, *drawn)


def median(values: Sequence[float]) -> float:
    """Return the median. For an even number of values, it is the mean of the two middle ones."""
    return statistics.median(values)


def machine() -> str:
    """Return the date, the machine and the versions of a run, as one line of Markdown."""
    packages = ("botocore", "boto3", "aws-lambda-powertools", "awslambdaric", "ministack")
    parts = [
        f"{dt.datetime.now(dt.UTC).date()}",
        f"{_processor()}, {os.cpu_count()} cores, shared",
        f"{platform.system()} {platform.machine()}",
        f"CPython {platform.python_version()}",
        *(f"{name} {version(name)}" for name in packages),
    ]
    return "; ".join(parts)


def _chart(title: str, axis: str, unit: str, *drawn: str) -> str:
    body = "\n".join(f"  {line}" for line in (f'title "{title}"', axis, f'y-axis "{unit}"', *drawn))
    return f"```mermaid\nxychart-beta\n{body}\n```"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
