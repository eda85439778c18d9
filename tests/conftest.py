"""Settings for all tests: Python's garbage collector, hypothesis and xdist."""

import gc

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# moto and botocore keep hundreds of thousands of objects, and create many for each request. With
# Python's default thresholds, garbage collection takes a quarter of the CPU.
gc.set_threshold(50_000, 20, 20)

# By default, hypothesis fails an example that takes over 200 ms. Many take longer on a busy
# machine.
settings.register_profile("tally", deadline=None)
settings.load_profile("tally")

# Each group of tests runs in one process, because its tests share a slow fixture.
GROUPS = (
    "tests/e2e/test_restart.py",  # starts its own emulators
    "tests/e2e/",  # share one stack
    "tests/component/test_artifact.py",
    "tests/component/test_long_history.py",
)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives each process one test or one group at a time, the largest group first.

    xdist's own marks for groups do not work with this version of pytest.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((group for group in GROUPS if nodeid.startswith(group)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Tell xdist to use GroupScheduling."""
    return GroupScheduling(config, log)
