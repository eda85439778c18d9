"""GET /openapi.json: return the HTTP contract, an OpenAPI document. This route needs no token."""

import hashlib
import json
from pathlib import Path

from counters import init_phase
from counters.gateway import Response, endpoint, unless_known
from counters.request import Request

_TEXT = Path(__file__).with_name("openapi.json").read_bytes()
_CONTRACT = json.loads(_TEXT)
_VERSION = hashlib.sha256(_TEXT).hexdigest()[:16]


@endpoint(headers=["if-none-match"], access="public")
def handler(request: Request) -> Response:
    """Return the contract. If the caller already has this version of it, return 304."""
    response = Response(_CONTRACT, headers={"ETag": f'"{_VERSION}"'})
    return unless_known(request, _VERSION, response)


init_phase.end()
