"""GET / and GET /assets/{digest}/{file}: return the dashboard's page and the files that it loads.

These routes need no token. The page asks people to sign in.
"""

import hashlib
from http import HTTPStatus
from urllib.parse import quote, urlencode

from counters import clients, dashboard, init_phase
from counters.errors import NotFoundError
from counters.gateway import Response, Text, endpoint, unless_known
from counters.request import Request

_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
# The path of an asset changes when any asset changes.
_FOREVER = "public, max-age=31536000, immutable"


@endpoint(query=None, headers=["if-none-match"], access="public")
def handler(request: Request) -> Response:
    """Return the page or an asset. If the caller already has it, return 304."""
    if request.path:
        return _asset(request)
    if not request.url_path.endswith("/"):
        return _with_slash(request)
    settings = dashboard.settings(request.until)
    page = dashboard.page(settings)
    version = hashlib.sha256(page.encode()).hexdigest()[:16]
    headers = {
        **_NO_SNIFFING,
        "Content-Type": "text/html; charset=utf-8",
        "ETag": f'"{version}"',
        "Content-Security-Policy": _policy(settings),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": "max-age=31536000",
    }
    return unless_known(request, version, Response(Text(page), headers=headers))


def _asset(request: Request) -> Response:
    asset = dashboard.assets().get(request.path["file"])
    if asset is None or request.path["digest"] != dashboard.digest():
        detail = (
            "file: the dashboard has no such file. Reload the page: it has the current addresses."
        )
        raise NotFoundError(detail)
    headers = {
        **_NO_SNIFFING,
        "Content-Type": asset.media_type,
        "Cache-Control": _FOREVER,
        "ETag": f'"{dashboard.digest()}"',
    }
    return unless_known(request, dashboard.digest(), Response(Text(asset.text), headers=headers))


def _with_slash(request: Request) -> Response:
    """Redirect to the same address with a slash at its end.

    The page's links are relative. Without the slash, they would leave out the API's stage, or the
    base path of a custom domain.
    """
    name = quote(request.url_path.rpartition("/")[2])
    query = urlencode(request.lists, doseq=True)
    location = f"{name}/?{query}" if query else f"{name}/"
    return Response(None, HTTPStatus.PERMANENT_REDIRECT, {"Location": location})


def _policy(settings: dashboard.Settings) -> str:
    """Return the Content-Security-Policy: the page loads only its assets."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            f"connect-src 'self' {settings.origin()}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


init_phase.end(clients.ssm)
