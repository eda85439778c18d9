"""Base classes of botocore's own connections."""


class HTTPConnection:
    """Stands in for urllib3's class."""


class VerifiedHTTPSConnection(HTTPConnection):
    """Stands in for urllib3's class."""
