"""Arguments of a connection pool."""

from typing import NamedTuple


class PoolKey(NamedTuple):
    """botocore looks for the name of a field here, and does not find it."""
