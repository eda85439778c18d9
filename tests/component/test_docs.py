"""The documents name what the template has, and nothing that it has not."""

import re
from pathlib import Path

import pytest
from tests import aws_template, sam_transform
from tests.aws_template import ROOT, TEMPLATE

ALARMS = sam_transform.resources("AWS::CloudWatch::Alarm")
CENTS_A_METRIC = 10  # of an alarm, a month: https://aws.amazon.com/cloudwatch/pricing/


def rows(document: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the table under a heading row, by the names in their first cells."""
    text = (ROOT / document).read_text()
    table = text.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]
    return {name: row[1:] for row in cells for name in re.findall(r"`(\w+)`", row[0])}


def test_every_parameter_is_documented_with_its_default() -> None:
    documented = rows("docs/deploying.md", "parameter")

    assert {name: default.strip("`") for name, (default, _) in documented.items()} == {
        name: aws_template.parameter(name) for name in TEMPLATE["Parameters"]
    }


def test_every_alarm_is_documented() -> None:
    assert rows("docs/operations.md", "alarm").keys() == ALARMS.keys()


def test_every_metric_is_documented() -> None:
    code = "".join(path.read_text() for path in (ROOT / "functions").rglob("*.py"))
    published = set(
        re.findall(r'"((?:Entries|Records|Counters|Events|Audit|History)[A-Z]\w+)":', code)
    )

    assert "AuditFindings" in published
    assert rows("docs/operations.md", "metric").keys() == published


@pytest.mark.parametrize(
    "document", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name
)
def test_a_document_links_to_what_is_there(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_price_of_the_alarms_is_the_price_of_their_metrics() -> None:
    # An alarm on an expression costs as much as one alarm for each metric in it.
    metrics = sum(
        sum("MetricStat" in each for each in alarm["Properties"].get("Metrics", [])) or 1
        for alarm in ALARMS.values()
    )
    text = (ROOT / "docs" / "cost.md").read_text()
    price = metrics * CENTS_A_METRIC / 100

    assert f"| {metrics} metrics that the alarms watch | {price:.2f} |" in text
