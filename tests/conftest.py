"""Settings for all tests: Python's garbage collector, hypothesis and xdist."""

import gc
from functools import cache

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
# group in one process. The end-to-end tests are several groups, so that several processes run them.
GROUPS = {
    "restart": ("tests/e2e/test_restart.py",),
    "chaos": ("tests/e2e/test_chaos.py",),
    "rehearsal": ("tests/e2e/test_rehearsal.py",),
    # The examples come first: they need a stack without counters, and making another takes long.
    "client": (
        "tests/e2e/test_console",
        "tests/e2e/test_client",
        "tests/e2e/test_concurrency",
        "tests/e2e/test_contract",
        "tests/e2e/test_cost",
        "tests/e2e/test_first_steps",
        "tests/e2e/test_read_many",
    ),
    "pages": tuple(
        f"tests/browser/test_{name}"
        for name in ("another", "dashboard_accessibility", "dashboard_f", "dashboard_pictures")
    ),
    "dashboard": ("tests/browser/",),
    "tokens": tuple(f"tests/e2e/test_{name}" for name in ("issue_token", "sign_in")),
    "queues": tuple(f"tests/e2e/test_{name}" for name in ("counting", "queue", "two")),
    "e2e": ("tests/e2e/",),
}

# Tests whose path begins with one of these entries start first, in this order. If entries overlap,
# the last one counts. The long groups come first, so that no process is left alone with one at the
# end. The very first group makes the build and the stack that the other groups wait for. Meanwhile,
# another process runs unit tests and some component tests.
FIRST = (
    "tests/e2e/",
    *GROUPS["chaos"],
    *GROUPS["client"],
    *GROUPS["dashboard"],
    *GROUPS["tokens"],
    *GROUPS["pages"],
    "tests/unit/",
    "tests/component/test_interleavings.py",
    "tests/component/test_reply_sequences.py",
    "tests/component/test_artifact.py",
    "tests/component/test_whole_replies.py",
    "tests/component/test_trend_expected.py",
    "tests/component/test_connection.py",
    "tests/component/test_nightly_audit.py",
    *GROUPS["queues"],
    *GROUPS["restart"],
)


def file_of(nodeid: str) -> str:
    """Return the path of the file of a test."""
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests as FIRST says."""

    @cache
    def position(file: str) -> int:
        matching = [number for number, path in enumerate(FIRST) if file.startswith(path)]
        return max(matching, default=len(FIRST))

    items.sort(key=lambda item: position(file_of(item.nodeid)))


def pytest_collection_finish() -> None:
    """Keep the garbage collector away from the objects of all imported modules.

    They live until the end. Without this, looking at them takes a seventh of the CPU time.
    """
    gc.freeze()


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
