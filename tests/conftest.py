"""Settings for all tests: Python's garbage collector, hypothesis and xdist."""

import gc

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# moto and botocore keep hundreds of thousands of objects, and create many more for each request.
# With Python's default thresholds, the garbage collector takes a quarter of the CPU time.
gc.set_threshold(50_000, 20, 20)

# An example is one run of a property test. By default, hypothesis reports an example as failed if
# the example takes over 200 ms. On a busy machine, many examples take longer.
settings.register_profile("tally", deadline=None)
settings.load_profile("tally")

# The tests whose paths have the same of these beginnings are a group. They share a slow fixture, so
# xdist runs all tests of a group in one process.
GROUPS = (
    "tests/e2e/test_restart.py",  # starts its own emulators
    "tests/e2e/",  # share one stack
    "tests/component/test_artifact.py",
    "tests/component/test_long_history.py",
)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives each process one group, or one test without a group, at a time.

    The largest group starts first. xdist has marks for groups, but they do not work with this
    version of pytest.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((group for group in GROUPS if nodeid.startswith(group)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Tell xdist to use GroupScheduling."""
    return GroupScheduling(config, log)
