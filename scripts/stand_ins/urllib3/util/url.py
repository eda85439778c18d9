"""URLs of proxies."""

from urllib3 import proxy_from_url as parse_url  # botocore uses it only for proxies

__all__ = ["parse_url"]
