"""Retries of urllib3."""


class Retry:
    """Stands in for urllib3's class, which botocore creates for each request that it sends."""
