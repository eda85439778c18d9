"""Names of the standard library's module ssl, from which botocore takes them for urllib3's sake."""

import ssl
from ssl import (
    OP_NO_COMPRESSION,
    OP_NO_TICKET,
    PROTOCOL_TLS,
    PROTOCOL_TLS_CLIENT,
    OP_NO_SSLv2,
    OP_NO_SSLv3,
    SSLContext,
)

from urllib3 import proxy_from_url as is_ipaddress  # botocore uses it only for proxies

__all__ = [
    "OP_NO_COMPRESSION",
    "OP_NO_TICKET",
    "PROTOCOL_TLS",
    "PROTOCOL_TLS_CLIENT",
    "OP_NO_SSLv2",
    "OP_NO_SSLv3",
    "SSLContext",
    "is_ipaddress",
    "ssl",
]
