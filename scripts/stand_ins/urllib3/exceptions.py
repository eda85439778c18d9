"""Exceptions that botocore catches. Nothing raises them."""


class ConnectTimeoutError(Exception):
    """Stands in for urllib3's exception."""


class LocationParseError(Exception):
    """Stands in for urllib3's exception."""


class NewConnectionError(Exception):
    """Stands in for urllib3's exception."""


class ProtocolError(Exception):
    """Stands in for urllib3's exception."""


class ProxyError(Exception):
    """Stands in for urllib3's exception."""


class ReadTimeoutError(Exception):
    """Stands in for urllib3's exception."""


class SSLError(Exception):
    """Stands in for urllib3's exception."""


class InsecurePlatformWarning(Warning):
    """Stands in for urllib3's warning. botocore filters it."""
