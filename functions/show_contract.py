"""GET /openapi.json: return the HTTP contract, an OpenAPI document. This route needs no token."""

import hashlib
import json
from http import HTTPStatus
from pathlib import Path

from counters import init_phase
from counters.gateway import Request, Response, endpoint
from counters.headers import none_match

_TEXT = Path(__file__).with_name("openapi.json").read_bytes()
_CONTRACT = json.loads(_TEXT)
_VERSION = hashlib.sha256(_TEXT).hexdigest()[:16]


@endpoint(headers=["if-none-match"], access="public")
def handler(request: Request) -> Response:
    """Return the contract. If the caller already has this version of it, return 304."""
    headers = {"ETag": f'"{_VERSION}"'}
    if none_match(request.headers, _VERSION):
        return Response(_CONTRACT, headers=headers)
    return Response(None, HTTPStatus.NOT_MODIFIED, headers)


init_phase.end()
