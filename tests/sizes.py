"""How much the tests do that go through very many cases: `make test` does a part of it.

`make test-full` does all, which takes about half an hour.
"""

import os

FULL = os.environ.get("TALLY_TESTS") == "full"


def cases(full: int, part: int) -> int:
    """Return how many cases to go through."""
    return full if FULL else part
