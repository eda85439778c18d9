"""Serves MiniStack with uvicorn and httptools, instead of Hypercorn and h11.

The emulator then takes a fifth less CPU time in the end-to-end tests: httptools parses requests in
C, and uvicorn starts fewer tasks.
"""

from typing import Any

import uvicorn
from hypercorn import asyncio as hypercorn_server
from hypercorn.config import Config


def use() -> None:
    """Make MiniStack use this web server. MiniStack imports Hypercorn's `serve` when it starts."""
    replaced: Any = hypercorn_server
    replaced.serve = serve


async def serve(application: Any, config: Config) -> None:  # noqa: ANN401  ASGI
    """Serve an ASGI application until this process gets SIGTERM or SIGINT.

    Args:
        application: the application.
        config: MiniStack's settings for Hypercorn. Without TLS, MiniStack binds one address only.

    Raises:
        SystemExit: always after SIGTERM, because uvicorn then sends the signal to MiniStack's own
            handler. By then, the state is saved. Also if the start has failed.
    """
    (address,) = config.bind
    host, _, port = address.rpartition(":")
    settings = uvicorn.Config(
        application,
        host=host,
        port=int(port),
        http="httptools",
        ws="none",
        lifespan="on",
        workers=1,  # otherwise, uvicorn would read WEB_CONCURRENCY
        proxy_headers=False,  # as with Hypercorn
        server_header=False,
        date_header=False,  # MiniStack adds this header itself
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=int(config.keep_alive_timeout),
        # A request that lasts longer gets a 500. Hypercorn would close its connection.
        timeout_graceful_shutdown=int(config.graceful_timeout),
    )
    await uvicorn.Server(settings).serve()
