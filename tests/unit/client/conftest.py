from collections.abc import Iterator

import pytest
from tests.unit.client.fake_service import FakeService, running


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A service without faults."""
    with running() as service:
        yield service


@pytest.fixture
def three_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client give up after three attempts, and not after a time. It does not wait."""
    monkeypatch.setattr("tally_client.retrying.pause", lambda number, *_: number < 2)
