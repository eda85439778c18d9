"""The docs describe every route, parameter, metric and module that exists, and no others."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from tests import aws_template, sam_transform
from tests.aws_template import ROOT, TEMPLATE
from tests.documents import read, rows, table
from tests.e2e.runbook import SECTIONS, commands

from deployment import Stack

README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

ALARMS = sam_transform.resources("AWS::CloudWatch::Alarm")
# The price of an alarm per month, for each metric that the alarm watches:
# https://aws.amazon.com/cloudwatch/pricing/
CENTS_PER_METRIC = 10
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
WRITES_OF_A_NEW_TABLE = 4000  # a second


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub creates for the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> list[str]:
    """Return the targets of the links in a document. Omit links to other websites."""
    return re.findall(r"\]\((?![a-z]+:)([^)]+)\)", prose(document))


def test_every_parameter_is_documented_with_its_default() -> None:
    documented = rows(read("deploying.md"), "parameter")

    assert {name: default.strip("`") for name, (default, _) in documented.items()} == {
        name: aws_template.parameter(name) for name in TEMPLATE["Parameters"]
    }


def test_every_output_is_documented() -> None:
    assert rows(read("deploying.md"), "output").keys() == TEMPLATE["Outputs"].keys()


def test_every_section_that_the_rehearsal_follows_has_commands() -> None:
    for page, headings in SECTIONS.items():
        for heading in headings:
            assert commands(page, heading), (page, heading)


def test_every_metric_is_documented() -> None:
    code = "".join(path.read_text() for path in (ROOT / "functions").rglob("*.py"))
    published = set(
        re.findall(r'"((?:Entries|Records|Counters|Events|Audit|History|Internal)[A-Z]\w+)":', code)
    )

    assert "AuditFindings" in published
    assert rows(read("operations.md"), "metric").keys() == published


def test_every_member_of_stack_json_is_documented() -> None:
    assert rows(read("local-stack.md"), "member").keys() == {field.name for field in fields(Stack)}


def test_every_module_is_documented() -> None:
    shared = {path.name for path in (ROOT / "functions" / "counters").glob("[!_]*.py")}
    handlers = {function.module for function in aws_template.functions().values()}

    assert rows(read("architecture.md"), "module").keys() == shared
    assert rows(read("architecture.md"), "function").keys() == handlers


def test_the_documented_price_of_the_alarms_is_that_of_their_metrics() -> None:
    # If an alarm watches an expression of several metrics, AWS charges for each of these metrics.
    metrics = sum(
        sum("MetricStat" in each for each in alarm["Properties"].get("Metrics", [])) or 1
        for alarm in ALARMS.values()
    )
    price = metrics * CENTS_PER_METRIC / 100

    assert f"| {metrics} metrics that the alarms watch | {price:.2f} |" in read("cost.md")


def test_the_segments_of_an_audit_write_no_more_than_a_new_table_can_take() -> None:
    page = read("benchmarks.md")
    (milliseconds,) = re.findall(r"a changed counter takes (\d+) ms of an invocation", page)
    writes = 1000 / int(milliseconds)  # a second, in each segment

    assert writes > 20
    assert "Each segment writes over 20 items a second" in read("operations.md")
    most = TEMPLATE["Parameters"]["AuditSegments"]["MaxValue"]
    assert most * writes <= WRITES_OF_A_NEW_TABLE
    assert f"More than {most} segments are not allowed." in read("operations.md")


def test_the_readme_has_the_ratios_of_the_benchmarks() -> None:
    pages = {
        name: read("benchmarks.md").split(f"## {name}")[1] for name in ("Cold start", "Warm path")
    }
    rows = [re.search(r"\n\| Tally \|.*", page) for page in pages.values()]
    ratios = [ratio for row in rows if row for ratio in re.findall(r"\b(\d\.\d\d) \(", row[0])]
    cold, _, usual, bare = (f"{float(ratio):.0%}".replace("%", " %") for ratio in ratios)

    text = " ".join(README.read_text().split())
    assert f"answers its first request in {cold} of the time" in text
    assert f"takes {usual} of the CPU time that the usual stack needs, and {bare} of" in text


def test_the_requests_of_the_buffer_have_at_most_as_many_sums_as_there_are_increments() -> None:
    page = read("benchmarks.md").partition("\n## A million increments through a buffer\n")[2]
    cases = table(page, "a million increments")
    assert cases
    for name, counters, sums, requests, *_ in cases:
        assert int(sums) <= int(counters)
        # If a million cannot be divided evenly, some requests have one increment more than others.
        assert (int(sums) - 1) * int(requests.replace(",", "")) < 1_000_000, name


def test_the_documented_prices_of_settings_are_those_of_the_benchmarks() -> None:
    measured = {name: prices for name, *prices in table(read("benchmarks.md"), "settings")}

    for name, alone, among, _ in table(read("cost.md"), "setting"):
        same = name.replace(" %", "%").replace("up to one request a second", "all requests traced")
        assert alone == measured[same][0]
        assert among in {measured[same][1], ""}


def test_the_documented_prices_of_batches_are_those_of_the_benchmarks() -> None:
    documented = table(read("cost.md"), "changes in a batch")

    assert documented
    assert all(row in table(read("benchmarks.md"), "changes in a batch") for row in documented)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= 1500


def test_the_readme_links_to_every_page() -> None:
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}

    assert pages <= set(links(README))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_a_target(document: Path) -> None:
    for link in links(document):
        target, _, anchor = link.partition("#")
        page = document.parent / target if target else document
        assert page.exists(), link
        assert not anchor or anchor in anchors(page), link
