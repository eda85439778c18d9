"""How much the tests do that go through very many cases: `make test` does a part of it.

`make test-full` does all, which takes half an hour to three quarters.
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings

FULL = os.environ.get("TALLY_TESTS") == "full"


def cases(full: int, part: int) -> int:
    """Return how many cases to go through."""
    return full if FULL else part


def examples(full: int, part: int, **more: Any) -> settings:  # noqa: ANN401  as hypothesis takes it
    """Return the settings of a property test of so many examples, the same in each run."""
    return settings(
        max_examples=cases(full, part),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
