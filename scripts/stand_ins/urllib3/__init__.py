"""A stand-in for the package urllib3: the names that botocore imports, and nothing behind them.

docs/decisions/our-own-connection.md says why the artifact has this package instead of urllib3.
botocore creates some of these objects with each client. `counters.connection` sends all requests,
so nothing uses the objects.
"""

from typing import NoReturn

from urllib3 import exceptions

__all__ = ["PoolManager", "Timeout", "exceptions", "proxy_from_url"]

_ABSENT = "urllib3 is not in the artifact. Only counters.connection can send requests to AWS."


class Timeout:
    """Takes the arguments of urllib3's class, and ignores them."""

    def __init__(self, **_: object) -> None:
        """Do nothing."""


class PoolManager:
    """Takes the arguments of urllib3's class, and ignores them. It cannot connect."""

    def __init__(self, **_: object) -> None:
        """Do nothing."""

    def connection_from_url(self, *_: object) -> NoReturn:
        """Refuse to connect.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(_ABSENT)


def proxy_from_url(*_: object, **__: object) -> NoReturn:
    """Refuse to connect to a proxy.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(_ABSENT)
