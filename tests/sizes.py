"""The number of cases in each of the largest tests.

`make test` runs a part of the cases. `make test-full` runs all cases, which takes one to three
hours.
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings

FULL = os.environ.get("TALLY_TESTS") == "full"


def cases(full: int, part: int) -> int:
    """Return `full` in `make test-full`, and `part` in every other run."""
    return full if FULL else part


def examples(full: int, part: int, **more: Any) -> settings:  # noqa: ANN401  any setting of hypothesis
    """Return hypothesis settings for a property test. The examples are the same in each run."""
    return settings(
        max_examples=cases(full, part),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
