"""Settings for all tests: Python's garbage collector, hypothesis and xdist."""

import gc
from collections.abc import Generator
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tests.sizes import examples
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# moto and botocore keep hundreds of thousands of objects, and create many more for each request.
# With Python's default thresholds, the garbage collector takes a quarter of the CPU time.
gc.set_threshold(50_000, 20, 20)

# The settings of the property tests that have none of their own.
settings.register_profile("tally", examples(full=100, part=40))
settings.load_profile("tally")

# A group has all tests whose path begins with one of its entries. If entries of several groups
# match, the first group counts. A group shares a slow fixture, such as an emulator. So xdist runs a
# group in one process. Most tests that need a stack are three groups of about equal length.
GROUPS = {
    "restart": ("tests/e2e/test_restart.py",),
    "chaos": ("tests/e2e/test_chaos.py",),
    "rehearsal": ("tests/e2e/test_rehearsal.py",),
    # The examples come first: they need a stack without counters, and making another takes long.
    "client": (
        "tests/e2e/test_console",
        "tests/e2e/test_queue",  # waits for most of a minute
        "tests/e2e/test_client",
        "tests/e2e/test_concurrency",
        "tests/e2e/test_contract",
        "tests/e2e/test_cost",
        "tests/e2e/test_counting",
        "tests/e2e/test_first_steps",
        "tests/e2e/test_read_many",
        "tests/e2e/test_two",
    ),
    "dashboard": (
        "tests/browser/test_dashboard.py",
        "tests/browser/test_dashboard_list.py",
        "tests/browser/test_dashboard_rights.py",
        "tests/browser/test_dashboard_states.py",
        "tests/e2e/test_issue_token.py",
        "tests/e2e/test_sign_in.py",
    ),
    "e2e": ("tests/e2e/", "tests/browser/"),
}

# The order in which tests start. A test has the place of the longest entry with which its path
# begins. Tests that often wait start early, the groups first. Meanwhile, other processes run tests
# that do not wait. Such tests also come last, so that all processes end at about the same time.
ORDER = (
    *GROUPS["e2e"],  # makes the build and the stack that the other groups need
    *GROUPS["chaos"],
    # These do not need the build. They are enough for the other processes until it is made.
    "tests/component/test_connection.py",  # waits for 20 s
    "tests/component/test_a",
    "tests/unit/test_anomalies.py",
    *GROUPS["client"],
    *GROUPS["dashboard"],
    *GROUPS["restart"],
    "tests/unit/",  # the tests of the client often wait
    "tests/component/test_artifact.py",  # needs the build, so it is not among test_a
    "tests/component/",
)


def file_of(nodeid: str) -> str:
    """Return the path of the file of a test."""
    return nodeid.partition("::")[0]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let one process import the tests first, while it has the lock on this file for itself.

    The others wait for it, then share the lock, and read the bytecode that it has written. In a new
    clone, each of them would otherwise compile all tests, which takes ten seconds.
    """
    with Path(__file__).open("r+") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            flock(file, LOCK_SH)
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests as ORDER says."""

    @cache
    def position(file: str) -> int:
        matching = [path for path in ORDER if file.startswith(path)]
        return ORDER.index(max(matching, key=len)) if matching else len(ORDER)

    items.sort(key=lambda item: position(file_of(item.nodeid)))


def pytest_collection_finish() -> None:
    """Keep the garbage collector away from the objects of all imported modules.

    They live until the end. Without this, looking at them takes a seventh of the CPU time.
    """
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable(
    report: pytest.TestReport | pytest.CollectReport,
) -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Shorten what a process of xdist sends about a test that passed.

    There are three reports of each test: of its setup, its call and its teardown. Their keywords
    are not needed any more. The output of the test is in the report of the teardown, too.
    """
    data = yield
    if data and report.passed:
        data["keywords"] = {}
        if report.when != "teardown":
            data["sections"] = []
    return data


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives each process one group, or one file without a group, at a time.

    xdist has marks for groups, but they do not work with this version of pytest.
    """

    def _split_scope(self, nodeid: str) -> str:
        matching = (name for name, paths in GROUPS.items() if nodeid.startswith(paths))
        return next(matching, file_of(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Tell xdist to use GroupScheduling, and to keep the order of the tests."""
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)
