"""The tests that run two versions use the last release."""

import re

from tests import released
from tests.aws_template import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def releases(changelog: str) -> list[str]:
    """Return the numbers of all releases, the newest first."""
    return re.findall(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)


def test_the_release_that_tests_use_is_the_newest_in_the_changelog() -> None:
    unreleased = CHANGELOG.partition("## [Unreleased]\n")[2].partition("\n## ")[0].strip()
    # The tag of a release has no entries under Unreleased. It cannot name itself yet.
    newest = releases(CHANGELOG)[: 1 if unreleased else 2]

    assert released.RELEASE[0] in newest


def test_the_commit_of_the_release_has_its_number() -> None:
    assert releases(released.changelog())[0] == released.RELEASE[0]
