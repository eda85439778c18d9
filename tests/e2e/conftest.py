"""Gives the end-to-end tests the fixtures of tests/stack_fixtures.py."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("tests.stack_fixtures")
