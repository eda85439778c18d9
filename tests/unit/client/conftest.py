from collections.abc import Iterator

import pytest
from tests.unit.client.fake_service import FakeService, running


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A service without faults."""
    with running() as service:
        yield service
