"""Reads the tables on the pages in docs/. Tests compare them with the template and the code."""

import re

from tests.aws_template import ROOT


def read(document: str) -> str:
    """Return the text of a page in docs/."""
    return (ROOT / "docs" / document).read_text()


def table_text(text: str, heading: str) -> str:
    """Return the lines of the first table whose first column has this heading."""
    _, start, rest = text.partition(f"\n| {heading} |")
    return start.lstrip() + rest.partition("\n\n")[0].rstrip("\n") + "\n"


def table(text: str, heading: str) -> list[list[str]]:
    """Find the first table whose first column has this heading. Return the cells of each row."""
    lines = text.partition(f"\n| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of a table, by the names in their first cells.

    A name is a text in backticks. If a first cell has several names, its row is returned under each
    name. The returned rows lack their first cells.
    """
    return {
        name: row[1:] for row in table(text, heading) for name in re.findall(r"`(.+?)`", row[0])
    }
