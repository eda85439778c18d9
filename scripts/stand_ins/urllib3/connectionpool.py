"""Base classes of botocore's own connection pools."""


class HTTPConnectionPool:
    """Stands in for urllib3's class."""


class HTTPSConnectionPool(HTTPConnectionPool):
    """Stands in for urllib3's class."""
