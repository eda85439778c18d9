"""Distributes the tests to processes. Tests that share a slow fixture go to the same process."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    "tests/e2e/test_restart.py",  # starts emulators of its own
    "tests/e2e/",  # share one stack
    "tests/component/test_artifact.py",
    "tests/component/test_long_history.py",
)


class Together(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Hands out a group of tests, or one, at a time, the largest group first.

    xdist's groups by mark have no effect with this pytest.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((group for group in TOGETHER if nodeid.startswith(group)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Let xdist hand out the tests so."""
    return Together(config, log)
