"""Reads tables of docs/, so that tests can compare them with the template and the code."""

import re

from tests.aws_template import ROOT


def read(document: str) -> str:
    """Return the text of a page in docs/."""
    return (ROOT / "docs" / document).read_text()


def table(text: str, heading: str) -> list[list[str]]:
    """Return the cells of each row of the first table whose first column has this heading."""
    lines = text.partition(f"\n| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table, except the first cell.

    The keys are the names in backticks in the first cell. If that cell has several names, the row
    is there under each name.
    """
    return {
        name: row[1:] for row in table(text, heading) for name in re.findall(r"`(.+?)`", row[0])
    }
