"""Reads OperationsDashboard, the CloudWatch dashboard of the template.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.aws_template import TEMPLATE

_TEXT, VARIABLES = TEMPLATE["Resources"]["OperationsDashboard"]["Properties"]["DashboardBody"][
    "Fn::Sub"
]


@dataclass(frozen=True)
class Metric:
    """A metric. The values of its dimensions are as in `Fn::Sub`: `${CounterTable}`."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Widget:
    """A part of the screen. The attributes are as in the dashboard's JSON."""

    x: int
    y: int
    width: int
    height: int
    type: str
    properties: Mapping[str, Any]

    def cells(self) -> set[tuple[int, int]]:
        """Return the units of the screen that the widget covers."""
        columns = range(self.x, self.x + self.width)
        return {(x, y) for x in columns for y in range(self.y, self.y + self.height)}

    def metrics(self) -> set[Metric]:
        """Return the metrics of a graph. Expressions of them are left out."""
        return set(_metrics(self.properties.get("metrics", [])))

    def alarms(self) -> set[str]:
        """Return the alarms whose state or graph the widget shows."""
        annotations = self.properties.get("annotations", {})
        arns = self.properties.get("alarms", []) + annotations.get("alarms", [])
        return {arn.removeprefix("${").removesuffix(".Arn}") for arn in arns}

    def thresholds(self) -> dict[str, float]:
        """Return the values of the graph's lines, by the alarms that they name."""
        lines = self.properties.get("annotations", {}).get("horizontal", [])
        return {alarm: line["value"] for line in lines for alarm in line["label"].split(", ")}


def _metrics(entries: list[list[Any]]) -> Iterator[Metric]:
    """Expand the short forms: `.` repeats one item of the metric before, and `...` repeats many."""
    previous: list[str] = []
    for entry in entries:
        items = [item for item in entry if isinstance(item, str)]
        if not items:
            continue  # an expression
        if items[0] == "...":
            items = previous[: len(previous) - len(items) + 1] + items[1:]
        items = [previous[at] if item == "." else item for at, item in enumerate(items)]
        names, values = items[2::2], items[3::2]
        yield Metric(items[0], items[1], tuple(sorted(zip(names, values, strict=True))))
        previous = items


BODY = json.loads(_TEXT)
WIDGETS = [Widget(**widget) for widget in BODY["widgets"]]
