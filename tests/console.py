"""Reads the console examples on the pages: each command, and the output that the page shows."""

import re
from dataclasses import dataclass

from tests.aws_template import ROOT

_PROMPT = "$ "
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A command and its output, as a page shows them."""

    command: str
    output: str

    def __str__(self) -> str:
        """Return the text of the example, as it would be on the page."""
        return f"{_PROMPT}{self.command}\n" + (f"{self.output}\n\n" if self.output else "")


def examples(page: str) -> list[Example]:
    """Return the examples on a page, in order.

    Args:
        page: the path of the page in the repository.
    """
    found = []
    for block in _BLOCK.findall((ROOT / page).read_text()):
        for text in f"\n{block}".split(f"\n{_PROMPT}")[1:]:
            command, _, output = text.partition("\n")
            found.append(Example(command, output.strip("\n")))
    return found
